//! The state that the functions of an engine share, for as long as any of them lives.

use crate::function::LanePool;
use crate::function::callee::AllCalls;
use crate::function::retirement::Retirement;
use crate::gates::Gates;

/// Each function owns an `Arc` of this, since it needs it when it is dropped.
pub(crate) struct FunctionEnv {
    pub(crate) gates: Gates,
    pub(crate) lane_pool: LanePool,
    pub(crate) retirement: Retirement,
    /// How many calls are patched, and how.
    pub(crate) calls: AllCalls,
}
