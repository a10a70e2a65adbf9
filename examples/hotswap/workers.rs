//! The threads that call, and how they know which results are right.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use lastout::Handle;

use crate::oracle::INPUTS;
use crate::program::Expected;

/// What the replacing thread and the calling threads share.
pub(crate) struct Shared {
    /// Installs are counted from 0. The `i`th installs the program `i % programs`.
    programs: RwLock<Vec<Expected>>,
    /// The last install that was begun, and the last that was done: a call that starts after
    /// `done` was read and returns before `begun` is read ran one of the installs from the one to
    /// the other.
    begun: AtomicUsize,
    done: AtomicUsize,
    stop: AtomicBool,
    pub(crate) calls: AtomicU64,
    pub(crate) wrong: AtomicU64,
}

impl Shared {
    /// Nothing but the first of `programs` is installed.
    pub(crate) fn new(programs: impl Iterator<Item = Expected>) -> Self {
        Self {
            programs: RwLock::new(programs.collect()),
            begun: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
        }
    }

    /// The next program is about to be installed.
    pub(crate) fn begin_install(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// A program that is new is about to be installed.
    pub(crate) fn begin_install_of(&self, expected: Expected) {
        self.programs.write().unwrap_or_else(PoisonError::into_inner).push(expected);
        self.begin_install();
    }

    /// It has been.
    pub(crate) fn end_install(&self) {
        self.done.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn programs(&self) -> Vec<Expected> {
        self.programs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Calls the function until told to stop, and checks every result.
pub(crate) fn call(function: &Handle<fn(i64) -> i64>, shared: &Shared) {
    const BATCH: i64 = 1024;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut programs = shared.programs();
        let mut wrong = 0;
        for call in 0..BATCH {
            let input = call % INPUTS;
            let first = shared.done.load(Ordering::SeqCst);
            // SAFETY: all programs have been run by the oracle with these arguments.
            let result = unsafe { function.call(input) };
            let last = shared.begun.load(Ordering::SeqCst);
            let result = result.expect("the function is never removed");
            let right = |install: usize, programs: &[Expected]| {
                programs[install % programs.len()][input as usize] == result
            };
            if !(first..=last).any(|install| right(install, &programs)) {
                // It may be one that was added since the batch began.
                programs = shared.programs();
                wrong += u64::from(!(first..=last).any(|install| right(install, &programs)));
            }
        }
        shared.calls.fetch_add(BATCH as u64, Ordering::Relaxed);
        shared.wrong.fetch_add(wrong, Ordering::Relaxed);
    }
}
