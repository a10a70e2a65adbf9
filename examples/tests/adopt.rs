//! The examples about adopted code, run as a user runs them.

use serde_json::{Value, json};

mod example;

/// What an example prints as its last line.
fn report(name: &str) -> Value {
    let output = example::example(name).arg("--json").output().expect("it can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    example::report(&output)
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
