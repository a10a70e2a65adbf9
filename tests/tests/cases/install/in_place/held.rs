//! What a replacement waits for, and which callers wait for it.

use lastout_tests::coroutine::Task;

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn a_caller_waits_until_the_last_one_inside_has_left() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        install_roomy(&engine, &calling_back("f", 10));
        let f: CallingBack = engine.function("f").unwrap();
        let door = Door::default();
        let (stays, returns) = (door.callback(), Callback::new(|x| x));
        thread::scope(|scope| {
            let inside = scope.spawn(|| call!(f, stays.address(), 1).unwrap());
            door.arrived();
            let replacing = begin(scope, &engine, &calling_back("f", 20), LIMIT);
            let waits: Vec<_> =
                (0..3).map(|_| scope.spawn(|| call!(f, returns.address(), 1).unwrap())).collect();
            wait_until(|| engine.versions("f").unwrap()[0].threads.len() == 4);
            some_time();
            assert!(!replacing.is_finished());
            assert!(waits.iter().all(|waits| !waits.is_finished()));
            door.open();
            assert_eq!(inside.join().unwrap(), 11);
            replacing.join().unwrap().unwrap();
            waits.into_iter().for_each(|waits| assert_eq!(waits.join().unwrap(), 21));
        });
        assert_eq!(engine.versions("f").unwrap()[0].frames(), 0);
        assert_eq!(engine.stats().alive(), 1);
    }
}

#[test]
fn when_the_time_is_over_an_error_says_who_is_inside_and_everything_is_as_before() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let drops = Drops::new();
        let first = install_roomy(&engine, &calling_back("f", 10));
        let f: CallingBack = engine.function("f").unwrap();
        let door = Door::default();
        let stays = door.callback();
        let deeper = Callback::new(|x| call!(f, stays.address(), x).unwrap());
        let returns = Callback::new(|x| x);
        let (installed, bytes) = (engine.stats().installed, engine.stats().code_bytes);
        thread::scope(|scope| {
            let role = || call!(f, deeper.address(), 1).unwrap();
            let inside = thread::Builder::new().name("in f twice".into());
            let inside = inside.spawn_scoped(scope, role).unwrap();
            door.arrived();
            let mut unit = unit(&engine, &calling_back("f", 20));
            unit.attach(drops.value());
            let before = engine.stats().heavy_fences;
            let begun = Instant::now();
            let replacing =
                scope.spawn(|| engine.replace_in_place(unit, Duration::from_millis(200)));
            wait_until(|| engine.stats().heavy_fences > before);
            let waits = scope.spawn(|| call!(f, returns.address(), 1).unwrap());
            let error = replacing.join().unwrap().unwrap_err();
            assert!(begun.elapsed() >= Duration::from_millis(200));
            let Error::StillInside { function, threads } = &error else { panic!("{error}") };
            assert_eq!((&**function, threads.len()), ("f", 1));
            assert_eq!((threads[0].name.as_deref(), threads[0].frames), (Some("in f twice"), 2));
            assert!(error.to_string().contains("in f twice"), "{error}");
            assert_eq!(drops.count(), 1);
            // It goes on in what was there, and so do others, in no time.
            assert_eq!(waits.join().unwrap(), 11);
            assert_eq!(call!(f, returns.address(), 1).unwrap(), 11);
            let versions = engine.versions("f").unwrap();
            assert_eq!((versions.len(), versions[0].frames()), (1, 2));
            assert_eq!(versions[0].version, first.versions()[0]);
            assert_eq!(engine.stats().installed, installed);
            // Once for the detour.
            assert_eq!(engine.stats().code_bytes.abs_diff(bytes) / 1024, 0);
            door.open();
            assert_eq!(inside.join().unwrap(), 21);
        });
        let second = replace(&engine, &calling_back("f", 20));
        assert_eq!(second.address("f"), first.address("f"));
        assert_eq!(call!(f, returns.address(), 1).unwrap(), 21);
        engine.remove("f").unwrap();
        assert_eq!(engine.stats().alive(), 0);
    }
}

#[test]
fn who_is_inside_may_call_the_function_again() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        install_roomy(&engine, &calling_back("f", 10));
        let f: CallingBack = engine.function("f").unwrap();
        let door = Door::default();
        let returns = Callback::new(|x| x);
        let recurs = Callback::new(|x| {
            door.pass();
            let again = Callback::new(|x| call!(f, returns.address(), x).unwrap());
            call!(f, again.address(), x).unwrap()
        });
        thread::scope(|scope| {
            let inside = scope.spawn(|| call!(f, recurs.address(), 1).unwrap());
            door.arrived();
            let replacing = begin(scope, &engine, &calling_back("f", 1000), LIMIT);
            door.open();
            assert_eq!(inside.join().unwrap(), 31);
            replacing.join().unwrap().unwrap();
        });
        assert_eq!(call!(f, returns.address(), 1).unwrap(), 1001);
    }
}

/// The one that calls it is inside itself, and waits in vain.
#[test]
fn a_version_cannot_be_replaced_from_inside() {
    let engine = engine!();
    install_roomy(&engine, &calling_back("f", 10));
    let f: CallingBack = engine.function("f").unwrap();
    let replaces = Callback::new(|x| {
        let error = try_replace(&engine, &calling_back("f", 20), Duration::from_millis(20));
        let Err(Error::StillInside { threads, .. }) = error else { panic!("{error:?}") };
        assert_eq!((threads.len(), threads[0].frames), (1, 1));
        x
    });
    assert_eq!(call!(f, replaces.address(), 1).unwrap(), 11);
    assert_eq!(call!(f, replaces.address(), 1).unwrap(), 11);
}

#[test]
fn a_panic_leaves_as_well_as_a_return() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        install_roomy(&engine, &calling_back("f", 10));
        let f: CallingBack = engine.function("f").unwrap();
        let door = Door::default();
        let panics = Callback::new(|_| {
            door.pass();
            std::panic::resume_unwind(Box::new("out"))
        });
        // One frame was there before callers were held, the other comes while they are.
        let recurs = Callback::new(|x| {
            door.pass();
            call!(f, panics.address(), x).unwrap()
        });
        let returns = Callback::new(|x| x);
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                catch_unwind(AssertUnwindSafe(|| call!(f, recurs.address(), 1))).unwrap_err()
            });
            door.arrived();
            let replacing = begin(scope, &engine, &calling_back("f", 20), LIMIT);
            let waits = scope.spawn(|| call!(f, returns.address(), 1).unwrap());
            door.open();
            door.arrived();
            some_time();
            assert!(!replacing.is_finished() && !waits.is_finished());
            door.open();
            assert_eq!(*inside.join().unwrap().downcast::<&str>().unwrap(), "out");
            replacing.join().unwrap().unwrap();
            assert_eq!(waits.join().unwrap(), 21);
        });
        assert_eq!(engine.versions("f").unwrap()[0].frames(), 0);
    }
}

#[test]
fn a_fiber_is_inside_while_it_is_suspended_there_and_waits_like_a_thread() {
    let engine = engine!();
    install_roomy(&engine, &calling_back("f", 10));
    let f: CallingBack = engine.function("f").unwrap();
    let mut task = {
        let f = f.clone();
        Task::new(move |pause| call!(f, pause.callback().address(), 1).unwrap())
    };
    assert!(task.resume().is_none());
    let error = try_replace(&engine, &calling_back("f", 20), Duration::from_millis(20));
    let Err(Error::StillInside { threads, .. }) = error else { panic!("{error:?}") };
    assert_eq!(threads.iter().map(|it| it.fiber).collect::<Vec<_>>(), [Some(task.fiber.id())]);

    // Another fiber of a thread that is not inside itself.
    let (door, mut other) = (Door::default(), {
        let f = f.clone();
        Task::new(move |_| call!(f, Callback::new(|x| x).address(), 1).unwrap())
    });
    thread::scope(|scope| {
        let replacing = begin(scope, &engine, &calling_back("f", 20), LIMIT);
        let waits = scope.spawn(|| {
            door.pass();
            other.resume()
        });
        door.arrived();
        door.open();
        some_time();
        assert!(!waits.is_finished() && !replacing.is_finished());
        assert_eq!(task.resume(), Some(11));
        replacing.join().unwrap().unwrap();
        assert_eq!(waits.join().unwrap(), Some(21));
    });
}

/// A body that tail-calls its own function is not inside any more when that is called: it waits,
/// and the replacement does not wait for it.
#[test]
fn a_tail_call_is_a_call_like_another() {
    let stepping = |by: i64| {
        format!(
            "function %f(i64, i64) -> i64 tail {{
                fn0 = %f(i64, i64) -> i64 tail
             block0(v0: i64, v1: i64):
                brif v0, block1, block2
             block1:
                v4 = iconst.i64 -1
                v5 = iconst.i64 {by}
                v2 = iadd v0, v4
                v3 = iadd v1, v5
                return_call fn0(v2, v3)
             block2:
                return v1
             }}"
        )
    };
    const STEPS: i64 = 20_000_000;
    for counting in [Counting::Plain, Counting::Atomic] {
        let engine = builder!().counting(counting).build().unwrap();
        install_roomy(&engine, &stepping(1));
        let f = engine.function::<fn(i64, i64) -> i64>("f").unwrap();
        thread::scope(|scope| {
            let chain = scope.spawn(|| call!(f, STEPS, 0).unwrap());
            wait_until(|| engine.versions("f").unwrap()[0].frames() > 0);
            let mut replaced = 0;
            for by in 2..10 {
                replace(&engine, &stepping(by));
                replaced += u32::from(!chain.is_finished());
            }
            assert!(replaced > 0, "the chain is over too soon to tell");
            let sum = chain.join().unwrap();
            assert!(sum > STEPS && sum < 9 * STEPS, "{sum}");
        });
        assert_eq!(engine.versions("f").unwrap()[0].frames(), 0);
        assert_eq!(call!(f, 3, 0).unwrap(), 27);
    }
}
