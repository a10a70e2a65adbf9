//! What can be asked about a version, while it lives and afterwards.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where a version is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VersionState {
    /// New calls go to it.
    Live,
    /// Replaced or removed, and threads may still be inside.
    Retired,
    /// Everyone has left, and its payload waits for [`Engine::collect`](crate::Engine::collect).
    Drained,
    /// Its payload has been dropped.
    Freed,
}

/// One definition of a function: a handle to ask about it, which does not keep it alive.
#[derive(Clone)]
pub struct Version {
    record: Arc<Record>,
}

impl Version {
    pub(crate) fn new(function: Arc<str>, number: u64) -> Self {
        let state = AtomicU8::new(VersionState::Live as u8);
        let record =
            Record { function, number, state, lock: Mutex::new(()), freed: Condvar::new() };
        Self { record: Arc::new(record) }
    }

    /// The name of the function.
    pub fn function(&self) -> &str {
        &self.record.function
    }

    /// How many units had been installed in the engine when this version was, itself included.
    /// All versions of one unit have the same number, and later ones higher numbers.
    pub fn number(&self) -> u64 {
        self.record.number
    }

    /// Its state at some moment during the call.
    pub fn state(&self) -> VersionState {
        match self.record.state.load(Ordering::Acquire) {
            0 => VersionState::Live,
            1 => VersionState::Retired,
            2 => VersionState::Drained,
            _ => VersionState::Freed,
        }
    }

    /// Waits until the version has been freed, or `timeout` is over; whether it has.
    ///
    /// A thread that is itself inside the version waits in vain.
    pub fn wait_freed(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut guard = self.record.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.state() != VersionState::Freed {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => timeout,
            };
            if left.is_zero() {
                return false;
            }
            let waited = self.record.freed.wait_timeout(guard, left);
            guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Moves on to `state`, unless it is past that already: a leaving thread may free a version
    /// before its retirer gets to say that it is retired.
    pub(crate) fn advance(&self, state: VersionState) {
        self.record.state.fetch_max(state as u8, Ordering::AcqRel);
    }

    /// Moves on to [`VersionState::Freed`], and wakes who waits for it.
    pub(crate) fn set_freed(&self) {
        self.advance(VersionState::Freed);
        // A waiter holds the lock from looking at the state until it waits, so it has either seen
        // the new state or is waiting by now.
        drop(self.record.lock.lock());
        self.record.freed.notify_all();
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{} {:?}", self.function(), self.number(), self.state())
    }
}

struct Record {
    function: Arc<str>,
    number: u64,
    /// A [`VersionState`].
    state: AtomicU8,
    /// Held by nobody for long; what `freed` waits with.
    lock: Mutex<()>,
    freed: Condvar,
}

/// A version that is not freed yet, and who is inside.
#[derive(Clone, Debug)]
pub struct VersionInfo {
    /// The version.
    pub version: Version,
    /// The threads inside at some moment during the call. A thread that has just come to a
    /// retired version and is about to turn back is among them.
    pub threads: Vec<ThreadFrames>,
}

impl VersionInfo {
    /// The frames of all threads together.
    pub fn frames(&self) -> u64 {
        self.threads.iter().map(|thread| u64::from(thread.frames)).sum()
    }
}

/// The frames of one thread in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadFrames {
    /// The system's number of the thread (`gettid`), as debuggers and `top -H` show it.
    pub thread_id: u64,
    /// What the system calls the thread.
    pub name: Option<String>,
    /// How many calls of the function it is inside of, one within the other.
    pub frames: u32,
}
