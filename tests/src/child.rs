//! Tests of what ends a process, each in a process of its own.

#![expect(clippy::missing_panics_doc, reason = "whatever fails here fails the test")]

use std::any::type_name;
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, exit};

/// What the child is to do.
const VARIABLE: &str = "LASTOUT_TESTS_CHILD";

/// How a process has ended, and what it has written.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What there is on its standard error.
    pub errors: String,
}

impl Ended {
    /// The signal that it has died of.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Whether it has come to the end of what it had to do.
    pub fn well(&self) -> bool {
        self.status.success()
    }
}

/// Has a process of its own do `role`, and nothing else of the test that this is called from.
///
/// Of several that a test has, each has a name. `None` if this is a process for another one.
pub fn child<F: FnOnce()>(name: &str, role: F) -> Option<Ended> {
    if let Ok(asked) = env::var(VARIABLE) {
        if asked == name {
            role();
            exit(0);
        }
        return None;
    }
    // Threads of tests are named after them. If there is none, since tests run one after the other:
    // a closure's type is named after the function that it is in.
    let thread = std::thread::current();
    let test = type_name::<F>().split_once("::").expect("it is in a crate").1;
    let test = test.split("::{{closure}}").next().expect("there is a first part");
    let test = thread.name().filter(|&name| name != "main").unwrap_or(test);
    let mut command = Command::new(env::current_exe().expect("a test knows where it is"));
    command.args([test, "--exact", "--nocapture"]).env(VARIABLE, name);
    let output = command.output().unwrap();
    let (out, errors) =
        [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it)).into();
    assert!(out.contains("running 1 test"), "{test} is not a test: {out}");
    Some(Ended { status: output.status, errors: errors.into_owned() })
}
