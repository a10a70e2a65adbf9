//! Machine code decoded, by a decoder that shares nothing with what wrote it.

use std::fmt::Write as _;
use std::ops::Range;

use cranelift_codegen::binemit::Reloc;
use iced_x86::{
    Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter, OpKind, SymbolResolver,
    SymbolResult,
};
use lastout_instrument::{Fixup, MachineCode, Symbol};

/// An instruction, and what is filled into it.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) instruction: Instruction,
    pub(crate) fixups: Vec<Fixup>,
    pub(crate) displacement: Range<usize>,
    pub(crate) immediate: Range<usize>,
}

/// The part of an instruction that a fixup fills, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// The distance in the address of an operand in memory.
    Displacement(Symbol),
    /// All 64 bits of a constant.
    Constant(Symbol),
    /// Where a jump or a call goes.
    Target(Symbol),
}

impl Line {
    /// The bytes of it, from the start of the code.
    pub(crate) fn range(&self) -> Range<usize> {
        self.instruction.ip() as usize..self.instruction.next_ip() as usize
    }

    /// What is filled in, if the fixups fill exactly one part of the instruction with exactly the
    /// symbol.
    pub(crate) fn named(&self) -> Result<Option<Named>, ()> {
        let [fixup] = self.fixups[..] else {
            return if self.fixups.is_empty() { Ok(None) } else { Err(()) };
        };
        let filled = |bytes| fixup.offset as usize..fixup.offset as usize + bytes;
        // The processor adds a distance to the address of the next instruction, the linker
        // subtracts the address of what it fills in.
        let to_end = fixup.offset as i64 - self.instruction.next_ip() as i64;
        let (kind, symbol, addend) = (fixup.kind, fixup.symbol, fixup.addend);
        if kind == Reloc::Abs4 && filled(4) == self.displacement && addend == 0 {
            Ok(Some(Named::Displacement(symbol)))
        } else if kind == Reloc::Abs8 && filled(8) == self.immediate && addend == 0 {
            Ok(Some(Named::Constant(symbol)))
        } else if kind == Reloc::X86CallPCRel4 && filled(4) == self.immediate && addend == to_end {
            Ok(Some(Named::Target(symbol)))
        } else {
            Err(())
        }
    }

    /// The instruction, as NASM has it, with the symbols named.
    pub(crate) fn text(&self) -> String {
        let resolver = Names { named: self.named() };
        let mut formatter = NasmFormatter::with_options(Some(Box::new(resolver)), None);
        let options = formatter.options_mut();
        options.set_space_after_operand_separator(true);
        options.set_space_between_memory_add_operators(true);
        options.set_branch_leading_zeros(false);
        options.set_uppercase_hex(false);
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        let mut text = String::new();
        formatter.format(&self.instruction, &mut text);
        text
    }
}

/// The instructions one after the other, up to the first that is none.
pub(crate) fn decode(code: &MachineCode) -> Vec<Line> {
    let mut decoder = Decoder::with_ip(64, &code.bytes, 0, DecoderOptions::NONE);
    let mut lines = Vec::new();
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            break;
        }
        let (start, end) = (instruction.ip() as usize, instruction.next_ip() as usize);
        let fixups = code.fixups.iter().copied();
        let at = decoder.get_constant_offsets(&instruction);
        let part = |offset: usize, size: usize| start + offset..start + offset + size;
        lines.push(Line {
            instruction,
            fixups: fixups
                .filter(|fixup| (start..end).contains(&(fixup.offset as usize)))
                .collect(),
            displacement: part(at.displacement_offset(), at.displacement_size()),
            immediate: part(at.immediate_offset(), at.immediate_size()),
        });
    }
    lines
}

/// The instructions as text, each on a line with its distance from the start.
pub(crate) fn listing(code: &MachineCode) -> String {
    let mut text = String::new();
    for line in decode(code) {
        writeln!(text, "  0x{:02x}  {}", line.range().start, line.text()).expect("strings take it");
    }
    text
}

struct Names {
    named: Result<Option<Named>, ()>,
}

impl SymbolResolver for Names {
    fn symbol(
        &mut self,
        instruction: &Instruction,
        _: u32,
        operand: Option<u32>,
        address: u64,
        _: u32,
    ) -> Option<SymbolResult<'_>> {
        let in_memory = instruction.op_kind(operand?) == OpKind::Memory;
        let symbol = match self.named {
            Ok(Some(Named::Displacement(symbol))) if in_memory => symbol,
            Ok(Some(Named::Constant(symbol) | Named::Target(symbol))) if !in_memory => symbol,
            _ => return None,
        };
        Some(SymbolResult::with_string(address, format!("{symbol:?}")))
    }
}
