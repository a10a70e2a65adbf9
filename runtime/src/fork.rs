//! Locks that are never held while the process forks.
//!
//! `fork` copies memory as it is, and of the threads only the one that called it. A lock that
//! another thread was holding would never be released in the child. So whoever holds a [`Lock`]
//! also holds a pass, and `pthread_atfork` handlers see to it that there is none while a process
//! is being copied.
//!
//! Nothing of the user's is run with a pass held: it might fork.

use std::cell::{Cell, UnsafeCell};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

use lastout_reclaim::Frozen;

use crate::thread;

/// Read by passes, written by forks.
static PASSES: RwLock<()> = RwLock::new(());

/// How many times the process, and those that it was forked from, have forked.
static FORKS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// How many passes the thread holds. Only the first of them takes a share of [`PASSES`]: a
    /// second one would wait for a fork that waits for the first.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// Whoever has one keeps the process from forking.
pub(crate) struct Pass {
    _first: Option<RwLockReadGuard<'static, ()>>,
}

impl Pass {
    /// Waits until no fork is under way.
    pub(crate) fn new() -> Self {
        let held = HELD.get();
        HELD.set(held + 1);
        let share = || PASSES.read().unwrap_or_else(PoisonError::into_inner);
        Self { _first: (held == 0).then(share) }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let held = HELD.get() - 1;
        debug_assert!(self._first.is_none() || held == 0, "the first pass is the last to go");
        HELD.set(held);
    }
}

/// How many forks there have been. Changes only while nobody holds a pass.
pub(crate) fn forks() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// A mutex that nobody holds while the process forks.
#[derive(Default)]
pub(crate) struct Lock<T> {
    mutex: Mutex<T>,
}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { mutex: Mutex::new(value) }
    }

    /// Locks it. What it guards is never left half done by a panic: where it is held, nothing can
    /// panic that the program would survive.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let pass = Pass::new();
        Guard { guard: self.mutex.lock().unwrap_or_else(PoisonError::into_inner), _pass: pass }
    }
}

/// The lock is released before the pass is given back.
pub(crate) struct Guard<'a, T> {
    guard: MutexGuard<'a, T>,
    _pass: Pass,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Has `fork` wait for passes, from now on.
pub(crate) fn watch() {
    static WATCHING: OnceLock<()> = OnceLock::new();
    WATCHING.get_or_init(|| {
        // The domain's lock is one of those that must not be held.
        thread::domain();
        // SAFETY: the handlers are functions of this program, which stays loaded. Without memory
        // to note them the call fails, and forking is as it would be without them.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
    });
}

/// What the thread that forks holds meanwhile.
type Held = (Frozen<'static>, RwLockWriteGuard<'static, ()>);

/// Only used by the thread that holds [`PASSES`] for writing.
struct Forking(UnsafeCell<Option<Held>>);

// SAFETY: `before` and `after` are run by the thread that forks, and between them it alone holds
// `PASSES` for writing, which is when they use the cell.
unsafe impl Sync for Forking {}

static FORKING: Forking = Forking(UnsafeCell::new(None));

extern "C" fn before() {
    let exclusive = PASSES.write().unwrap_or_else(PoisonError::into_inner);
    FORKS.fetch_add(1, Ordering::Relaxed);
    let held = (thread::domain().freeze(), exclusive);
    // SAFETY: this thread holds `PASSES` for writing.
    unsafe { *FORKING.0.get() = Some(held) };
}

/// In both processes.
extern "C" fn after() {
    // SAFETY: this thread, or the one that it is a copy of, holds `PASSES` for writing until the
    // value is dropped, which is after it was taken out.
    let held = unsafe { (*FORKING.0.get()).take() };
    drop(held);
}

/// Does to this process what a fork does, without there being another.
#[cfg(test)]
pub(crate) fn pretend() {
    before();
    after();
}
