//! What a path knows of registers and of the stack.

use std::collections::BTreeMap;

use iced_x86::Register;
use lastout_instrument::Symbol;

use super::word::{Lane, Rule};

/// What is in a register, or on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// What the register held on entry.
    Entry(Register),
    /// The stack pointer on entry, and that much.
    Stack(i64),
    /// What the caller has pushed: where it goes on.
    ReturnAddress,
    /// The address of an instruction, as that of a return: in a part, and how many bytes from the
    /// start of that.
    Code(usize, usize),
    /// An argument on the stack: how many bytes above the return address.
    Argument(i64),
    Address(Symbol),
    Ledger,
    Lane(Lane),
    /// What the lane's cell is away from the ledger.
    CellOffset(Lane),
    /// The function that the lane belongs to.
    Function(Lane),
    /// What was loaded and is not zero.
    Body(Lane),
    Current,
    /// What returns zeros.
    Zeros,
    /// All bits.
    Zero,
    /// An integer of 32 bits, or more if those are zero.
    Number(u32),
    /// What the body, or the current gate, has returned in the register.
    Result(Register),
    /// Anything.
    Spoilt,
}

/// The integer registers that carry arguments, in their order.
pub(crate) const INTEGERS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// Those that calls keep, or that hold the ledger.
pub(crate) const KEPT: [Register; 6] =
    [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];

pub(crate) fn vectors() -> impl Iterator<Item = Register> {
    (0..8).map(|number| Register::XMM0 + number)
}

pub(crate) fn all_registers() -> impl Iterator<Item = Register> {
    (0..16).flat_map(|number| [Register::RAX + number, Register::XMM0 + number])
}

/// The register of 64 or 128 bits that this is the lower part of.
pub(crate) fn whole(register: Register) -> Register {
    let parts = [Register::AL, Register::AX, Register::EAX, Register::RAX];
    let first = parts.into_iter().rfind(|&first| first <= register).expect("al is the first");
    let number = register as u32 - first as u32;
    match first {
        _ if register >= Register::XMM0 => register,
        // Between bl and spl are the second bytes of four of them.
        Register::AL if register >= Register::SPL => Register::RAX + (number - 4),
        _ => Register::RAX + number,
    }
}

/// Of 64 bits, or 128.
fn index(register: Register) -> Option<usize> {
    let number = |first: Register| (register as usize).checked_sub(first as usize);
    let integer = number(Register::RAX).filter(|&number| number < 16);
    let vector = || number(Register::XMM0).filter(|&number| number < 16);
    integer.or_else(|| Some(vector()? + 16))
}

#[derive(Clone)]
pub(crate) struct Processor {
    registers: [Value; 32],
    stack: BTreeMap<i64, Value>,
    /// Whether the last test found zero, if there was one and nothing has changed the flags since.
    pub(crate) zero: Option<bool>,
}

impl Processor {
    /// On entry: what is in each register, and what is on the stack from its top.
    pub(crate) fn new(
        holds: impl Fn(Register) -> Value,
        stack: impl IntoIterator<Item = Value>,
    ) -> Self {
        let mut registers = [Value::Spoilt; 32];
        for register in all_registers() {
            registers[index(register).expect("it is one")] = holds(register);
        }
        registers[index(Register::RSP).expect("it is one")] = Value::Stack(0);
        let stack = (0..).step_by(8).zip(stack).collect();
        Self { registers, stack, zero: None }
    }

    /// What a register of 64 or 128 bits holds.
    pub(crate) fn get(&self, register: Register) -> Result<Value, Rule> {
        index(register).map(|index| self.registers[index]).ok_or(Rule::Instruction)
    }

    pub(crate) fn holds(&self, register: Register, value: Value) -> bool {
        self.get(register) == Ok(value)
    }

    /// Writes a register, but for the stack pointer.
    pub(crate) fn set(&mut self, register: Register, value: Value) -> Result<(), Rule> {
        if register == Register::RSP {
            return Err(Rule::Stack);
        }
        self.registers[index(register).ok_or(Rule::Instruction)?] = value;
        Ok(())
    }

    /// Where the stack pointer points to.
    pub(crate) fn top(&self) -> Result<i64, Rule> {
        match self.get(Register::RSP) {
            Ok(Value::Stack(top)) => Ok(top),
            _ => Err(Rule::Stack),
        }
    }

    /// Sets the stack pointer. What it leaves below may change at any time.
    pub(crate) fn set_top(&mut self, top: i64) {
        self.stack.retain(|&at, _| at >= top);
        self.registers[index(Register::RSP).expect("it is one")] = Value::Stack(top);
    }

    /// Moves the stack pointer, but not past all that is known to be there.
    pub(crate) fn move_top(&mut self, by: i64) -> Result<i64, Rule> {
        let top = self.top()? + by;
        if self.stack.last_key_value().is_none_or(|(&last, _)| top > last + 8) {
            return Err(Rule::Stack);
        }
        self.set_top(top);
        Ok(top)
    }

    /// What is on the stack at a place.
    pub(crate) fn stack(&self, at: i64) -> Result<Value, Rule> {
        self.stack.get(&at).copied().ok_or(Rule::Stack)
    }

    pub(crate) fn stack_holds(&self, at: i64, value: Value) -> bool {
        self.stack(at) == Ok(value)
    }

    /// Changes what is at a place where something is already.
    pub(crate) fn set_stack(&mut self, at: i64, value: Value) -> Result<(), Rule> {
        *self.stack.get_mut(&at).ok_or(Rule::Stack)? = value;
        Ok(())
    }

    pub(crate) fn push(&mut self, value: Value) -> Result<(), Rule> {
        let top = self.move_top(-8)?;
        self.stack.insert(top, value);
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Result<Value, Rule> {
        let value = self.stack(self.top()?)?;
        self.move_top(8)?;
        Ok(value)
    }
}
