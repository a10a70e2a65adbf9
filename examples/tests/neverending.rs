//! The `neverending` example, run as a user runs it.

mod example;

use example::{example, report};

#[test]
fn what_never_returns_is_replaced_and_freed() {
    let output = example("neverending").args(["--seconds", "0.5", "--json"]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    let report = report(&output);
    assert_eq!(report["wrong_results"], 0, "{report}");
    assert_eq!(report["replacements"], report["freed_while_running"], "{report}");
    assert!(report["replacements"].as_u64() > Some(10), "{report}");
    assert_eq!(report["alive"], 2, "{report}");
}
