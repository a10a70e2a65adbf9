//! Frames that have moved, or wait, are left by panics and traps too.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use lastout::{CallError, TrapCause};
use lastout_tests::moving::install_counted;
use lastout_tests::registers::keeps;
use lastout_tests::support::{Callback, Door, Drops};
use lastout_tests::{builder, call};

use super::engines;

/// `(callback, i64) -> i64`: calls back, and again, until that returns 0; then it traps.
fn asking(plus: i64) -> String {
    format!(
        "function %ask(i64, i64) -> i64 tail {{
            fn0 = %call_back(i64, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            jump block1(v1)
         block1(v2: i64):
            v3 = call fn0(v0, v2)
            v4 = iconst.i64 {plus}
            v5 = iadd v2, v4
            brif v3, block1(v5), block2
         block2:
            trap user7
         }}"
    )
}

#[test]
fn a_panic_leaves_a_parked_call_and_what_is_around_it() {
    for (name, engine) in engines() {
        let drops = Drops::new();
        let door = Door::default();
        // The first time it passes the door, then it panics with what it is given.
        let callback = Callback::new(|argument| {
            if argument > 0 {
                resume_unwind(Box::new(argument));
            }
            door.pass();
            1
        });
        let address = callback.address();
        install_counted(&engine, &asking(1), &drops);
        let handle = engine.function::<fn(usize, i64) -> i64>("ask").unwrap();
        std::thread::scope(|scope| {
            let asking_thread = scope.spawn(|| {
                keeps(|| {
                    let caught = catch_unwind(AssertUnwindSafe(|| call!(handle, address, 0)));
                    *caught.unwrap_err().downcast::<i64>().unwrap()
                })
            });
            door.arrived();
            install_counted(&engine, &asking(500), &drops);
            assert_eq!(drops.count(), 1, "{name}");
            door.open();
            assert_eq!(asking_thread.join().unwrap(), 500, "{name}");
        });
        assert!(engine.waiting("ask").unwrap().is_empty(), "{name}");
        assert_eq!(engine.versions("ask").unwrap()[0].frames(), 0, "{name}");
        install_counted(&engine, &asking(1), &drops);
        assert_eq!(drops.count(), 2, "{name}");
    }
}

#[test]
fn a_trap_leaves_a_frame_that_has_moved() {
    let engine = builder!().traps(true).build().unwrap();
    let drops = Drops::new();
    let door = Door::default();
    let callback = Callback::new(|argument| {
        if argument > 0 {
            return 0;
        }
        door.pass();
        1
    });
    let address = callback.address();
    install_counted(&engine, &asking(1), &drops);
    let handle = engine.function::<fn(usize, i64) -> i64>("ask").unwrap();
    std::thread::scope(|scope| {
        let asking_thread = scope.spawn(|| call!(handle, address, 0));
        door.arrived();
        install_counted(&engine, &asking(500), &drops);
        door.open();
        match asking_thread.join().unwrap() {
            Err(CallError::Trap(trap)) => assert!(matches!(trap.cause, TrapCause::Code(_))),
            other => panic!("{other:?}"),
        }
    });
    assert!(engine.waiting("ask").unwrap().is_empty());
    install_counted(&engine, &asking(1), &drops);
    assert_eq!(drops.count(), 2);
}
