//! Calls that never return, unless another thread lets them.

use std::time::Duration;

use lastout::{DropPolicy, VersionState};
use lastout_tests::moving::{asking, install_counted};
use lastout_tests::support::{self, Door, Drops};
use lastout_tests::{builder, call, engine};

use super::engines;

#[test]
fn what_waits_for_a_call_keeps_no_version_and_goes_on_in_the_current_one() {
    for (name, engine) in engines() {
        let drops = Drops::new();
        let door = Door::default();
        let callback = door.callback();
        let address = callback.address();
        install_counted(&engine, &asking(100), &drops);
        let handle = engine.function::<fn(usize, i64) -> i64>("ask").unwrap();
        std::thread::scope(|scope| {
            let asking_thread = scope.spawn(|| call!(handle, address, 7).unwrap());
            door.arrived();
            let second = install_counted(&engine, &asking(200), &drops);
            assert_eq!(drops.count(), 1, "{name}");
            assert_eq!(engine.waiting("ask").unwrap().len(), 1);
            assert_eq!(engine.versions("ask").unwrap().len(), 1);
            install_counted(&engine, &asking(300), &drops);
            assert_eq!(drops.count(), 2, "{name}");
            assert!(second.version("ask").unwrap().wait_freed(Duration::ZERO));
            door.open();
            assert_eq!(asking_thread.join().unwrap(), 7 + 300 + 7, "{name}");
        });
        engine.remove("ask").unwrap();
        assert_eq!(drops.count(), 3, "{name}");
        assert_eq!(engine.stats().alive(), 0, "{name}");
    }
}

#[test]
fn a_version_stays_whose_point_is_gone_until_the_call_has_returned_into_it() {
    for (name, engine) in engines() {
        let drops = Drops::new();
        let (door, late) = (Door::default(), Door::default());
        let (callback, late_callback) = (door.callback(), late.callback());
        let [address, late_address] = [callback.address(), late_callback.address()];
        install_counted(&engine, &asking(100), &drops);
        let handle = engine.function::<fn(usize, i64) -> i64>("ask").unwrap();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| call!(handle, address, 7).unwrap());
            door.arrived();
            // Without points: the frame is to come back to the version that it is from.
            let plain = support::install_counted(&engine, &asking(200), &drops);
            assert_eq!(drops.count(), 0, "{name}");
            let second = scope.spawn(|| call!(handle, late_address, 7).unwrap());
            late.arrived();
            assert_eq!(engine.waiting("ask").unwrap().len(), 1, "{name}");
            door.open();
            assert_eq!(first.join().unwrap(), 7 + 100 + 7, "{name}");
            assert_eq!(drops.count(), 1, "{name}");
            // With points again: this one does not move, as it is in no parked call.
            install_counted(&engine, &asking(300), &drops);
            assert!(!plain.version("ask").unwrap().wait_freed(Duration::ZERO));
            late.open();
            assert_eq!(second.join().unwrap(), 7 + 200 + 7, "{name}");
        });
        assert_eq!(drops.count(), 2, "{name}");
        engine.remove("ask").unwrap();
        assert_eq!(drops.count(), 3, "{name}");
        assert_eq!(engine.stats().alive(), 0, "{name}");
    }
}

#[test]
fn a_point_that_comes_back_is_gone_on_at_in_the_version_that_has_it() {
    for (name, engine) in engines() {
        let drops = Drops::new();
        let (door, late) = (Door::default(), Door::default());
        let (callback, late_callback) = (door.callback(), late.callback());
        let [address, late_address] = [callback.address(), late_callback.address()];
        install_counted(&engine, &asking(100), &drops);
        let handle = engine.function::<fn(usize, i64) -> i64>("ask").unwrap();
        std::thread::scope(|scope| {
            let asking_thread = scope.spawn(|| call!(handle, address, 7).unwrap());
            door.arrived();
            support::install_counted(&engine, &asking(200), &drops);
            install_counted(&engine, &asking(300), &drops);
            // A thread that comes now is in the new parked call, whose lease is that of the old
            // one.
            let other = scope.spawn(|| call!(handle, late_address, 8).unwrap());
            late.arrived();
            assert_eq!(drops.count(), 2, "{name}");
            assert_eq!(engine.waiting("ask").unwrap().len(), 2, "{name}");
            // And gone once more, with both of them waiting.
            support::install_counted(&engine, &asking(400), &drops);
            assert_eq!(drops.count(), 2, "{name}");
            door.open();
            assert_eq!(asking_thread.join().unwrap(), 7 + 300 + 7, "{name}");
            assert_eq!(drops.count(), 2, "{name}");
            late.open();
            assert_eq!(other.join().unwrap(), 8 + 300 + 8, "{name}");
        });
        assert_eq!(drops.count(), 3, "{name}");
        engine.remove("ask").unwrap();
        assert_eq!(drops.count(), 4, "{name}");
        assert_eq!(engine.stats().alive(), 0, "{name}");
    }
}

/// How a function goes that a frame is parked in.
#[derive(Clone, Copy, Debug)]
enum Going {
    Removed,
    WithItsEngine,
    /// Its next version has no points.
    WithoutPoints,
}

#[test]
fn what_waits_for_a_call_has_a_version_to_go_on_in_until_it_has_left() {
    for going in [Going::Removed, Going::WithItsEngine, Going::WithoutPoints] {
        for (name, engine) in engines() {
            let (drops, later) = (Drops::new(), Drops::new());
            let door = Door::default();
            let callback = door.callback();
            let address = callback.address();
            let installed = install_counted(&engine, &asking(100), &drops);
            let version = installed.version("ask").unwrap().clone();
            let handle = engine.function::<fn(usize, i64) -> i64>("ask").unwrap();
            std::thread::scope(|scope| {
                let asking_thread = scope.spawn(|| call!(handle, address, 7).unwrap());
                door.arrived();
                let mut engine = Some(engine);
                match going {
                    Going::Removed => engine.as_ref().unwrap().remove("ask").unwrap(),
                    Going::WithItsEngine => engine = None,
                    Going::WithoutPoints => {
                        let engine = engine.as_ref().unwrap();
                        support::install_counted(engine, &asking(200), &later);
                        let versions = engine.versions("ask").unwrap();
                        let frames: Vec<_> = versions.iter().map(|info| info.frames()).collect();
                        assert_eq!(frames, [0, 0], "{name}");
                        assert_eq!(engine.waiting("ask").unwrap().len(), 1);
                    }
                }
                assert_eq!(version.state(), VersionState::Retired, "{going:?}, {name}");
                assert_eq!(drops.count(), 0, "{going:?}, {name}");
                door.open();
                assert_eq!(asking_thread.join().unwrap(), 7 + 100 + 7, "{going:?}, {name}");
                assert_eq!(version.state(), VersionState::Freed, "{going:?}, {name}");
                assert_eq!(drops.count(), 1, "{going:?}, {name}");
                if let (Some(engine), Going::WithoutPoints) = (&engine, going) {
                    engine.remove("ask").unwrap();
                    assert_eq!(later.count(), 1, "{name}");
                }
                if let Some(engine) = engine {
                    assert_eq!(engine.stats().alive(), 0, "{going:?}, {name}");
                }
            });
        }
    }
}

#[test]
fn a_collected_version_goes_when_it_is_collected() {
    let engine = builder!().drop_policy(DropPolicy::Collector).build().unwrap();
    let drops = Drops::new();
    let door = Door::default();
    let callback = door.callback();
    let address = callback.address();
    install_counted(&engine, &asking(100), &drops);
    let handle = engine.function::<fn(usize, i64) -> i64>("ask").unwrap();
    std::thread::scope(|scope| {
        let asking_thread = scope.spawn(|| call!(handle, address, 7).unwrap());
        door.arrived();
        install_counted(&engine, &asking(200), &drops);
        assert_eq!(drops.count(), 0);
        engine.collect();
        assert_eq!(drops.count(), 1);
        support::install(&engine, &asking(300));
        door.open();
        assert_eq!(asking_thread.join().unwrap(), 7 + 200 + 7);
    });
    // The parked call first, which is no version, and then what it has kept.
    assert_eq!(engine.collect(), 1);
    assert_eq!(drops.count(), 2);
    assert_eq!(engine.stats().alive(), 1);
}

#[test]
fn recursion_waits_at_every_depth() {
    // `(callback, depth) -> i64`: calls itself down to depth 0, where it calls back.
    let text = |plus: i64| {
        format!(
            "function %deep(i64, i64) -> i64 tail {{
                fn0 = %call_back(i64, i64) -> i64 system_v
                fn1 = %deep(i64, i64) -> i64 tail
             block0(v0: i64, v1: i64):
                v2 = iconst.i64 -1
                v3 = iadd v1, v2
                brif v1, block1, block2
             block1:
                v4 = call fn1(v0, v3)
                v5 = iconst.i64 {plus}
                v6 = iadd v4, v5
                return v6
             block2:
                v7 = call fn0(v0, v1)
                return v7
             }}"
        )
    };
    for (name, engine) in engines() {
        let drops = Drops::new();
        let door = Door::default();
        let callback = door.callback();
        let address = callback.address();
        install_counted(&engine, &text(1), &drops);
        let handle = engine.function::<fn(usize, i64) -> i64>("deep").unwrap();
        std::thread::scope(|scope| {
            let deep = scope.spawn(|| call!(handle, address, 10).unwrap());
            door.arrived();
            let waiting = engine.waiting("deep").unwrap();
            assert_eq!(waiting.iter().map(|thread| thread.frames).sum::<u32>(), 11, "{name}");
            install_counted(&engine, &text(1000), &drops);
            assert_eq!(drops.count(), 1, "{name}");
            door.open();
            assert_eq!(deep.join().unwrap(), 10 * 1000, "{name}");
        });
        engine.remove("deep").unwrap();
        assert_eq!(drops.count(), 2, "{name}");
    }
}

#[test]
fn two_points_of_one_unit_are_kept_apart() {
    let engine = engine!();
    let text = |plus: i64| {
        format!(
            "function %twice(i64, i64) -> i64 tail {{
                fn0 = %call_back(i64, i64) -> i64 system_v
             block0(v0: i64, v1: i64):
                v2 = call fn0(v0, v1)
                v3 = iconst.i64 {plus}
                v4 = iadd v2, v3
                v5 = call fn0(v0, v4)
                v6 = iadd v5, v3
                return v6
             }}"
        )
    };
    let door = Door::default();
    let callback = door.callback();
    let address = callback.address();
    let drops = Drops::new();
    install_counted(&engine, &text(1), &drops);
    let handle = engine.function::<fn(usize, i64) -> i64>("twice").unwrap();
    std::thread::scope(|scope| {
        let twice = scope.spawn(|| call!(handle, address, 0).unwrap());
        door.arrived();
        install_counted(&engine, &text(10), &drops);
        door.open();
        door.arrived();
        install_counted(&engine, &text(100), &drops);
        assert_eq!(drops.count(), 2);
        door.open();
        assert_eq!(twice.join().unwrap(), 110);
    });
}
