//! The lowest layer, of plain data: versions, what a version owns, and places in its code. It may
//! know the standard library and types of Cranelift's; it must not know that there are functions.
//! Errors, the types of calls and what is particular to a machine are files beside it.
//!
//! This file answers questions about a version, while it lives and afterwards.

pub(crate) mod location;
pub(crate) mod payload;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::futex;

/// The state of a version in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VersionState {
    /// New calls go to it.
    Live,
    /// Replaced or removed, and threads may still be inside.
    Retired,
    /// All frames have left, and its payload waits for [`Engine::collect`](crate::Engine::collect).
    Drained,
    /// Its payload has been dropped.
    Freed,
}

/// One definition of a function: a handle for questions, which does not keep it alive.
#[derive(Clone)]
pub struct Version {
    record: Arc<Record>,
}

impl Version {
    /// A version that is about to be live.
    pub(crate) fn new(function: Arc<str>) -> Self {
        let (number, state) = (AtomicU64::new(0), AtomicU32::new(VersionState::Live as u32));
        let parts = [1, 1].map(AtomicU32::new);
        Self { record: Arc::new(Record { function, number, state, parts }) }
    }

    /// The same version, for one more of its payloads.
    pub(crate) fn another_part(&self) -> Self {
        self.record.parts.iter().for_each(|parts| {
            parts.fetch_add(1, Ordering::Relaxed);
        });
        self.clone()
    }

    /// Notes that all frames have left one part of the version. Returns whether that was the last.
    pub(crate) fn drain_part(&self) -> bool {
        self.record.parts[0].fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Notes that one part of the version has been dropped. Returns whether that was the last.
    pub(crate) fn free_part(&self) -> bool {
        self.record.parts[1].fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Sets the version's number, before any other thread knows the version.
    pub(crate) fn set_number(&self, number: u64) {
        self.record.number.store(number, Ordering::Relaxed);
    }

    /// The name of the function.
    pub fn function(&self) -> &str {
        &self.record.function
    }

    /// How many units had been installed in the engine when this version was, itself included.
    /// All versions of one unit have the same number, and later ones higher numbers.
    pub fn number(&self) -> u64 {
        self.record.number.load(Ordering::Relaxed)
    }

    /// The version's state at some moment during the call.
    pub fn state(&self) -> VersionState {
        match self.record.state.load(Ordering::Acquire) & !AWAITED {
            0 => VersionState::Live,
            1 => VersionState::Retired,
            2 => VersionState::Drained,
            _ => VersionState::Freed,
        }
    }

    /// Waits until the version has been freed, or `timeout` is over. Returns whether it is freed.
    ///
    /// A thread that is itself inside the version waits in vain.
    pub fn wait_freed(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            // Acquire pairs with the release in `advance`: a thread that learns that the version is
            // freed finds everything dropped.
            let seen = self.record.state.fetch_or(AWAITED, Ordering::Acquire) | AWAITED;
            if seen == AWAITED | VersionState::Freed as u32 {
                return true;
            }
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => timeout,
            };
            if left.is_zero() {
                return false;
            }
            // A time that the system cannot count is as good as for ever.
            let left = futex::Timespec::try_from(left).ok();
            // The result does not matter: the state says whether the waiting is over.
            let _ = futex::wait(&self.record.state, futex::Flags::PRIVATE, seen, left.as_ref());
        }
    }

    /// Moves on to `state`, unless the version is past that already: a leaving thread may free a
    /// version before the thread that retires it comes to note that it is retired.
    pub(crate) fn advance(&self, state: VersionState) {
        let (word, state) = (&self.record.state, state as u32);
        let later = |word| (state > word & !AWAITED).then_some(word & AWAITED | state);
        let before = word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, later);
        if before.is_ok_and(|before| before & AWAITED != 0) {
            // The call fails only where there is no thread to wake.
            let _ = futex::wake(word, futex::Flags::PRIVATE, i32::MAX as u32);
        }
    }
}

/// Whether both are the same version.
impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.record, &other.record)
    }
}

impl Eq for Version {}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{} {:?}", self.function(), self.number(), self.state())
    }
}

struct Record {
    function: Arc<str>,
    number: AtomicU64,
    /// A [`VersionState`], and whether a thread waits for it to change. It is a word that the
    /// system can wait for, so that there is no lock that a fork could find held.
    state: AtomicU32,
    /// How many parts of the version are not drained, and how many are not freed. A function with
    /// points has one part for itself and one for each of its resume entries.
    parts: [AtomicU32; 2],
}

/// A bit in the state of a record: a thread waits.
const AWAITED: u32 = 1 << 31;

/// A version that is not freed yet, and the threads inside.
#[derive(Clone, Debug)]
pub struct VersionInfo {
    /// The version.
    pub version: Version,
    /// The threads inside at some moment during the call. A thread that has just come to a retired
    /// version and is about to bail is among them.
    pub threads: Vec<ThreadFrames>,
}

impl VersionInfo {
    /// The frames of all threads together.
    pub fn frames(&self) -> u64 {
        self.threads.iter().map(|thread| u64::from(thread.frames)).sum()
    }

    /// Adds frames of a thread that may have other frames in the version.
    pub(crate) fn add(&mut self, thread: ThreadFrames) {
        let same = |other: &&mut ThreadFrames| {
            (other.thread_id, other.fiber) == (thread.thread_id, thread.fiber)
        };
        match self.threads.iter_mut().find(same) {
            Some(same) => same.frames += thread.frames,
            None => self.threads.push(thread),
        }
    }
}

/// The frames of one thread, or of one [`Fiber`](crate::Fiber), in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadFrames {
    /// The system's number of the thread (`gettid`), as debuggers and `top -H` show it. For a fiber
    /// this is the thread that runs it, or 0 while it is suspended.
    pub thread_id: u64,
    /// The system's name of the thread.
    pub name: Option<String>,
    /// The [number](crate::Fiber::id) of the fiber, if the frames belong to a fiber.
    pub fiber: Option<u64>,
    /// How many calls of the function are in progress, one within the other.
    pub frames: u32,
}
