//! One path through the machine code of a gate or an entry, instruction by instruction.
//!
//! The body leaves nothing in the registers that it may change, nor on the stack below it. The
//! stubs keep all registers, but not the flags.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use iced_x86::{Code, OpKind, Register};
use lastout_instrument::{GateFrame, LaneLayout, Symbol};

use crate::listing::{Line, Named};
use crate::prove::{BAIL, Kind, LEAVE, START};
use crate::word::{Event, Phase, Rule};

/// What is in a register, or on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// What the register held on entry.
    Entry(Register),
    /// The stack pointer on entry, and that much.
    Stack(i64),
    /// What the caller has pushed.
    ReturnAddress,
    Address(Symbol),
    Ledger,
    Lane,
    /// What the lane's cell is away from the ledger.
    CellOffset,
    /// The function that the lane belongs to.
    Function,
    /// What was loaded and is not zero.
    Body,
    Current,
    /// All bits.
    Zero,
    /// What the body, or the current gate, has returned in the register.
    Result(Register),
    /// Anything.
    Spoilt,
}

const INTEGERS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];
/// Where frame pointers point to: below the return address is that of the caller.
const FRAME: i64 = -8;
/// Where in its frame an entry has `rbx`, in which it keeps its lane.
const SAVED_RBX: i64 = -16;
const KEPT: [Register; 6] =
    [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];
pub(crate) const RESULTS: [Register; 4] =
    [Register::RAX, Register::RDX, Register::XMM0, Register::XMM1];

/// The registers that carry something from the caller to the body: `al` has the number of vectors
/// where arguments are variable.
pub(crate) fn arguments() -> impl Iterator<Item = Register> {
    INTEGERS.into_iter().chain([Register::RAX]).chain(vectors())
}

fn vectors() -> impl Iterator<Item = Register> {
    (0..8).map(|number| Register::XMM0 + number)
}

impl Kind {
    /// What is in a register on entry.
    fn holds(self, register: Register) -> Value {
        match (self, register) {
            (Self::Gate, Register::R15) | (Self::Entry { .. }, Register::RDI) => Value::Ledger,
            (Self::Entry { .. }, Register::RSI) => Value::Function,
            _ => Value::Entry(register),
        }
    }

    /// What is to be called with the caller's arguments in its registers, and which registers of
    /// the caller they are from.
    fn forwards(self) -> Vec<(Register, Register)> {
        match self {
            Self::Gate => arguments().map(|register| (register, register)).collect(),
            Self::Entry { integers } => {
                let shifted = INTEGERS.into_iter().zip(INTEGERS.into_iter().skip(2)).take(integers);
                shifted.chain(vectors().map(|register| (register, register))).collect()
            }
        }
    }
}

fn all_registers() -> impl Iterator<Item = Register> {
    (0..16).flat_map(|number| [Register::RAX + number, Register::XMM0 + number])
}

/// The beginning of a path.
#[derive(Clone)]
pub(crate) struct Path {
    kind: Kind,
    /// Where an unwinder looks for things.
    frame: GateFrame,
    /// Which part of the machine it is in, and how many bytes from the start of that.
    pub(crate) at: (usize, usize),
    /// Where it has been.
    pub(crate) met: Vec<(usize, usize)>,
    registers: HashMap<Register, Value>,
    stack: BTreeMap<i64, Value>,
    /// Whether the last test found zero, if there was one and nothing has changed the flags since.
    zero: Option<bool>,
    phase: Phase,
    /// Whether it has a lane already. Another load may find another lane.
    has_lane: bool,
}

impl Path {
    pub(crate) fn start(kind: Kind, frame: GateFrame) -> Self {
        let mut registers: HashMap<_, _> =
            all_registers().map(|register| (register, kind.holds(register))).collect();
        registers.insert(Register::RSP, Value::Stack(0));
        Self {
            kind,
            frame,
            at: (START, 0),
            met: Vec::new(),
            registers,
            stack: BTreeMap::from([(0, Value::ReturnAddress)]),
            zero: None,
            phase: Phase::Before,
            has_lane: kind == Kind::Gate,
        }
    }

    /// Interprets an instruction, and returns the paths that go on from it.
    pub(crate) fn step(mut self, line: &Line, layout: LaneLayout) -> Result<Vec<Self>, Rule> {
        let it = &line.instruction;
        if it.has_lock_prefix() || it.has_rep_prefix() || it.has_repne_prefix() {
            return Err(Rule::Instruction);
        }
        let named = line.named().map_err(|()| Rule::Fixup)?;
        let place = match (0..it.op_count()).any(|n| it.op_kind(n) == OpKind::Memory) {
            true => Some(self.place(line, named, layout)?),
            false => None,
        };
        self.at.1 = it.next_ip() as usize;
        let (to, from) = (it.op0_register(), it.op1_register());
        match (it.code(), named, place) {
            (Code::Nopd, None, None) => {}
            (Code::Inc_rm32, _, Some(Place::Cell)) => self.count(Event::In, 1)?,
            (Code::Dec_rm32, _, Some(Place::Cell)) => self.count(Event::Out, 1)?,
            (Code::Add_rm32_imm8, _, Some(Place::Cell)) => {
                self.count(Event::In, it.immediate8())?
            }
            (Code::Sub_rm32_imm8, _, Some(Place::Cell)) => {
                self.count(Event::Out, it.immediate8())?
            }

            (Code::Mov_r64_imm64, Some(Named::Constant(symbol)), None) => {
                let lane = symbol == Symbol::Lane;
                self.write(to, if lane { Value::Lane } else { Value::Address(symbol) })?;
            }
            (Code::Mov_rm64_r64 | Code::Mov_r64_rm64, None, None) => {
                self.write(to, self.registers[&from])?;
            }
            (Code::Mov_r64_rm64, None, Some(Place::Lane)) => {
                if mem::replace(&mut self.has_lane, true) {
                    return Err(Rule::Lane);
                }
                self.write(to, Value::Lane)?;
            }
            (Code::Mov_r64_rm64, None, Some(Place::Constant(value))) => self.write(to, value)?,
            (Code::Mov_r64_rm64, None, Some(Place::Shared(word))) => {
                return self.fork(word, |path, zero| {
                    path.write(to, if zero { Value::Zero } else { word.value() })
                });
            }
            (Code::Cmp_rm64_imm8, None, Some(Place::Shared(word))) if it.immediate8() == 0 => {
                return self.fork(word, |path, zero| {
                    path.zero = Some(zero);
                    Ok(())
                });
            }
            (Code::Test_rm64_r64, None, None) if to == from => {
                self.zero = match self.registers[&to] {
                    Value::Zero => Some(true),
                    Value::Body | Value::Current => Some(false),
                    _ => return Err(Rule::Flags),
                };
            }
            (Code::Je_rel8_64 | Code::Jne_rel8_64, None, None) => {
                let zero = self.zero.ok_or(Rule::Flags)?;
                if zero == (it.code() == Code::Je_rel8_64) {
                    self.at.1 = it.near_branch_target() as usize;
                }
            }
            (Code::Jmp_rel8_64, None, None) => self.at.1 = it.near_branch_target() as usize,
            (Code::Jmp_rel32_64, Some(Named::Target(symbol)), None) => {
                self.at = match (self.kind, symbol) {
                    (Kind::Gate, Symbol::LeaveTail) => (LEAVE, 0),
                    (Kind::Gate, Symbol::BailTail) => (BAIL, 0),
                    _ => return Err(Rule::Jump),
                };
            }
            (Code::Jmp_rm64, None, None) => {
                self.jump_to_current(to)?;
                return Ok(Vec::new());
            }
            (Code::Call_rm64, None, None) => self.call_loaded(to)?,
            (Code::Call_rel32_64, Some(Named::Target(symbol)), None) => self.call_stub(symbol)?,
            (Code::Retnq, None, None) => {
                self.check_return()?;
                return Ok(Vec::new());
            }

            (Code::Push_r64, None, None) => {
                let value = self.registers[&to];
                let top = self.move_stack(-8)?;
                self.stack.insert(top, value);
            }
            (Code::Pop_r64, None, None) => {
                let value = self.stack.get(&self.top()?).copied().ok_or(Rule::Stack)?;
                self.move_stack(8)?;
                self.write(to, value)?;
            }
            (Code::Sub_rm64_imm8, None, None) if to == Register::RSP => {
                self.move_stack(-it.immediate8to64())?;
                self.zero = None;
            }
            (Code::Add_rm64_imm8, None, None) if to == Register::RSP => {
                self.move_stack(it.immediate8to64())?;
                self.zero = None;
            }

            // Whatever else is in the register goes, too.
            (Code::Xor_rm32_r32, None, None) if to == from => {
                self.write(Register::RAX + (to as u32 - Register::EAX as u32), Value::Zero)?;
                self.zero = Some(true);
            }
            (Code::Xorps_xmm_xmmm128, None, None) if to == from => self.write(to, Value::Zero)?,

            _ => return Err(Rule::Instruction),
        }
        Ok(vec![self])
    }

    fn event(&mut self, event: Event) -> Result<(), Rule> {
        self.phase = self.phase.after(event)?;
        Ok(())
    }

    fn write(&mut self, register: Register, value: Value) -> Result<(), Rule> {
        if register == Register::RSP {
            return Err(Rule::Stack);
        }
        self.registers.insert(register, value);
        Ok(())
    }

    fn count(&mut self, event: Event, by: u8) -> Result<(), Rule> {
        if by != 1 {
            return Err(Rule::ByOne);
        }
        self.zero = None;
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

    /// A call of the body, or of the current gate: by an entry, which has registers to put back.
    fn call_loaded(&mut self, target: Register) -> Result<(), Rule> {
        let event = match (self.registers[&target], self.kind, self.phase) {
            (Value::Body, ..) => Event::CallBody,
            (Value::Current, Kind::Entry { .. }, _) => Event::Restart,
            (_, Kind::Entry { .. }, Phase::Restarting | Phase::Nowhere) => {
                return Err(Rule::Restart);
            }
            _ => return Err(Rule::CallBody),
        };
        self.event(event)?;
        self.check_arguments()?;
        self.check_ledger()?;
        self.check_alignment()?;
        self.check_frame(event == Event::CallBody)?;
        for register in all_registers().filter(|&it| it != Register::RSP && !KEPT.contains(&it)) {
            let result = RESULTS.contains(&register);
            let left = if result { Value::Result(register) } else { Value::Spoilt };
            self.registers.insert(register, left);
        }
        self.zero = None;
        Ok(())
    }

    fn call_stub(&mut self, stub: Symbol) -> Result<(), Rule> {
        match stub {
            Symbol::Leave => self.event(Event::Leave)?,
            Symbol::Removed => self.event(Event::Removed)?,
            _ => return Err(Rule::Jump),
        }
        if self.registers[&Register::RDI] != Value::Lane {
            return Err(Rule::Lane);
        }
        // Either is a frame that has a caller.
        let frame_pointer = self.registers[&Register::RBP];
        if ![Value::Entry(Register::RBP), Value::Stack(FRAME)].contains(&frame_pointer) {
            return Err(Rule::Frame);
        }
        self.check_ledger()?;
        self.check_alignment()?;
        self.zero = None;
        Ok(())
    }

    /// How a gate restarts: the current gate returns to the caller.
    fn jump_to_current(&mut self, target: Register) -> Result<(), Rule> {
        if self.registers[&target] != Value::Current || self.kind != Kind::Gate {
            return Err(Rule::Restart);
        }
        self.event(Event::Restart)?;
        self.check_stack()?;
        self.check_saved()?;
        self.check_arguments()
    }

    fn check_return(&self) -> Result<(), Rule> {
        let holds = |expected: fn(Register) -> Value| {
            RESULTS.into_iter().all(|register| self.registers[&register] == expected(register))
        };
        match self.phase {
            Phase::Checked { ran: true } | Phase::Restarted => {
                if !holds(Value::Result) {
                    return Err(Rule::Results);
                }
            }
            Phase::Reported => {
                if !holds(|_| Value::Zero) {
                    return Err(Rule::Zeros);
                }
            }
            phase => return Err(phase.due()),
        }
        self.check_stack()?;
        self.check_saved()
    }

    fn check_arguments(&self) -> Result<(), Rule> {
        let mut forwarded = self.kind.forwards().into_iter();
        let passed = forwarded.all(|(to, from)| self.registers[&to] == Value::Entry(from));
        if passed { Ok(()) } else { Err(Rule::Arguments) }
    }

    fn check_ledger(&self) -> Result<(), Rule> {
        let pinned = self.registers[&Register::R15] == Value::Ledger;
        if pinned { Ok(()) } else { Err(Rule::Ledger) }
    }

    /// What the caller keeps in registers is there.
    fn check_saved(&self) -> Result<(), Rule> {
        let saved = KEPT.into_iter().all(|it| self.registers[&it] == self.kind.holds(it));
        if saved { Ok(()) } else { Err(Rule::Saved) }
    }

    /// The stack is what it was on entry.
    fn check_stack(&self) -> Result<(), Rule> {
        let kept = self.top()? == 0 && self.stack.get(&0) == Some(&Value::ReturnAddress);
        if kept { Ok(()) } else { Err(Rule::Stack) }
    }

    fn top(&self) -> Result<i64, Rule> {
        match self.registers[&Register::RSP] {
            Value::Stack(top) => Ok(top),
            _ => Err(Rule::Stack),
        }
    }

    /// A call wants the stack pointer to be a multiple of 16. On entry it has been one before the
    /// return address was pushed.
    fn check_alignment(&self) -> Result<(), Rule> {
        if (self.top()? - 8) % 16 == 0 { Ok(()) } else { Err(Rule::Alignment) }
    }

    /// Moves the stack pointer. What it leaves below may change at any time.
    fn move_stack(&mut self, by: i64) -> Result<i64, Rule> {
        let top = self.top()? + by;
        if top > 8 {
            return Err(Rule::Stack);
        }
        self.stack.retain(|&at, _| at >= top);
        self.registers.insert(Register::RSP, Value::Stack(top));
        Ok(top)
    }

    /// An unwinder finds its way: to the caller by the frame pointer, to the lane if it is counted
    /// in, which it is just where the body returns to, and to all that it has to put back.
    fn check_frame(&self, counted_in: bool) -> Result<(), Rule> {
        let frame_pointer = self.registers[&Register::RBP] == Value::Stack(FRAME);
        let holds = |at, value| self.stack.get(&(FRAME + at)) == Some(&value);
        let returned = u32::try_from(self.at.1).ok();
        let mut kept = frame_pointer
            && holds(0, Value::Entry(Register::RBP))
            && counted_in == (self.frame.body_return == returned)
            && self.frame.lane.is_none();
        kept &= match (self.kind, self.frame.outer) {
            // It has the lane in its code, and changes no register.
            (Kind::Gate, None) => true,
            (Kind::Entry { .. }, Some(outer)) => {
                holds(outer.into(), Value::Entry(Register::R15))
                    && holds(SAVED_RBX, Value::Entry(Register::RBX))
                    && (!counted_in || self.registers[&Register::RBX] == Value::Lane)
            }
            _ => false,
        };
        if kept { Ok(()) } else { Err(Rule::Frame) }
    }

    /// What an operand in memory is.
    fn place(&self, line: &Line, named: Option<Named>, layout: LaneLayout) -> Result<Place, Rule> {
        let it = &line.instruction;
        let value = |register| self.registers.get(&register).ok_or(Rule::Memory);
        if it.has_segment_prefix() {
            return Err(Rule::Memory);
        }
        let base = value(it.memory_base())?;
        let distance = it.memory_displacement64() as i64;
        if it.memory_index() != Register::None {
            let index = value(it.memory_index())?;
            let cell = (base, index, it.memory_index_scale(), distance, named)
                == (&Value::Ledger, &Value::CellOffset, 1, 0, None);
            return if cell { Ok(Place::Cell) } else { Err(Rule::Memory) };
        }
        let LaneLayout { function, cell_offset, current, lane, .. } = layout;
        let is = |other: i32| distance == i64::from(other);
        match (base, named) {
            (Value::Ledger, Some(Named::Displacement(Symbol::CellOffset))) => Ok(Place::Cell),
            (Value::Lane, None) if is(0) => Ok(Place::Shared(Word::Body)),
            (Value::Lane, None) if is(function) => Ok(Place::Constant(Value::Function)),
            (Value::Lane, None) if is(cell_offset) => Ok(Place::Constant(Value::CellOffset)),
            (Value::Function, None) if is(current) => Ok(Place::Shared(Word::Current)),
            (Value::Function, None) if is(lane) => Ok(Place::Lane),
            _ => Err(Rule::Memory),
        }
    }
}

/// A word in memory that gates and entries know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Of 32 bits, the calling thread's.
    Cell,
    /// In the lane; never changes.
    Constant(Value),
    /// In the function: the lane whose gate is in the slot. Others may change it at any time.
    Lane,
    Shared(Word),
}

/// A word in memory that others may change at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Body,
    Current,
}

impl Word {
    fn event(self, zero: bool) -> Event {
        match self {
            Self::Body => Event::Body { zero },
            Self::Current => Event::Current { zero },
        }
    }

    fn value(self) -> Value {
        match self {
            Self::Body => Value::Body,
            Self::Current => Value::Current,
        }
    }
}
