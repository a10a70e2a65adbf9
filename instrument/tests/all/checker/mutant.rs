//! CLIF, and how to break it.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{
    ExternalName, Function, GlobalValueData, Inst, InstBuilder, InstructionData, MemFlagsData,
    Opcode, Value, types::*,
};
use lastout_instrument::{Symbol, symbol_name};

/// A gate or an entry that is being broken.
pub(crate) struct Mutant {
    pub(crate) func: Function,
    /// How many calls it begins with to have a ledger.
    pub(crate) asking: usize,
}

impl Mutant {
    /// The instructions with this opcode, in the order of the blocks.
    pub(crate) fn all(&self, opcode: Opcode) -> impl Iterator<Item = Inst> {
        let (layout, dfg) = (&self.func.layout, &self.func.dfg);
        let all = layout.blocks().flat_map(|block| layout.block_insts(block));
        all.filter(move |&inst| dfg.insts[inst].opcode() == opcode)
    }

    pub(crate) fn nth(&self, opcode: Opcode, n: usize) -> Inst {
        self.all(opcode).nth(n).expect("it has so many of them")
    }

    pub(crate) fn param(&self, n: usize) -> Value {
        let entry = self.func.layout.entry_block().expect("it has an entry");
        self.func.dfg.block_params(entry)[n]
    }

    pub(crate) fn remove(&mut self, opcode: Opcode, n: usize) {
        let inst = self.nth(opcode, n);
        self.func.layout.remove_inst(inst);
    }

    pub(crate) fn before(&mut self, opcode: Opcode, n: usize) -> FuncCursor<'_> {
        let inst = self.nth(opcode, n);
        FuncCursor::new(&mut self.func).at_inst(inst)
    }

    /// The address, and the addition, of the `n`th count.
    pub(crate) fn count(&self, n: usize) -> (Value, Inst) {
        let args = self.func.dfg.inst_args(self.nth(Opcode::Store, n));
        let addition = self.func.dfg.value_def(args[0]).unwrap_inst();
        (args[1], addition)
    }

    /// Counts once more, right after the `n`th count.
    pub(crate) fn repeat_count(&mut self, n: usize) {
        let (cell, addition) = self.count(n);
        let by = self.func.dfg.inst_args(addition)[1];
        let mut pos = self.before(Opcode::SequencePoint, n);
        let count = pos.ins().load(I32, MemFlagsData::trusted(), cell, 0);
        let count = pos.ins().iadd(count, by);
        pos.ins().store(MemFlagsData::trusted(), count, cell, 0);
    }

    /// Calls once more, right before the `n`th call, what that calls.
    pub(crate) fn repeat_call(&mut self, n: usize) {
        let call = self.nth(Opcode::CallIndirect, n);
        let signature = self.func.dfg.call_signature(call).expect("this is a call");
        let args = self.func.dfg.inst_args(call).to_vec();
        let mark = self.func.srcloc(call);
        let mut pos = self.before(Opcode::CallIndirect, n).with_srcloc(mark);
        pos.ins().call_indirect(signature, args[0], &args[1..]);
    }

    /// Exchanges what the `n`th branch does for zero and for all else.
    pub(crate) fn swap_edges(&mut self, n: usize) {
        let branch = self.nth(Opcode::Brif, n);
        match &mut self.func.dfg.insts[branch] {
            InstructionData::Brif { blocks, .. } => blocks.swap(0, 1),
            other => unreachable!("{other:?} is no brif"),
        }
    }

    /// Makes the `n`th branch go, whatever it tests, where it goes if that is not zero.
    pub(crate) fn take_first_edge(&mut self, n: usize) {
        let branch = self.nth(Opcode::Brif, n);
        let InstructionData::Brif { blocks, .. } = self.func.dfg.insts[branch] else {
            unreachable!("a brif has two edges");
        };
        let target = blocks[0].block(&self.func.dfg.value_lists);
        self.func.replace(branch).jump(target, &[]);
    }

    /// Makes what refers to one symbol refer to another.
    pub(crate) fn rename(&mut self, from: Symbol, to: Symbol) {
        let [from, to] = [from, to].map(|symbol| {
            ExternalName::user(self.func.declare_imported_user_function(symbol_name(symbol)))
        });
        for data in self.func.global_values.values_mut() {
            match data {
                GlobalValueData::Symbol { name, .. } if *name == from => *name = to.clone(),
                _ => {}
            }
        }
    }

    /// What the pinned register held at first.
    pub(crate) fn outer(&self) -> Value {
        self.func.dfg.first_result(self.nth(Opcode::GetPinnedReg, 0))
    }
}
