//! What an engine is for: functions are called, replaced and removed while threads run them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lastout::{CallError, Dispatch, Handle, VersionState};
use lastout_tests::support::{
    COUNTINGS, Drops, OnDrop, caller, constant, install, install_counted,
};
use lastout_tests::{builder, call, dispatch, engine};

#[test]
fn a_function_is_called_replaced_and_removed() {
    let engine = engine!();
    let step = |by: i64| {
        format!(
            "function %step(i64) -> i64 system_v {{
             block0(v0: i64):
                v1 = iconst.i64 {by}
                v2 = iadd v0, v1
                return v2
             }}"
        )
    };
    let first = install(&engine, &step(1));
    let handle = engine.function::<fn(i64) -> i64>("step").unwrap();
    assert_eq!(call!(handle, 41).unwrap(), 42);
    install(&engine, &step(2));
    assert_eq!(call!(handle, 41).unwrap(), 43);
    assert_eq!(first.versions()[0].state(), VersionState::Freed);
    engine.remove("step").unwrap();
    assert!(matches!(call!(handle, 41), Err(CallError::Removed(name)) if &*name == "step"));
    assert_eq!(engine.stats().alive(), 0);
}

/// By how many versions a caller may go back: by none, unless calls are patched. Then a thread that
/// was late may meet a version before it is current, and the current one once more in the next
/// call.
const BACK: i64 = match dispatch!() {
    Dispatch::Slot => 0,
    Dispatch::PatchedSites => 1,
};

#[test]
fn callers_never_go_back_to_an_older_version() {
    const VERSIONS: i64 = 300;
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let drops = Drops::new();
        install_counted(&engine, &constant("inner", 0), &drops);
        install(&engine, &caller("outer", "inner", 0));
        let outer: Handle<fn() -> i64> = engine.function("outer").unwrap();
        let inner: Handle<fn() -> i64> = engine.function("inner").unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            // Also if this thread fails.
            let _stop = OnDrop(|| done.store(true, Ordering::Relaxed));
            for function in [&outer, &inner] {
                scope.spawn(|| {
                    let mut last = 0;
                    while !done.load(Ordering::Relaxed) {
                        let version = call!(function).unwrap();
                        assert!(version >= last - BACK, "{version} after {last}");
                        last = version;
                    }
                });
            }
            for version in 1..VERSIONS {
                install_counted(&engine, &constant("inner", version), &drops);
                // What this thread has installed is what it calls.
                assert_eq!(call!(outer).unwrap(), version);
            }
        });
        assert_eq!(drops.count() as i64, VERSIONS - 1);
        assert_eq!(engine.stats().alive(), 2);
    }
}

#[test]
fn several_threads_can_install_at_the_same_time() {
    let engine = engine!();
    let drops = Drops::new();
    thread::scope(|scope| {
        for worker in 0..4 {
            let (engine, drops) = (&engine, &drops);
            scope.spawn(move || {
                let own = format!("own{worker}");
                for number in 0..50 {
                    let text = constant(&own, number) + &constant("common", worker);
                    install_counted(engine, &text, drops);
                    let own: Handle<fn() -> i64> = engine.function(&own).unwrap();
                    assert_eq!(call!(own).unwrap(), number);
                }
            });
        }
    });
    let stats = engine.stats();
    assert_eq!((stats.functions, stats.installed, stats.alive()), (5, 400, 5));
    let common: Handle<fn() -> i64> = engine.function("common").unwrap();
    assert!((0..4).contains(&call!(common).unwrap()));
    drop(engine);
    assert_eq!(drops.count(), 200);
}

#[test]
fn an_install_takes_one_heavy_fence_however_many_functions_it_replaces() {
    let engine = engine!();
    let text: String = (0..10).map(|number| constant(&format!("f{number}"), number)).collect();
    let fences = || engine.stats().heavy_fences;
    install(&engine, &text);
    assert_eq!(fences(), 0, "there was nothing to replace");
    install(&engine, &text);
    assert_eq!(fences(), 1);
    assert_eq!((engine.stats().installed, engine.stats().freed), (20, 10));
    engine.remove("f0").unwrap();
    assert_eq!(fences(), 2);
}
