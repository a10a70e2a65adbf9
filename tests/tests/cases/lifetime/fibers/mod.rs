//! Coroutines that are suspended inside of versions, and go on elsewhere.

mod checked;
mod errors;
mod many;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use lastout::{CallError, Engine, Fiber, ThreadFrames, VersionState};
use lastout_tests::coroutine::{Pause, Task};
use lastout_tests::support::{
    COUNTINGS, Callback, CallingBack, Drops, OnDrop, calling_back, calls, install, install_counted,
    unit,
};
use lastout_tests::{builder, call, engine};

/// A function that passes its arguments on to another one.
fn passing_on(name: &str, to: &str) -> String {
    format!(
        "function %{name}(i64, i64) -> i64 system_v {{
            fn0 = %{to}(i64, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            v2 = call fn0(v0, v1)
            return v2
         }}\n"
    )
}

/// Which threads and fibers are inside of the versions of a function, oldest first.
fn inside(engine: &Engine, name: &str) -> Vec<Vec<ThreadFrames>> {
    engine.versions(name).unwrap().into_iter().map(|info| info.threads).collect()
}

fn suspended(fiber: &Fiber, frames: u32) -> ThreadFrames {
    ThreadFrames { thread_id: 0, name: None, fiber: Some(fiber.id()), frames }
}

/// A coroutine that calls a function, and pauses inside.
fn calling(f: &CallingBack, argument: i64) -> Task<Result<i64, CallError>> {
    let f = f.clone();
    Task::new(move |pause| call!(f, pause.callback().address(), argument))
}

#[test]
fn the_thread_on_which_a_fiber_leaves_a_version_frees_it() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let freed_by = Arc::new(Mutex::new(None::<ThreadId>));
        let mut first = unit(&engine, &calling_back("f", 10));
        let note = Arc::clone(&freed_by);
        first.attach(OnDrop(move || *note.lock().unwrap() = Some(thread::current().id())));
        let first = engine.install(first).unwrap();
        let passing = install(&engine, &passing_on("g", "f"));
        let [f, g] = ["f", "g"].map(|name| calls(&engine, name));

        let mut task = calling(&g, 1);
        assert_eq!(task.resume(), None);
        assert_eq!(inside(&engine, "f"), [[suspended(&task.fiber, 1)]]);
        assert_eq!(inside(&engine, "g"), [[suspended(&task.fiber, 1)]]);
        install(&engine, &calling_back("f", 20));
        install(&engine, &passing_on("g", "f"));
        // What the thread itself does there meanwhile is another matter.
        let double = Callback::new(|x| 2 * x);
        assert_eq!(call!(g, double.address(), 4).unwrap(), 28);
        assert_eq!(call!(f, double.address(), 4).unwrap(), 28);
        assert_eq!(inside(&engine, "f"), [vec![suspended(&task.fiber, 1)], vec![]]);
        assert_eq!(*freed_by.lock().unwrap(), None);

        let (task, by) = thread::scope(|scope| {
            let other = scope.spawn(|| {
                assert_eq!(call!(g, double.address(), 5).unwrap(), 30);
                assert_eq!(task.resume(), Some(Ok(11)));
                assert_eq!(first.versions()[0].state(), VersionState::Freed);
                assert_eq!(passing.versions()[0].state(), VersionState::Freed);
                assert_eq!(call!(g, double.address(), 6).unwrap(), 32);
                (task, thread::current().id())
            });
            other.join().unwrap()
        });
        assert_eq!(*freed_by.lock().unwrap(), Some(by));
        assert_eq!(engine.stats().alive(), 2);
        assert_eq!(inside(&engine, "f"), [[]]);
        drop(task);
        engine.remove("f").unwrap();
        engine.remove("g").unwrap();
        assert_eq!(engine.stats().alive(), 0);
    }
}

#[test]
fn a_fiber_that_goes_from_thread_to_thread_is_counted_once() {
    let engine = engine!();
    let drops = Drops::new();
    install_counted(&engine, &calling_back("f", 100), &drops);
    let f = calls(&engine, "f");
    // Each time deeper, then each time less deep.
    fn descend(f: &CallingBack, pause: Pause, depth: i64) -> i64 {
        let deeper = Callback::new(|x| {
            pause.pause();
            let result = if x == 0 { 0 } else { descend(f, pause, x - 1) };
            pause.pause();
            result
        });
        call!(f, deeper.address(), depth).unwrap()
    }
    let mut task = {
        let f = f.clone();
        Task::new(move |pause| descend(&f, pause, 9))
    };
    let mut result = None;
    for step in 0..21 {
        let depth = if step < 10 { step + 1 } else { 20 - step };
        (task, result) = thread::scope(|scope| {
            let resuming = scope.spawn(|| {
                let result = task.resume();
                (task, result)
            });
            resuming.join().unwrap()
        });
        match depth {
            0 => assert_eq!(inside(&engine, "f"), [[]]),
            _ => assert_eq!(inside(&engine, "f")[0], [suspended(&task.fiber, depth)]),
        }
        if step == 12 {
            install(&engine, &calling_back("f", 0));
        }
        assert_eq!(drops.count(), usize::from(step == 20));
    }
    assert_eq!(result, Some(1000));
}

#[test]
fn frames_are_told_apart_by_the_fiber_that_runs() {
    let engine = engine!();
    install(&engine, &calling_back("f", 0));
    let f = calls(&engine, "f");
    let me = |fiber: Option<&Fiber>| {
        // SAFETY: gettid has no preconditions.
        let thread_id = u64::from(unsafe { libc::gettid() }.unsigned_abs());
        let name = thread::current().name().map(|name| name.chars().take(15).collect());
        ThreadFrames { thread_id, name, fiber: fiber.map(Fiber::id), frames: 1 }
    };
    let sorted = |mut frames: Vec<ThreadFrames>| {
        frames.sort_by_key(|frames| frames.fiber);
        frames
    };
    thread::Builder::new()
        .name("with fibers".to_owned())
        .spawn(move || {
            // A thread that is inside runs a fiber that is inside and runs another, and so on.
            let [mut one, mut two] = [Fiber::new().unwrap(), Fiber::new().unwrap()];
            let expected = [me(None), me(Some(&one)), me(Some(&two))];
            let (one, two) = (Mutex::new(&mut one), Mutex::new(&mut two));
            let in_two = Callback::new(|x| {
                assert_eq!(sorted(inside(&engine, "f").remove(0)), expected);
                x + 1
            });
            let in_one = Callback::new(|x| {
                assert_eq!(sorted(inside(&engine, "f").remove(0)), expected[..2]);
                let result = two.lock().unwrap().run(|| call!(f, in_two.address(), x).unwrap());
                assert_eq!(sorted(inside(&engine, "f").remove(0)), expected[..2]);
                result + 1
            });
            let in_thread = Callback::new(|x| {
                assert_eq!(inside(&engine, "f")[0], expected[..1]);
                let result = one.lock().unwrap().run(|| call!(f, in_one.address(), x).unwrap());
                assert_eq!(inside(&engine, "f")[0], expected[..1]);
                result + 1
            });
            assert_eq!(call!(f, in_thread.address(), 1).unwrap(), 4);
            assert_eq!(inside(&engine, "f"), [[]]);
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn a_thread_has_its_own_context_back_when_the_run_panics() {
    let engine = engine!();
    install(&engine, &calling_back("f", 0));
    let f = calls(&engine, "f");
    let mut fiber = Fiber::new().unwrap();
    let mut task = calling(&f, 1);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        fiber.run(|| {
            assert_eq!(task.resume(), None);
            panic!("expected");
        })
    }));
    assert!(panicked.is_err());
    let there = suspended(&task.fiber, 1);
    let look = Callback::new(|_| {
        let frames = &inside(&engine, "f")[0];
        assert_eq!(frames.iter().filter(|frames| frames.fiber.is_none()).count(), 1);
        assert!(frames.contains(&there));
        0
    });
    assert_eq!(call!(f, look.address(), 0).unwrap(), 0);
    let mut other = calling(&f, 2);
    assert_eq!(fiber.run(|| other.resume()), None);
    assert_eq!(other.resume(), Some(Ok(2)));
    assert_eq!(task.resume(), Some(Ok(1)));
}

#[test]
fn what_a_dropped_fiber_was_inside_of_is_never_freed() {
    let engine = engine!();
    let drops = Drops::new();
    let first = install_counted(&engine, &calling_back("f", 0), &drops);
    let f = calls(&engine, "f");
    let Task { fiber, routine } = {
        let mut task = calling(&f, 1);
        assert_eq!(task.resume(), None);
        task
    };
    let frames = suspended(&fiber, 1);
    drop(fiber);
    install(&engine, &calling_back("f", 10));
    for number in 0..5 {
        // Others count for themselves.
        let mut task = calling(&f, number);
        assert_eq!(task.resume(), None);
        assert_eq!(thread::spawn(move || task.resume()).join().unwrap(), Some(Ok(number + 10)));
        let f = f.clone();
        thread::spawn(move || {
            let double = Callback::new(|x| 2 * x);
            assert_eq!(call!(f, double.address(), 1).unwrap(), 12);
        })
        .join()
        .unwrap();
    }
    assert_eq!(inside(&engine, "f"), [vec![frames], vec![]]);
    assert!(!first.versions()[0].wait_freed(Duration::ZERO));
    assert_eq!(drops.count(), 0);
    // Nor is it unwound.
    std::mem::forget(routine);
    engine.remove("f").unwrap();
    assert_eq!(drops.count(), 0);
}

#[test]
fn a_fiber_may_be_dropped_by_any_thread_and_without_having_run() {
    let engine = engine!();
    install(&engine, &calling_back("f", 0));
    let f = calls(&engine, "f");
    drop(Fiber::new().unwrap());
    let mut task = calling(&f, 3);
    assert_eq!(task.resume(), None);
    let task = thread::spawn(move || {
        assert_eq!(task.resume(), Some(Ok(3)));
        task
    });
    let task = task.join().unwrap();
    thread::spawn(move || drop(task)).join().unwrap();
    engine.remove("f").unwrap();
    assert_eq!(engine.stats().alive(), 0);
}
