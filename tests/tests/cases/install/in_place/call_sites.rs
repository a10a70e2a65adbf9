//! Calls in code that is written over. Where calls are patched, those of the code that was there
//! must not be any more, and those of the code that is there must be.

use super::parallel::{adding, number};
use super::*;

/// A function that makes two calls of `g`, with its argument after so many instructions.
fn calling(instructions: usize) -> String {
    let mut text = "function %f(i64) -> i64 system_v {
        fn0 = %g(i64) -> i64 system_v
        ss0 = explicit_slot 8
     block0(v0: i64):
        v1 = stack_addr.i64 ss0\n"
        .to_owned();
    for _ in 0..instructions {
        text += "store v0, v1\n";
    }
    text + "v2 = call fn0(v0)\nv3 = call fn0(v2)\nreturn v3\n}\n"
}

fn plus(by: i64) -> String {
    format!(
        "function %g(i64) -> i64 system_v {{
         block0(v0: i64):
            v1 = iconst.i64 {by}
            v2 = iadd v0, v1
            return v2
         }}"
    )
}

#[test]
fn only_what_is_there_is_patched() {
    for policy in [DropPolicy::Leaver, DropPolicy::Collector] {
        let engine = builder!().drop_policy(policy).build().unwrap();
        install(&engine, &plus(1));
        install_roomy(&engine, &calling(0));
        let f = engine.function::<fn(i64) -> i64>("f").unwrap();
        let calls = || engine.stats().patched_calls + engine.stats().patched_calls_by_jump;
        let patched = calls();
        let calls_go_on = |by: i64, expected: i64| {
            install(&engine, &plus(by));
            assert_eq!(call!(f, 5).unwrap(), expected);
        };
        for instructions in 0..20 {
            replace(&engine, &calling(instructions));
            assert_eq!((call!(f, 5).unwrap(), calls()), (7, patched));
            calls_go_on(1 << 40, 5 + (2 << 40));
            calls_go_on(1, 7);
            // No call is left, and none of the bytes where they were may change.
            replace(&engine, &adding(9));
            assert_eq!(calls(), 0, "{policy:?}");
            let sum = call!(f, 5).unwrap();
            assert_eq!(number(sum, 5), 9);
            calls_go_on(1 << 40, sum);
            calls_go_on(1, sum);
        }
        engine.collect();
        assert_eq!(engine.stats().alive(), 2);
    }
}
