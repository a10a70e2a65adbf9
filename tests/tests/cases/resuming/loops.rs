//! Loops that never end, unless a version ends them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crossbeam_utils::Backoff;
use lastout::VersionState;
use lastout_tests::call;
use lastout_tests::moving::install_counted;
use lastout_tests::support::{Drops, OnDrop, wait_until};

use super::engines;

/// `(words) -> i64`: adds to the first word in each round, for as long as the second is 0, and
/// returns how many rounds there were.
fn spin(plus: i64) -> String {
    format!(
        "function %spin(i64) -> i64 tail {{
         block0(v0: i64):
            v1 = iconst.i64 0
            v2 = iconst.i64 {plus}
            jump block1(v1)
         block1(v3: i64):
            v4 = load.i64 v0
            v5 = iadd v4, v2
            store v5, v0
            v6 = iconst.i64 1
            v7 = iadd v3, v6
            v8 = load.i64 v0+8
            brif v8, block2, block1(v7)
         block2:
            return v7
         }}\n"
    )
}

#[test]
fn constants_are_those_of_the_version_that_runs() {
    for (name, engine) in engines() {
        let words = [AtomicI64::new(0), AtomicI64::new(0)];
        let address = words.as_ptr().expose_provenance();
        let drops = Drops::new();
        install_counted(&engine, &spin(1), &drops);
        let handle = engine.function::<fn(usize) -> i64>("spin").unwrap();
        std::thread::scope(|scope| {
            let spinning = scope.spawn(|| call!(handle, address).unwrap());
            wait_until(|| words[0].load(Ordering::SeqCst) >= 1000);
            install_counted(&engine, &spin(-(1 << 32)), &drops);
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            let backoff = Backoff::new();
            while words[0].load(Ordering::SeqCst) >= 0 && std::time::Instant::now() < deadline {
                backoff.snooze();
            }
            let reached = words[0].load(Ordering::SeqCst);
            words[1].store(1, Ordering::SeqCst);
            assert!(reached < 0, "{name}: {reached}");
            spinning.join().unwrap();
        });
    }
}

#[test]
fn a_loop_that_never_ends_moves_and_frees_what_it_has_left() {
    for (name, engine) in engines() {
        let drops = Drops::new();
        let words = [AtomicI64::new(0), AtomicI64::new(0)];
        let address = words.as_ptr().expose_provenance();
        let installed = install_counted(&engine, &spin(1), &drops);
        let mut current = installed.version("spin").unwrap().clone();
        let handle = engine.function::<fn(usize) -> i64>("spin").unwrap();
        let stop = || words[1].store(1, Ordering::SeqCst);
        let rounds = std::thread::scope(|scope| {
            // Whatever fails, the thread is to end.
            let stopping = OnDrop(stop);
            let spinning = scope.spawn(|| call!(handle, address).unwrap());
            wait_until(|| words[0].load(Ordering::SeqCst) >= 1000);
            for round in 0..100 {
                // Back and forth.
                for plus in [-1 - round, 1] {
                    let installed = install_counted(&engine, &spin(plus), &drops);
                    let next = installed.version("spin").unwrap().clone();
                    let freed = current.wait_freed(Duration::from_secs(60));
                    assert!(freed, "{name}, round {round}: {current:?}");
                    assert_eq!(next.state(), VersionState::Live);
                    current = next;
                }
            }
            drop(stopping);
            spinning.join().unwrap()
        });
        assert!(rounds > 1000);
        assert_eq!(drops.count(), 200, "{name}");
        engine.remove("spin").unwrap();
        assert_eq!(drops.count(), 201, "{name}");
        let stats = engine.stats();
        assert_eq!(stats.alive(), 0, "{name}: {stats:?}");
    }
}
