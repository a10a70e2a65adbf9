//! The examples about adopted code, run as a user runs them.

use std::process::Command;

use serde_json::{Value, json};

/// What an example, which `cargo test` builds beside the tests, prints as its last line.
fn report(example: &str) -> Value {
    let test = std::env::current_exe().expect("a running test knows where it is");
    let profile = test.ancestors().nth(2).expect("tests are in a folder of the profile's");
    let path = profile.join("examples").join(example);
    assert!(path.exists(), "{} is not built; run `cargo test`", path.display());
    let output = Command::new(path).arg("--json").output().expect("it can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8_lossy(&output.stdout);
    let last = printed.lines().last().expect("it prints something");
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

#[test]
fn modules_are_replaced_and_freed() {
    let report = report("adopt_module");
    let number = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"));
    assert_eq!((number("installed"), number("freed")), (1000, 1000));
    assert_eq!(number("backwards"), 0);
    assert!(number("calls") > 1000, "{report}");
    // A module that is not freed keeps a page or more.
    let grown = number("resident_bytes_end").saturating_sub(number("resident_bytes_start"));
    assert!(grown < 2 << 20, "{report}");
}

#[test]
fn libraries_are_replaced_and_closed() {
    let report = report("adopt_library");
    assert_eq!(report["prices"], json!([1000, 1200, 900, 1100]));
    assert_eq!(report["closed"], 4);
}
