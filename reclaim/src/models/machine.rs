//! What a model assumes of the machine, and which mistake it makes on purpose.

use crate::sync::{Mutant, Ordering, plant};
use crate::{Counting, Step};

/// One variant of the protocol on one kind of machine.
#[derive(Clone, Copy)]
pub(super) struct Machine {
    pub(super) dispatch: Dispatch,
    /// What an install changes, first to last.
    pub(super) order: &'static [Change],
    /// Of the load by which a caller finds a gate.
    pub(super) fetch: Ordering,
    pub(super) restart: Restart,
    pub(super) gates: Gates,
    pub(super) convention: Convention,
    pub(super) counting: Counting,
    pub(super) transfer: Transfer,
    /// What gates do that are tail-called, and what they do if they bail.
    pub(super) transfer_steps: [&'static [Step]; 2],
    pub(super) callees: Callees,
    pub(super) dropped: Dropped,
    pub(super) lanes: Lanes,
    /// How many lanes the parked call has: none if there is no point.
    pub(super) parked_lanes: usize,
    pub(super) moving: Moving,
    /// Whether the host keeps a handle that it calls by until the call returns.
    pub(super) host_keeps: bool,
    pub(super) light_fence: LightFence,
    pub(super) heavy_fence: HeavyFence,
    /// Of the load in [`Step::LoadBody`](crate::Step::LoadBody).
    pub(super) load_body: Ordering,
    /// Of the store in [`Step::CountOut`](crate::Step::CountOut).
    pub(super) count_out: Ordering,
    /// Whether callers can be held of the version that is first.
    pub(super) in_place: bool,
    /// A mistake in the slow path.
    pub(super) mutant: Option<Mutant>,
    /// Whether a free that has not happened after the last frame is a fault of its own, even if
    /// that frame is over. A model that is to show a frame in freed code cannot stop at that.
    pub(super) causal: bool,
}

/// How callers find a gate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dispatch {
    /// All of them load the slot.
    Slot,
    /// By direct calls that installs patch. Each thread makes its calls by two of them in turn.
    Sites {
        /// How many of the two are never patched. They go on calling the gate of the lane that
        /// the first version was in, whatever becomes of it.
        stale: usize,
    },
}

/// Something that an install changes, for all to see.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The slot, or one site after the other, gets the new lane's gate.
    Calls,
    /// The new lane can be entered.
    Occupy,
    /// A caller that bails out of a gate goes on from the new lane's.
    Current,
    /// The old lane cannot be entered any more.
    Close,
}

impl Dispatch {
    /// The order that the runtime has.
    pub(super) const fn order(self) -> &'static [Change] {
        use Change::*;
        match self {
            Self::Slot => &[Calls, Occupy, Current, Close],
            Self::Sites { .. } => &[Occupy, Current, Close, Calls],
        }
    }

    /// From which change on an install's version is the one that calls are to run.
    pub(super) const fn decisive(self) -> Change {
        match self {
            Self::Slot => Change::Calls,
            Self::Sites { .. } => Change::Close,
        }
    }
}

/// Where a caller starts again that has bailed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    /// From the function's word for it.
    Current,
    /// From where it came.
    Call,
}

/// What becomes of gates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Gates {
    /// They stay, for callers that come late, as long as the function does; and then until its
    /// lane is free and another function takes it.
    Stay,
    /// They are freed with the version that they were made for.
    GoWithVersion,
    /// They are freed with the function.
    GoWithFunction,
}

/// How functions are called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Convention {
    /// They cannot be tail-called.
    Call,
    /// They can.
    Tail,
}

/// When a gate that can be tail-called makes a transfer of the call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    /// When it is tail-called by a body that was called through a gate.
    OfTailCalls,
    /// Always, if there is a frame.
    OfAllCalls,
    /// When it is tail-called, but not by a gate that bails: that one calls it.
    OfFirstTries,
    Never,
}

/// Whether a version keeps the functions that it calls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Callees {
    Kept,
    /// Other functions only, so as not to make a cycle.
    KeptButItself,
}

/// What becomes of the versions of a function that nothing keeps any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// The one that is live is closed, retired after a heavy fence, and freed by the last to leave.
    Retires {
        /// Whether there is that fence.
        fence: bool,
    },
    /// They go with the function.
    DropsPayloads,
}

/// What becomes of the lanes of a function that nothing keeps any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lanes {
    /// They stay as long as the engine, and are given to other functions when they are free.
    Pooled,
    /// They are given to other functions whether they are free or not.
    PooledAtOnce,
    /// They are freed with the function.
    GoWithFunction,
    /// They are freed by the thread that frees the last version in them.
    GoWhenFree,
}

/// What installs do with [points](super::point).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moving {
    /// What they should.
    Sound,
    /// A parked call has no lease.
    ParkedCallsWithoutLease,
    /// Parked calls can be entered before the resume entry can.
    ResumeEntryLast,
    /// Parked calls are not closed.
    ParkedCallsStayOpen,
    /// The install that withdraws the point takes the resume entry away.
    ResumeEntryGoesAtOnce,
    /// A lease is made whenever the point is offered.
    LeasesNotReused,
    /// The last to have a lease takes the resume entry away, whether or not there is another lease.
    LeasesTakeAway,
}

/// What [`Step::LightFence`](crate::Step::LightFence) does.
#[derive(Clone, Copy)]
pub(super) enum LightFence {
    Nothing,
    /// A full fence, which no gate has.
    Full,
}

/// What a retirer does between `close` and `retire`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HeavyFence {
    /// Makes every thread execute a full fence, wherever it is: membarrier.
    Interrupt,
    /// Executes a full fence itself.
    Own,
    Missing,
}

impl Machine {
    /// Plain counts, made visible by interrupts.
    pub(super) const PLAIN: Self = Self {
        dispatch: Dispatch::Slot,
        order: Dispatch::Slot.order(),
        fetch: Ordering::Relaxed,
        restart: Restart::Current,
        gates: Gates::Stay,
        convention: Convention::Call,
        counting: Counting::Plain,
        transfer: Transfer::OfTailCalls,
        transfer_steps: [Counting::Plain.transfer(), Counting::Plain.bail()],
        callees: Callees::Kept,
        dropped: Dropped::Retires { fence: true },
        lanes: Lanes::Pooled,
        parked_lanes: 0,
        moving: Moving::Sound,
        host_keeps: true,
        light_fence: LightFence::Nothing,
        heavy_fence: HeavyFence::Interrupt,
        load_body: Ordering::Acquire,
        count_out: Ordering::Release,
        in_place: false,
        mutant: None,
        causal: true,
    };

    /// Where there is no membarrier: atomic counts.
    pub(super) const ATOMIC: Self = Self {
        counting: Counting::Atomic,
        transfer_steps: [Counting::Atomic.transfer(), Counting::Atomic.bail()],
        heavy_fence: HeavyFence::Own,
        ..Self::PLAIN
    };

    /// With calls that are patched, on a machine where finding a new call says nothing of what
    /// was stored before it.
    pub(super) const SITES: Self = Self::PLAIN.patching(0);

    /// With calls that are patched, on a machine that fetches what comes after a call after the
    /// call: a caller that finds a new call also finds the old lane closed.
    pub(super) const SITES_IN_ORDER: Self = Self { fetch: Ordering::Acquire, ..Self::SITES };

    /// With a call that is never patched.
    pub(super) const STALE_SITE: Self = Self::PLAIN.patching(1);

    /// Both.
    pub(super) const ATOMIC_SITES: Self = Self::ATOMIC.patching(0);

    /// With functions that can be tail-called.
    pub(super) const TAIL: Self = Self::PLAIN.tail();

    /// The same where there is no membarrier.
    pub(super) const ATOMIC_TAIL: Self = Self::ATOMIC.tail();

    /// The same with calls that are patched.
    pub(super) const TAIL_SITES: Self = Self::SITES.tail();

    /// Plain counts, and versions that are replaced in their place.
    pub(super) const IN_PLACE: Self = Self::PLAIN.in_place();

    /// The same where there is no membarrier.
    pub(super) const ATOMIC_IN_PLACE: Self = Self::ATOMIC.in_place();

    /// The same with functions that can be tail-called.
    pub(super) const TAIL_IN_PLACE: Self = Self::TAIL.in_place();

    const fn in_place(self) -> Self {
        Self { in_place: true, ..self }
    }

    /// With functions that can be tail-called, and a point.
    pub(super) const MOVING: Self = Self { parked_lanes: 2, ..Self::TAIL };

    /// The same where there is no membarrier.
    pub(super) const ATOMIC_MOVING: Self = Self { parked_lanes: 2, ..Self::ATOMIC_TAIL };

    /// The same with calls that are patched.
    pub(super) const MOVING_SITES: Self = Self { parked_lanes: 2, ..Self::TAIL_SITES };

    /// The same machine with functions that can be tail-called.
    const fn tail(self) -> Self {
        Self { convention: Convention::Tail, ..self }
    }

    /// The same machine with two sites, of which `stale` are never patched.
    pub(super) const fn patching(self, stale: usize) -> Self {
        let dispatch = Dispatch::Sites { stale };
        Self { dispatch, order: dispatch.order(), ..self }
    }
}

/// While it lives, the models that this thread runs have the mutant of a machine.
pub(super) struct Planted;

impl Planted {
    pub(super) fn new(machine: Machine) -> Self {
        plant(machine.mutant);
        Self
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        plant(None);
    }
}
