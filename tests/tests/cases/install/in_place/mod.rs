//! Versions that are replaced at the same address, while callers wait.

#![cfg(target_arch = "x86_64")]

mod arguments;
mod call_sites;
mod held;
mod locals;
mod meanwhile;
mod parallel;
mod refused;

use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use lastout::{Counting, DropPolicy, Engine, Error, Installed, VersionState};
use lastout_tests::support::{
    COUNTINGS, Callback, CallingBack, Door, Drops, Nullary, caller, calling_back, constant,
    install, unit, wait_until,
};
use lastout_tests::{builder, call, engine};

/// Longer than any test takes in which nothing is wrong.
const LIMIT: Duration = Duration::from_secs(60);

/// Installs the functions of a text with room to grow.
fn install_roomy(engine: &Engine, text: &str) -> Installed {
    let mut unit = unit(engine, text);
    unit.reserve(2048, 256);
    engine.install(unit).unwrap()
}

fn try_replace(engine: &Engine, text: &str, limit: Duration) -> Result<Installed, Error> {
    engine.replace_in_place(unit(engine, text), limit)
}

fn replace(engine: &Engine, text: &str) -> Installed {
    try_replace(engine, text, LIMIT).unwrap()
}

/// Begins to replace a function, on another thread, and comes back when its callers are held. To
/// be called when a thread is inside.
fn begin<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    engine: &'scope Engine,
    text: &str,
    limit: Duration,
) -> ScopedJoinHandle<'scope, Result<Installed, Error>> {
    let unit = unit(engine, text);
    let before = engine.stats().heavy_fences;
    let replacing = scope.spawn(move || engine.replace_in_place(unit, limit));
    // It is executed when callers are held.
    wait_until(|| engine.stats().heavy_fences > before);
    replacing
}

/// Long enough for a thread that does not wait to have come to its end.
fn some_time() {
    thread::sleep(Duration::from_millis(50));
}

#[test]
fn the_next_version_is_at_the_same_address() {
    for (counting, strict) in COUNTINGS.into_iter().zip([true, false]) {
        let engine = builder!().counting(counting).strict(strict).build().unwrap();
        let first = install_roomy(&engine, &constant("f", 1));
        install(&engine, &caller("g", "f", 10));
        let [f, g]: [Nullary; 2] = ["f", "g"].map(|name| engine.function(name).unwrap());
        assert_eq!((call!(f).unwrap(), call!(g).unwrap()), (1, 11));
        let address = first.address("f").unwrap();
        assert_eq!(first.address("g"), None);

        let second = replace(&engine, &constant("f", 2));
        assert_eq!(second.address("f"), Some(address));
        assert_eq!((call!(f).unwrap(), call!(g).unwrap()), (2, 12));
        let [first, second] = [first, second].map(|it| it.versions()[0].clone());
        assert_eq!((first.state(), second.state()), (VersionState::Freed, VersionState::Live));
        assert!(first.number() < second.number());
        assert_eq!(engine.versions("f").unwrap()[0].version, second);
        let stats = engine.stats();
        assert_eq!((stats.installed, stats.freed, stats.heavy_fences), (3, 1, 2));
        assert_eq!(engine.locate(address).unwrap().to_string(), "`f`#3+0x0");

        // SAFETY: a function of this type is there, which nobody replaces meanwhile.
        let direct: extern "C" fn() -> i64 =
            unsafe { std::mem::transmute(std::ptr::with_exposed_provenance::<u8>(address)) };
        assert_eq!(direct(), 2);

        // Elsewhere, and from there on in its place again.
        let third = install(&engine, &constant("f", 3));
        assert_ne!(third.address("f"), Some(address));
        let fourth = replace(&engine, &constant("f", 4));
        assert_eq!(fourth.address("f"), third.address("f"));
        assert_eq!((call!(f).unwrap(), call!(g).unwrap()), (4, 14));
        engine.remove("f").unwrap();
        engine.remove("g").unwrap();
        assert_eq!(engine.stats().alive(), 0);
    }
}

#[test]
fn what_is_attached_is_dropped_once_and_when_it_should_be() {
    for policy in [DropPolicy::Leaver, DropPolicy::Collector] {
        let engine = builder!().drop_policy(policy).build().unwrap();
        let drops: Vec<_> = (0..4).map(|_| Drops::new()).collect();
        let counted = |number: usize| {
            let mut unit = unit(&engine, &constant("f", number as i64));
            unit.attach(drops[number].value());
            unit
        };
        let dropped = || drops.iter().map(Drops::count).collect::<Vec<_>>();
        engine.install(counted(0)).unwrap();
        let collected = |number| match policy {
            DropPolicy::Leaver => 0,
            DropPolicy::Collector => number,
        };
        engine.replace_in_place(counted(1), LIMIT).unwrap();
        assert_eq!(engine.collect(), collected(1));
        assert_eq!(dropped(), [1, 0, 0, 0]);
        let mut large = counted(2);
        large.reserve(1 << 16, 0);
        assert!(matches!(
            engine.replace_in_place(large, LIMIT),
            Err(Error::DoesNotFit { what: "code", needed: 65536, .. })
        ));
        assert_eq!(dropped(), [1, 0, 1, 0]);
        engine.replace_in_place(counted(3), LIMIT).unwrap();
        engine.remove("f").unwrap();
        assert_eq!(engine.collect(), collected(2));
        assert_eq!(dropped(), [1, 1, 1, 1]);
        assert_eq!((engine.stats().alive(), engine.stats().data_bytes), (0, 0));
    }
}

/// The version that was written over waits for the collector when its code goes.
#[test]
fn a_collected_version_does_not_take_the_place_with_it() {
    let engine = builder!().drop_policy(DropPolicy::Collector).build().unwrap();
    let first = install(&engine, &constant("f", 1));
    let address = first.address("f").unwrap();
    let second = replace(&engine, &constant("f", 2));
    assert_eq!(first.versions()[0].state(), VersionState::Drained);
    assert_eq!(engine.collect(), 1);
    assert_eq!(first.versions()[0].state(), VersionState::Freed);
    let f: Nullary = engine.function("f").unwrap();
    assert_eq!(call!(f).unwrap(), 2);
    assert!(engine.locate(address).is_some());
    engine.remove("f").unwrap();
    assert_eq!(engine.collect(), 1);
    assert_eq!(second.versions()[0].state(), VersionState::Freed);
    assert!(engine.locate(address).is_none());
}

#[test]
fn nothing_grows_with_ten_thousand_replacements() {
    const REPLACEMENTS: i64 = 10_000;
    let engine = builder!().quarantine(0).build().unwrap();
    let drops = Drops::new();
    let text = |number| caller("f", "g", number);
    install(&engine, &constant("g", 1));
    install(&engine, &text(0));
    let f: Nullary = engine.function("f").unwrap();
    let held = || {
        let stats = engine.stats();
        let calls = stats.patched_calls + stats.patched_calls_by_jump;
        (stats.code_bytes, stats.data_bytes, stats.committed_bytes, stats.alive(), calls)
    };
    // There is a lane for the next version.
    install(&engine, &constant("g", 1));
    replace(&engine, &text(1));
    let before = held();
    for number in 2..=REPLACEMENTS {
        let mut unit = unit(&engine, &text(number));
        unit.attach(drops.value());
        engine.replace_in_place(unit, LIMIT).unwrap();
        if number % 100 == 0 {
            assert_eq!(call!(f).unwrap(), number + 1);
            assert_eq!(held(), before);
            // What it calls goes elsewhere, and the calls in it with it.
            install(&engine, &constant("g", 2));
            assert_eq!(call!(f).unwrap(), number + 2);
            install(&engine, &constant("g", 1));
            assert_eq!(call!(f).unwrap(), number + 1);
        }
    }
    assert_eq!(drops.count() as i64, REPLACEMENTS - 2);
    drop(engine);
    drop(f);
    assert_eq!(drops.count() as i64, REPLACEMENTS - 1);
}
