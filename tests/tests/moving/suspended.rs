//! Calls that never return, unless somebody lets them.

use std::time::Duration;

use lastout::VersionState;
use lastout_tests::call;
use lastout_tests::moving::install_counted;
use lastout_tests::support::{self, Door, Drops};

use crate::engines;

/// `(callback, i64) -> i64`: calls back, and adds a number and the argument to the result.
fn asking(plus: i64) -> String {
    format!(
        "function %ask(i64, i64) -> i64 tail {{
            fn0 = %call_back(i64, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            v2 = call fn0(v0, v1)
            v3 = iconst.i64 {plus}
            v4 = iadd v2, v3
            v5 = iadd v4, v1
            return v5
         }}\n"
    )
}

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

/// How a function goes that somebody waits in.
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
