//! Chains that are replaced while a thread is in them, and that are left by panics, exceptions and
//! traps.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lastout::cranelift_codegen::ir::TrapCode;
use lastout::{CallError, TrapCause, throw};
use lastout_tests::layers::{engines, frames};
use lastout_tests::registers::keeps;
use lastout_tests::support::{Callback, Drops, install, install_counted, wait_until};
use lastout_tests::{builder, call};

use super::hops::{By, RINGS, WAYS, declare, first, ring};

/// How the last function of a chain is left.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Exit {
    Return,
    Panic,
    Throw,
    Trap,
}

const EXITS: [Exit; 4] = [Exit::Return, Exit::Panic, Exit::Throw, Exit::Trap];

fn exit(how: Exit, number: i64) -> i64 {
    match how {
        Exit::Return => number,
        Exit::Panic => resume_unwind(Box::new(number)),
        Exit::Throw => {
            // SAFETY: there is nothing to drop.
            let uncaught = unsafe { throw(7, [number as u64, 0]) };
            panic!("{uncaught}")
        }
        // What calls back divides by it.
        Exit::Trap => 0,
    }
}

/// How a call was left, and the number, where there is one.
fn exited(call: impl FnOnce() -> Result<i64, CallError>) -> (Exit, i64) {
    match catch_unwind(AssertUnwindSafe(|| keeps(call))) {
        Ok(Ok(number)) => (Exit::Return, number),
        Ok(Err(CallError::Exception(exception))) => (Exit::Throw, exception.payload[0] as i64),
        Ok(Err(CallError::Trap(trap))) => {
            assert_eq!(trap.cause, TrapCause::Code(TrapCode::unwrap_user(3)));
            (Exit::Trap, 0)
        }
        Ok(Err(error)) => panic!("{error}"),
        Err(panic) => (Exit::Panic, *panic.downcast().unwrap()),
    }
}

#[test]
fn whatever_ends_a_chain_counts_out_who_is_in_it_and_nobody_else() {
    for (name, engine) in engines(|| builder!().traps(true)) {
        for by in WAYS {
            for mores in RINGS {
                let drops = Drops::new();
                declare(&engine, mores);
                let texts: Vec<_> = ring(mores, 1, by)
                    .into_iter()
                    .map(|text| text.replace("return v9", "trapz v9, user3\nreturn v9"))
                    .collect();
                let install_all = || {
                    for text in &texts {
                        install_counted(&engine, text, &drops);
                    }
                };
                install_all();
                let first = first(&engine);
                let mut dropped = 0;
                for how in EXITS {
                    for steps in [0, 1, 2, 3, 1000] {
                        let before = dropped;
                        let callback = Callback::new(|sum| {
                            install_all();
                            // All but the one that the thread is in.
                            assert_eq!(drops.count(), before + mores.len() - 1);
                            exit(how, sum)
                        });
                        let result = exited(|| call!(first, callback.address(), steps, 10));
                        let expected = if how == Exit::Trap { 0 } else { 10 + steps };
                        let what = format!("{name}, {by:?}, {mores:?}, {steps} steps");
                        assert_eq!(result, (how, expected), "{what}");
                        dropped += mores.len();
                        assert_eq!(drops.count(), dropped, "{what}, {how:?}");
                        for index in 0..mores.len() {
                            assert_eq!(frames(&engine, &[&format!("hop_{index}")]), 0, "{what}");
                        }
                    }
                }
                drop(first);
                for index in 0..mores.len() {
                    engine.remove(&format!("hop_{index}")).unwrap();
                }
                assert_eq!(drops.count(), dropped + mores.len());
            }
        }
    }
}

#[test]
fn ordinary_calls_within_chains_are_counted_for_themselves() {
    // Calls itself before it tail-calls itself.
    let branching = |name: &str, next: &str| {
        format!(
            "function %{name}(i64, i64, i64) -> i64 tail {{
                fn0 = %{next}(i64, i64, i64) -> i64 tail
                fn1 = %call_back(i64, i64) -> i64 system_v
             block0(v0: i64, v1: i64, v2: i64):
                brif v1, block1, block2
             block1:
                v3 = iconst.i64 -1
                v4 = iadd v1, v3
                v5 = call fn0(v0, v4, v2)
                return_call fn0(v0, v4, v5)
             block2:
                v6 = call fn1(v0, v2)
                return v6
             }}"
        )
    };
    for (name, engine) in engines(|| builder!().traps(true)) {
        declare(&engine, &[0, 0]);
        let drops = Drops::new();
        let install_all = || {
            install_counted(&engine, &branching("hop_0", "hop_1"), &drops);
            install_counted(&engine, &branching("hop_1", "hop_0"), &drops);
        };
        install_all();
        let first = first(&engine);
        let inside = || frames(&engine, &["hop_0"]) + frames(&engine, &["hop_1"]);
        let most = AtomicUsize::new(0);
        let counting = Callback::new(|sum| {
            most.fetch_max(inside() as usize, Ordering::Relaxed);
            sum + 1
        });
        assert_eq!(keeps(|| call!(first, counting.address(), 10, 0)), Ok(1 << 10), "{name}");
        // One frame for each call that is not a tail call, and the last one's.
        assert_eq!((most.load(Ordering::Relaxed), inside()), (11, 0), "{name}");
        for how in [Exit::Return, Exit::Panic, Exit::Throw] {
            for round in 1..20 {
                let (left, before) = (AtomicUsize::new(round), drops.count());
                let callback = Callback::new(|sum| {
                    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                        install_all();
                        return exit(how, sum + 1);
                    }
                    sum + 1
                });
                let expected = if how == Exit::Return { 1 << 10 } else { round as i64 };
                let result = exited(|| call!(first, callback.address(), 10, 0));
                assert_eq!(result, (how, expected), "{name}, {round}");
                assert_eq!((drops.count(), inside()), (before + 2, 0), "{name}, {round}");
            }
        }
    }
}

#[test]
fn chains_on_many_threads_are_replaced_and_left() {
    for (name, engine) in engines(|| builder!().traps(true)) {
        let mores = RINGS[3];
        let drops = Drops::new();
        declare(&engine, mores);
        for text in ring(mores, 1, By::Name) {
            install_counted(&engine, &text, &drops);
        }
        let over = AtomicBool::new(false);
        let mut installed = mores.len();
        thread::scope(|scope| {
            for number in 0..3 {
                let (engine, over) = (&engine, &over);
                scope.spawn(move || {
                    let first = first(engine);
                    let mut how =
                        EXITS.into_iter().cycle().skip(number).filter(|how| *how != Exit::Trap);
                    while !over.load(Ordering::Relaxed) {
                        let how = how.next().unwrap();
                        let callback = Callback::new(|sum| exit(how, sum));
                        let result = exited(|| call!(first, callback.address(), 500, 10));
                        // Each step adds one, or two once it has been replaced.
                        assert!(result.0 == how && (510..=1010).contains(&result.1), "{result:?}");
                    }
                });
            }
            for round in 0..40 {
                let text = &ring(mores, 1 + round % 2, WAYS[round as usize % 2])
                    [round as usize % mores.len()];
                install_counted(&engine, text, &drops);
                installed += 1;
                thread::sleep(Duration::from_micros(200));
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(drops.count(), installed - mores.len(), "{name}");
        for index in 0..mores.len() {
            assert_eq!(frames(&engine, &[&format!("hop_{index}")]), 0, "{name}");
        }
    }
}

#[test]
fn a_chain_of_one_function_goes_over_to_its_next_version() {
    for (name, engine) in engines(|| builder!()) {
        for by in WAYS {
            declare(&engine, &[0]);
            let drops = Drops::new();
            // Without a hook between its steps it takes tens of milliseconds.
            let steps = if name.contains("hooks") { 2_000_000 } else { 20_000_000 };
            install_counted(&engine, &ring(&[0], 1, by)[0], &drops);
            let first = first(&engine);
            let callback = Callback::new(|sum| sum);
            let result = thread::scope(|scope| {
                let chain = scope.spawn(|| call!(first, callback.address(), steps, 0).unwrap());
                wait_until(|| frames(&engine, &["hop_0"]) > 0);
                let old = engine.versions("hop_0").unwrap()[0].version.clone();
                install(&engine, &ring(&[0], 2, by)[0]);
                assert!(old.wait_freed(Duration::from_secs(60)), "{name}, {by:?}");
                chain.join().unwrap()
            });
            assert!(result > steps && result < 2 * steps, "{name}, {by:?}: {result}");
            assert_eq!((drops.count(), frames(&engine, &["hop_0"])), (1, 0));
            drop(first);
            engine.remove("hop_0").unwrap();
        }
    }
}
