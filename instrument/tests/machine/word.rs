//! What may happen on a path through a gate, or an entry, in machine code.
//!
//! The language is that at the top of `src/checker.rs`, without the light fences, which are no
//! instructions. It is written down a second time, so that the two cannot be wrong together.

/// A letter of the language. A load and what it is found to be are one letter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    In,
    Out,
    Body { zero: bool },
    CallBody,
    Leave,
    Current { zero: bool },
    Restart,
    Removed,
}

/// Why machine code is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    // What has to happen next where something else has happened.
    CountIn,
    LoadBody,
    CallBody,
    CountOut,
    CheckBody,
    Leave,
    LoadCurrent,
    Restart,
    Removed,
    Return,
    /// A count changes by one.
    ByOne,
    /// An argument is not where the caller has put it.
    Arguments,
    /// A result is not where the body has put it.
    Results,
    /// A gate that could call nothing returns something else than zeros.
    Zeros,
    /// A stub gets something else than the lane, or there are two lanes.
    Lane,
    /// The ledger is not in the pinned register where something is called.
    Ledger,
    /// Calls are made with the stack aligned to 16 bytes.
    Alignment,
    /// The stack is not as it was on entry, or something else than its top is read.
    Stack,
    /// An unwinder would not find the caller, the lane, or what it has to put back.
    Frame,
    /// What the caller keeps in a register is not there in the end.
    Saved,
    /// A jump depends on flags that no test has set.
    Flags,
    /// Memory that is none of the words that gates know.
    Memory,
    /// What is filled in is not exactly one part of an instruction, or not exactly a symbol.
    Fixup,
    /// A jump goes nowhere, or back.
    Jump,
    /// The interpreter does not know this instruction, or not with this part of it filled in.
    Instruction,
    /// There are instructions that no path comes to.
    Unreached,
}

/// How far a path has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Before,
    In,
    Entered,
    Ran,
    Refused,
    Out { ran: bool },
    Leaving { ran: bool },
    Checked { ran: bool },
    Restarting,
    Restarted,
    Nowhere,
    Reported,
}

impl Phase {
    /// How far the path has come after `event`, or what should have happened instead.
    pub(crate) fn after(self, event: Event) -> Result<Self, Rule> {
        Ok(match (self, event) {
            (Self::Before, Event::In) => Self::In,
            (Self::In, Event::Body { zero: false }) => Self::Entered,
            (Self::In, Event::Body { zero: true }) => Self::Refused,
            (Self::Entered, Event::CallBody) => Self::Ran,
            (Self::Ran, Event::Out) => Self::Out { ran: true },
            (Self::Refused, Event::Out) => Self::Out { ran: false },
            (Self::Out { ran }, Event::Body { zero: false }) => Self::Checked { ran },
            (Self::Out { ran }, Event::Body { zero: true }) => Self::Leaving { ran },
            (Self::Leaving { ran }, Event::Leave) => Self::Checked { ran },
            (Self::Checked { ran: false }, Event::Current { zero: false }) => Self::Restarting,
            (Self::Checked { ran: false }, Event::Current { zero: true }) => Self::Nowhere,
            (Self::Restarting, Event::Restart) => Self::Restarted,
            (Self::Nowhere, Event::Removed) => Self::Reported,
            _ => return Err(self.due()),
        })
    }

    /// What has to happen next.
    pub(crate) fn due(self) -> Rule {
        match self {
            Self::Before => Rule::CountIn,
            Self::In => Rule::LoadBody,
            Self::Entered => Rule::CallBody,
            Self::Ran | Self::Refused => Rule::CountOut,
            Self::Out { .. } => Rule::CheckBody,
            Self::Leaving { .. } => Rule::Leave,
            Self::Checked { ran: false } => Rule::LoadCurrent,
            Self::Restarting => Rule::Restart,
            Self::Nowhere => Rule::Removed,
            Self::Checked { ran: true } | Self::Restarted | Self::Reported => Rule::Return,
        }
    }
}
