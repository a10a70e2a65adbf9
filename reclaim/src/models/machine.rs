//! What a model assumes of the machine, and which mistake it makes on purpose.

use crate::Counting;
use crate::sync::{Mutant, Ordering, plant};

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
    pub(super) counting: Counting,
    pub(super) light_fence: LightFence,
    pub(super) heavy_fence: HeavyFence,
    /// Of the load in [`Step::LoadBody`](crate::Step::LoadBody).
    pub(super) load_body: Ordering,
    /// Of the store in [`Step::CountOut`](crate::Step::CountOut).
    pub(super) count_out: Ordering,
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
    /// Who bails out of a gate goes on from the new lane's.
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
    /// They stay, for whoever comes late.
    Stay,
    /// They are freed with the version that they were made for.
    GoWithVersion,
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
        counting: Counting::Plain,
        light_fence: LightFence::Nothing,
        heavy_fence: HeavyFence::Interrupt,
        load_body: Ordering::Acquire,
        count_out: Ordering::Release,
        mutant: None,
        causal: true,
    };

    /// Where there is no membarrier: atomic counts.
    pub(super) const ATOMIC: Self =
        Self { counting: Counting::Atomic, heavy_fence: HeavyFence::Own, ..Self::PLAIN };

    /// With calls that are patched, on a machine where finding a new call says nothing of what
    /// was stored before it.
    pub(super) const SITES: Self = Self::PLAIN.patching(0);

    /// With calls that are patched, on a machine that fetches what comes after a call after the
    /// call: who finds a new call also finds the old lane closed.
    pub(super) const SITES_IN_ORDER: Self = Self { fetch: Ordering::Acquire, ..Self::SITES };

    /// With a call that is never patched.
    pub(super) const STALE_SITE: Self = Self::PLAIN.patching(1);

    /// Both.
    pub(super) const ATOMIC_SITES: Self = Self::ATOMIC.patching(0);

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
