//! The threads of the process, by their numbers and names, and the one domain in which they count.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use lastout_reclaim::{Domain, Frames, HEADER_BYTES};

use crate::version::ThreadFrames;

/// How many lanes there can be in the process at a time. A ledger reserves four bytes of address
/// space for each, and uses memory for those in which its context counts.
const LANES: u32 = 1 << 22;

// Gates in machine code have the offset of a cell as a signed number of 32 bits.
const _: () = assert!(LANES as u64 * 4 + HEADER_BYTES as u64 <= i32::MAX as u64);

/// The one domain of the process: a thread registers once, whichever engines it calls.
pub(crate) fn domain() -> &'static Arc<Domain> {
    static DOMAIN: OnceLock<Arc<Domain>> = OnceLock::new();
    DOMAIN.get_or_init(|| Domain::new(LANES))
}

thread_local! {
    /// The system's number for the thread; 0 until the first question.
    static ID: Cell<u64> = const { Cell::new(0) };
}

/// The system's number for the calling thread.
#[inline(never)]
pub(crate) fn id() -> u64 {
    match ID.get() {
        0 => ask_for_id(),
        id => id,
    }
}

/// Asks the system, which in the child of a fork has another number for the thread.
pub(crate) fn ask_for_id() -> u64 {
    // SAFETY: gettid has no preconditions.
    let id = u64::from(unsafe { libc::gettid() }.unsigned_abs());
    ID.set(id);
    id
}

/// The name of a thread; `None` if it has ended.
pub(crate) fn name(thread_id: u64) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/self/task/{thread_id}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// A bit in the owner of a context: it is a [`Fiber`](crate::Fiber), and the rest its number.
pub(crate) const FIBER: u64 = 1 << 63;

/// Describes the frames of a context: the thread or the fiber to which they belong.
pub(crate) fn describe(frames: Frames) -> ThreadFrames {
    let fiber = (frames.owner & FIBER != 0).then_some(frames.owner & !FIBER);
    let thread_id = if fiber.is_some() { frames.runner } else { frames.owner };
    ThreadFrames { thread_id, name: name(thread_id), fiber, frames: frames.frames }
}
