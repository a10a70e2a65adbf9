//! Forks while other threads are at all that an engine does: none of its locks may be held then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lastout_tests::support::{OnDrop, caller, constant, handle, install, turn};
use lastout_tests::{builder, call};

use super::process::{fork, on_another_thread};
use super::{STRICT, counting_by, exercise};

#[test]
fn forks_find_no_thread_in_the_middle_of_anything() {
    let _turn = turn();
    for strict in STRICT {
        fork_in_a_storm(strict);
    }
}

fn fork_in_a_storm(strict: bool) {
    const FORKS: i64 = 50;
    let engine = builder!().quarantine(0).strict(strict).build().unwrap();
    install(&engine, &constant("f", 0));
    let f = handle(&engine, "f");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
        let again = |role: &dyn Fn(i64)| {
            for round in 0.. {
                role(round);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        };
        let (engine, f) = (&engine, &f);
        for thread in 0..2 {
            scope.spawn(move || {
                let (name, other) = (format!("own{thread}"), format!("caller{thread}"));
                again(&|round| {
                    engine.install(counting_by(engine, &name, round)).unwrap();
                    install(engine, &caller(&other, "f", 0));
                    assert_eq!(call!(handle(engine, &name)).unwrap(), round);
                    handle(engine, &name).c_address().unwrap();
                    engine.remove(&name).unwrap();
                    engine.remove(&other).unwrap();
                });
            });
        }
        scope.spawn(move || {
            again(&|round| {
                install(engine, &constant("f", round));
            });
        });
        scope.spawn(move || again(&|_| assert!(call!(f).unwrap() >= 0)));
        // Threads that come and go have ledgers that do.
        scope.spawn(move || {
            again(&|_| thread::scope(|scope| drop(scope.spawn(|| call!(f).unwrap()))));
        });
        for number in 1..=FORKS {
            let child = fork(|| {
                assert!(call!(f).unwrap() >= 0);
                for round in 1..=20 {
                    install(engine, &constant("f", -number * round));
                    assert_eq!(call!(f).unwrap(), -number * round);
                    let name = format!("child{round}");
                    engine.install(counting_by(engine, &name, round)).unwrap();
                    assert_eq!(call!(handle(engine, &name)).unwrap(), round);
                    engine.remove(&name).unwrap();
                }
                on_another_thread(|| assert_eq!(call!(f).unwrap(), -number * 20));
            });
            child.join();
        }
    });
    exercise(&engine, 5);
}
