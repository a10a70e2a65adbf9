//! Threads that call without pause.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use lastout_tests::support::OnDrop;

use super::*;

/// How many times a version adds its number.
const ADDS: i64 = 48;

/// A function that adds a number many times over, in code of the same length for all numbers: what
/// runs partly in one version and partly in another has another result.
pub(super) fn adding(number: i64) -> String {
    let mut text = "function %f(i64) -> i64 system_v {\nss0 = explicit_slot 8\nblock0(v0: i64):\n\
        v1000 = stack_addr.i64 ss0\n"
        .to_owned();
    for add in 0..ADDS {
        // A sum that the optimizer does not see through, for it goes through memory.
        let (sum, added) = (3 * add, number + (1 << 40));
        let (by, loaded, next) = (sum + 1, sum + 2, sum + 3);
        text += &format!(
            "v{by} = iconst.i64 {added}\nstore v{sum}, v1000\n\
             v{loaded} = load.i64 v1000\nv{next} = iadd v{loaded}, v{by}\n"
        );
    }
    text + &format!("return v{}\n}}\n", 3 * ADDS)
}

pub(super) fn number(sum: i64, argument: i64) -> i64 {
    let sum = sum - argument - ADDS * (1 << 40);
    assert_eq!(sum % ADDS, 0, "a mixture of versions: {sum}");
    sum / ADDS
}

/// Replaces `f` for a while, as others call it; returns how often.
fn storm(engine: &Engine, time: Duration, calls: &[&(dyn Fn() -> i64 + Sync)]) -> i64 {
    let (begun, done) = (AtomicI64::new(0), AtomicI64::new(0));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = OnDrop(|| over.store(true, Ordering::Relaxed));
        for call in calls {
            let (begun, done, over) = (&begun, &done, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let oldest = done.load(Ordering::SeqCst);
                    let number = call();
                    let newest = begun.load(Ordering::SeqCst);
                    assert!((oldest..=newest).contains(&number), "{oldest} {number} {newest}");
                }
            });
        }
        let end = Instant::now() + time;
        while Instant::now() < end {
            let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
            replace(engine, &adding(number));
            done.store(number, Ordering::SeqCst);
        }
    });
    done.into_inner()
}

/// What gates, and detours, call between any two steps: lets another thread run, now and then.
extern "C" fn hesitate() {
    thread_local! {
        static STEPS: Cell<u32> = const { Cell::new(0) };
    }
    STEPS.set(STEPS.get() + 1);
    if STEPS.get().is_multiple_of(7) {
        thread::yield_now();
    }
}

#[test]
fn no_call_runs_a_mixture_of_versions() {
    let [plain, atomic] = COUNTINGS.map(|counting| builder!().counting(counting));
    for builder in [plain, atomic.strict(true), builder!().interleave(hesitate)] {
        let engine = builder.build().unwrap();
        install(&engine, &adding(0));
        install(
            &engine,
            "function %g(i64) -> i64 system_v {
                fn0 = %f(i64) -> i64 system_v
             block0(v0: i64):
                v1 = call fn0(v0)
                return v1
             }",
        );
        let [f, g] = ["f", "g"].map(|name| engine.function::<fn(i64) -> i64>(name).unwrap());
        let (by_f, by_g) = (|| number(call!(f, 5).unwrap(), 5), || number(call!(g, 7).unwrap(), 7));
        let replaced = storm(&engine, Duration::from_secs(2), &[&by_f, &by_g, &by_f]);
        assert!(replaced > 5, "only {replaced}");
        assert_eq!(engine.stats().alive(), 2);
        assert_eq!(engine.versions("f").unwrap()[0].frames(), 0);
    }
}

/// A function that calls itself so often by way of its gate, and adds up the numbers of the
/// versions that it runs.
fn recursive(number: i64) -> String {
    format!(
        "function %f(i64) -> i64 system_v {{
            fn0 = %f(i64) -> i64 system_v
         block0(v0: i64):
            brif v0, block1, block2
         block1:
            v5 = iconst.i64 -1
            v1 = iadd v0, v5
            v2 = call fn0(v1)
            v6 = iconst.i64 {number}
            v3 = iadd v2, v6
            return v3
         block2:
            v4 = iconst.i64 {number}
            return v4
         }}"
    )
}

/// A thread that is inside stays in the version that it is in, however deep it goes.
#[test]
fn recursion_goes_on_in_the_same_version() {
    const DEPTH: i64 = 200;
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        install(&engine, &recursive(0));
        let f = engine.function::<fn(i64) -> i64>("f").unwrap();
        let over = AtomicBool::new(false);
        let replaced = thread::scope(|scope| {
            let _stop = OnDrop(|| over.store(true, Ordering::Relaxed));
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !over.load(Ordering::Relaxed) {
                        let sum = call!(f, DEPTH).unwrap();
                        assert_eq!(sum % (DEPTH + 1), 0, "several versions in one call");
                        assert!(sum >= last, "{sum} after {last}");
                        last = sum;
                    }
                });
            }
            let end = Instant::now() + Duration::from_secs(2);
            let mut number = 0;
            while Instant::now() < end {
                number += 1;
                replace(&engine, &recursive(number));
            }
            number
        });
        assert!(replaced > 5, "only {replaced}");
        assert_eq!(engine.stats().alive(), 1);
    }
}

/// Installs, removals and replacements in place of one function, all at once.
#[test]
fn everything_at_once() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let drops = Drops::new();
        let counted = |number: i64| {
            let mut unit = unit(&engine, &adding(number));
            unit.attach(drops.value());
            unit
        };
        engine.install(counted(0)).unwrap();
        let f = engine.function::<fn(i64) -> i64>("f").unwrap();
        let (over, made) = (AtomicBool::new(false), AtomicI64::new(1));
        let in_place = AtomicI64::new(0);
        let until_over = |role: &dyn Fn()| {
            while !over.load(Ordering::Relaxed) {
                role();
            }
        };
        let calls = || match call!(f, 3) {
            Ok(sum) => assert!((0..3).contains(&number(sum, 3))),
            Err(error) => assert!(matches!(error, lastout::CallError::Removed(_))),
        };
        let replaces = || {
            made.fetch_add(1, Ordering::Relaxed);
            match engine.replace_in_place(counted(1), Duration::from_millis(5)) {
                Ok(_) => {
                    in_place.fetch_add(1, Ordering::Relaxed);
                }
                Err(
                    Error::NotInPlace { .. }
                    | Error::UnknownFunction(_)
                    | Error::StillInside { .. },
                ) => {}
                Err(error) => panic!("{error}"),
            }
        };
        thread::scope(|scope| {
            let _stop = OnDrop(|| over.store(true, Ordering::Relaxed));
            scope.spawn(|| until_over(&calls));
            scope.spawn(|| until_over(&calls));
            scope.spawn(|| until_over(&replaces));
            scope.spawn(|| until_over(&replaces));
            let end = Instant::now() + Duration::from_secs(2);
            while Instant::now() < end {
                for _ in 0..10 {
                    made.fetch_add(1, Ordering::Relaxed);
                    engine.install(counted(2)).unwrap();
                    thread::sleep(Duration::from_micros(300));
                }
                engine.remove("f").unwrap();
            }
        });
        assert!(in_place.into_inner() > 0);
        assert_eq!(engine.stats().alive(), 0);
        assert_eq!(drops.count() as i64, made.into_inner());
    }
}
