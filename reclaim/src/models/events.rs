//! What has to happen in a model for a test of it to say something.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Something that happens in some executions of a scenario and not in others.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    FreedByRetirer,
    FreedByLeaver,
    /// A call found a lane closed.
    Bailed,
    /// A call ran the version that calls were to run as it returned.
    RanCurrent,
    /// A call ran a version that was replaced before the call returned.
    RanOld,
    /// A call ran a version before the one that it replaces was closed: the call came late to the
    /// gate of a lane into which the version had just moved, or bailed out of an older one.
    RanEarly,
    /// A call ran an older version than the thread had run before.
    WentBack,
    FoundRemoved,
    ReusedLane,
    /// A tail call was made a transfer: its frame became the callee's.
    Transferred,
    /// A tail call found the lane closed.
    TransferBailed,
    /// A version was freed by a transfer that left it.
    FreedByTransfer,
    /// A function went while a call was counted in one of its lanes.
    DroppedInside,
    /// A function went with the last version that called it, which was its own.
    DroppedByItself,
    /// A function got the lane of another that was gone.
    LaneChangedHands,
    /// A leaver looked at a lane that had become another function's.
    LateLeaver,
    /// It freed a version of that one.
    FreedForAnother,
    ReusedContext,
    /// A version was written over in its place.
    ReplacedInPlace,
    /// It was while a caller waited.
    ReplacedUnderWaiter,
    /// A caller was let through that was inside already.
    LetThrough,
    /// A frame was inside for as long as the replacer has looked.
    GaveUp,
    /// The version was replaced or removed while callers were held.
    LostPlace,
    /// A call found no version of a resume entry or a parked call, and went on in its fallback.
    FellBack,
    /// A point was offered again while something had a lease.
    ReusedLease,
    /// The last to have a lease found another one made since.
    KeptByNewLease,
}

/// Which events have happened in the executions of an exploration.
#[derive(Default)]
pub(super) struct Seen(AtomicU32);

impl Seen {
    pub(super) fn note(&self, event: Event) {
        self.0.fetch_or(1 << event as u32, Relaxed);
    }

    pub(super) fn happened(&self, event: Event) -> bool {
        self.0.load(Relaxed) & 1 << event as u32 != 0
    }
}
