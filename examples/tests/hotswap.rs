//! The `hotswap` example, run as a user runs it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

mod example;

use example::{example, report};

fn hotswap() -> Command {
    example("hotswap")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A program that adds a constant, in a file that is removed when dropped.
struct Program(PathBuf);

impl Program {
    fn new(name: &str, text: &str) -> Self {
        let file = format!("lastout-{}-{name}.clif", std::process::id());
        let program = Self(std::env::temp_dir().join(file));
        program.save(text);
        program
    }

    fn save(&self, text: &str) {
        // Renamed into place, so that the example never reads half of it.
        let draft = self.0.with_extension("draft");
        std::fs::write(&draft, text).expect("the temporary folder can be written");
        std::fs::rename(&draft, &self.0).expect("the temporary folder can be written");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn adding(constant: i64) -> String {
    format!(
        "function %add(i64) -> i64 system_v {{
         block0(v0: i64):
             v1 = iconst.i64 {constant}
             v2 = iadd v0, v1
             return v2
         }}"
    )
}

#[test]
fn it_replaces_its_own_programs_and_frees_all_but_one() {
    let output = hotswap().args(["--seconds", "1", "--threads", "3", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report = report(&output);
    let number = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"));
    assert_eq!(number("wrong_results"), 0);
    assert_eq!(number("alive"), 1);
    assert_eq!(number("freed") + 1, number("installed"));
    assert!(number("installed") > 10 && number("calls") > 1000, "{report}");
    assert!(number("max_alive") >= 2, "{report}");
    assert!(number("code_bytes_peak") >= number("code_bytes_start"));
    assert!(number("code_bytes_end") <= number("code_bytes_peak"));
}

#[test]
fn a_bad_file_is_named_with_its_line_and_the_others_run() {
    let good = Program::new("good", &adding(1));
    let bad =
        Program::new("bad", "function %add(i64) -> i64 system_v {\nblock0(v0: i64):\n  oops\n}");
    let output = hotswap().args(["--seconds", "0.2"]).args([&good.0, &bad.0]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("{}:3: ", bad.0.display())), "{}", stderr(&output));
}

#[test]
fn nothing_that_can_run_is_a_failure_with_a_message() {
    let output = hotswap().args(["--seconds", "0.2", "/nonexistent.clif"]).output().unwrap();
    assert!(!output.status.success());
    assert!(stderr(&output).contains("/nonexistent.clif"), "{}", stderr(&output));
}

#[test]
fn a_watched_file_is_installed_when_saved_and_kept_out_when_broken() {
    let program = Program::new("watched", &adding(1));
    let mut child = hotswap()
        .args(["--seconds", "5", "--json", "--watch"])
        .arg(&program.0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (said, hears) = channel();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let listening = thread::spawn(move || {
        stderr.lines().map_while(Result::ok).for_each(|line| said.send(line).unwrap());
    });
    let path = program.0.display();
    for (text, answer) in [
        (adding(2), format!("{path}: installed after ")),
        ("function".to_owned(), format!("{path}:1: ")),
        (adding(3), format!("{path}: installed after ")),
    ] {
        // It is not seen if it is what the example begins with.
        let said = (0..2).find_map(|_| {
            program.save(&text);
            let mut lines = std::iter::from_fn(|| hears.recv_timeout(Duration::from_secs(2)).ok());
            lines.find(|line| line.starts_with(&path.to_string()))
        });
        let said = said.expect("it says what becomes of a file");
        assert!(said.starts_with(&answer), "{said}");
    }
    let output = child.wait_with_output().unwrap();
    listening.join().unwrap();
    assert!(output.status.success(), "{:?}", hears.iter().collect::<Vec<_>>());
    let report = report(&output);
    assert_eq!(report["installed"], 3, "{report}");
    assert_eq!(report["wrong_results"], 0, "{report}");
}
