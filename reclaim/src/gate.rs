//! The gate, as the list of steps that machine code and models are both made from.

/// One step of a gate.
///
/// A gate is straight-line code with one exit in the middle. Whoever lowers or interprets the
/// list needs no more than what is said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `cell += 1`, by a plain load and store of the calling context's cell of this lane.
    CountIn,
    /// `cell += 1`, by an atomic read-modify-write that is also a full fence.
    CountInFenced,
    /// Keep the memory accesses before and after in this order *in the program*. No instruction.
    LightFence,
    /// Load `body`, with acquire ordering. If it is 0, go on with the bail steps instead.
    LoadBody,
    /// Call the body that was loaded, with the caller's arguments.
    CallBody,
    /// `cell -= 1`, by a plain load and a store with release ordering.
    CountOut,
    /// `cell -= 1`, by an atomic read-modify-write that is also a full fence.
    CountOutFenced,
    /// Load `body`, with acquire ordering. If it is 0, call [`Lane::leave`](crate::Lane::leave).
    CheckBody,
    /// Start again: the caller's arguments, the gate of the lane that is current now.
    Restart,
}

/// How the gates of a program count, and what a retirer does to see the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counting {
    /// Plain counts. The retirer makes them visible with a heavy fence,
    /// [`membarrier`](crate::membarrier).
    Plain,
    /// Atomic counts, about ten times as dear as plain ones, for kernels without that call.
    Atomic,
}

impl Counting {
    /// The steps from the gate's entry to its return.
    pub const fn gate(self) -> &'static [Step] {
        use Step::*;
        match self {
            Self::Plain => {
                &[CountIn, LightFence, LoadBody, CallBody, CountOut, LightFence, CheckBody]
            }
            Self::Atomic => &[CountInFenced, LoadBody, CallBody, CountOutFenced, CheckBody],
        }
    }

    /// The steps that replace the rest of the gate where [`Step::LoadBody`] has found 0.
    pub const fn bail(self) -> &'static [Step] {
        use Step::*;
        match self {
            Self::Plain => &[CountOut, LightFence, CheckBody, Restart],
            Self::Atomic => &[CountOutFenced, CheckBody, Restart],
        }
    }
}
