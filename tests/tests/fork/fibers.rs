//! Forks while fibers are suspended, or run on the thread that forks, or on another.

use std::sync::Mutex;
use std::thread;

use lastout_tests::coroutine::Task;
use lastout_tests::support::{Callback, Door, Drops, calling_back, install, install_counted, turn};
use lastout_tests::{builder, call};

use super::exercise;
use super::process::{fork, split};

#[test]
fn a_suspended_fiber_goes_on_in_both_processes() {
    let _turn = turn();
    let engine = builder!().build().unwrap();
    let drops = Drops::new();
    install_counted(&engine, &calling_back("f", 10), &drops);
    let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
    let mut task = {
        let f = f.clone();
        Task::new(move |pause| call!(f, pause.callback().address(), 1).unwrap())
    };
    // Not on the thread that will fork.
    let task = thread::spawn(move || {
        assert_eq!(task.resume(), None);
        task
    });
    let mut task = task.join().unwrap();
    install(&engine, &calling_back("f", 20));
    split().both(|_| {
        exercise(&engine, 5);
        assert_eq!(engine.versions("f").unwrap()[0].threads[0].fiber, Some(task.fiber.id()));
        assert_eq!(drops.count(), 0);
        assert_eq!(task.resume(), Some(11));
        assert_eq!(drops.count(), 1);
        exercise(&engine, 5);
    });
}

#[test]
fn a_fiber_that_runs_on_another_thread_vanishes_with_it() {
    let _turn = turn();
    let engine = builder!().build().unwrap();
    let drops = Drops::new();
    install_counted(&engine, &calling_back("f", 10), &drops);
    let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
    let door = Door::default();
    let wait = door.callback();
    thread::scope(|scope| {
        let mut fiber = lastout::Fiber::new().unwrap();
        let (f, wait) = (&f, &wait);
        scope.spawn(move || fiber.run(|| call!(f, wait.address(), 1).unwrap()));
        door.arrived();
        install(&engine, &calling_back("f", 20));
        let child = fork(|| {
            assert!(engine.versions("f").unwrap()[0].threads.is_empty());
            engine.collect();
            assert_eq!(drops.count(), 1);
            exercise(&engine, 5);
        });
        child.join();
        assert_eq!(drops.count(), 0);
        door.open();
    });
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_coroutine_forks_and_goes_on_in_both_processes() {
    let _turn = turn();
    let engine = builder!().build().unwrap();
    let drops = Drops::new();
    install_counted(&engine, &calling_back("f", 10), &drops);
    let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
    let mut task = {
        let f = f.clone();
        Task::new(move |pause| {
            let forked = Mutex::new(None);
            let forking = Callback::new(|x| {
                *forked.lock().unwrap() = Some(split());
                pause.pause();
                x
            });
            let result = call!(f, forking.address(), 1).unwrap();
            (result, forked.lock().unwrap().take().unwrap())
        })
    };
    assert!(task.resume().is_none());
    // From here on there are two of this.
    engine.collect();
    install(&engine, &calling_back("f", 20));
    assert_eq!(drops.count(), 0);
    exercise(&engine, 5);
    let (result, forked) = task.resume().unwrap();
    forked.both(|_| {
        assert_eq!(result, 11);
        assert_eq!(drops.count(), 1);
        exercise(&engine, 5);
    });
}
