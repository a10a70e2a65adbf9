//! The entries of functions that can be tail-called, which are no gates.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, InstructionData, MemFlagsData, Opcode, Signature, Value,
    condcodes::IntCC, types::*,
};
use cranelift_codegen::isa::CallConv;
use lastout_instrument::{Rule, Symbol, c_entry, check_entry, check_gate, host_entry};

use super::entries::{LAYOUT, PLAIN};
use super::mutant::Mutant;
use crate::support;

fn inner() -> Signature {
    let mut signature = Signature::new(CallConv::Tail);
    signature.params = vec![AbiParam::new(I64); 2];
    signature.returns = vec![AbiParam::new(I64); 2];
    signature
}

/// Both ways in: that for typed calls, and the stable one.
fn entries() -> [Function; 2] {
    let isa = support::isa("x86_64");
    let outer = Signature { call_conv: CallConv::SystemV, ..inner() };
    [
        host_entry(&outer, &inner(), LAYOUT, PLAIN, &*isa).unwrap(),
        c_entry(&inner(), LAYOUT, PLAIN, &*isa).unwrap(),
    ]
}

/// Asserts that either entry is refused for `rule` once it is broken.
fn rejects(rule: Rule, edit: impl Fn(&mut Mutant)) {
    for (asking, func) in entries().into_iter().enumerate() {
        rejects_one(rule, Mutant { func, asking }, &edit);
    }
}

/// The same of the stable entry alone.
fn rejects_stable(rule: Rule, edit: impl Fn(&mut Mutant)) {
    let [_, func] = entries();
    rejects_one(rule, Mutant { func, asking: 1 }, &edit);
}

fn rejects_one(rule: Rule, mut mutant: Mutant, edit: &impl Fn(&mut Mutant)) {
    edit(&mut mutant);
    match check_entry(&mutant.func, &inner(), LAYOUT, &*support::isa("x86_64")) {
        Err(violation) => assert_eq!(violation.rule, rule, "{violation}\n{}", mutant.func),
        Ok(()) => panic!("{rule:?} is broken, and that goes unnoticed:\n{}", mutant.func),
    }
}

impl Mutant {
    /// What the pinned register is set to at first.
    fn ledger(&self) -> Value {
        self.func.dfg.inst_args(self.nth(Opcode::SetPinnedReg, 0))[0]
    }
}

/// The first load of a stable entry is where it leaves no frame.
const TAIL: usize = 0;

/// Which load it is where there is one.
fn framed(entry: &Mutant) -> usize {
    entry.asking
}

#[test]
fn are_no_gates_and_gates_are_none() {
    let isa = support::isa("x86_64");
    let other = Signature { call_conv: CallConv::Fast, ..inner() };
    let outer = Signature { call_conv: CallConv::SystemV, ..inner() };
    let gate = host_entry(&outer, &other, LAYOUT, PLAIN, &*isa).unwrap();
    check_entry(&gate, &other, LAYOUT, &*isa).unwrap();
    assert!(check_entry(&gate, &inner(), LAYOUT, &*isa).is_err());
    for entry in entries() {
        check_entry(&entry, &inner(), LAYOUT, &*isa).unwrap();
        assert!(check_entry(&entry, &other, LAYOUT, &*isa).is_err());
        assert!(check_gate(&entry, &*isa).is_err());
    }
}

#[test]
fn without_the_ledger() {
    rejects(Rule::Pinned, |entry| entry.remove(Opcode::SetPinnedReg, 0));
}

#[test]
fn without_what_was_in_the_register_before() {
    rejects(Rule::Pinned, |entry| entry.remove(Opcode::SetPinnedReg, 1));
    rejects(Rule::Pinned, |entry| {
        let ledger = entry.ledger();
        let set = entry.nth(Opcode::SetPinnedReg, 1);
        entry.func.dfg.inst_args_mut(set)[0] = ledger;
    });
}

#[test]
fn putting_it_back_too_early() {
    rejects(Rule::Pinned, |entry| {
        let outer = entry.func.dfg.inst_args(entry.nth(Opcode::SetPinnedReg, 1))[0];
        let call = entry.nth(Opcode::CallIndirect, entry.asking);
        FuncCursor::new(&mut entry.func).at_inst(call).ins().set_pinned_reg(outer);
    });
}

#[test]
fn with_another_frame_than_an_unwinder_looks_for() {
    rejects(Rule::Frame, |entry| entry.remove(Opcode::Store, 0));
    rejects(Rule::Frame, |entry| {
        let store = entry.nth(Opcode::Store, 0);
        let ledger = entry.ledger();
        entry.func.dfg.inst_args_mut(store)[0] = ledger;
    });
    rejects(Rule::Frame, |entry| {
        let store = entry.nth(Opcode::Store, 0);
        let call = entry.nth(Opcode::CallIndirect, entry.asking);
        entry.func.layout.remove_inst(store);
        FuncCursor::new(&mut entry.func).after_inst(call).insert_inst(store);
    });
}

/// It would be counted out of, but it was the gate that counted in.
#[test]
fn with_a_call_that_is_marked_as_that_of_a_body() {
    let other = Signature { call_conv: CallConv::Fast, ..inner() };
    let gate = c_entry(&other, LAYOUT, PLAIN, &*support::isa("x86_64")).unwrap();
    let gate = Mutant { func: gate, asking: 1 };
    let mark = gate.func.srcloc(gate.nth(Opcode::CallIndirect, 1));
    rejects(Rule::Frame, |entry| {
        let call = entry.nth(Opcode::CallIndirect, entry.asking);
        entry.func.set_srcloc(call, mark);
    });
}

/// What is in the slot is all that it may load.
#[test]
fn loading_something_else() {
    for offset in [LAYOUT.lane, LAYOUT.current, 8] {
        rejects(Rule::Foreign, |entry| {
            let load = entry.nth(Opcode::Load, framed(entry));
            let at = entry.func.dfg.inst_args(load)[0];
            entry.func.replace(load).load(I64, MemFlagsData::trusted(), at, offset);
        });
    }
    rejects_stable(Rule::Foreign, |entry| entry.rename(Symbol::OwnSlot, Symbol::Current));
    rejects_stable(Rule::Foreign, |entry| entry.rename(Symbol::OwnSlot, Symbol::Lane));
}

#[test]
fn calling_something_else() {
    rejects(Rule::Foreign, |entry| {
        let call = entry.nth(Opcode::CallIndirect, entry.asking);
        let param = entry.param(1);
        entry.func.dfg.inst_args_mut(call)[0] = param;
    });
    rejects_stable(Rule::Foreign, |entry| {
        let ask = entry.func.dfg.inst_args(entry.nth(Opcode::CallIndirect, 0))[0];
        let call = entry.nth(Opcode::ReturnCallIndirect, 0);
        entry.func.dfg.inst_args_mut(call)[0] = ask;
    });
}

/// There is another gate by then, maybe.
#[test]
fn loading_twice() {
    rejects(Rule::Forward, |entry| {
        let load = entry.nth(Opcode::Load, framed(entry));
        let at = entry.func.dfg.inst_args(load)[0];
        let flags = MemFlagsData::trusted();
        FuncCursor::new(&mut entry.func).at_inst(load).ins().load(I64, flags, at, 0);
    });
}

#[test]
fn calling_twice() {
    rejects(Rule::Forward, |entry| entry.repeat_call(entry.asking));
}

#[test]
fn without_a_call() {
    rejects(Rule::Forward, |entry| {
        let exit = entry.nth(Opcode::Return, 0);
        let outer = entry.outer();
        entry.func.dfg.inst_args_mut(exit).fill(outer);
        entry.remove(Opcode::CallIndirect, entry.asking);
    });
}

#[test]
fn with_the_arguments_exchanged() {
    rejects(Rule::Arguments, |entry| {
        let call = entry.nth(Opcode::CallIndirect, entry.asking);
        entry.func.dfg.inst_args_mut(call)[1..].reverse();
    });
    rejects_stable(Rule::Arguments, |entry| {
        let call = entry.nth(Opcode::ReturnCallIndirect, 0);
        entry.func.dfg.inst_args_mut(call)[1..].reverse();
    });
}

#[test]
fn calling_by_another_signature() {
    rejects(Rule::Arguments, |entry| {
        let call = entry.nth(Opcode::CallIndirect, entry.asking);
        let signature = entry.func.dfg.call_signature(call).unwrap();
        entry.func.dfg.signatures[signature].call_conv = CallConv::SystemV;
    });
}

#[test]
fn returning_something_else_than_the_results() {
    rejects(Rule::Return, |entry| {
        let exit = entry.nth(Opcode::Return, 0);
        entry.func.dfg.inst_args_mut(exit).reverse();
    });
}

#[test]
fn with_the_edges_exchanged() {
    rejects_stable(Rule::TailCall, |entry| entry.swap_edges(0));
}

/// A caller from outside would have another ledger in its register than the body has, and a
/// function that tail-calls the address would get a frame for each call.
#[test]
fn without_the_test() {
    rejects_stable(Rule::TailCall, |entry| entry.take_first_edge(0));
    rejects_stable(Rule::TailCall, |entry| {
        entry.swap_edges(0);
        entry.take_first_edge(0);
    });
}

#[test]
fn with_another_test() {
    rejects_stable(Rule::Foreign, |entry| {
        let test = entry.nth(Opcode::Icmp, 0);
        let param = entry.param(0);
        entry.func.dfg.inst_args_mut(test)[1] = param;
    });
    rejects_stable(Rule::Foreign, |entry| {
        let test = entry.nth(Opcode::Icmp, 0);
        match &mut entry.func.dfg.insts[test] {
            InstructionData::IntCompare { cond, .. } => *cond = IntCC::NotEqual,
            other => unreachable!("{other:?} is no icmp"),
        }
    });
}

#[test]
fn tail_calling_with_something_else_in_the_pinned_register() {
    rejects_stable(Rule::Pinned, |entry| {
        let param = entry.param(0);
        let load = entry.nth(Opcode::Load, TAIL);
        FuncCursor::new(&mut entry.func).at_inst(load).ins().set_pinned_reg(param);
    });
}

/// By then no code is left that would put back the register.
#[test]
fn tail_calling_with_the_ledger_set() {
    rejects_stable(Rule::TailCall, |entry| {
        let call = entry.nth(Opcode::CallIndirect, 1);
        let signature = entry.func.dfg.call_signature(call).unwrap();
        let args = entry.func.dfg.inst_args(call).to_vec();
        let block = entry.func.layout.inst_block(call).unwrap();
        while entry.func.layout.last_inst(block) != Some(call) {
            let last = entry.func.layout.last_inst(block).unwrap();
            entry.func.layout.remove_inst(last);
        }
        entry.func.layout.remove_inst(call);
        let mut pos = FuncCursor::new(&mut entry.func).at_bottom(block);
        pos.ins().return_call_indirect(signature, args[0], &args[1..]);
    });
}
