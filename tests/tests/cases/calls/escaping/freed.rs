//! Addresses of code that are kept for too long: a call of what has been freed.

use lastout::{CallError, Engine, Location, Part, TrapCause};
use lastout_tests::child::child;
use lastout_tests::layers::{KINDS, engines, frames};
use lastout_tests::registers::keeps;
use lastout_tests::support::{Callback, Drops, install, install_counted};
use lastout_tests::{builder, call, engine};

use super::{call_at, constant, result};

type ByAddress = lastout::Handle<fn(usize, i64) -> i64>;

/// A function `(address, i64) -> i64` that calls what is at the address.
const CALLING: &str = "function %calling(i64, i64) -> i64 system_v {
    sig0 = (i64, i64) -> i64 system_v
 block0(v0: i64, v1: i64):
    v2 = call_indirect sig0, v0(v0, v1)
    v3 = iadd v2, v1
    return v3
 }";

/// Functions whose code is to be freed: `f`, of some convention, and what gives its address.
fn function(convention: &str, plus: i64) -> String {
    format!(
        "function %f(i64, i64) -> i64 {convention} {{
         block0(v0: i64, v1: i64):
            v2 = iconst.i64 {plus}
            v3 = iadd v1, v2
            return v3
         }}
         function %give() -> i64 system_v {{
            fn0 = colocated %f(i64, i64) -> i64 {convention}
         block0:
            v0 = func_addr.i64 fn0
            return v0
         }}"
    )
}

fn free_them(engine: &Engine) {
    engine.remove("f").unwrap();
    engine.remove("give").unwrap();
}

/// Where a call has led to freed code.
fn freed(result: Result<i64, CallError>) -> Location {
    match result {
        Err(CallError::Trap(trap)) if trap.cause == TrapCause::Freed => trap.location,
        other => panic!("{other:?}"),
    }
}

fn function_of(location: &Location) -> &str {
    match &location.part {
        Part::Body { function, .. } => function,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_of_freed_code_is_an_error_that_names_the_caller() {
    for (name, engine) in engines(|| builder!().traps(true)) {
        install(&engine, CALLING);
        let calling: ByAddress = engine.function("calling").unwrap();
        for convention in ["system_v", "fast"] {
            // Again and again, so that it lies between all kinds of things.
            for round in 0..20 {
                let drops = Drops::new();
                install_counted(&engine, &function(convention, 100), &drops);
                let address = result(&engine, "give");
                install(&engine, &constant(&format!("behind_{convention}_{round}"), 1));
                let run = |number| keeps(|| call!(calling, address, number));
                assert_eq!(run(1), Ok(102), "{name}, {convention}");
                free_them(&engine);
                assert_eq!(drops.count(), 1);
                for _ in 0..3 {
                    let location = freed(run(1));
                    assert_eq!(function_of(&location), "calling", "{name}, {convention}");
                    assert_eq!(frames(&engine, &["calling"]), 0);
                }
            }
        }
    }
}

#[test]
fn the_error_is_of_the_call_of_the_host_and_everything_between_is_counted_out() {
    for (name, engine) in engines(|| builder!().traps(true)) {
        install(&engine, &function("system_v", 100));
        install(&engine, CALLING);
        for live in [0, 8] {
            let mut below = "calling";
            for kind in &KINDS {
                kind.install(&engine, kind.name, below, live, &Drops::new());
                below = kind.name;
            }
            install(&engine, &function("system_v", 100));
            let address = result(&engine, "give");
            let top: ByAddress = engine.function(below).unwrap();
            let height = KINDS.len() as i64;
            assert_eq!(keeps(|| call!(top, address, 1)), Ok(102 + height), "{name}");
            free_them(&engine);
            let location = freed(keeps(|| call!(top, address, 1)));
            assert_eq!(function_of(&location), "calling", "{name}");
            let functions: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            assert_eq!(frames(&engine, &functions) + frames(&engine, &["calling"]), 0);
        }
    }
}

#[test]
fn a_tail_call_of_freed_code_is_an_error_where_it_would_have_returned_to() {
    const TAIL_CALLING: &str = "function %tail_calling(i64, i64) -> i64 tail {
        sig0 = (i64, i64) -> i64 tail
     block0(v0: i64, v1: i64):
        return_call_indirect sig0, v0(v0, v1)
     }
     function %within(i64, i64) -> i64 tail {
        fn0 = colocated %tail_calling(i64, i64) -> i64 tail
     block0(v0: i64, v1: i64):
        v2 = call fn0(v0, v1)
        v3 = iadd v2, v1
        return v3
     }";

    for (name, engine) in engines(|| builder!().traps(true)) {
        let drops = Drops::new();
        install_counted(&engine, TAIL_CALLING, &drops);
        install(&engine, &function("tail", 100));
        let address = result(&engine, "give");
        let [tail_calling, within]: [ByAddress; 2] =
            ["tail_calling", "within"].map(|name| engine.function(name).unwrap());
        assert_eq!(keeps(|| call!(tail_calling, address, 1)), Ok(101), "{name}");
        assert_eq!(keeps(|| call!(within, address, 1)), Ok(102), "{name}");
        free_them(&engine);
        for _ in 0..3 {
            // The gate's frame is left, with what was counted in there.
            let location = freed(keeps(|| call!(tail_calling, address, 1)));
            let Part::Gate { version: Some(version) } = &location.part else {
                panic!("{location}")
            };
            assert_eq!(version.function(), "tail_calling", "{name}");
            let location = freed(keeps(|| call!(within, address, 1)));
            assert_eq!(function_of(&location), "within", "{name}");
            assert_eq!(frames(&engine, &["tail_calling", "within"]), 0, "{name}");
        }
        engine.remove("tail_calling").unwrap();
        assert_eq!(drops.count(), 0);
        engine.remove("within").unwrap();
        assert_eq!(drops.count(), 1, "{name}");
    }
}

#[test]
fn code_that_is_freed_while_its_caller_runs_is_found_as_well() {
    // It calls what it is given, calls back, and calls it again.
    const TWICE: &str = "function %twice(i64, i64, i64) -> i64 system_v {
        sig0 = (i64, i64) -> i64 system_v
        fn0 = %call_back(i64, i64) -> i64 system_v
     block0(v0: i64, v1: i64, v2: i64):
        v3 = call_indirect sig0, v0(v0, v2)
        v4 = call fn0(v1, v3)
        v5 = call_indirect sig0, v0(v0, v4)
        return v5
     }";

    for (name, engine) in engines(|| builder!().traps(true)) {
        install(&engine, TWICE);
        install(&engine, &function("system_v", 100));
        let address = result(&engine, "give");
        let twice = engine.function::<fn(usize, usize, i64) -> i64>("twice").unwrap();
        let passing = Callback::new(|number| number);
        let freeing = Callback::new(|number| {
            free_them(&engine);
            number
        });
        assert_eq!(keeps(|| call!(twice, address, passing.address(), 1)), Ok(201), "{name}");
        let location = freed(keeps(|| call!(twice, address, freeing.address(), 1)));
        assert_eq!(function_of(&location), "twice", "{name}");
        assert_eq!(frames(&engine, &["twice"]), 0);
    }
}

#[test]
fn a_call_of_freed_code_that_nobody_can_be_told_of_ends_the_process() {
    let freed_address = |engine: &Engine| {
        install(engine, &function("system_v", 100));
        let address = result(engine, "give");
        free_them(engine);
        address
    };
    let by_host = child("by the host", || {
        let engine = builder!().traps(true).build().unwrap();
        call_at(freed_address(&engine));
    });
    let not_caught = child("not caught", || {
        let engine = engine!();
        install(&engine, CALLING);
        let calling: ByAddress = engine.function("calling").unwrap();
        let _ = call!(calling, freed_address(&engine), 1);
    });
    for ended in [by_host, not_caught].into_iter().flatten() {
        assert_eq!(ended.signal(), Some(libc::SIGTRAP), "{ended:?}");
    }
}
