//! The files in `clif` hold, and what does not hold is reported.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lastout_tests::conformance::{FileReport, Options, Summary, find_files, run_file};
use serde_json::Value;

fn options() -> Options {
    Options { at_least: Duration::from_millis(20), ..Options::default() }
}

/// Whether a file has a target line for this host, or none at all.
fn is_for_this_host(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap();
    let mut targets = text.lines().filter_map(|line| line.strip_prefix("target ")).peekable();
    targets.peek().is_none()
        || targets.any(|target| target.split(' ').next() == Some(std::env::consts::ARCH))
}

#[test]
fn our_files_hold() {
    let files = find_files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/clif"))).unwrap();
    let mut summary = Summary::default();
    for file in &files {
        let report = run_file(file, &options());
        summary.add(&report);
        let FileReport { functions, runs, passed, skipped, replacements, .. } = report;
        let name = file.display();
        assert!(report.is_ok(), "{name}: {:#?}", report.failures);
        assert_eq!(passed + skipped, runs, "{name}");
        let misnamed = report.notes.keys().any(|note| note.starts_with("the line names another"));
        assert!(!misnamed, "{name}: {:?}", report.notes);
        if is_for_this_host(file) {
            assert!(passed > 0, "{name}: {:?}", report.skips);
            // With both ways of dispatch.
            assert!(replacements >= 2 * functions as u64, "{name}: {replacements} replacements");
        } else {
            assert_eq!((passed, skipped), (0, runs), "{name}");
            assert_eq!(report.skips.values().sum::<usize>(), runs, "{name}");
        }
    }
    println!("{summary}");
    assert!(summary.total.skipped > 0, "no file is for others");
    if cfg!(target_arch = "x86_64") {
        assert!(summary.total.passed >= 250, "{summary}");
        assert!(summary.total.with_points >= 60, "{summary}");
        assert!(summary.total.points >= 90, "{summary}");
        assert!(summary.total.in_place >= 100, "{summary}");
    }
}

/// A directory of this test's, with files in it.
fn directory(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // It may be there from the last time, with other files.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    for (name, text) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

/// Runs the program: its exit code, what it prints, and the object on the last line.
fn run(paths: &[&Path]) -> (Option<i32>, String, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clif-conformance"));
    let output = command.args(["--json", "--ms=5", "--rounds=2"]).args(paths).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let last = stdout.lines().last().unwrap();
    let json = serde_json::from_str(last).unwrap();
    (output.status.code(), stdout, json)
}

/// The counts in an object, by the names that they have there.
fn counts<const N: usize>(json: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| json[name].as_u64().unwrap_or_else(|| panic!("{name} in {json}")))
}

const RIGHT: &str = "test run

function %add(i64, i64) -> i64 {
block0(v0: i64, v1: i64):
    v2 = iadd v0, v1
    return v2
}
; run: %add(1, 2) == 3
; run: %add(1, 2) != 4
; print: %add(40, 2)
";

#[test]
fn what_holds_ends_with_0() {
    let files = [("right.clif", RIGHT), ("read.me", "not this"), ("below/right.clif", RIGHT)];
    let directory = directory("right", &files);
    let (code, stdout, json) = run(&[&directory]);
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("right.clif:10: %add(40, 2) -> 42"), "{stdout}");
    let names = ["files", "functions", "runs", "passed", "failed", "skipped"];
    assert_eq!(counts(&json, names), [2, 2, 6, 6, 0, 0]);
    let [replacements, left, unfreed] =
        counts(&json, ["replacements", "left_in_ledger", "unfreed"]);
    assert!(replacements >= 8);
    assert_eq!([left, unfreed], [0, 0]);
}

#[test]
fn functions_have_points_where_they_can() {
    // A loop around calls of each of the functions before it.
    let text = |held: &str| {
        format!(
            "test run
            function %plain(i64) -> i64 {{
            block0(v0: i64):
                return v0
            }}
            function %slot(i64) -> i64 {{
                ss0 = explicit_slot 8
                fn0 = %plain(i64) -> i64
            block0(v0: i64):
                v1 = call fn0(v0)
                return v1
            }}
            function %looping(i64) -> i64 {{
                fn0 = %plain(i64) -> i64
                fn1 = %slot(i64) -> i64
            block0(v0: i64):
                v1 = iconst.i64 -1
                jump block1(v0)
            block1(v2: i64):
                v3 = call fn0(v2)
                v4 = call fn1(v3)
                v5 = iadd v4, v1
                brif v5, block1(v5), block2
            block2:
                return v5
            }}
            ; run: %looping(3) == 0
            {held}"
        )
    };
    let held = "function %holding() -> i64 {
            sig0 = (i64) -> i64
            fn0 = %looping(i64) -> i64
        block0:
            v0 = iconst.i64 2
            v1 = func_addr.i64 fn0
            v2 = call_indirect sig0, v1(v0)
            return v2
        }
        ; run: %holding() == 0";
    let files = [("looping.clif", &*text("")), ("held.clif", &*text(held))];
    let directory = directory("points", &files);
    let expected = if cfg!(target_arch = "x86_64") { [1, 3] } else { [0, 0] };
    let (code, stdout, json) = run(&[&directory.join("looping.clif")]);
    assert_eq!(code, Some(0), "{stdout}");
    assert_eq!(counts(&json, ["with_points", "points"]), expected, "{stdout}");
    let (code, stdout, json) = run(&[&directory.join("held.clif")]);
    assert_eq!(code, Some(0), "{stdout}");
    assert_eq!(counts(&json, ["passed", "with_points", "points"]), [2, 0, 0], "{stdout}");
}

#[test]
fn what_does_not_hold_ends_with_1() {
    let wrong = RIGHT.replace("!= 4", "!= 3") + "; run: %add(2, 2) == 5\n";
    let directory = directory("wrong", &[("right.clif", RIGHT), ("wrong.clif", &wrong)]);
    let (code, stdout, json) = run(&[&directory]);
    assert_eq!(code, Some(1), "{stdout}");
    assert_eq!(counts(&json, ["files", "runs", "passed", "failed"]), [2, 7, 5, 2]);
    for failure in [
        "wrong.clif:9: slot, no target: `run: %add(1, 2) != 3` does not hold: 3",
        "wrong.clif:11: patched, no target: `run: %add(2, 2) == 5` does not hold: 4",
        "wrong.clif:11: slot, no target, while replaced: `run: %add(2, 2) == 5` does not hold: 4",
    ] {
        assert!(stdout.contains(failure), "{stdout}");
    }
}

#[test]
fn a_line_alone_wants_any_result_but_0() {
    let text = |result: i64| {
        format!(
            "test run
            function %all() -> i32 {{
            block0:
                v0 = iconst.i32 {result}
                return v0
            }}
            ; run"
        )
    };
    let directory = directory("alone", &[("no.clif", &text(0)), ("yes.clif", &text(256))]);
    let [no, yes] = ["no.clif", "yes.clif"].map(|name| run(&[&directory.join(name)]));
    assert_eq!((no.0, counts(&no.2, ["passed", "failed"])), (Some(1), [0, 1]), "{}", no.1);
    assert_eq!((yes.0, counts(&yes.2, ["passed", "failed"])), (Some(0), [1, 0]), "{}", yes.1);
}

#[test]
fn a_file_that_ends_its_process_is_a_failure_and_the_others_go_on() {
    let fatal = "test run
        function %nowhere() -> i64 {
        block0:
            v0 = iconst.i64 16
            v1 = load.i64 notrap v0
            return v1
        }
        ; run: %nowhere() == 0";
    let directory = directory("fatal", &[("fatal.clif", fatal), ("right.clif", RIGHT)]);
    let (code, stdout, json) = run(&[&directory]);
    assert_eq!(code, Some(1), "{stdout}");
    assert_eq!(counts(&json, ["files", "passed", "failed"]), [2, 3, 1]);
    assert!(stdout.contains("fatal.clif: its process ended with signal: 11"), "{stdout}");
}

#[test]
fn what_cannot_be_run_and_should_be_is_a_failure() {
    let broken = RIGHT.replace("iadd v0, v1", "iadd v0, v7");
    let unreadable = RIGHT.replace("== 3", "== three");
    let unknown_callee = RIGHT.replace("block0(", "    fn0 = %missing() \nblock0(");
    let unknown_callee = unknown_callee.replace("    return", "    call fn0()\n    return");
    let twice = format!("{RIGHT}{}", RIGHT.replace("test run\n", ""));
    for (name, text, failure, passed) in [
        ("broken.clif", &*broken, "line 5: ", 0),
        ("unreadable.clif", &unreadable, "unreadable.clif:8: read: ", 2),
        ("unknown.clif", &unknown_callee, "function `add`: `missing` is imported", 0),
        ("twice.clif", &twice, "there are two functions of this name", 3),
    ] {
        let directory = directory(name, &[(name, text)]);
        let (code, stdout, json) = run(&[&directory]);
        assert_eq!(code, Some(1), "{name}: {stdout}");
        assert!(stdout.contains(failure), "{name}: {stdout}");
        let [failed, and_passed] = counts(&json, ["failed", "passed"]);
        assert!(failed > 0, "{name}: {stdout}");
        assert_eq!(and_passed, passed, "{name}: {stdout}");
    }
    let empty = directory("empty", &[]);
    for path in [&empty, &empty.join("none.clif")] {
        let (code, stdout, json) = run(&[path]);
        assert_eq!(code, Some(1), "{stdout}");
        assert_eq!(counts(&json, ["failed"]), [1]);
    }
}

#[test]
fn what_is_skipped_has_a_reason() {
    let preamble = |lines: &str| RIGHT.replace("test run", lines);
    let arch = std::env::consts::ARCH;
    let pinned = RIGHT.replace("iadd v0, v1", "get_pinned_reg.i64");
    let dependent = pinned.clone()
        + "function %twice(i64) -> i64 {
            fn0 = %add(i64, i64) -> i64
        block0(v0: i64):
            v1 = call fn0(v0, v0)
            return v1
        }
        ; run: %twice(1) == 2
        function %four_times(i64) -> i64 {
            fn0 = %twice(i64) -> i64
        block0(v0: i64):
            v1 = call fn0(v0)
            return v1
        }
        ; run: %four_times(1) == 2";
    for (name, text, why, skipped) in [
        ("foreign", preamble("test run\ntarget s390x"), "none is this host's", 3),
        ("interpreted", preamble("test interpret"), "there is no `test run` line", 3),
        ("flag", preamble("test run\nset no_such_flag=1"), "no flag `no_such_flag`", 3),
        (
            "feature",
            preamble(&format!("test run\ntarget {arch} has_wings")),
            "no flag `has_wings`",
            3,
        ),
        ("newer", RIGHT.replace("iadd", "iadd_carefully"), "of a newer Cranelift: ", 3),
        ("heap", preamble("test run\n; heap: static"), "it asks for a heap", 3),
        ("winch", RIGHT.replace("-> i64", "-> i64 winch"), "no function with this calling", 3),
        ("pinned", pinned, "the pinned register holds the thread's ledger", 3),
        (
            "dependent",
            dependent,
            "2 run lines in 1 files: it refers to a function that is left out: the pinned register",
            5,
        ),
    ] {
        let name = format!("{name}.clif");
        let directory = directory(&name, &[(&name, &text)]);
        let (code, stdout, json) = run(&[&directory]);
        assert_eq!(code, Some(0), "{name}: {stdout}");
        assert!(stdout.contains(why), "{name}: {stdout}");
        let names = ["runs", "passed", "failed", "skipped"];
        assert_eq!(counts(&json, names), [skipped, 0, 0, skipped], "{name}: {stdout}");
    }
}

#[test]
fn what_is_done_otherwise_is_noted() {
    let arch = std::env::consts::ARCH;
    let preamble = format!("test run\nset is_pic=true\ntarget {arch} has_wings\ntarget {arch}\n");
    let text = RIGHT.replace("test run\n", &preamble).replace("%add(1", "%sum(1");
    let directory = directory("noted", &[("noted.clif", &text)]);
    let (code, stdout, json) = run(&[&directory]);
    assert_eq!(code, Some(0), "{stdout}");
    assert_eq!(counts(&json, ["passed", "failed", "skipped"]), [3, 0, 0]);
    for note in [
        "noted: 3 run lines: `is_pic=true` is not for the file to set",
        "noted: 3 run lines: this version of Cranelift has no flag `has_wings`",
        "noted: 2 run lines: the line names another function",
    ] {
        assert!(stdout.contains(note), "{stdout}");
    }
}
