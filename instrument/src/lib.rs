//! Cranelift IR for functions that can be replaced.

mod arch;
mod checker;
mod dispatch;
mod entry;
mod gate;
mod signature;
mod stub;
mod symbol;
mod zero;

pub use checker::{Rule, Violation, check_gate};
pub use dispatch::{Callee, route_calls};
pub use entry::{c_entry, host_entry};
pub use gate::{GateOptions, gate};
pub use signature::check_signature;
pub use stub::preserving_stub;
pub use symbol::{Symbol, symbol_name};

/// Why a function or signature cannot be instrumented.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A gate cannot forward calls of this signature.
    #[error("signature {signature} cannot be called through a gate: {why}")]
    Signature {
        /// The signature, as CLIF prints it.
        signature: String,
        /// What about it.
        why: &'static str,
    },
    /// The function calls a replaceable function in a way that a gate cannot count.
    #[error("`{instruction}`: {why}")]
    Call {
        /// The instruction, as CLIF prints it.
        instruction: String,
        /// What about it.
        why: &'static str,
    },
    /// The function uses the pinned register, which holds the ledger.
    #[error("`{instruction}`: the pinned register holds the thread's ledger")]
    PinnedRegister {
        /// The instruction, as CLIF prints it.
        instruction: String,
    },
    /// The function names a symbol that is neither a declared function nor declared data.
    #[error("{0} is not declared in this unit")]
    Undeclared(String),
}
