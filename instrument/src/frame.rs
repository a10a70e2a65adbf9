//! What is where in the frame of a gate or an entry, for an unwinder.

use cranelift_codegen::CompiledCode;
use cranelift_codegen::cursor::FuncCursor;
use cranelift_codegen::ir::{
    InstBuilder, SourceLoc, StackSlotData, StackSlotKey, StackSlotKind, Type, Value,
};

/// Marks the call of the body: only there is a gate counted in while it calls.
pub(crate) fn body_call() -> SourceLoc {
    SourceLoc::new(1)
}

/// What is where in the frame of a gate or an entry while it calls. Distances are in bytes from
/// what the frame pointer holds there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateFrame {
    /// Where in the code the call of the body returns to. A frame that is in another call is not
    /// counted in.
    pub body_return: Option<u32>,
    /// Where the frame has the lane that is to be counted out of, if it has it: a gate that is made
    /// for a lane does not.
    pub lane: Option<i32>,
    /// Where the frame has what the pinned register held before, if the code changes that register.
    pub outer: Option<i32>,
}

/// A word in the frame that is only there to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Lane = 1,
    Outer = 2,
}

impl Word {
    fn key(self) -> Option<StackSlotKey> {
        Some(StackSlotKey::new(self as u64))
    }

    pub(crate) fn with_key(key: Option<StackSlotKey>) -> Option<Self> {
        [Self::Lane, Self::Outer].into_iter().find(|word| word.key() == key)
    }
}

/// Puts a value where [`GateFrame::of`] finds it.
pub(crate) fn keep(pos: &mut FuncCursor<'_>, word: Word, value: Value, pointer: Type) {
    let key = word.key();
    let (size, align) = (pointer.bytes(), pointer.bytes().trailing_zeros() as u8);
    let data =
        StackSlotData { key, ..StackSlotData::new(StackSlotKind::ExplicitSlot, size, align) };
    let slot = pos.func.create_sized_stack_slot(data);
    pos.ins().stack_store(pointer, value, slot, 0);
}

impl GateFrame {
    /// What is where in a gate or an entry that Cranelift has compiled.
    pub fn of(compiled: &CompiledCode) -> Self {
        let calls = compiled.buffer.call_sites().map(|call| call.ret_addr);
        let marked = compiled.buffer.get_srclocs_sorted().iter().filter(|at| at.loc == body_call());
        let marked: Vec<_> = marked.map(|at| at.start..at.end).collect();
        // A return address is behind its call.
        let is_body = |returned: &u32| marked.iter().any(|range| range.contains(&(returned - 1)));
        let word = |word: Word| {
            let layout = compiled.buffer.frame_layout()?;
            let slot = layout.stackslots.values().find(|slot| slot.key == word.key())?;
            Some(slot.offset as i32 - layout.frame_to_fp_offset as i32)
        };
        Self {
            // Before it there may be calls that copy struct arguments.
            body_return: calls.filter(is_body).last(),
            lane: word(Word::Lane),
            outer: word(Word::Outer),
        }
    }
}
