//! Variables, and what is computed with them.

use super::super::{Condition, FloatOp, IntOp};

/// The variables of a function.
pub(super) struct Variables {
    pub(super) function: usize,
    pub(super) number: u64,
    pub(super) fuel: i64,
    pub(super) ints: Vec<i64>,
    pub(super) floats: Vec<f64>,
}

/// What a function returns.
#[derive(Clone, Copy)]
pub(super) struct Results {
    pub(super) int: i64,
    /// `None` from a handler.
    pub(super) float: Option<f64>,
}

impl Variables {
    pub(super) fn results(&self) -> Results {
        let float = self.floats.iter().fold(0.0, |sum, float| sum + float);
        let ints = self.ints.iter();
        let int = ints.fold(0i64, |sum, &int| sum.wrapping_mul(31).wrapping_add(int));
        Results { int: int.wrapping_add(float as i64), float: Some(float) }
    }
}

impl Condition {
    pub(super) fn holds(self, ints: &[i64]) -> bool {
        match self {
            Self::Less(left, right) => ints[left] < ints[right],
            Self::NoneSet(var, mask) => ints[var] & mask == 0,
        }
    }
}

impl IntOp {
    pub(super) fn apply(self, left: i64, right: i64) -> i64 {
        match self {
            Self::Iadd => left.wrapping_add(right),
            Self::Isub => left.wrapping_sub(right),
            Self::Imul => left.wrapping_mul(right),
            Self::Bxor => left ^ right,
            Self::Band => left & right,
            Self::Ishl => left.wrapping_shl(right as u32),
            Self::Ushr => (left as u64).wrapping_shr(right as u32) as i64,
            Self::Sshr => left.wrapping_shr(right as u32),
            Self::Rotl => left.rotate_left(right as u32 % 64),
        }
    }
}

impl FloatOp {
    pub(super) fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Fadd => left + right,
            Self::Fsub => left - right,
            Self::Fmul => left * right,
            Self::Fdiv => left / right,
        }
    }
}
