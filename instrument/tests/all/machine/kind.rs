//! What machine code is to be, and what it finds when it is called.

use iced_x86::Register;
use lastout_instrument::GateFrame;
use lastout_reclaim::Counting;

use super::processor::{INTEGERS, Processor, Value, vectors};
use super::word::Lane;

/// What the machine code is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Gate,
    Entry {
        /// How many of the arguments are integers.
        integers: usize,
    },
    /// The gate of functions that can be tail-called, with a head for each of [`STACK_BYTES`].
    Tail {
        counting: Counting,
        interleave: bool,
    },
}

/// How many bytes of arguments there are on the stack of functions that can be tail-called: none,
/// and so many that a loop that copies them goes round once for each of two and of four words.
pub(crate) const STACK_BYTES: [u32; 3] = [0, 16, 32];

// The parts, by their numbers.
pub(crate) const GATE: usize = 0;
pub(crate) const LEAVE: usize = 1;
pub(crate) const BAIL: usize = 2;
pub(crate) const ENTRY: usize = 0;
/// Of those for as many bytes of arguments as there are in that place.
pub(crate) const HEADS: std::ops::Range<usize> = 0..STACK_BYTES.len();
pub(crate) const TAIL_GATE: usize = HEADS.end;

/// How a path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The part that is called.
    pub(crate) part: usize,
    /// By a body that would have returned to a gate.
    pub(crate) tail_called: bool,
    /// How many bytes of arguments there are on the stack.
    pub(crate) stack_bytes: i64,
}

impl Kind {
    /// What the parts are called.
    pub(crate) fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Gate => &["gate", "leave tail", "bail tail"],
            Self::Entry { .. } => &["entry"],
            Self::Tail { .. } => &["head of 0", "head of 16", "head of 32", "gate"],
        }
    }

    /// The part that calls the body.
    pub(crate) fn calling_part(self) -> usize {
        match self {
            Self::Gate => GATE,
            Self::Entry { .. } => ENTRY,
            Self::Tail { .. } => TAIL_GATE,
        }
    }

    /// All the ways in which it can be called.
    pub(crate) fn starts(self) -> Vec<Start> {
        match self {
            Self::Gate | Self::Entry { .. } => {
                vec![Start { part: 0, tail_called: false, stack_bytes: 0 }]
            }
            Self::Tail { .. } => HEADS
                .flat_map(|part| [false, true].map(|tail_called| (part, tail_called)))
                .map(|(part, tail_called)| Start {
                    part,
                    tail_called,
                    stack_bytes: STACK_BYTES[part].into(),
                })
                .collect(),
        }
    }

    /// How often a path may come to the same instruction.
    pub(crate) fn rounds(self) -> usize {
        match self {
            Self::Gate | Self::Entry { .. } => 1,
            Self::Tail { .. } => {
                STACK_BYTES.map(|bytes| bytes as usize / 8).into_iter().max().unwrap_or(1)
            }
        }
    }

    pub(crate) fn counting(self) -> Counting {
        match self {
            Self::Gate | Self::Entry { .. } => Counting::Plain,
            Self::Tail { counting, .. } => counting,
        }
    }

    pub(crate) fn has_hook(self) -> bool {
        matches!(self, Self::Tail { interleave: true, .. })
    }

    /// What is in a register on entry.
    pub(crate) fn holds(self, register: Register) -> Value {
        match (self, register) {
            (Self::Gate | Self::Tail { .. }, Register::R15)
            | (Self::Entry { .. }, Register::RDI) => Value::Ledger,
            (Self::Entry { .. }, Register::RSI) => Value::Function(Lane::Own),
            _ => Value::Entry(register),
        }
    }

    /// Registers and stack on entry.
    pub(crate) fn processor(self, frame: GateFrame, start: Start) -> Processor {
        let returned = match frame.body_return {
            Some(at) if start.tail_called => Value::Code(TAIL_GATE, at as usize),
            _ => Value::ReturnAddress,
        };
        let arguments = (8..).step_by(8).take_while(|&at| at <= start.stack_bytes);
        let stack = std::iter::once(returned).chain(arguments.map(Value::Argument));
        Processor::new(|register| self.holds(register), stack)
    }

    /// What is to be called with the caller's arguments in its registers, and which registers of
    /// the caller they are from.
    pub(crate) fn forwards(self) -> Vec<(Register, Register)> {
        match self {
            Self::Gate => arguments().map(|register| (register, register)).collect(),
            Self::Tail { .. } => {
                let all = arguments().filter(|&register| register != Register::RAX);
                all.map(|register| (register, register)).collect()
            }
            Self::Entry { integers } => {
                let shifted = INTEGERS.into_iter().zip(INTEGERS.into_iter().skip(2)).take(integers);
                shifted.chain(vectors().map(|register| (register, register))).collect()
            }
        }
    }

    /// The registers that may carry a result.
    pub(crate) fn results(self) -> Vec<Register> {
        match self {
            Self::Gate | Self::Entry { .. } => RESULTS.to_vec(),
            Self::Tail { .. } => TAIL_RESULTS.into_iter().chain(vectors()).collect(),
        }
    }
}

pub(crate) const RESULTS: [Register; 4] =
    [Register::RAX, Register::RDX, Register::XMM0, Register::XMM1];

/// The integer registers that carry results of functions that can be tail-called.
pub(crate) const TAIL_RESULTS: [Register; 8] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
];

/// The registers that carry something from the caller to the body: `al` has the number of vectors
/// where arguments are variable, which they cannot be if a function can be tail-called.
pub(crate) fn arguments() -> impl Iterator<Item = Register> {
    INTEGERS.into_iter().chain([Register::RAX]).chain(vectors())
}
