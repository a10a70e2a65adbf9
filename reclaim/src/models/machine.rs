//! What a model assumes of the machine, and which mistake it makes on purpose.

use crate::Counting;
use crate::sync::{Mutant, Ordering, plant};

/// One variant of the protocol on one kind of machine.
#[derive(Clone, Copy)]
pub(super) struct Machine {
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
