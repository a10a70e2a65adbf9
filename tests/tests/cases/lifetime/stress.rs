//! Threads that call without pause what others replace, for seconds, with freed code turned into
//! traps.
//!
//! Every version returns its number. So a call has a right and a wrong answer also when nobody
//! knows which version it met: none older than what was installed before the call, none newer
//! than what a thread had begun to install when it was over.
//!
//! No number of runs replaces the models of the protocol; what these see in addition is machine
//! code, on a real processor, with everything that is around the protocol.

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lastout::{
    CallError, Counting, Dispatch, DropPolicy, Engine, FunctionType, Handle, Stats, VersionState,
};
use lastout_tests::random::Random;
use lastout_tests::support::{
    COUNTINGS, Callback, Door, Drops, caller, calling_back, constant, held, install, unit,
};
use lastout_tests::{builder, call, dispatch};

/// Runs each role again and again on a thread of its own, until the time is over.
fn run_for(time: Duration, roles: &[&(dyn Fn() + Sync)]) {
    let end = Instant::now() + time;
    thread::scope(|scope| {
        for role in roles {
            scope.spawn(move || {
                while Instant::now() < end {
                    for _ in 0..16 {
                        role();
                    }
                }
            });
        }
    });
}

/// A function of which one version after another is installed, each returning its number.
struct Numbered<'a> {
    engine: &'a Engine,
    /// The text of the version with a number.
    text: Box<dyn Fn(i64) -> String + Sync + 'a>,
    drops: Drops,
    begun: AtomicI64,
    done: AtomicI64,
}

impl<'a> Numbered<'a> {
    fn new(engine: &'a Engine, text: impl Fn(i64) -> String + Sync + 'a) -> Self {
        let text = Box::new(text);
        let drops = Drops::new();
        let (begun, done) = (AtomicI64::new(0), AtomicI64::new(0));
        let numbered = Self { engine, text, drops, begun, done };
        numbered.replace();
        numbered
    }

    /// Installs the next version. One thread at a time.
    fn replace(&self) {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let mut unit = unit(self.engine, &(self.text)(number));
        unit.attach(self.drops.value());
        self.engine.install(unit).unwrap();
        self.done.store(number, Ordering::SeqCst);
    }

    /// Checks the number that a call returns.
    fn check(&self, call: impl FnOnce() -> i64) {
        let oldest = self.done.load(Ordering::SeqCst);
        let number = call();
        let newest = self.begun.load(Ordering::SeqCst);
        assert!((oldest..=newest).contains(&number), "{number} is not in {oldest}..={newest}");
    }

    fn count(&self) -> usize {
        self.done.load(Ordering::SeqCst) as usize
    }
}

/// An engine that has made what it keeps for good: entries for the types of handles below.
fn warm(engine: Engine) -> (Engine, Stats) {
    install(&engine, &constant("warm", 0));
    engine.function::<fn() -> i64>("warm").unwrap();
    engine.remove("warm").unwrap();
    install(&engine, &recursive("warm", 0));
    engine.function::<fn(i64) -> i64>("warm").unwrap();
    engine.remove("warm").unwrap();
    let stats = engine.stats();
    (engine, stats)
}

/// A function that calls itself, whichever version is current, so often, and returns the number
/// of the innermost version; or -1 if a call has met a version older than its caller.
///
/// Where calls are patched, it may be older by one: a thread that was late may have met the caller
/// before it was current.
fn recursive(name: &str, number: i64) -> String {
    let oldest = match dispatch!() {
        Dispatch::Slot => number,
        Dispatch::PatchedSites => number - 1,
    };
    format!(
        "function %{name}(i64) -> i64 system_v {{
            fn0 = %{name}(i64) -> i64 system_v
         block0(v0: i64):
            v1 = iconst.i64 {number}
            brif v0, block1, block2
         block1:
            v2 = iconst.i64 -1
            v3 = iadd v0, v2
            v4 = call fn0(v3)
            v5 = iconst.i64 {oldest}
            v6 = icmp sge v4, v5
            v7 = select v6, v4, v2
            return v7
         block2:
            return v1
         }}\n"
    )
}

#[test]
fn calls_meet_a_version_that_is_current_during_the_call() {
    for counting in COUNTINGS {
        let (engine, baseline) = warm(builder!().counting(counting).build().unwrap());
        let numbered = Numbered::new(&engine, |number| constant("f", number));
        let handle = engine.function::<fn() -> i64>("f").unwrap();
        let call = || numbered.check(|| call!(handle).unwrap());
        run_for(Duration::from_secs(2), &[&call, &call, &call, &|| numbered.replace()]);

        let installed = numbered.count();
        assert!(installed > 100, "only {installed} versions in all this time");
        assert_eq!(numbered.drops.count(), installed - 1);
        assert_eq!(engine.stats().alive(), 1);
        assert_eq!(engine.stats().installed, baseline.installed + installed as u64);
        engine.remove("f").unwrap();
        drop(handle);
        assert_eq!(held(engine.stats()), held(baseline));
    }
}

#[test]
fn recursion_goes_on_in_the_current_version() {
    let (engine, baseline) = warm(builder!().build().unwrap());
    let numbered = Numbered::new(&engine, |number| recursive("f", number));
    let handle = engine.function::<fn(i64) -> i64>("f").unwrap();
    let deep = || numbered.check(|| call!(handle, 1000).unwrap());
    let flat = || numbered.check(|| call!(handle, 3).unwrap());
    run_for(Duration::from_secs(2), &[&deep, &flat, &|| numbered.replace()]);

    assert_eq!(numbered.drops.count(), numbered.count() - 1);
    engine.remove("f").unwrap();
    drop(handle);
    assert_eq!(held(engine.stats()), held(baseline));
}

#[test]
fn a_thread_that_stays_inside_keeps_its_version_and_no_other() {
    const REPLACEMENTS: usize = 300;
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let numbered = Numbered::new(&engine, |number| calling_back("f", number));
        let handle = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
        let door = Door::default();
        let stay = Callback::new(|_| {
            door.pass();
            0
        });
        let come_and_go = Callback::new(|_| 0);
        thread::scope(|scope| {
            let inside = scope.spawn(|| call!(handle, stay.address(), 0));
            door.arrived();
            // Two more: then there is a lane for each version that there may be at a time.
            numbered.replace();
            numbered.replace();
            let before = held(engine.stats());
            for _ in 0..REPLACEMENTS {
                numbered.replace();
                numbered.check(|| call!(handle, come_and_go.address(), 0).unwrap());
                assert_eq!(engine.stats().alive(), 2);
                assert_eq!(numbered.drops.count(), numbered.count() - 2);
            }
            assert_eq!(held(engine.stats()), before);
            let versions = engine.versions("f").unwrap();
            assert_eq!(versions.iter().map(|info| info.frames()).collect::<Vec<_>>(), [1, 0]);
            assert_eq!(versions[0].version.state(), VersionState::Retired);
            door.open();
            assert_eq!(inside.join().unwrap().unwrap(), 1);
            assert!(versions[0].version.wait_freed(Duration::from_secs(60)));
        });
        assert_eq!(engine.stats().alive(), 1);
        assert_eq!(numbered.drops.count(), numbered.count() - 1);
    }
}

/// What gates call between any two steps: lets the thread fall behind, at random.
extern "C" fn hesitate() {
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }
    let mut state = STATE.get();
    if state == 0 {
        // Another for each thread.
        state = STATE.with(|state| std::ptr::from_ref(state).addr() as u64);
    }
    state = Random::new(state).number();
    STATE.set(state);
    match state >> 52 {
        0..4 => thread::sleep(Duration::from_micros(state & 63)),
        4..64 => thread::yield_now(),
        64..512 => (0..state & 255).for_each(|_| spin_loop()),
        _ => {}
    }
}

fn chaos(counting: Counting) {
    let (engine, baseline) = {
        let builder = builder!().counting(counting).interleave(hesitate);
        warm(builder.build().unwrap())
    };
    let inner = Numbered::new(&engine, |number| constant("inner", number));
    let outer = Numbered::new(&engine, |_| caller("outer", "inner", 0));
    let handle = engine.function::<fn() -> i64>("outer").unwrap();
    let direct = engine.function::<fn() -> i64>("inner").unwrap();
    let met = |result: Result<i64, CallError>| match result {
        Ok(number) => Some(number),
        // Another thread is removing and reinstalling it.
        Err(CallError::Removed(name)) if &*name == "inner" => None,
        Err(error) => panic!("{error}"),
    };
    let check = |handle: &Handle<fn() -> i64>| {
        inner.check(|| {
            let number = met(call!(handle));
            number.unwrap_or_else(|| inner.done.load(Ordering::SeqCst))
        });
    };
    let lock = Mutex::new(());
    let one_at_a_time = || lock.lock().unwrap_or_else(PoisonError::into_inner);
    let through_import = || check(&handle);
    let directly = || check(&direct);
    let replace_outer = || {
        // While `inner` is removed, nobody can import it.
        let _guard = one_at_a_time();
        outer.replace();
    };
    let replace_inner = || {
        let _guard = one_at_a_time();
        inner.replace();
    };
    let remove_inner = || {
        let _guard = one_at_a_time();
        engine.remove("inner").unwrap();
        thread::yield_now();
        inner.replace();
    };
    let time = Duration::from_millis(2500);
    run_for(
        time,
        &[
            &through_import,
            &through_import,
            &directly,
            &replace_outer,
            &replace_inner,
            &remove_inner,
        ],
    );

    assert_eq!(inner.drops.count(), inner.count() - 1);
    assert_eq!(outer.drops.count(), outer.count() - 1);
    engine.remove("outer").unwrap();
    engine.remove("inner").unwrap();
    drop((handle, direct));
    assert_eq!(held(engine.stats()), held(baseline));
}

#[test]
fn threads_change_places_between_any_two_steps_of_plain_gates() {
    chaos(Counting::Plain);
}

#[test]
fn threads_change_places_between_any_two_steps_of_atomic_gates() {
    chaos(Counting::Atomic);
}

#[test]
fn threads_come_and_go() {
    let (engine, baseline) = warm(builder!().build().unwrap());
    let numbered = Numbered::new(&engine, |number| constant("f", number));
    let handle = engine.function::<fn() -> i64>("f").unwrap();
    let live_short = || {
        thread::scope(|scope| {
            for calls in [1, 10, 100] {
                let (numbered, handle) = (&numbered, &handle);
                scope.spawn(move || {
                    (0..calls).for_each(|_| numbered.check(|| call!(handle).unwrap()));
                });
            }
        });
    };
    run_for(Duration::from_secs(2), &[&live_short, &live_short, &|| numbered.replace()]);

    assert_eq!(numbered.drops.count(), numbered.count() - 1);
    engine.remove("f").unwrap();
    drop(handle);
    assert_eq!(held(engine.stats()), held(baseline));
}

/// The text of a unit of two functions. The first calls the second directly, which must be the
/// one of its own version, and then that of the next unit; it returns the lower number of the
/// latter and its own, or -1 if its unit was torn in two.
fn linked(unit: usize, next: usize, number: i64) -> String {
    format!(
        "function %first{unit}(i64) -> i64 system_v {{
            fn0 = colocated %second{unit}() -> i64 system_v
            fn1 = %first{next}(i64) -> i64 system_v
         block0(v0: i64):
            v1 = iconst.i64 {number}
            v2 = call fn0()
            v3 = icmp eq v1, v2
            v4 = iconst.i64 -1
            v5 = select v3, v1, v4
            brif v0, block1, block2
         block1:
            v6 = iadd v0, v4
            v7 = call fn1(v6)
            v8 = smin v5, v7
            return v8
         block2:
            return v5
         }}
         function %second{unit}() -> i64 system_v {{
         block0:
            v0 = iconst.i64 {number}
            return v0
         }}\n"
    )
}

#[test]
fn units_that_import_each_other_are_replaced_at_random() {
    const UNITS: usize = 12;
    let (engine, baseline) = warm(builder!().build().unwrap());
    let signature = <fn(i64) -> i64>::signature(engine.isa());
    for unit in 0..UNITS {
        engine.declare(&format!("first{unit}"), &signature).unwrap();
    }
    let units: Vec<_> = (0..UNITS)
        .map(|unit| {
            let next = (unit + 5) % UNITS;
            Numbered::new(&engine, move |number| linked(unit, next, number))
        })
        .collect();
    let handles: Vec<_> = (0..UNITS)
        .map(|unit| engine.function::<fn(i64) -> i64>(&format!("first{unit}")).unwrap())
        .collect();
    let turn = AtomicI64::new(0);
    let next = || turn.fetch_add(1, Ordering::Relaxed) as usize * 7 % UNITS;
    let call = || {
        let oldest = units.iter().map(|unit| unit.done.load(Ordering::SeqCst)).min().unwrap();
        let number = call!(handles[next()], 2 * UNITS as i64).unwrap();
        assert!(number >= oldest, "{number} is older than {oldest}");
    };
    let replace = || units[next()].replace();
    run_for(Duration::from_millis(2500), &[&call, &call, &call, &replace]);

    for (unit, numbered) in units.iter().enumerate() {
        // Both functions of a unit have a version, and what is attached goes with the last.
        assert_eq!(numbered.drops.count(), numbered.count() - 1);
        engine.remove(&format!("first{unit}")).unwrap();
        engine.remove(&format!("second{unit}")).unwrap();
    }
    drop(handles);
    assert_eq!(held(engine.stats()), held(baseline));
}

#[test]
fn another_thread_collects() {
    let engine = builder!().drop_policy(DropPolicy::Collector).build().unwrap();
    let (engine, _) = warm(engine);
    engine.collect();
    let baseline = engine.stats();
    let numbered = Numbered::new(&engine, |number| recursive("f", number));
    let handle = engine.function::<fn(i64) -> i64>("f").unwrap();
    let call = || numbered.check(|| call!(handle, 20).unwrap());
    let collect = || {
        engine.collect();
        thread::sleep(Duration::from_millis(1));
    };
    run_for(Duration::from_secs(2), &[&call, &call, &collect, &|| numbered.replace()]);

    engine.collect();
    assert_eq!(numbered.drops.count(), numbered.count() - 1);
    engine.remove("f").unwrap();
    drop(handle);
    assert_eq!(engine.collect(), 1);
    assert_eq!(held(engine.stats()), held(baseline));
}

#[test]
fn several_threads_install() {
    const NAMES: [&str; 3] = ["f", "g", "h"];
    let (engine, baseline) = warm(builder!().build().unwrap());
    let begun = AtomicI64::new(0);
    let drops = Drops::new();
    let replace = |name: &str| {
        let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
        let mut unit = unit(&engine, &constant(name, number));
        unit.attach(drops.value());
        engine.install(unit).unwrap();
    };
    NAMES.iter().for_each(|name| replace(name));
    let handles = NAMES.map(|name| engine.function::<fn() -> i64>(name).unwrap());
    let call = || {
        for handle in &handles {
            let number = call!(handle).unwrap();
            assert!((1..=begun.load(Ordering::SeqCst)).contains(&number));
        }
    };
    let same = || replace(NAMES[0]);
    let mixed = || NAMES.iter().for_each(|name| replace(name));
    run_for(Duration::from_secs(2), &[&call, &same, &same, &mixed, &mixed]);

    let installed = begun.load(Ordering::SeqCst) as usize;
    assert_eq!(drops.count(), installed - NAMES.len());
    for name in NAMES {
        let versions = engine.versions(name).unwrap();
        assert_eq!(versions.len(), 1, "{versions:?}");
        engine.remove(name).unwrap();
    }
    drop(handles);
    assert_eq!(drops.count(), installed);
    assert_eq!(held(engine.stats()), held(baseline));
}
