//! Locks that are never held while the process forks.
//!
//! `fork` copies memory as it is, and of the threads only the one that called it. A lock that
//! another thread was holding would never be released in the child. So a thread that holds a
//! [`ForkSafeMutex`] also holds a pass, and `pthread_atfork` handlers make sure that no thread
//! holds one while the process is copied.
//!
//! No code of the user's runs with a pass held: it might fork.
//!
//! The child also lacks the other threads, and so those that were inside of a version and would
//! free it. The handler only notes which contexts were theirs: a child that is made to `exec` needs
//! no more, and destructors must not run there.
//! [`recover_after_fork`](crate::function::retirement::Retirement::recover_after_fork) does the
//! rest.

use std::cell::{Cell, UnsafeCell};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

use lastout_reclaim::Frozen;

use crate::host::threads;

/// Passes hold this for reading, forks for writing.
static PASSES: RwLock<()> = RwLock::new(());

/// How many times the process and those that it was forked from have forked.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// How many forks there are between this process and one that was not forked.
static GENERATION: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// How many passes the thread holds. Only the first of them takes a share of [`PASSES`]: a
    /// second one would wait for a fork that waits for the first.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// A thread that holds one keeps the process from forking.
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

/// How many forks there have been. The number changes only while no thread holds a pass.
pub(crate) fn forks() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// How many forks there are between this process and one that was not forked. By this number a
/// process tells that it is not the one that it was before.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// A mutex that no thread holds while the process forks.
#[derive(Default)]
pub(crate) struct ForkSafeMutex<T> {
    mutex: Mutex<T>,
}

impl<T> ForkSafeMutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { mutex: Mutex::new(value) }
    }

    /// Locks the mutex. A panic never leaves the value half done: while the lock is held, nothing
    /// can panic that the program would survive.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let pass = Pass::new();
        Guard { guard: self.mutex.lock().unwrap_or_else(PoisonError::into_inner), _pass: pass }
    }
}

impl<T> Guard<'_, T> {
    /// Unlocks the mutex, and still keeps the process from forking.
    pub(crate) fn unlock(self) -> Pass {
        self._pass
    }
}

/// The lock of a [`ForkSafeMutex`]. It is released before the pass.
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

/// Makes `fork` wait for passes, from now on.
pub(crate) fn watch() {
    static WATCHING: OnceLock<()> = OnceLock::new();
    WATCHING.get_or_init(|| {
        // The domain's lock is one of those that must not be held.
        threads::domain();
        // SAFETY: the handlers are functions of this program, which stays loaded. Without memory
        // to note them the call fails, and forking is as it would be without them.
        unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
    });
}

/// The things that the thread that forks holds meanwhile.
struct Forking {
    /// The system's number for the thread.
    thread: u64,
    _frozen: Frozen<'static>,
    _exclusive: RwLockWriteGuard<'static, ()>,
}

/// Only the thread that holds [`PASSES`] for writing uses this.
struct ForkingCell(UnsafeCell<Option<Forking>>);

// SAFETY: the thread that forks runs the handlers, and between them it alone holds `PASSES` for
// writing, which is when they use the cell.
unsafe impl Sync for ForkingCell {}

static FORKING: ForkingCell = ForkingCell(UnsafeCell::new(None));

extern "C" fn before() {
    let exclusive = PASSES.write().unwrap_or_else(PoisonError::into_inner);
    FORKS.fetch_add(1, Ordering::Relaxed);
    let frozen = threads::domain().freeze();
    let forking = Forking { thread: threads::id(), _frozen: frozen, _exclusive: exclusive };
    // SAFETY: this thread holds `PASSES` for writing.
    unsafe { *FORKING.0.get() = Some(forking) };
}

fn take_forking() -> Option<Forking> {
    // SAFETY: this thread, or the one that it is a copy of, holds `PASSES` for writing until the
    // value is dropped, which is after it was taken out.
    unsafe { (*FORKING.0.get()).take() }
}

extern "C" fn after_in_parent() {
    drop(take_forking());
}

extern "C" fn after_in_child() {
    let forking = take_forking();
    GENERATION.fetch_add(1, Ordering::Relaxed);
    let now = threads::ask_for_id();
    if let Some(Forking { thread, .. }) = forking {
        // SAFETY: the handlers call this in a forked process, where there is no other thread yet.
        unsafe { threads::domain().forked(thread, now) };
    }
}

/// Does to this process what a fork does to the parent, but makes no child.
#[cfg(test)]
pub(crate) fn pretend() {
    before();
    after_in_parent();
}
