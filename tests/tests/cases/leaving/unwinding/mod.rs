//! Leaving generated code by panics: which caller catches them, what is counted afterwards, and
//! what is in the host's registers.

mod aborts;
mod adopted;
mod dropping;
mod ends;
mod engines;
mod growth;
mod panics;
mod threads;

use std::panic::{AssertUnwindSafe, catch_unwind};

use lastout::{Engine, Part};
use lastout_tests::support::{Callback, Drops, calling_back, calls, install, install_counted};
use lastout_tests::{call, engine};

/// How many frames there are in all versions of a function.
fn frames(engine: &Engine, name: &str) -> u64 {
    engine.versions(name).unwrap().iter().map(lastout::VersionInfo::frames).sum()
}

/// A function `(callback, i64) -> i64` that calls another of that type.
fn passing_on(name: &str, callee: &str) -> String {
    format!(
        "function %{name}(i64, i64) -> i64 system_v {{
            fn0 = %{callee}(i64, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            v2 = call fn0(v0, v1)
            v3 = iadd v2, v1
            return v3
         }}\n"
    )
}

#[test]
fn a_panic_passes_generated_code_and_is_counted_out() {
    let engine = engine!();
    let drops = Drops::new();
    install_counted(&engine, &calling_back("inner", 1), &drops);
    install(&engine, &passing_on("outer", "inner"));
    let outer = calls(&engine, "outer");
    let callback = Callback::new(|argument| {
        assert_eq!(frames(&engine, "inner"), 1);
        assert_eq!(frames(&engine, "outer"), 1);
        if argument == 7 {
            // The panic's thread is the last to leave the one that this replaces.
            install(&engine, &calling_back("inner", 2));
            panic!("seven");
        }
        argument
    });
    for _ in 0..3 {
        assert_eq!(call!(outer, callback.address(), 5).unwrap(), 11);
    }
    let caught = catch_unwind(AssertUnwindSafe(|| call!(outer, callback.address(), 7)));
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"seven"));
    assert_eq!(drops.count(), 1);
    assert_eq!(frames(&engine, "inner") + frames(&engine, "outer"), 0);
    assert_eq!(call!(outer, callback.address(), 5).unwrap(), 12);
}

#[test]
fn a_backtrace_names_functions() {
    let engine = engine!();
    install(&engine, &calling_back("inner", 1));
    install(&engine, &passing_on("outer", "inner"));
    let callback = Callback::new(|argument| {
        let parts: Vec<_> = engine.backtrace().into_iter().map(|location| location.part).collect();
        let names: Vec<_> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Body { function, version } => Some((&**function, *version)),
                _ => None,
            })
            .collect();
        assert_eq!(names, [("inner", 1), ("outer", 2)]);
        let gates: Vec<_> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Gate { version } => version.as_ref().map(|version| version.function()),
                _ => None,
            })
            .collect();
        // The host has called the other one through an entry.
        assert_eq!(gates, ["inner"]);
        argument
    });
    assert_eq!(call!(calls(&engine, "outer"), callback.address(), 5).unwrap(), 11);
}
