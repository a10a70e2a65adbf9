//! The checker accepts the entries that are emitted, and nothing that is almost one.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{
    AbiParam, ExternalName, Function, GlobalValueData, InstBuilder, MemFlagsData, Opcode,
    Signature, types::*,
};
use cranelift_codegen::isa::CallConv;
use lastout_instrument::{
    Error, GateOptions, LaneLayout, Rule, Symbol, c_entry, check_entry, check_gate, gate,
    host_entry, symbol_name,
};
use lastout_reclaim::Counting;

use super::mutant::Mutant;
use crate::support::{self, signatures};

pub(crate) const LAYOUT: LaneLayout =
    LaneLayout { function: 296, cell_offset: 8, current: -88, lane: 16, no_version: 24 };
pub(crate) const PLAIN: GateOptions = GateOptions { counting: Counting::Plain, interleave: false };
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

#[test]
fn accepts_every_entry() {
    for architecture in ARCHITECTURES {
        let isa = support::isa(architecture);
        for inner in signatures::forwardable(&*isa) {
            let c = Signature { call_conv: CallConv::SystemV, ..inner.clone() };
            for counting in [Counting::Plain, Counting::Atomic] {
                for interleave in [false, true] {
                    let options = GateOptions { counting, interleave };
                    let host = match host_entry(&c, &inner, LAYOUT, options, &*isa) {
                        // What another convention has is not always to be had in C's.
                        Err(Error::Signature { .. }) => None,
                        entry => Some(entry.unwrap()),
                    };
                    let stable = c_entry(&inner, LAYOUT, options, &*isa).unwrap();
                    for entry in host.into_iter().chain([stable]) {
                        support::verify(&entry, &*isa);
                        if let Err(violation) = check_entry(&entry, &inner, LAYOUT, &*isa) {
                            panic!("{violation}\n{entry}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn entries_are_no_gates_and_gates_no_entries() {
    for architecture in ARCHITECTURES {
        let isa = support::isa(architecture);
        let inner = inner();
        let gate = gate(&inner, PLAIN, &*isa).unwrap();
        assert!(check_entry(&gate, &inner, LAYOUT, &*isa).is_err());
        for entry in entries(architecture) {
            assert!(check_gate(&entry, &*isa).is_err());
        }
    }
}

#[test]
fn with_another_layout() {
    let LaneLayout { cell_offset, current, lane, .. } = LAYOUT;
    let layouts = [
        LaneLayout { cell_offset: cell_offset + 8, ..LAYOUT },
        LaneLayout { current: current + 8, ..LAYOUT },
        LaneLayout { lane: lane + 8, ..LAYOUT },
        LaneLayout { cell_offset: lane, lane: cell_offset, ..LAYOUT },
    ];
    let isa = support::isa("x86_64");
    for entry in entries("x86_64") {
        for layout in layouts {
            let violation = check_entry(&entry, &inner(), layout, &*isa).unwrap_err();
            assert_eq!(violation.rule, Rule::Foreign, "{violation}");
        }
    }
}

#[test]
fn without_the_ledger() {
    rejects(Rule::Foreign, |entry| entry.remove(Opcode::SetPinnedReg, 0));
}

#[test]
fn without_what_was_in_the_register_before() {
    for n in 1..4 {
        rejects(Rule::Pinned, |entry| entry.remove(Opcode::SetPinnedReg, n));
    }
}

/// Calls are of the body, leave, leave, the current gate, removed.
#[test]
fn putting_it_back_too_early() {
    for n in 0..5 {
        rejects(Rule::Pinned, |entry| {
            let outer = entry.outer();
            let call = entry.nth(Opcode::CallIndirect, entry.asking + n);
            FuncCursor::new(&mut entry.func).at_inst(call).ins().set_pinned_reg(outer);
        });
    }
}

#[test]
fn putting_back_something_else() {
    rejects(Rule::Pinned, |entry| {
        let set = entry.nth(Opcode::SetPinnedReg, 1);
        let ledger = entry.func.dfg.inst_args(entry.nth(Opcode::SetPinnedReg, 0))[0];
        entry.func.dfg.inst_args_mut(set)[0] = ledger;
    });
}

/// Another load may find another lane.
#[test]
fn with_two_lanes() {
    rejects(Rule::Foreign, |entry| {
        let first = entry.nth(Opcode::Load, 0);
        let function = entry.func.dfg.inst_args(first)[0];
        let check = entry.nth(Opcode::SequencePoint, 1);
        let mut pos = FuncCursor::new(&mut entry.func).after_inst(check);
        let again = pos.ins().load(I64, MemFlagsData::trusted(), function, LAYOUT.lane);
        let body = pos.current_inst().expect("the body is loaded to be checked");
        pos.func.dfg.inst_args_mut(body)[0] = again;
    });
}

/// An entry is not made for a lane.
#[test]
fn checking_the_lane_of_a_symbol() {
    rejects(Rule::Foreign, |entry| {
        let name = entry.func.declare_imported_user_function(symbol_name(Symbol::Lane));
        let lane = entry.func.create_global_value(GlobalValueData::Symbol {
            name: ExternalName::user(name),
            offset: 0.into(),
            colocated: false,
            tls: false,
        });
        // The lane; its offset, the count, and the body; the offset and the count again.
        let load = entry.nth(Opcode::Load, 6);
        let lane = FuncCursor::new(&mut entry.func).at_inst(load).ins().symbol_value(I64, lane);
        entry.func.dfg.inst_args_mut(load)[0] = lane;
    });
}

#[test]
fn asking_for_the_ledger_again() {
    let isa = support::isa("x86_64");
    let [_, func] = entries("x86_64");
    let mut stable = Mutant { func, asking: 1 };
    let ask = stable.nth(Opcode::CallIndirect, 0);
    let asking = stable.func.dfg.call_signature(ask).expect("it is a call");
    let target = stable.func.dfg.inst_args(ask)[0];
    let body = stable.nth(Opcode::CallIndirect, 1);
    FuncCursor::new(&mut stable.func).at_inst(body).ins().call_indirect(asking, target, &[]);
    let violation = check_entry(&stable.func, &inner(), LAYOUT, &*isa).unwrap_err();
    assert_eq!(violation.rule, Rule::Foreign, "{violation}");
}

#[test]
fn asking_for_the_ledger_by_another_signature() {
    let isa = support::isa("x86_64");
    let [_, mut stable] = entries("x86_64");
    let mut asking = stable.dfg.signatures.keys();
    let asking = asking.find(|&it| stable.dfg.signatures[it].params.is_empty()).expect("it asks");
    stable.dfg.signatures[asking].call_conv = CallConv::Tail;
    let violation = check_entry(&stable, &inner(), LAYOUT, &*isa).unwrap_err();
    assert_eq!(violation.rule, Rule::Arguments, "{violation}");
}

#[test]
fn with_the_arguments_exchanged() {
    for call in [0, 3] {
        rejects(Rule::Arguments, |entry| {
            let call = entry.nth(Opcode::CallIndirect, entry.asking + call);
            entry.func.dfg.inst_args_mut(call)[1..].reverse();
        });
    }
}

#[test]
fn calling_by_another_signature() {
    let isa = support::isa("x86_64");
    let other = Signature { call_conv: CallConv::SystemV, ..inner() };
    for entry in entries("x86_64") {
        let violation = check_entry(&entry, &other, LAYOUT, &*isa).unwrap_err();
        assert_eq!(violation.rule, Rule::Arguments, "{violation}");
    }
}

// The words in the frame, in the order of the stores.
const OUTER: usize = 0;
const LANE: usize = 1;

#[test]
fn without_a_word_in_the_frame() {
    for word in [OUTER, LANE] {
        rejects(Rule::Frame, |entry| entry.remove(Opcode::Store, word));
    }
}

#[test]
fn with_a_word_in_the_frame_too_late() {
    for word in [OUTER, LANE] {
        rejects(Rule::Frame, |entry| {
            let store = entry.nth(Opcode::Store, word);
            let call = entry.nth(Opcode::CallIndirect, entry.asking);
            entry.func.layout.remove_inst(store);
            FuncCursor::new(&mut entry.func).after_inst(call).insert_inst(store);
        });
    }
}

#[test]
fn with_something_else_in_the_frame() {
    for word in [OUTER, LANE] {
        rejects(Rule::Frame, |entry| {
            let [outer, lane] = [OUTER, LANE].map(|word| entry.nth(Opcode::Store, word));
            let [outer_value, lane_value] =
                [outer, lane].map(|store| entry.func.dfg.inst_args(store)[0]);
            match word {
                OUTER => {
                    let ledger = entry.nth(Opcode::SetPinnedReg, 0);
                    let ledger = entry.func.dfg.inst_args(ledger)[0];
                    entry.func.dfg.inst_args_mut(outer)[0] = ledger;
                }
                _ => entry.func.dfg.inst_args_mut(lane)[0] = outer_value,
            }
            assert_ne!(outer_value, lane_value);
        });
    }
}

/// Later the word is something else again.
#[test]
fn with_a_word_in_the_frame_that_changes() {
    rejects(Rule::Frame, |entry| {
        let [outer, lane] = [OUTER, LANE].map(|word| entry.nth(Opcode::Store, word));
        let at = entry.func.dfg.inst_args(lane)[1];
        let value = entry.func.dfg.inst_args(outer)[0];
        FuncCursor::new(&mut entry.func).after_inst(lane).ins().store(
            MemFlagsData::trusted(),
            value,
            at,
            0,
        );
    });
}

#[test]
fn with_the_words_exchanged() {
    rejects(Rule::Frame, |entry| {
        let mut slots = entry.func.sized_stack_slots.values_mut();
        let (first, second) = (slots.next().unwrap(), slots.next().unwrap());
        std::mem::swap(&mut first.key, &mut second.key);
    });
}

#[test]
fn with_a_word_that_nobody_finds() {
    rejects(Rule::Foreign, |entry| {
        entry.func.sized_stack_slots.values_mut().next().unwrap().key = None;
    });
}

fn inner() -> Signature {
    let mut signature = Signature::new(CallConv::Fast);
    signature.params = vec![AbiParam::new(I64); 2];
    signature.returns = vec![AbiParam::new(I64)];
    signature
}

/// Both ways in.
fn entries(architecture: &str) -> [Function; 2] {
    let isa = support::isa(architecture);
    let outer = Signature { call_conv: CallConv::SystemV, ..inner() };
    [
        host_entry(&outer, &inner(), LAYOUT, PLAIN, &*isa).unwrap(),
        c_entry(&inner(), LAYOUT, PLAIN, &*isa).unwrap(),
    ]
}

/// Asserts that either entry is refused for `rule` once it is broken.
fn rejects(rule: Rule, edit: impl Fn(&mut Mutant)) {
    let isa = support::isa("x86_64");
    for (asking, func) in entries("x86_64").into_iter().enumerate() {
        let mut mutant = Mutant { func, asking };
        edit(&mut mutant);
        match check_entry(&mutant.func, &inner(), LAYOUT, &*isa) {
            Err(violation) => assert_eq!(violation.rule, rule, "{violation}\n{}", mutant.func),
            Ok(()) => panic!("{rule:?} is broken, and that goes unnoticed:\n{}", mutant.func),
        }
    }
}
