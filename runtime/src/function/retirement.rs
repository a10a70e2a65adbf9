//! Retirement: from the closing of a version until it is freed, or left to the frames inside.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Weak};

use lastout_reclaim::Counting;

use crate::function::{Closing, Function, LanePool};
use crate::host::fork::{self, ForkSafeMutex, Pass};
use crate::host::sys;
use crate::host::threads;

/// The retirement of an engine's versions after they were replaced or removed.
pub(crate) struct Retirement {
    counting: Counting,
    /// How many heavy fences there have been.
    fences: AtomicU64,
    /// Versions that are closed, but for which the system has refused a fence.
    unfenced: ForkSafeMutex<Vec<Closing>>,
    left: ForkSafeMutex<Left>,
    /// The [generation](fork::generation) of the process that has recovered last.
    recovered: AtomicU64,
}

/// Functions with versions that were retired, and maybe not freed yet.
///
/// The last frame inside a version frees it, and does not look here. But a process that is forked
/// does not have the threads that were inside, and has to free those versions itself.
#[derive(Default)]
struct Left {
    /// By address, which no other function gets as long as this table keeps the weak reference.
    functions: HashMap<*const Function, Weak<Function>>,
    /// How many functions there were after the last sweep.
    swept: usize,
}

// SAFETY: the pointers are only compared.
unsafe impl Send for Left {}

impl Retirement {
    pub(crate) fn new(counting: Counting) -> Self {
        Self {
            counting,
            fences: AtomicU64::new(0),
            unfenced: ForkSafeMutex::default(),
            left: ForkSafeMutex::default(),
            recovered: AtomicU64::new(fork::generation()),
        }
    }

    /// Retires versions that were closed, with one heavy fence for all of them. The caller has held
    /// the pass since before they were closed. So a process that is forked meanwhile finds each
    /// version still current, or retired and its function among those that are left.
    ///
    /// Must not be called with a lock held: dropping a payload may run anything.
    pub(crate) fn retire(&self, closing: Vec<Closing>, pass: Pass) {
        let mut closed = std::mem::take(&mut *self.unfenced.lock());
        closed.extend(closing);
        if closed.is_empty() {
            return;
        }
        if self.heavy_fence().is_err() {
            // The kernel has no reason to refuse it; but without the fence nothing may be freed.
            // The versions stay closed, and the next call tries again.
            self.unfenced.lock().extend(closed);
            return;
        }
        let mut left = self.left.lock();
        for closing in &closed {
            // SAFETY: all of them were closed before the fence.
            unsafe { closing.retire() };
            closing.function().into_iter().for_each(|function| left.note(function));
        }
        let swept = left.sweep();
        drop(left);
        drop(pass);
        closed.into_iter().for_each(Closing::leave);
        drop(swept);
    }

    /// Tries again to retire the versions for which the system has refused a fence.
    pub(crate) fn retry(&self) {
        self.retire(Vec::new(), Pass::new());
    }

    /// In a forked process, at the first call: frees the versions that only vanished threads were
    /// inside of, or were about to free. Returns whether this was the first call.
    ///
    /// Must not be called with a lock held: dropping a payload may run anything.
    pub(crate) fn recover_after_fork(&self, lanes: &LanePool) -> bool {
        let generation = fork::generation();
        if self.recovered.swap(generation, Ordering::Relaxed) == generation {
            return false;
        }
        let pass = Pass::new();
        threads::domain().empty_vanished();
        // The functions stay in the list, for another fork may come before the versions are freed.
        let left = self.left.lock();
        let functions: Vec<_> = left.functions.values().filter_map(Weak::upgrade).collect();
        drop(left);
        drop(pass);
        functions.iter().for_each(|function| function.leave_retired());
        lanes.leave_retired();
        true
    }

    /// How many heavy fences there have been.
    pub(crate) fn fences(&self) -> u64 {
        self.fences.load(Ordering::Relaxed)
    }

    /// Makes every thread fetch anew what was written over code that no thread was in. Where the
    /// system has no such fence, the processor must do so by itself, as x86-64 processors do.
    pub(crate) fn serialize(&self) {
        self.fences.fetch_add(1, Ordering::Relaxed);
        let _ = sys::heavy_fence();
    }

    pub(crate) fn heavy_fence(&self) -> io::Result<()> {
        self.fences.fetch_add(1, Ordering::Relaxed);
        match self.counting {
            Counting::Plain => sys::heavy_fence(),
            Counting::Atomic => {
                fence(Ordering::SeqCst);
                Ok(())
            }
        }
    }
}

impl Left {
    fn note(&mut self, function: &Arc<Function>) {
        self.functions.entry(Arc::as_ptr(function)).or_insert_with(|| Arc::downgrade(function));
    }

    /// Forgets functions that need not be known any more, when these may be the better part: so the
    /// list stays in proportion to what is left, and each call pays a constant share.
    ///
    /// Returns what may be the last references to functions: to be dropped with no lock held.
    fn sweep(&mut self) -> Vec<Arc<Function>> {
        if self.functions.len() <= 16 + 2 * self.swept {
            return Vec::new();
        }
        let mut functions = Vec::new();
        self.functions.retain(|_, function| {
            let Some(function) = function.upgrade() else { return false };
            let keeps = function.keeps_retired();
            functions.push(function);
            keeps
        });
        self.swept = self.functions.len();
        self.functions.shrink_to(2 * self.swept);
        functions
    }
}
