//! A handler that is the last to leave a version, while the thread is at what takes locks.

use std::hint::black_box;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use lastout::DropPolicy;
use lastout_tests::support::{COUNTINGS, Callback, Drops, calling_back, install_counted, turn};
use lastout_tests::{builder, call};

use super::stepping::{Wrong, stepping};

#[test]
fn with_a_collector_it_takes_no_lock_and_allocates_nothing() {
    let _turn = turn();
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).drop_policy(DropPolicy::Collector);
        let engine = engine.build().unwrap();
        let drops = Drops::new();
        install_counted(&engine, &calling_back("f", 0), &drops);
        let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
        // The version that is to be current, and the one that is; -1 for the end.
        let (asked, done) = (AtomicI64::new(0), AtomicI64::new(0));
        let wrong = Wrong::default();
        thread::scope(|scope| {
            let replacing = || {
                loop {
                    match asked.load(Ordering::SeqCst) {
                        -1 => break,
                        version if version != done.load(Ordering::SeqCst) => {
                            install_counted(&engine, &calling_back("f", version), &drops);
                            done.store(version, Ordering::SeqCst);
                        }
                        _ => thread::yield_now(),
                    }
                }
            };
            scope.spawn(replacing);
            let replaced_inside = Callback::new(|version| {
                asked.store(version, Ordering::SeqCst);
                // The allocator may be in the middle of something. If so, the other thread waits
                // for this one, and has to be left alone.
                for _ in 0..2000 {
                    if done.load(Ordering::SeqCst) == version {
                        return 1000;
                    }
                    thread::yield_now();
                }
                0
            });
            let _ = call!(f, Callback::new(|x| x).address(), 0);
            let at = |step: usize| {
                if step.is_multiple_of(7)
                    && done.load(Ordering::SeqCst) == asked.load(Ordering::SeqCst)
                {
                    let version = done.load(Ordering::SeqCst);
                    let result = call!(f, replaced_inside.address(), version + 1);
                    wrong.unless(result == Ok(version) || result == Ok(1000 + version));
                }
            };
            let (steps, ()) = stepping(&at, || {
                for size in [24, 3000, 50_000] {
                    drop(black_box(Vec::<u8>::with_capacity(black_box(size))));
                }
            });
            assert!(steps > 300, "{steps} steps");
            asked.store(-1, Ordering::SeqCst);
        });
        assert_eq!(wrong.count(), 0);
        let installed = done.load(Ordering::SeqCst);
        assert!(installed > 20, "{installed}");
        engine.collect();
        assert_eq!((engine.stats().alive(), drops.count() as i64), (1, installed));
    }
}
