//! Functions that are replaced and removed while a caller is between two steps of the gate, at
//! each of its steps in turn.

use std::cell::{Cell, RefCell};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lastout::{CallError, Counting, Engine, Handle};
use lastout_tests::support::{
    COUNTINGS, Drops, caller, constant, handle, install, install_counted,
};
use lastout_tests::{builder, call};

type Action = Box<dyn FnOnce()>;

thread_local! {
    /// How many steps this thread has come to.
    static STEPS: Cell<usize> = const { Cell::new(0) };
    /// What to do before one of them.
    static ACTION: RefCell<Option<(usize, Action)>> = const { RefCell::new(None) };
}

extern "C" fn step() {
    let step = STEPS.get();
    STEPS.set(step + 1);
    let due = |action: &mut (usize, Action)| action.0 == step;
    if let Some((_, action)) = ACTION.with_borrow_mut(|action| action.take_if(due)) {
        action();
        // What the action itself has passed through does not count.
        STEPS.set(step + 1);
    }
}

/// Does something right before a step of what this thread calls next.
fn before_step(step: usize, action: impl FnOnce() + 'static) {
    STEPS.set(0);
    ACTION.set(Some((step, Box::new(action))));
}

/// Whether what was to be done has been.
fn was_done() -> bool {
    ACTION.take().is_none()
}

/// An engine that lives as long as the process, so that actions can use it, with its functions.
fn engine(counting: Counting) -> &'static Engine {
    Box::leak(Box::new(builder!().counting(counting).interleave(step).build().unwrap()))
}

#[test]
fn a_call_passes_through_the_current_gate_only() {
    for counting in COUNTINGS {
        let engine = engine(counting);
        install(engine, &constant("f", 0));
        let f = handle(engine, "f");
        let steps = || {
            STEPS.set(0);
            call!(f).unwrap();
            STEPS.get()
        };
        let first = steps();
        assert!(first > 0);
        for version in 1..4 {
            install(engine, &constant("f", version));
            assert_eq!(steps(), first, "a caller has come through an older gate");
        }
    }
}

#[test]
fn a_caller_that_meets_a_replacement_gets_one_version_or_the_other() {
    for counting in COUNTINGS {
        for by_handle in [true, false] {
            let engine = engine(counting);
            let drops = Drops::new();
            install_counted(engine, &constant("f", 0), &drops);
            if !by_handle {
                // Two gates to pass.
                install(engine, &caller("g", "f", 0));
            }
            let called = handle(engine, if by_handle { "f" } else { "g" });
            let mut version = 0;
            let mut results = [0; 2];
            for step in 0.. {
                let replacing = drops.clone();
                before_step(step, move || {
                    install_counted(engine, &constant("f", version + 1), &replacing);
                });
                let result = call!(called).unwrap();
                if !was_done() {
                    break;
                }
                version += 1;
                results[usize::from(result == version)] += 1;
                assert!(result == version || result == version - 1);
                assert_eq!(drops.count() as i64, version, "nobody has freed what was replaced");
                assert_eq!(call!(called).unwrap(), version);
            }
            assert!(results[0] > 1 && results[1] > 1, "{results:?}");
        }
    }
}

#[test]
fn a_caller_that_meets_a_removal_gets_a_result_or_an_error() {
    for counting in COUNTINGS {
        let engine = engine(counting);
        let drops = Drops::new();
        install_counted(engine, &constant("f", 1), &drops);
        let f = handle(engine, "f");
        let mut removed = Vec::new();
        for step in 0.. {
            before_step(step, || engine.remove("f").unwrap());
            let result = call!(f);
            if !was_done() {
                break;
            }
            assert_eq!(drops.count(), step + 1);
            removed.push(match result {
                Ok(value) => {
                    assert_eq!(value, 1);
                    false
                }
                Err(CallError::Removed(name)) => {
                    assert_eq!(&*name, "f");
                    true
                }
                Err(other) => panic!("{other}"),
            });
            install_counted(engine, &constant("f", 1), &drops);
        }
        // Up to the load of the body an error, from then on none.
        assert!(removed.is_sorted_by(|one, next| one >= next), "{removed:?}");
        assert!(removed[0] && !removed[removed.len() - 1]);
    }
}

#[test]
fn a_caller_that_meets_several_replacements_frees_them_all() {
    /// The versions installed so far, and what one step of them does.
    static INSTALLED: Mutex<i64> = Mutex::new(0);

    fn installed() -> MutexGuard<'static, i64> {
        INSTALLED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(engine: &Engine, drops: &Drops) {
        let mut installed = installed();
        *installed += 1;
        install_counted(engine, &constant("f", *installed), drops);
    }

    for counting in COUNTINGS {
        *installed() = 0;
        let engine = engine(counting);
        let drops = Drops::new();
        replace(engine, &drops);
        let f = handle(engine, "f");
        for step in 0.. {
            let replacing = drops.clone();
            before_step(step, move || {
                for _ in 0..3 {
                    replace(engine, &replacing);
                    // A caller of its own in between, in what has just been installed.
                    assert_eq!(call!(handle(engine, "f")).unwrap(), *installed());
                }
            });
            let result = call!(f).unwrap();
            if !was_done() {
                break;
            }
            let current = *installed();
            assert!(result == current || result == current - 3, "{result} of {current}");
            assert_eq!(drops.count() as i64, current - 1);
        }
    }
}

#[test]
fn the_slow_path_keeps_registers_even_if_every_frame_is_probed() {
    let probes = [
        ("enable_probestack", "true"),
        ("probestack_strategy", "inline"),
        ("probestack_size_log2", "6"),
        ("enable_llvm_abi_extensions", "true"),
    ];
    for counting in COUNTINGS {
        let builder = builder!().counting(counting).interleave(step);
        let builder =
            probes.iter().fold(builder, |builder, (name, value)| builder.flag(name, value));
        let engine = builder.build().unwrap();
        // More arguments than there are registers, so that the gate has one in every register.
        install(
            &engine,
            "function %last(i64, i64, i64, i64, i64, i64, i64, i64, i128) -> i128 tail {
             block0(v0: i64, v1: i64, v2: i64, v3: i64, v4: i64, v5: i64, v6: i64, v7: i64, v8: i128):
                return v8
             }
             function %call(i64) -> i64 system_v {
                fn0 = %last(i64, i64, i64, i64, i64, i64, i64, i64, i128) -> i128 tail
             block0(v0: i64):
                v1 = iconst.i64 1
                v2 = iconcat v0, v1
                v3 = call fn0(v1, v1, v1, v1, v1, v1, v1, v1, v2)
                v4, v5 = isplit v3
                return v4
             }",
        );
        let call: Handle<fn(i64) -> i64> = engine.function("call").unwrap();
        assert_eq!(call!(call, 42).unwrap(), 42);
    }
}
