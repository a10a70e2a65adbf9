//! Many threads, and many moves.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use lastout_tests::moving::{install, install_counted};
use lastout_tests::support::{Callback, Drops, wait_until};
use lastout_tests::{call, engine};

use super::engines;

/// `(callback, i64) -> i64`: for so many rounds, calls back with what it has, which is to give that
/// back, and calls itself every other round, for half as many rounds; returns the sum of all rounds,
/// which does not depend on the version. `version` is in the code, and has no effect.
fn summing(version: i64) -> String {
    format!(
        "function %sum(i64, i64) -> i64 tail {{
            fn0 = %call_back(i64, i64) -> i64 system_v
            fn1 = %sum(i64, i64) -> i64 tail
         block0(v0: i64, v1: i64):
            v2 = iconst.i64 0
            jump block1(v1, v2)
         block1(v3: i64, v4: i64):
            v5 = iconst.i64 -1
            v6 = iconst.i64 1
            brif v3, block2, block6
         block2:
            v7 = call fn0(v0, v3)
            v8 = iadd v4, v7
            v9 = band v3, v6
            brif v9, block3, block4(v8)
         block3:
            v10 = ushr v3, v6
            v11 = call fn1(v0, v10)
            v12 = iadd v8, v11
            v13 = iconst.i64 {version}
            v14 = isub v12, v13
            v15 = iadd v14, v13
            jump block4(v15)
         block4(v16: i64):
            v17 = iadd v3, v5
            jump block1(v17, v16)
         block6:
            return v4
         }}"
    )
}

/// What that returns.
fn sum(rounds: i64) -> i64 {
    (1..=rounds).map(|round| round + if round % 2 == 1 { sum(round / 2) } else { 0 }).sum()
}

#[test]
fn threads_that_move_at_every_point_lose_nothing() {
    for (name, engine) in engines() {
        let drops = Drops::new();
        let stop = AtomicBool::new(false);
        let callback = Callback::new(|argument| argument);
        let address = callback.address();
        install_counted(&engine, &summing(0), &drops);
        let handle = engine.function::<fn(usize, i64) -> i64>("sum").unwrap();
        let (calls, rounds) = (AtomicI64::new(0), 40);
        let expected = sum(rounds);
        let mut replacements = 0;
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(call!(handle, address, rounds).unwrap(), expected);
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            while replacements < 50 || calls.load(Ordering::Relaxed) < 50 {
                replacements += 1;
                install_counted(&engine, &summing(replacements), &drops);
                if calls.load(Ordering::Relaxed) > 1_000_000 {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(drops.count() as i64, replacements, "{name}");
        assert!(engine.waiting("sum").unwrap().is_empty(), "{name}");
        assert_eq!(engine.versions("sum").unwrap()[0].frames(), 0, "{name}");
        engine.remove("sum").unwrap();
        assert_eq!(engine.stats().alive(), 0, "{name}");
    }
}

#[test]
fn a_frame_that_moves_again_and_again_takes_no_stack_and_no_memory() {
    const MOVES: i64 = 1000;

    let engine = engine!();
    let (version, depth) = (AtomicI64::new(-1), AtomicUsize::new(0));
    let callback = Callback::new(|number| {
        let here = 0_u8;
        depth.store((&raw const here).addr(), Ordering::Relaxed);
        version.store(number, Ordering::Release);
        i64::from(number == MOVES)
    });
    let text = |number: i64| {
        format!(
            "function %spin(i64) -> i64 tail {{
                fn0 = %call_back(i64, i64) -> i64 system_v
             block0(v0: i64):
                jump block1
             block1:
                v1 = iconst.i64 {number}
                v2 = call fn0(v0, v1)
                brif v2, block2, block1
             block2:
                return v1
             }}"
        )
    };
    let address = callback.address();
    install(&engine, &text(0));
    let handle = engine.function::<fn(usize) -> i64>("spin").unwrap();
    std::thread::scope(|scope| {
        let spinning = scope.spawn(|| call!(handle, address).unwrap());
        let mut before = None;
        for number in 0..=MOVES {
            if number > 0 {
                install(&engine, &text(number));
            }
            wait_until(|| version.load(Ordering::Acquire) == number);
            let stats = engine.stats();
            let now = (depth.load(Ordering::Relaxed), stats.code_bytes, stats.data_bytes);
            if number == 10 {
                before = Some(now);
            }
            // The last has returned, or is about to.
            if number > 10 && number < MOVES {
                assert_eq!(Some(now), before, "after {number} moves");
            }
        }
        assert_eq!(spinning.join().unwrap(), MOVES);
    });
    assert_eq!(engine.stats().alive(), 1);
}
