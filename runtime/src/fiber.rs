//! Contexts for coroutines.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use lastout_reclaim::Context;

use crate::fork::Pass;
use crate::{CallError, thread};

/// A context for a coroutine: what its calls are counted in, on whichever thread it runs.
///
/// Code that is generated runs to its end on the thread that called it, unless a function of the
/// host that it calls switches stacks: a coroutine that suspends itself inside of a version, to be
/// resumed elsewhere. Calls are counted for the thread that makes them, in memory that only this
/// thread writes; so a coroutine that is to move to another thread, while it is inside of
/// something, has a fiber, and is only ever resumed by a closure that the fiber [runs](Self::run).
/// While it is suspended, the versions that it is inside of stay, as if a thread was inside; the
/// last of whom leaves a version, fiber or thread, frees it.
///
/// # What the caller owes
///
/// The contract of [`Handle`](crate::Handle)'s `call` asks for this wherever a call is suspended:
///
/// - it is resumed inside of `run` of the fiber that it began in, and of no other fiber in between;
/// - it is not suspended from inside of another fiber's `run` that it has called itself.
///
/// A coroutine that is never resumed on another thread than the one that it has begun on needs no
/// fiber.
///
/// # Dropping
///
/// A fiber may be dropped at any time. If its coroutine is suspended inside of a version at that
/// moment, nobody knows whether it will be resumed, and so that version is never freed, nor is the
/// fiber's table of counts used for another. So finish the coroutine first, or drop it and have it
/// unwound, within `run`.
///
/// # What it takes
///
/// As much as a thread does: 16 MiB of address space and a page or two of memory, which the next
/// fiber or thread uses again. Freeing a version looks at a word in each table of counts that there
/// is.
pub struct Fiber {
    context: &'static Context,
    id: u64,
}

/// In the owner of a context: it is a fiber's, and the rest is the fiber's number.
const FIBER: u64 = 1 << 63;

impl Fiber {
    /// A fiber, with nobody in it.
    ///
    /// # Errors
    ///
    /// [`CallError::Reclaim`] if there is no memory for its table of counts.
    pub fn new() -> Result<Self, CallError> {
        static FIBERS: AtomicU64 = AtomicU64::new(1);

        let id = FIBERS.fetch_add(1, Ordering::Relaxed);
        let _pass = Pass::new();
        let context = thread::domain().register(FIBER | id)?;
        Ok(Self { context, id })
    }

    /// Its number, by which [`ThreadFrames`](crate::ThreadFrames) say that it is inside of a
    /// version. No two fibers of a process have the same.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Counts the calling thread's calls in this fiber, for the time of `resume`, which resumes
    /// the coroutine and returns when that is suspended or has ended. Then the thread's calls are
    /// counted where they were before.
    ///
    /// Other fibers may be run within.
    pub fn run<R>(&mut self, resume: impl FnOnce() -> R) -> R {
        let _running = Running::begin(self.context);
        resume()
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        // Where a fork has left its thread behind, its context has been given up by now, or will
        // be.
        if self.context.owner() == FIBER | self.id && self.context.runner() == 0 {
            // SAFETY: it is this fiber's context, which nobody runs.
            unsafe { thread::give_up(self.context) };
        }
    }
}

impl fmt::Debug for Fiber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fiber").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The fiber that the owner of a context is, by its number.
pub(crate) fn number(owner: u64) -> Option<u64> {
    (owner & FIBER != 0).then_some(owner & !FIBER)
}

/// The calling thread runs a fiber, until this is dropped.
struct Running {
    fiber: &'static Context,
    before: Option<&'static Context>,
}

impl Running {
    fn begin(fiber: &'static Context) -> Self {
        // SAFETY: whoever has begun this has the fiber for itself, and this thread runs it.
        unsafe { fiber.set_runner(thread::id()) };
        Self { fiber, before: thread::switch(Some(fiber)) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        thread::switch(self.before);
        // SAFETY: this thread does not run it any more, and no other does before `run` returns.
        unsafe { self.fiber.set_runner(0) };
    }
}
