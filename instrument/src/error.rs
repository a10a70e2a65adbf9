//! Why something cannot be instrumented.

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
    /// Frames of the function cannot move to another version.
    #[error("the function cannot be resumed in another version: {why}")]
    NotResumable {
        /// What about it.
        why: &'static str,
    },
    /// A point at which frames are to move is none.
    #[error("point {id}: {why}")]
    Point {
        /// The number of the point.
        id: u32,
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
