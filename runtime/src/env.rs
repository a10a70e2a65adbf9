//! What the functions of an engine share, for as long as any of them lives.

use crate::function::SeatPool;
use crate::gates::Gates;
use crate::retirement::Retirement;
use crate::sites::AllCalls;

/// An `Arc`, since a function needs it when it is dropped.
pub(crate) struct FunctionEnv {
    pub(crate) gates: Gates,
    pub(crate) seats: SeatPool,
    pub(crate) retirement: Retirement,
    /// How many calls are patched, and how.
    pub(crate) calls: AllCalls,
}
