//! Examples, run as a user runs them.

use std::process::{Command, Output};

use serde_json::Value;

/// An example, which `cargo test` builds beside the tests.
pub(crate) fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("a running test knows where it is");
    let profile = test.ancestors().nth(2).expect("tests are in a folder of the profile's");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "{} is not built; run `cargo test`", path.display());
    Command::new(path)
}

/// The object on the last line of what was printed.
pub(crate) fn report(output: &Output) -> Value {
    let printed = String::from_utf8_lossy(&output.stdout);
    let last = printed.lines().last().expect("it prints something");
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {printed}"))
}
