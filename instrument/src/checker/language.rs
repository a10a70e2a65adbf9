//! What may happen on a path, as an automaton that accepts the language in [`checker`](super).

use cranelift_codegen::ir::Inst;

use super::rule::Rule;

/// Where a gate gets the addresses that it calls with the caller's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The body word of the lane.
    Body,
    /// The function's word for the current gate.
    Current,
    /// The function's slot.
    Slot,
}

/// How strong a fence is, or has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fence {
    None,
    Light,
    Full,
}

/// A letter of the language. An instruction that is none of them says nothing, or is an offence.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The count went up, and this fence has to follow.
    CountIn(Fence),
    /// The count went down, and this fence has to follow.
    CountOut(Fence),
    Fence(Fence),
    Load(Source, Inst),
    /// The path goes on as if what the instruction loaded were zero, or were not.
    Test {
        loaded: Inst,
        zero: bool,
    },
    /// A call, with the caller's arguments, of what the instruction loaded.
    Call(Source, Inst),
    Leave,
    Removed,
}

/// What a path returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returned {
    Results(Source),
    Zeros,
}

/// How far a path has come; a state of the automaton.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// The beginning of an entry that is no gate.
    Outside,
    Found {
        gate: Inst,
    },
    Forwarded,
    /// The beginning of a gate.
    Before,
    In {
        due: Fence,
    },
    Loaded {
        body: Inst,
    },
    Entered {
        body: Inst,
    },
    Ran,
    Refused,
    Out {
        ran: bool,
        due: Fence,
    },
    Checking {
        ran: bool,
        body: Inst,
    },
    Leaving {
        ran: bool,
    },
    Checked {
        ran: bool,
    },
    Choosing {
        gate: Inst,
    },
    Restarting {
        gate: Inst,
    },
    Restarted,
    Nowhere,
    Reported,
}

impl Phase {
    /// How far the path has come after `event`, or the rule that the event breaks.
    pub(super) fn after(self, event: Event) -> Result<Self, Rule> {
        use Event::{Call, CountIn, CountOut, Leave, Load, Removed, Test};
        use Phase::*;
        Ok(match (self, event) {
            (Outside, Load(Source::Slot, gate)) => Found { gate },
            (Found { gate }, Call(Source::Slot, called)) if called == gate => Forwarded,

            (Before, CountIn(due)) => In { due },
            (In { due: Fence::None }, Load(Source::Body, body)) => Loaded { body },
            (Loaded { body }, Test { loaded, zero: false }) if loaded == body => Entered { body },
            (Loaded { body }, Test { loaded, zero: true }) if loaded == body => Refused,
            (Entered { body }, Call(Source::Body, called)) if called == body => Ran,
            (Ran, CountOut(due)) => Out { ran: true, due },
            (Refused, CountOut(due)) => Out { ran: false, due },

            (Out { ran, due: Fence::None }, Load(Source::Body, body)) => Checking { ran, body },
            (Checking { ran, body }, Test { loaded, zero: false }) if loaded == body => {
                Checked { ran }
            }
            (Checking { ran, body }, Test { loaded, zero: true }) if loaded == body => {
                Leaving { ran }
            }
            (Leaving { ran }, Leave) => Checked { ran },

            (Checked { ran: false }, Load(Source::Current, gate)) => Choosing { gate },
            (Choosing { gate }, Test { loaded, zero: false }) if loaded == gate => {
                Restarting { gate }
            }
            (Choosing { gate }, Test { loaded, zero: true }) if loaded == gate => Nowhere,
            (Restarting { gate }, Call(Source::Current, called)) if called == gate => Restarted,
            (Nowhere, Removed) => Reported,

            (In { due }, Event::Fence(fence)) if fence >= due => In { due: Fence::None },
            (Out { ran, due }, Event::Fence(fence)) if fence >= due => {
                Out { ran, due: Fence::None }
            }
            // A fence that is not due orders more than it must.
            (phase, Event::Fence(_)) => phase,
            (phase, event) => return Err(phase.offended_by(event)),
        })
    }

    /// What a path that has come this far may return, or the rule that returning breaks.
    pub(super) fn returns(self) -> Result<Returned, Rule> {
        match self {
            Self::Checked { ran: true } => Ok(Returned::Results(Source::Body)),
            Self::Restarted => Ok(Returned::Results(Source::Current)),
            Self::Forwarded => Ok(Returned::Results(Source::Slot)),
            Self::Reported => Ok(Returned::Zeros),
            _ => Err(self.due()),
        }
    }

    /// The rule that an event breaks that may not happen now: its own if the path was past it or
    /// must never come to it, else that of what is left out.
    fn offended_by(self, event: Event) -> Rule {
        match event {
            Event::CountIn(_) => Rule::CountIn,
            Event::CountOut(_) if !self.counted_in() => Rule::CountOut,
            Event::Call(Source::Body, _) => Rule::CallBody,
            Event::Call(Source::Current, _) => Rule::Restart,
            Event::Call(Source::Slot, _) => Rule::Forward,
            Event::Leave => Rule::Leave,
            Event::Removed => Rule::Removed,
            _ => self.due(),
        }
    }

    fn counted_in(self) -> bool {
        use Phase::*;
        matches!(self, In { .. } | Loaded { .. } | Entered { .. } | Ran | Refused)
    }

    /// The rule that says what has to happen next.
    pub(super) fn due(self) -> Rule {
        match self {
            Self::Outside | Self::Found { .. } => Rule::Forward,
            Self::Before => Rule::CountIn,
            Self::In { due: Fence::None } | Self::Loaded { .. } => Rule::LoadBody,
            Self::In { .. } => Rule::Fence,
            Self::Entered { .. } => Rule::CallBody,
            Self::Ran | Self::Refused => Rule::CountOut,
            Self::Out { due: Fence::None, .. } | Self::Checking { .. } => Rule::CheckBody,
            Self::Out { .. } => Rule::Fence,
            Self::Leaving { .. } => Rule::Leave,
            Self::Checked { ran: false } | Self::Choosing { .. } | Self::Restarting { .. } => {
                Rule::Restart
            }
            Self::Nowhere => Rule::Removed,
            Self::Checked { ran: true } | Self::Restarted | Self::Reported | Self::Forwarded => {
                Rule::Return
            }
        }
    }
}
