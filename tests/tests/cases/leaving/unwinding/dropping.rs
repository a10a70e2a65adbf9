//! What is dropped by a call that is left: it may call functions in turn, and what becomes of these
//! calls is theirs.

use std::sync::{Arc, Mutex};

use lastout::Engine;
use lastout_tests::layers::{KINDS, engines, frames};
use lastout_tests::registers::keeps;
use lastout_tests::support::{Callback, CallingBack, OnDrop, calls, install, unit};
use lastout_tests::{builder, call};

use super::ends::{PANIC, THROW, TRAP, ending, ends, trapping_at_zero};

#[test]
fn what_is_dropped_by_a_call_that_is_left_may_call_and_be_left() {
    for (name, engine) in engines(|| builder!().traps(true)) {
        install(&engine, &trapping_at_zero("other"));
        let engine = Arc::new(engine);
        let results = Arc::new(Mutex::new(Vec::new()));
        let other = calls(&engine, "other");
        for number in [PANIC, THROW, TRAP] {
            let install_all = || {
                let mut below = "innermost";
                install_calling(&engine, &trapping_at_zero(below), &other, &results);
                for kind in &KINDS[..4] {
                    for text in [kind.inner(kind.name, below, 8), kind.outer(kind.name, 8)] {
                        install_calling(&engine, &text, &other, &results);
                    }
                    below = kind.name;
                }
                calls(&engine, below)
            };
            let top = install_all();
            results.lock().unwrap().clear();
            let callback = ending(|| drop(install_all()));
            ends(number, || call!(top, callback.address(), number));
            // Each has made all the calls there are, and this call ends as if it had not.
            let made = std::mem::take(&mut *results.lock().unwrap());
            assert_eq!(made, [9; 9], "{name}, {number}");
            assert_eq!(frames(&engine, &["innermost", "plain", "fast", "other"]), 0);
            let passing = Callback::new(|number| number);
            assert_eq!(keeps(|| call!(top, passing.address(), 5)), Ok(9), "{name}");
        }
        // Nobody is there to be told.
        results.lock().unwrap().clear();
    }
}

/// Installs functions with something attached that, when it is dropped, makes a call that returns
/// and calls that end in each other way, and notes that it has.
fn install_calling(
    engine: &Engine,
    text: &str,
    other: &CallingBack,
    results: &Arc<Mutex<Vec<usize>>>,
) {
    let (other, results) = (other.clone(), Arc::clone(results));
    let mut unit = unit(engine, text);
    unit.attach(OnDrop(move || {
        let mut made = 0;
        for _ in 0..3 {
            for number in [5, PANIC, THROW, TRAP] {
                let callback = ending(|| {});
                match number {
                    5 => assert_eq!(keeps(|| call!(other, callback.address(), 5)), Ok(5)),
                    number => {
                        ends(number, || call!(other, callback.address(), number));
                        made += 1;
                    }
                }
            }
        }
        results.lock().unwrap().push(made);
    }));
    engine.install(unit).unwrap();
}
