//! What operands in memory are.

use iced_x86::{Instruction, Register};
use lastout_instrument::{LaneLayout, Symbol};

use super::kind::Kind;
use super::listing::Named;
use super::path::Path;
use super::processor::Value;
use super::word::{Event, Lane, Rule};

/// A word in memory that gates and entries know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Of 32 bits, the calling thread's.
    Cell(Lane),
    /// In the lane, or in the function; never changes.
    Constant(Value),
    /// In the function: the lane whose gate is in the slot. Others may change it at any time.
    Lane,
    Shared(Word),
    /// On the stack, that far from where its top was on entry.
    Stack(i64),
    /// The lane in the frame of the gate that is returned to.
    Frame,
    /// An instruction, from the start of the part.
    Code(usize),
}

/// A word in memory that others may change at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Body(Lane),
    Current,
}

impl Word {
    pub(crate) fn event(self, zero: bool) -> Event {
        match self {
            Self::Body(of) => Event::Body { of, zero },
            Self::Current => Event::Current { zero },
        }
    }

    pub(crate) fn value(self) -> Value {
        match self {
            Self::Body(of) => Value::Body(of),
            Self::Current => Value::Current,
        }
    }
}

impl Path {
    /// What an operand in memory is.
    pub(crate) fn place(
        &self,
        it: &Instruction,
        named: Option<Named>,
        layout: LaneLayout,
    ) -> Result<Place, Rule> {
        if it.has_segment_prefix() {
            return Err(Rule::Memory);
        }
        if it.memory_base() == Register::RIP && named.is_none() {
            return Ok(Place::Code(it.ip_rel_memory_address() as usize));
        }
        let tail_gate = matches!(self.kind, Kind::Tail { .. });
        let value = |register| self.processor.get(register).map_err(|_| Rule::Memory);
        let base = value(it.memory_base())?;
        let distance = it.memory_displacement64() as i64;
        if it.memory_index() != Register::None {
            if it.memory_index_scale() != 1 || named.is_some() {
                return Err(Rule::Memory);
            }
            return match (base, value(it.memory_index())?) {
                (Value::Ledger, Value::CellOffset(lane)) if distance == 0 => Ok(Place::Cell(lane)),
                (Value::Stack(at), Value::Number(number)) => {
                    Ok(Place::Stack(at + i64::from(number) + distance))
                }
                _ => Err(Rule::Memory),
            };
        }
        let LaneLayout { function, cell_offset, current, lane, no_version } = layout;
        let is = |other: i32| distance == i64::from(other);
        match (base, named) {
            (Value::Ledger, Some(Named::Displacement(Symbol::CellOffset))) => {
                Ok(Place::Cell(Lane::Own))
            }
            (Value::Lane(of), None) if is(0) => Ok(Place::Shared(Word::Body(of))),
            (Value::Lane(of), None) if is(function) => Ok(Place::Constant(Value::Function(of))),
            (Value::Lane(of), None) if is(cell_offset) => {
                Ok(Place::Constant(Value::CellOffset(of)))
            }
            (Value::Function(Lane::Own), None) if is(current) => Ok(Place::Shared(Word::Current)),
            (Value::Function(Lane::Own), None) if is(lane) => Ok(Place::Lane),
            (Value::Function(Lane::Own), None) if is(no_version) => {
                Ok(Place::Constant(Value::Zeros))
            }
            (Value::Stack(at), None) if tail_gate => Ok(Place::Stack(at + distance)),
            (Value::Entry(Register::RBP), None)
                if self.start.tail_called && self.frame.lane.is_some_and(is) =>
            {
                Ok(Place::Frame)
            }
            _ => Err(Rule::Memory),
        }
    }
}
