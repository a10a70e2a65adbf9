//! What kind of gate to make, be it in CLIF or in machine code.

use lastout_reclaim::Counting;

/// What kind of gate to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GateOptions {
    /// How the gate counts.
    pub counting: Counting,
    /// Call [`Symbol::Interleave`](crate::Symbol::Interleave) before every step, so that a test can
    /// make threads change places there.
    pub interleave: bool,
}
