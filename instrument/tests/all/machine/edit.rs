//! Gates and entries in machine code, broken on purpose.

use std::fmt;
use std::ops::Range;

use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa::CallConv;
use iced_x86::OpKind;
use lastout_instrument::{
    Fixup, GateFrame, GateOptions, LaneLayout, MACHINE_GATE, MachineCode, Symbol, machine_entry,
    machine_gate, machine_tails, tail_gate, tail_gate_head,
};
use lastout_reclaim::Counting;

use super::kind::{Kind, STACK_BYTES};
use super::listing::{Line, decode, listing};
use super::prove::{Machine, Refusal};
use super::word::Rule;
use crate::support;

/// Different from each other and from 0, and on both sides of what they count from.
pub(crate) const LAYOUT: LaneLayout = LaneLayout {
    function: 0x128,
    cell_offset: -0x40,
    current: -0x58,
    lane: 0x38,
    no_version: -0x60,
};

pub(crate) const PLAIN: GateOptions = GateOptions { counting: Counting::Plain, interleave: false };

const NOP: u8 = 0x90;

/// A gate with its tails, or an entry, and how to change it. Instructions are named by their text,
/// and by their number among those with the same text.
#[derive(Clone)]
pub(crate) struct Edit {
    machine: Machine,
}

impl Edit {
    pub(crate) fn gate() -> Self {
        Self::whole(Kind::Gate, LAYOUT)
    }

    pub(crate) fn tail_gate() -> Self {
        Self::whole(Kind::Tail { counting: Counting::Plain, interleave: false }, LAYOUT)
    }

    /// One that has all that an entry may have.
    pub(crate) fn entry() -> Self {
        Self::whole(Kind::Entry { integers: 4 }, LAYOUT)
    }

    /// What is to be broken.
    pub(crate) fn whole(kind: Kind, layout: LaneLayout) -> Self {
        let isa = support::isa("x86_64");
        let mut signature = Signature::new(CallConv::SystemV);
        let (parts, frame) = match kind {
            Kind::Gate => {
                let gate = machine_gate(&signature, PLAIN, &*isa).unwrap();
                let [leave, bail] = machine_tails(layout, &*isa).unwrap();
                let body_return = Some(MACHINE_GATE.body_return);
                (vec![gate, leave, bail], GateFrame { body_return, ..GateFrame::default() })
            }
            Kind::Entry { integers } => {
                signature.params = vec![AbiParam::new(types::I64); integers];
                let entry = machine_entry(&signature, &signature, layout, PLAIN, &*isa).unwrap();
                let frame = entry.frame;
                (vec![entry], frame)
            }
            Kind::Tail { counting, interleave } => {
                let gate = tail_gate(layout, GateOptions { counting, interleave }, &*isa).unwrap();
                let frame = gate.frame;
                let heads = STACK_BYTES.map(|bytes| tail_gate_head(bytes, &*isa).unwrap());
                (heads.into_iter().chain([gate]).collect(), frame)
            }
        };
        Self { machine: Machine { kind, parts, frame, layout } }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.machine.kind
    }

    pub(crate) fn check(&self) -> Result<usize, Refusal> {
        self.machine.check()
    }

    /// Asserts that it is refused for `rule` once it is edited.
    pub(crate) fn refuses(mut self, rule: Rule, edit: impl FnOnce(&mut Self)) {
        edit(&mut self);
        match self.check() {
            Err(refusal) => assert_eq!(refusal.rule, rule, "{refusal}"),
            Ok(_) => panic!("{rule:?} is broken, and that goes unnoticed:\n{self}"),
        }
    }

    pub(crate) fn part(&self, part: usize) -> &MachineCode {
        &self.machine.parts[part]
    }

    pub(crate) fn part_mut(&mut self, part: usize) -> &mut MachineCode {
        &mut self.machine.parts[part]
    }

    pub(crate) fn frame(&mut self) -> &mut GateFrame {
        &mut self.machine.frame
    }

    pub(crate) fn fixups(&mut self, part: usize) -> &mut Vec<Fixup> {
        &mut self.part_mut(part).fixups
    }

    /// Where the instruction is that begins like this.
    fn find(&self, part: usize, text: &str, nth: usize) -> Range<usize> {
        let lines = decode(self.part(part));
        let line = lines.iter().filter(|line| line.text().starts_with(text)).nth(nth);
        line.unwrap_or_else(|| panic!("there is no {text} in\n{self}")).range()
    }

    /// Changes one byte of an instruction.
    pub(crate) fn patch(&mut self, part: usize, text: &str, nth: usize, byte: usize, to: u8) {
        let at = self.find(part, text, nth).start + byte;
        self.part_mut(part).bytes[at] = to;
    }

    /// Makes a jump go to somewhere else, so many bytes further down.
    pub(crate) fn nudge(&mut self, part: usize, text: &str, nth: usize, by: i32) {
        let start = self.find(part, text, nth).start;
        let lines = decode(self.part(part));
        let line = lines.iter().find(|line| line.range().start == start).expect("it was found");
        let (_, distance) = target(line).expect("it is a jump");
        self.move_target(part, distance, by);
    }

    /// Adds to a distance of one byte, or of four.
    fn move_target(&mut self, part: usize, distance: Range<usize>, by: i32) {
        let bytes = &mut self.part_mut(part).bytes[distance];
        match *bytes {
            [ref mut short] => *short = short.wrapping_add_signed(by as i8),
            _ => {
                let old = i32::from_le_bytes(bytes.try_into().expect("it is of four bytes"));
                bytes.copy_from_slice(&(old + by).to_le_bytes());
            }
        }
    }

    /// Leaves an instruction out, without moving the others.
    pub(crate) fn drop(&mut self, part: usize, text: &str, nth: usize) {
        self.blank(part, self.find(part, text, nth));
    }

    /// Leaves out what is there.
    pub(crate) fn blank(&mut self, part: usize, range: Range<usize>) {
        self.fixups(part).retain(|fixup| !range.contains(&(fixup.offset as usize)));
        self.part_mut(part).bytes[range].fill(NOP);
    }

    /// Puts another instruction in the place of one that is no shorter.
    pub(crate) fn replace(&mut self, part: usize, text: &str, nth: usize, by: &[u8]) {
        let range = self.find(part, text, nth);
        self.blank(part, range.clone());
        self.part_mut(part).bytes[range][..by.len()].copy_from_slice(by);
    }

    /// Puts something before an instruction. What jumps to that comes to what is put there.
    pub(crate) fn insert(&mut self, part: usize, text: &str, nth: usize, bytes: &[u8]) {
        self.insert_at(part, self.find(part, text, nth).start, bytes);
    }

    pub(crate) fn insert_after(&mut self, part: usize, text: &str, nth: usize, bytes: &[u8]) {
        self.insert_at(part, self.find(part, text, nth).end, bytes);
    }

    pub(crate) fn insert_at(&mut self, part: usize, at: usize, bytes: &[u8]) {
        let more = bytes.len() as i32;
        for line in decode(self.part(part)) {
            let Some((target, distance)) = target(&line) else { continue };
            let by = match line.range().start < at {
                true if target > at => more,
                false if target <= at => -more,
                _ => continue,
            };
            self.move_target(part, distance, by);
        }
        for fixup in self.fixups(part).iter_mut().filter(|fixup| fixup.offset as usize >= at) {
            fixup.offset += bytes.len() as u32;
        }
        if let Some(returned) = &mut self.machine.frame.body_return
            && part == self.machine.kind.calling_part()
            && *returned as usize > at
        {
            *returned += more as u32;
        }
        self.part_mut(part).bytes.splice(at..at, bytes.iter().copied());
    }

    /// Runs an instruction twice.
    pub(crate) fn repeat(&mut self, part: usize, text: &str, nth: usize) {
        let range = self.find(part, text, nth);
        let bytes = self.part(part).bytes[range.clone()].to_vec();
        let fixups = self.part(part).fixups.clone().into_iter();
        let repeated = fixups.filter(|fixup| range.contains(&(fixup.offset as usize)));
        let frame = self.machine.frame;
        self.insert_at(part, range.start, &bytes);
        if frame.body_return == u32::try_from(range.end).ok() {
            // The first one is what it was.
            self.machine.frame = frame;
        }
        self.fixups(part).extend(repeated);
    }

    /// Exchanges an instruction that is no jump for the next.
    pub(crate) fn swap(&mut self, part: usize, text: &str, nth: usize) {
        let first = self.find(part, text, nth);
        self.swap_at(part, first);
    }

    pub(crate) fn swap_at(&mut self, part: usize, first: Range<usize>) {
        let lines = decode(self.part(part));
        let second =
            lines.iter().find(|line| line.range().start == first.end).expect("it has a next");
        let second = second.range();
        self.part_mut(part).bytes[first.start..second.end].rotate_left(first.len());
        for fixup in self.fixups(part) {
            let at = fixup.offset as usize;
            if first.contains(&at) {
                fixup.offset += second.len() as u32;
            } else if second.contains(&at) {
                fixup.offset -= first.len() as u32;
            }
        }
    }

    /// Makes what refers to one symbol refer to another.
    pub(crate) fn name(&mut self, part: usize, from: Symbol, to: Symbol) {
        for fixup in self.fixups(part).iter_mut().filter(|fixup| fixup.symbol == from) {
            fixup.symbol = to;
        }
    }
}

/// Where in the same code an instruction goes, or looks, and which of its bytes say how far that is
/// from its end.
fn target(line: &Line) -> Option<(usize, Range<usize>)> {
    let it = &line.instruction;
    if it.op0_kind() == OpKind::NearBranch64 && line.fixups.is_empty() {
        Some((it.near_branch_target() as usize, line.immediate.clone()))
    } else if it.is_ip_rel_memory_operand() {
        Some((it.ip_rel_memory_address() as usize, line.displacement.clone()))
    } else {
        None
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, code) in self.kind().parts().iter().zip(&self.machine.parts) {
            write!(f, "{name}\n{}", listing(code))?;
        }
        Ok(())
    }
}
