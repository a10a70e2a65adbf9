//! What a path owes where it calls something, jumps away, or returns.

use iced_x86::Register;
use lastout_instrument::Symbol;

use super::kind::Kind;
use super::memory::Place;
use super::path::Path;
use super::processor::{KEPT, Value, all_registers};
use super::word::{Event, Lane, Phase, Rule, Then};

/// Where frame pointers point to: below the return address is that of the caller.
const FRAME: i64 = -8;
/// Where in its frame an entry has `rbx`, in which it keeps its lane.
const SAVED_RBX: i64 = -16;

impl Path {
    /// A call of the body, or of the current gate: by an entry, which has registers to put back.
    pub(crate) fn call_loaded(&mut self, target: Register) -> Result<(), Rule> {
        let event = match (self.processor.get(target)?, self.kind, self.phase) {
            (Value::Body(Lane::Own), Kind::Tail { .. }, _) => {
                Event::CallBody { out_of: Lane::Taken }
            }
            (Value::Body(Lane::Own), ..) => Event::CallBody { out_of: Lane::Own },
            (Value::Current, Kind::Entry { .. }, _) => Event::Restart,
            (_, Kind::Entry { .. }, Phase::Restarting | Phase::Nowhere) => {
                return Err(Rule::Restart);
            }
            _ => return Err(Rule::CallBody),
        };
        self.event(event)?;
        self.check_alignment()?;
        self.check_arguments(self.processor.top()?)?;
        self.check_ledger()?;
        self.check_frame(event != Event::Restart)?;
        let results = self.kind.results();
        for register in all_registers().filter(|&it| it != Register::RSP && !KEPT.contains(&it)) {
            let result = results.contains(&register);
            let left = if result { Value::Result(register) } else { Value::Spoilt };
            self.processor.set(register, left)?;
        }
        self.processor.zero = None;
        // A function that can be tail-called takes its arguments away, and leaves the lane of the
        // last one.
        self.processor.move_top(self.start.stack_bytes)?;
        if let (Kind::Tail { .. }, Some(lane)) = (self.kind, self.frame.lane) {
            self.processor.set_stack(FRAME + i64::from(lane), Value::Lane(Lane::Taken))?;
        }
        Ok(())
    }

    pub(crate) fn call_stub(&mut self, stub: Symbol) -> Result<(), Rule> {
        let lane = match self.processor.get(Register::RDI)? {
            Value::Lane(lane) => Some(lane),
            _ => None,
        };
        match stub {
            Symbol::Leave => match (lane, self.phase) {
                (Some(lane), _) => self.event(Event::Leave(lane))?,
                (None, Phase::Leaving { .. }) => return Err(Rule::Lane),
                (None, phase) => return Err(phase.due()),
            },
            Symbol::Removed => self.event(Event::Removed)?,
            Symbol::Interleave => self.hook()?,
            _ => return Err(Rule::Jump),
        }
        if lane.is_none_or(|lane| lane != Lane::Own && stub == Symbol::Removed) {
            return Err(Rule::Lane);
        }
        // Either is a frame that has a caller.
        let frames = [Value::Entry(Register::RBP), Value::Stack(FRAME)];
        if !frames.contains(&self.processor.get(Register::RBP)?) {
            return Err(Rule::Frame);
        }
        self.check_ledger()?;
        self.check_alignment()?;
        self.processor.zero = None;
        Ok(())
    }

    /// A jump to what returns to the caller: how gates restart, and hand on.
    pub(crate) fn jump_away(&mut self, to: Register, place: Option<Place>) -> Result<(), Rule> {
        let target = match place {
            Some(Place::Constant(value)) => value,
            Some(_) => return Err(Rule::Memory),
            None => self.processor.get(to)?,
        };
        let event = match (target, self.kind) {
            (Value::Current, Kind::Gate | Kind::Tail { .. }) => Event::Restart,
            (Value::Body(Lane::Own), Kind::Tail { .. }) => Event::JumpBody,
            (Value::Zeros, Kind::Tail { .. }) => Event::JumpZeros,
            _ => return Err(Rule::Restart),
        };
        self.event(event)?;
        self.check_stack(0)?;
        self.check_saved()?;
        self.check_arguments(8)
    }

    pub(crate) fn check_return(&self) -> Result<(), Rule> {
        let holds = |expected: fn(Register) -> Value| {
            let mut results = self.kind.results().into_iter();
            results.all(|register| self.processor.holds(register, expected(register)))
        };
        match (self.phase, self.kind) {
            (Phase::Checked { then: Then::Return } | Phase::Restarted, _) => {
                if !holds(Value::Result) {
                    return Err(Rule::Results);
                }
            }
            (Phase::Reported, Kind::Gate | Kind::Entry { .. }) => {
                if !holds(|_| Value::Zero) {
                    return Err(Rule::Zeros);
                }
            }
            (phase, _) => return Err(phase.due()),
        }
        // A function that can be tail-called takes its arguments away.
        self.check_stack(self.start.stack_bytes)?;
        self.check_saved()
    }

    /// All arguments are there: those on the stack from a place on.
    fn check_arguments(&self, stack: i64) -> Result<(), Rule> {
        let mut forwarded = self.kind.forwards().into_iter();
        let mut passed = forwarded.all(|(to, from)| self.processor.holds(to, Value::Entry(from)));
        for word in (0..self.start.stack_bytes).step_by(8) {
            passed &= self.processor.stack_holds(stack + word, Value::Argument(8 + word));
        }
        if passed { Ok(()) } else { Err(Rule::Arguments) }
    }

    fn check_ledger(&self) -> Result<(), Rule> {
        let pinned = self.processor.holds(Register::R15, Value::Ledger);
        if pinned { Ok(()) } else { Err(Rule::Ledger) }
    }

    /// What the caller keeps in registers is there.
    fn check_saved(&self) -> Result<(), Rule> {
        let saved = KEPT.into_iter().all(|it| self.processor.holds(it, self.kind.holds(it)));
        if saved { Ok(()) } else { Err(Rule::Saved) }
    }

    /// On the top of the stack, which is there, is where the caller goes on.
    fn check_stack(&self, top: i64) -> Result<(), Rule> {
        let caller = self.kind.processor(self.frame, self.start).stack(0)?;
        let kept = self.processor.top()? == top && self.processor.stack_holds(top, caller);
        if kept { Ok(()) } else { Err(Rule::Stack) }
    }

    /// A call wants the stack pointer to be a multiple of 16. On entry it has been one before the
    /// return address was pushed.
    fn check_alignment(&self) -> Result<(), Rule> {
        if (self.processor.top()? - 8) % 16 == 0 { Ok(()) } else { Err(Rule::Alignment) }
    }

    /// An unwinder finds its way: to the caller by the frame pointer, to the lane if it is counted
    /// in, which it is just where the body returns to, and to all that it has to put back.
    fn check_frame(&self, counted_in: bool) -> Result<(), Rule> {
        let holds = |at, value| self.processor.stack_holds(FRAME + at, value);
        let returned = u32::try_from(self.at.1).ok();
        let mut kept = self.processor.holds(Register::RBP, Value::Stack(FRAME))
            && holds(0, Value::Entry(Register::RBP))
            && counted_in == (self.frame.body_return == returned);
        kept &= match (self.kind, self.frame.lane, self.frame.outer) {
            // It has the lane in its code, and changes no register.
            (Kind::Gate, None, None) => true,
            (Kind::Tail { .. }, Some(lane), None) => holds(lane.into(), Value::Lane(Lane::Own)),
            (Kind::Entry { .. }, None, Some(outer)) => {
                holds(outer.into(), Value::Entry(Register::R15))
                    && holds(SAVED_RBX, Value::Entry(Register::RBX))
                    && (!counted_in || self.processor.holds(Register::RBX, Value::Lane(Lane::Own)))
            }
            _ => false,
        };
        if kept { Ok(()) } else { Err(Rule::Frame) }
    }
}
