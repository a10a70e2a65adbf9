//! Calls that one process has patched, the other still makes as they were. If it did not, it would
//! come to gates of versions that it has not installed, and bail.

use std::cell::Cell;

use lastout::Handle;
use lastout_tests::support::{caller, constant, install, step, steps};
use lastout_tests::{builder, call};

use super::process::{Stage, split};
use super::{STRICT, handle, turn};

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
