//! What a gate must keep to, and where it does not.

/// Where a function is not a gate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{instruction}`: {rule}")]
pub struct Violation {
    /// The rule that is broken.
    pub rule: Rule,
    /// The first instruction, on one of the paths, that cannot be if the rule is kept; as CLIF
    /// prints it.
    pub instruction: String,
}

/// What a gate must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rule {
    /// No path meets a block twice.
    #[error("a gate has no loops")]
    Acyclic,
    /// A path counts in first of all, and once.
    #[error("a path counts in first of all, and once")]
    CountIn,
    /// What is stored to the cell is what was just loaded from it, plus or minus one.
    #[error("a count changes by one, from what it is at that moment")]
    ByOne,
    /// Between a count and the load of the body there is a fence.
    #[error("there is a fence between a count and the load of the body")]
    Fence,
    /// Counted in, a path loads the body and tests it.
    #[error("the body is loaded and tested after counting in")]
    LoadBody,
    /// The body is called once where it is known not to be 0, while counted in; else never.
    #[error("the body is called if it is not 0, once, and while counted in")]
    CallBody,
    /// A path counts out once: after the body has returned, or when there was none.
    #[error("a path counts out once, with the body behind it")]
    CountOut,
    /// Counted out, a path loads the body again and tests it.
    #[error("the body is loaded and tested after counting out")]
    CheckBody,
    /// Leave is called once where the body was found 0 after counting out; else never.
    #[error("leave is called once if the body was 0 after counting out, else not")]
    Leave,
    /// A path that found no body to enter goes on with the current gate, if there is one.
    #[error("what was not entered starts again, and nothing else does")]
    Restart,
    /// A path that found no current gate reports that, once; no other does.
    #[error("removed is called once if there is no current gate, else not")]
    Removed,
    /// A call has the signature that it must, and passes exactly what it must.
    #[error("calls pass on the parameters, and stubs get the lane")]
    Arguments,
    /// A path returns the results of what it called, or zeros if it could call nothing.
    #[error("a path returns the results of what it called")]
    Return,
    /// Loads of a body or a gate acquire, and the store that counts out releases.
    #[error("the body is loaded with acquire, and counted out with release ordering")]
    Ordering,
    /// The pinned register holds the ledger wherever something is called, and in the end what it
    /// held at first.
    #[error("the ledger is in the pinned register for calls, and what was there in the end")]
    Pinned,
    /// Where something is called with the parameters, an unwinder finds in the frame of an entry
    /// its lane, and what the pinned register held at first; and the call of the body is marked, so
    /// that it knows that this alone is counted in.
    #[error("an unwinder finds what it needs in the frame, and knows the call of the body")]
    Frame,
    /// An entry of a function that can be tail-called calls the gate that it has loaded from the
    /// slot, once.
    #[error("an entry that is no gate loads one from the slot, and calls it")]
    Forward,
    /// It tail-calls it if the ledger is in the pinned register already, else not.
    #[error("an entry leaves no frame if it was called with the ledger, and only then")]
    TailCall,
    /// Nothing else is done.
    #[error("nothing else happens in a gate")]
    Foreign,
}
