//! One path through the machine code of a gate or an entry, instruction by instruction.
//!
//! The body leaves nothing in the registers that it may change, nor on the stack below it. The
//! stubs keep all registers, but not the flags.

use iced_x86::{Code, Instruction, OpKind, Register};
use lastout_instrument::{GateFrame, LaneLayout, Symbol};
use lastout_reclaim::Counting;

use super::kind::{BAIL, Kind, LEAVE, Start, TAIL_GATE};
use super::listing::{Line, Named};
use super::memory::{Place, Word};
use super::processor::{Processor, Value, whole};
use super::word::{Event, Lane, Phase, Rule, Then};

/// The beginning of a path.
#[derive(Clone)]
pub(crate) struct Path {
    pub(crate) kind: Kind,
    /// Where an unwinder looks for things.
    pub(crate) frame: GateFrame,
    /// How it began.
    pub(crate) start: Start,
    /// Which part of the machine it is in, and how many bytes from the start of that.
    pub(crate) at: (usize, usize),
    /// Where it has been.
    pub(crate) met: Vec<(usize, usize)>,
    pub(crate) processor: Processor,
    pub(crate) phase: Phase,
    /// Whether it has a lane already. Another load may find another lane.
    has_lane: bool,
    /// Which lane is in the frame of the gate that it would return to, if it was tail-called.
    pub(crate) in_frame: Lane,
    /// How often threads could have changed places since the last event.
    hooks: usize,
}

impl Path {
    pub(crate) fn start(kind: Kind, frame: GateFrame, start: Start) -> Self {
        Self {
            kind,
            frame,
            start,
            at: (start.part, 0),
            met: Vec::new(),
            processor: kind.processor(frame, start),
            phase: Phase::Before { tail_called: start.tail_called },
            has_lane: !matches!(kind, Kind::Entry { .. }),
            in_frame: Lane::Taken,
            hooks: 0,
        }
    }

    /// Interprets an instruction, and returns the paths that go on from it.
    pub(crate) fn step(mut self, line: &Line, layout: LaneLayout) -> Result<Vec<Self>, Rule> {
        let it = &line.instruction;
        let named = line.named().map_err(|()| Rule::Fixup)?;
        if it.has_rep_prefix() || it.has_repne_prefix() {
            return Err(Rule::Instruction);
        }
        // What lies ahead of the instruction counts from here.
        self.at.1 = it.next_ip() as usize;
        let place = match (0..it.op_count()).any(|n| it.op_kind(n) == OpKind::Memory) {
            true => Some(self.place(it, named, layout)?),
            false => None,
        };
        if it.has_lock_prefix() && !matches!(place, Some(Place::Cell(_))) {
            return Err(Rule::Instruction);
        }
        let (to, from) = (it.op0_register(), it.op1_register());
        match (it.code(), named, place) {
            (Code::Nopd, None, None) => {}
            (Code::Inc_rm32, _, Some(Place::Cell(lane))) => self.count(it, Event::In(lane), 1)?,
            (Code::Dec_rm32, _, Some(Place::Cell(lane))) => self.count(it, Event::Out(lane), 1)?,
            (Code::Add_rm32_imm8, _, Some(Place::Cell(lane))) => {
                self.count(it, Event::In(lane), it.immediate8())?;
            }
            (Code::Sub_rm32_imm8, _, Some(Place::Cell(lane))) => {
                self.count(it, Event::Out(lane), it.immediate8())?;
            }
            (Code::Mov_r64_imm64, Some(Named::Constant(symbol)), None) => {
                let lane = symbol == Symbol::Lane && !matches!(self.kind, Kind::Entry { .. });
                let value = if lane { Value::Lane(Lane::Own) } else { Value::Address(symbol) };
                self.processor.set(to, value)?;
            }
            (Code::Mov_rm64_r64 | Code::Mov_r64_rm64, None, None) => {
                let value = self.processor.get(from)?;
                match (to, value, self.kind) {
                    (Register::RSP, Value::Stack(at), Kind::Tail { .. }) => {
                        let by = at - self.processor.top()?;
                        self.processor.move_top(by)?;
                    }
                    _ => self.processor.set(to, value)?,
                }
            }
            (Code::Mov_r64_rm64, None, Some(Place::Lane)) => {
                if std::mem::replace(&mut self.has_lane, true) {
                    return Err(Rule::Lane);
                }
                self.processor.set(to, Value::Lane(Lane::Own))?;
            }
            (Code::Mov_r64_rm64, None, Some(Place::Constant(value))) => {
                self.processor.set(to, value)?;
            }
            (Code::Mov_r64_rm64, None, Some(Place::Shared(word))) => {
                return self.fork(word, |path, zero| {
                    path.processor.set(to, if zero { Value::Zero } else { word.value() })
                });
            }
            (Code::Cmp_rm64_imm8, None, Some(Place::Shared(word))) if it.immediate8() == 0 => {
                return self.fork(word, |path, zero| {
                    path.processor.zero = Some(zero);
                    Ok(())
                });
            }
            (Code::Test_rm64_r64, None, None) if to == from => {
                self.processor.zero = match self.processor.get(to)? {
                    Value::Zero => Some(true),
                    Value::Body(_) | Value::Current => Some(false),
                    _ => return Err(Rule::Flags),
                };
            }
            (
                Code::Je_rel8_64 | Code::Jne_rel8_64 | Code::Je_rel32_64 | Code::Jne_rel32_64,
                None,
                None,
            ) => {
                let zero = self.processor.zero.ok_or(Rule::Flags)?;
                if zero == matches!(it.code(), Code::Je_rel8_64 | Code::Je_rel32_64) {
                    self.at.1 = it.near_branch_target() as usize;
                }
            }
            (Code::Jmp_rel8_64 | Code::Jmp_rel32_64, None, None) => {
                self.at.1 = it.near_branch_target() as usize;
            }
            (Code::Jmp_rel32_64, Some(Named::Target(symbol)), None) => {
                self.at = match (self.kind, symbol) {
                    (Kind::Gate, Symbol::LeaveTail) => (LEAVE, 0),
                    (Kind::Gate, Symbol::BailTail) => (BAIL, 0),
                    (Kind::Tail { .. }, Symbol::TailGate) => (TAIL_GATE, 0),
                    _ => return Err(Rule::Jump),
                };
            }
            (Code::Jmp_rm64, None, _) => {
                self.jump_away(to, place)?;
                return Ok(Vec::new());
            }
            (Code::Call_rm64, None, None) => self.call_loaded(to)?,
            (Code::Call_rel32_64, Some(Named::Target(symbol)), None) => self.call_stub(symbol)?,
            (Code::Retnq, None, None) => {
                self.check_return()?;
                return Ok(Vec::new());
            }

            (Code::Push_r64, None, None) => {
                let value = self.processor.get(to)?;
                self.processor.push(value)?;
            }
            (Code::Pop_r64, None, None) => {
                let value = self.processor.pop()?;
                self.processor.set(to, value)?;
            }
            (Code::Sub_rm64_imm8, None, None) if to == Register::RSP => {
                self.processor.move_top(-it.immediate8to64())?;
                self.processor.zero = None;
            }
            (Code::Add_rm64_imm8, None, None) if to == Register::RSP => {
                self.processor.move_top(it.immediate8to64())?;
                self.processor.zero = None;
            }

            // Whatever else is in the register goes, too.
            (Code::Xor_rm32_r32, None, None) if to == from => {
                self.processor.set(whole(to), Value::Zero)?;
                self.processor.zero = Some(true);
            }
            (Code::Xorps_xmm_xmmm128, None, None) if to == from => {
                self.processor.set(to, Value::Zero)?;
            }

            _ => match self.kind {
                Kind::Tail { .. } => self.step_of_tail_gate(it, named, place)?,
                Kind::Gate | Kind::Entry { .. } => return Err(Rule::Instruction),
            },
        }
        Ok(vec![self])
    }

    /// What only gates do that can be tail-called.
    fn step_of_tail_gate(
        &mut self,
        it: &Instruction,
        named: Option<Named>,
        place: Option<Place>,
    ) -> Result<(), Rule> {
        let (to, from) = (it.op0_register(), it.op1_register());
        match (it.code(), named, place) {
            (Code::Mov_r32_imm32, None, None) => {
                self.processor.set(whole(to), Value::Number(it.immediate32()))
            }
            (Code::Lea_r64_m, None, Some(Place::Code(target))) => {
                self.processor.set(to, Value::Code(self.at.0, target))
            }
            // Where the caller goes on is no place in the gate.
            (Code::Cmp_rm64_r64, None, Some(Place::Stack(at))) => {
                self.processor.zero = match (self.processor.stack(at)?, self.processor.get(from)?) {
                    (Value::Code(..) | Value::ReturnAddress, Value::Code(..)) => {
                        Some(self.processor.stack_holds(at, self.processor.get(from)?))
                    }
                    _ => return Err(Rule::Flags),
                };
                Ok(())
            }
            (Code::Test_rm32_r32, None, None) if to == from => {
                let Value::Number(number) = self.processor.get(whole(to))? else {
                    return Err(Rule::Flags);
                };
                self.processor.zero = Some(number == 0);
                Ok(())
            }
            (Code::Sub_rm32_imm8, None, None) => {
                let Value::Number(number) = self.processor.get(whole(to))? else {
                    return Err(Rule::Instruction);
                };
                let number = number.wrapping_sub(it.immediate8to32() as u32);
                self.processor.zero = Some(number == 0);
                self.processor.set(whole(to), Value::Number(number))
            }
            (Code::Add_rm64_r64, None, None) => {
                let (Value::Number(number), Value::Stack(at)) =
                    (self.processor.get(to)?, self.processor.get(from)?)
                else {
                    return Err(Rule::Instruction);
                };
                self.processor.zero = None;
                self.processor.set(to, Value::Stack(at + i64::from(number)))
            }
            (Code::Mov_r64_rm64, None, Some(Place::Stack(at))) => {
                let value = self.processor.stack(at)?;
                self.processor.set(to, value)
            }
            (Code::Mov_r64_rm64, None, Some(Place::Frame)) => {
                self.processor.set(to, Value::Lane(self.in_frame))
            }
            (Code::Mov_rm64_r64, None, Some(Place::Frame)) => {
                if self.processor.get(from)? != Value::Lane(Lane::Own) {
                    return Err(Rule::Lane);
                }
                self.in_frame = Lane::Own;
                self.event(Event::Swap)
            }
            (Code::Push_rm64, None, Some(Place::Stack(at))) => {
                let value = self.processor.stack(at)?;
                self.processor.push(value)
            }
            // What is popped is popped before the place is found, which makes no difference where
            // that is not found by the stack pointer.
            (Code::Pop_rm64, None, Some(Place::Stack(at))) if it.memory_base() != Register::RSP => {
                let value = self.processor.pop()?;
                self.processor.set_stack(at, value)
            }
            _ => Err(Rule::Instruction),
        }
    }

    /// Notes an event, before which threads could have changed places if there is a hook.
    pub(crate) fn event(&mut self, event: Event) -> Result<(), Rule> {
        let before = self.phase;
        self.phase = before.after(event)?;
        let steps = match (event, before) {
            // What follows a test is a part of the same step.
            (Event::Leave(_) | Event::Removed | Event::JumpZeros | Event::Restart, _) => 0,
            // With the lane pushed before, or popped.
            (Event::CallBody { .. }, _)
            | (Event::Out(_), Phase::Done { then: Then::Return, .. }) => 2,
            _ => 1,
        };
        if self.kind.has_hook() && std::mem::take(&mut self.hooks) < steps {
            return Err(Rule::Hook);
        }
        Ok(())
    }

    /// A stub is called at which threads can change places.
    pub(crate) fn hook(&mut self) -> Result<(), Rule> {
        self.hooks += 1;
        if self.kind.has_hook() { Ok(()) } else { Err(Rule::Jump) }
    }

    fn count(&mut self, it: &Instruction, event: Event, by: u8) -> Result<(), Rule> {
        if by != 1 {
            return Err(Rule::ByOne);
        }
        if it.has_lock_prefix() != (self.kind.counting() == Counting::Atomic) {
            return Err(Rule::Lock);
        }
        self.processor.zero = None;
        self.event(event)
    }

    /// Goes on with the word being not zero, and with it being zero.
    fn fork(
        self,
        word: Word,
        found: impl Fn(&mut Self, bool) -> Result<(), Rule>,
    ) -> Result<Vec<Self>, Rule> {
        let fork = |zero| {
            let mut path = self.clone();
            path.event(word.event(zero))?;
            found(&mut path, zero)?;
            Ok(path)
        };
        [true, false].into_iter().map(fork).collect()
    }
}
