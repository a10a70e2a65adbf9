//! Versions whose heavy fence is refused wait, impossible to enter, for the next fence.

use lastout_tests::call;
use lastout_tests::clif::define;
use lastout_tests::support::{Drops, constant};

use crate::host::process;
use crate::host::sys::{Call, faults};
use crate::{Counting, Engine, Handle, Installed, VersionState};

fn engine() -> Engine {
    Engine::builder().counting(Counting::Plain).build().unwrap()
}

fn install(engine: &Engine, name: &str, value: i64, drops: &Drops) -> Installed {
    let mut unit = engine.unit();
    define(&mut unit, &constant(name, value)).unwrap();
    unit.attach(drops.value());
    engine.install(unit).unwrap()
}

/// Runs `change` with its fence refused.
#[track_caller]
fn without_fence<T>(change: impl FnOnce() -> T) -> T {
    faults::refuse(Call::HeavyFence, 0);
    let result = change();
    assert!(!faults::clear(), "there was no fence");
    result
}

#[test]
fn versions_wait_for_the_next_fence_whatever_it_is_for() {
    let _others = process::among_others();
    let (drops, others) = (Drops::new(), Drops::new());
    let nexts: [fn(&Engine, &Drops); 5] = [
        |engine, others| drop(install(engine, "f", 3, others)),
        |engine, others| drop(install(engine, "other", 2, others)),
        |engine, _| engine.remove("f").unwrap(),
        |engine, _| engine.remove("other").unwrap(),
        |engine, _| assert_eq!(engine.collect(), 0),
    ];
    for (round, next) in nexts.iter().enumerate() {
        let engine = engine();
        install(&engine, "other", 1, &others);
        let first = install(&engine, "f", 1, &drops);
        let handle: Handle<fn() -> i64> = engine.function("f").unwrap();
        assert_eq!(call!(handle).unwrap(), 1);
        without_fence(|| install(&engine, "f", 2, &others));

        assert_eq!(call!(handle).unwrap(), 2);
        assert_eq!(drops.count(), round);
        assert_eq!(first.versions()[0].state(), VersionState::Retired);
        assert_eq!(engine.versions("f").unwrap().len(), 2);
        assert_eq!(engine.stats().alive(), 3);

        next(&engine, &others);
        assert_eq!(drops.count(), round + 1, "the fence of {round} was not for all");
        assert_eq!(first.versions()[0].state(), VersionState::Freed);
        let alive = engine.stats().functions as u64;
        assert_eq!(engine.stats().alive(), alive);
    }
}

/// An install of nothing needs no fence of its own, but has one for the versions that wait.
#[test]
fn versions_wait_for_an_install_that_replaces_nothing() {
    let _others = process::among_others();
    let drops = Drops::new();
    let engine = engine();
    install(&engine, "f", 1, &drops);
    without_fence(|| engine.remove("f").unwrap());
    assert_eq!(drops.count(), 0);
    let installed = engine.install(engine.unit()).unwrap();
    assert!(installed.versions().is_empty());
    assert_eq!(drops.count(), 1);
}

#[test]
fn any_number_of_versions_wait() {
    let _others = process::among_others();
    let drops = Drops::new();
    let engine = engine();
    install(&engine, "f", 0, &drops);
    let handle: Handle<fn() -> i64> = engine.function("f").unwrap();
    for value in 1..10 {
        without_fence(|| install(&engine, "f", value, &drops));
        assert_eq!(call!(handle).unwrap(), value);
    }
    without_fence(|| engine.remove("f").unwrap());
    assert!(call!(handle).is_err());
    assert_eq!(drops.count(), 0);
    without_fence(|| engine.collect());
    assert_eq!(drops.count(), 0);
    install(&engine, "f", 10, &drops);
    assert_eq!(call!(handle).unwrap(), 10);
    assert_eq!(drops.count(), 10);
    assert_eq!(engine.stats().alive(), 1);
}

/// After the end of the engine no operation comes that would have a fence.
#[test]
fn the_last_fence_is_tried_again() {
    let _others = process::among_others();
    let drops = Drops::new();
    let engine = engine();
    let installed = install(&engine, "f", 1, &drops);
    without_fence(|| drop(engine));
    assert_eq!(drops.count(), 1);
    assert_eq!(installed.versions()[0].state(), VersionState::Freed);
}
