//! Calls that one process has patched, the other still makes as they were. If it did not, it would
//! come to gates of versions that it has not installed, and bail.

use std::cell::Cell;

use lastout::{Adopted, Engine, FunctionType, Handle};
use lastout_tests::support::{caller, constant, handle, install, step, steps, turn};
use lastout_tests::{builder, call};

use super::STRICT;
use super::process::{Stage, split};

extern "C" fn hundred() -> i64 {
    100
}

extern "C" fn minus_hundred() -> i64 {
    -100
}

/// Has `f` be a function of this program.
fn adopt(engine: &Engine, function: extern "C" fn() -> i64) {
    let mut adopted = Adopted::new(|| {});
    let signature = <fn() -> i64>::signature(engine.isa());
    // SAFETY: the function is of this signature, and stays.
    unsafe { adopted.export("f", &signature, function as *const u8) };
    engine.adopt(adopted).unwrap();
}

#[test]
fn each_process_has_calls_of_its_own() {
    const ROUNDS: u32 = 12;
    let _turn = turn();
    for strict in STRICT {
        let engine = builder!().strict(strict).interleave(step).build().unwrap();
        install(&engine, &constant("f", 0));
        let callers: Vec<Handle<fn() -> i64>> = (0..6)
            .map(|number| {
                let name = format!("g{number}");
                install(&engine, &caller(&name, "f", 1 << number));
                handle(&engine, &name)
            })
            .collect();
        // There is a lane for the next version.
        install(&engine, &constant("f", 0));
        let (expected, _) = steps(|| call!(callers[0]).unwrap());
        let stage = Stage::new();
        split().both(|child| {
            let current = Cell::new(0);
            let check = || {
                for (number, caller) in (0..).zip(&callers) {
                    let met = steps(|| call!(caller).unwrap());
                    assert_eq!(met, (expected, current.get() + (1 << number)));
                }
            };
            let turns = (u32::from(child)..2 * ROUNDS).step_by(2);
            for turn in turns {
                stage.wait_for(turn);
                check();
                // Nothing is written but the calls.
                current.set(if child { minus_hundred() } else { hundred() });
                adopt(&engine, if child { minus_hundred } else { hundred });
                check();
                for _ in 0..turn / 2 % 3 {
                    current.set(current.get() + if child { -1 } else { 1 });
                    install(&engine, &constant("f", current.get()));
                    check();
                }
                stage.reach(turn + 1);
            }
            stage.wait_for(2 * ROUNDS);
            check();
        });
    }
}
