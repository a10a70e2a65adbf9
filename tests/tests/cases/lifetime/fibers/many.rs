//! Many fibers on several threads, suspended and resumed at random, while functions are replaced.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lastout::Counting;
use lastout_tests::coroutine::{Pause, Task};
use lastout_tests::random::Random;
use lastout_tests::support::{
    COUNTINGS, Callback, CallingBack, Drops, calling_back, calls, install_counted,
};
use lastout_tests::{builder, call};

use super::passing_on;

const FIBERS: usize = 40;
const CALLS: usize = 40;
const WORKERS: usize = 3;
const FUNCTIONS: usize = 3;

/// What a fiber calls: functions by which one comes through one gate, or two, or three, to one that
/// calls back and adds the number of its version.
struct Called {
    functions: Vec<CallingBack>,
    /// The versions of the last function that were installed, and those that are about to be.
    installed: AtomicI64,
    begun: AtomicI64,
}

impl Called {
    /// Calls some function, from inside of which it pauses and calls further ones.
    fn descend(&self, pause: Pause, random: &Mutex<Random>, depth: i64) {
        let below = |limit| random.lock().unwrap().below(limit);
        let callback = Callback::new(|x| {
            for _ in 0..below(3) {
                pause.pause();
                if depth > 0 {
                    self.descend(pause, random, depth - 1);
                }
            }
            x
        });
        let function = &self.functions[below(FUNCTIONS)];
        let oldest = self.installed.load(Ordering::SeqCst);
        let version = call!(function, callback.address(), 0).unwrap();
        let newest = self.begun.load(Ordering::SeqCst);
        assert!((oldest..=newest).contains(&version), "{version}: {oldest} to {newest}");
    }
}

fn storm(counting: Counting) {
    let engine = builder!().quarantine(64 << 20).counting(counting).build().unwrap();
    let drops = Drops::new();
    let installs = AtomicI64::new(0);
    let name = |function: usize| format!("f{function}");
    let replace = |function: usize, number: i64| {
        let text = match function {
            0 => calling_back(&name(0), number),
            _ => passing_on(&name(function), &name(function - 1)),
        };
        install_counted(&engine, &text, &drops);
        installs.fetch_add(1, Ordering::SeqCst);
    };
    (0..FUNCTIONS).for_each(|function| replace(function, 0));
    let called = Arc::new(Called {
        functions: (0..FUNCTIONS).map(|function| calls(&engine, &name(function))).collect(),
        installed: AtomicI64::new(0),
        begun: AtomicI64::new(0),
    });
    let tasks = (1..=FIBERS).map(|number| {
        let called = Arc::clone(&called);
        Task::new(move |pause| {
            let random = Mutex::new(Random::new(number as u64));
            (0..CALLS).for_each(|_| called.descend(pause, &random, 2));
        })
    });
    // A thread that takes a task resumes it, and puts it back behind the others.
    let tasks: Mutex<VecDeque<_>> = Mutex::new(tasks.collect());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let work = || {
            loop {
                let task = tasks.lock().unwrap().pop_front();
                let Some(mut task) = task else { break };
                if task.resume().is_none() {
                    tasks.lock().unwrap().push_back(task);
                }
            }
        };
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        let (called, done) = (&called, &done);
        let replacing = scope.spawn(move || {
            let mut random = Random::new(99);
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                let function = random.below(FUNCTIONS);
                if function == 0 {
                    number += 1;
                    called.begun.store(number, Ordering::SeqCst);
                }
                replace(function, number);
                called.installed.store(number, Ordering::SeqCst);
                thread::sleep(Duration::from_micros(random.below(300) as u64));
            }
        });
        // Whatever they say, the replacing ends.
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        replacing.join().unwrap();
        results.into_iter().for_each(|result| result.unwrap());
    });
    assert_eq!(engine.stats().alive(), FUNCTIONS as u64);
    assert_eq!(drops.count() + FUNCTIONS, installs.load(Ordering::SeqCst) as usize);
}

#[test]
fn all_versions_are_freed_once_and_none_under_a_fiber() {
    COUNTINGS.into_iter().for_each(storm);
}
