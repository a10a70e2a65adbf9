//! The gate, as the lists of steps that machine code and models are both made from.

/// One step of a gate.
///
/// A gate is straight-line code with one exit in the middle. To lower or to interpret the lists
/// takes no more than what is said here.
///
/// A gate that can be tail-called has a *frame*, a word on the stack beside the address that the
/// body returns to, which says what lane the call is counted in. While the call is in progress,
/// other gates may put their lanes there. The lane that is taken out of a frame is the *taken* lane
/// of the steps that follow; all other steps are about the gate's own lane.
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
    /// Push a frame with this lane in it.
    PushLane,
    /// Put this lane into the frame that the caller would have returned to. What was there is the
    /// taken lane.
    SwapLane,
    /// Call the body that was loaded, with the caller's arguments.
    CallBody,
    /// Pop the frame that [`PushLane`](Self::PushLane) has pushed. What is in it now is the taken
    /// lane.
    PopLane,
    /// `cell -= 1`, by a plain load and a store with release ordering.
    CountOut,
    /// `cell -= 1`, by an atomic read-modify-write that is also a full fence.
    CountOutFenced,
    /// [`CountOut`](Self::CountOut), of the taken lane.
    CountOutTaken,
    /// [`CountOutFenced`](Self::CountOutFenced), of the taken lane.
    CountOutTakenFenced,
    /// Load `body`, with acquire ordering. If it is 0, call [`Lane::leave`](crate::Lane::leave).
    CheckBody,
    /// [`CheckBody`](Self::CheckBody), of the taken lane. It may have become another function's.
    CheckTaken,
    /// Jump to the body that was loaded, with the caller's arguments. It returns to where the
    /// caller would have returned.
    JumpBody,
    /// Start again: the caller's arguments, the gate of the lane that is current now, which is
    /// called or tail-called as this one was.
    Restart,
}

/// How the gates of a program count, and what a retirer does to see the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counting {
    /// Plain counts. The retirer makes them visible with a heavy fence,
    /// [`membarrier`](crate::membarrier()).
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

    /// The same for a gate that can be tail-called, where it was called: by code that it returns
    /// to.
    pub const fn tail_gate(self) -> &'static [Step] {
        use Step::*;
        match self {
            Self::Plain => &[
                CountIn,
                LightFence,
                LoadBody,
                PushLane,
                CallBody,
                PopLane,
                CountOutTaken,
                LightFence,
                CheckTaken,
            ],
            Self::Atomic => &[
                CountInFenced,
                LoadBody,
                PushLane,
                CallBody,
                PopLane,
                CountOutTakenFenced,
                CheckTaken,
            ],
        }
    }

    /// The same where it was tail-called by a body that would have returned to the frame of a
    /// gate: the *transfer*. There is no return, for it leaves no frame.
    pub const fn transfer(self) -> &'static [Step] {
        use Step::*;
        match self {
            Self::Plain => &[
                CountIn,
                LightFence,
                LoadBody,
                SwapLane,
                CountOutTaken,
                LightFence,
                CheckTaken,
                JumpBody,
            ],
            Self::Atomic => {
                &[CountInFenced, LoadBody, SwapLane, CountOutTakenFenced, CheckTaken, JumpBody]
            }
        }
    }

    /// The steps that replace the rest of any of these where [`Step::LoadBody`] has found 0.
    pub const fn bail(self) -> &'static [Step] {
        use Step::*;
        match self {
            Self::Plain => &[CountOut, LightFence, CheckBody, Restart],
            Self::Atomic => &[CountOutFenced, CheckBody, Restart],
        }
    }
}
