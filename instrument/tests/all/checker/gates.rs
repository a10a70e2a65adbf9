//! The checker accepts what the pass emits, and nothing that is almost that.

use cranelift_codegen::ir::{
    AbiParam, AtomicRmwOp, Function, InstBuilder, MemFlagsData, Opcode, Signature, SourceLoc,
    TrapCode, types::*,
};
use cranelift_codegen::isa::CallConv;
use lastout_instrument::{GateOptions, Rule, Symbol, check_gate, gate};
use lastout_reclaim::Counting;

use super::mutant::Mutant;
use crate::support::{self, signatures};

const PLAIN: GateOptions = GateOptions { counting: Counting::Plain, interleave: false };
const ATOMIC: GateOptions = GateOptions { counting: Counting::Atomic, interleave: false };

#[test]
fn accepts_every_gate() {
    for architecture in ["x86_64", "aarch64"] {
        let isa = support::isa(architecture);
        let signatures = signatures::forwardable(&*isa);
        assert!(signatures.len() > 30, "{} signatures", signatures.len());
        for signature in signatures {
            for counting in [Counting::Plain, Counting::Atomic] {
                for interleave in [false, true] {
                    let options = GateOptions { counting, interleave };
                    let func = gate(&signature, options, &*isa).unwrap();
                    support::verify(&func, &*isa);
                    if let Err(violation) = check_gate(&func, &*isa) {
                        panic!("{violation}\n{func}");
                    }
                }
            }
        }
    }
}

// What happens when: the `n`th of a kind, in the order of the blocks. A gate counts in (0), out
// after the body (1) and out when bailing (2).
const IN: usize = 0;
const OUT: usize = 1;
const BAIL_OUT: usize = 2;

#[test]
fn without_counting_in() {
    rejects(Rule::CountIn, |gate| gate.remove(Opcode::Store, IN));
}

#[test]
fn counting_in_twice() {
    rejects(Rule::CountIn, |gate| gate.repeat_count(IN));
}

#[test]
fn without_counting_out() {
    rejects(Rule::CountOut, |gate| gate.remove(Opcode::Store, OUT));
}

#[test]
fn without_counting_out_when_bailing() {
    rejects(Rule::CountOut, |gate| gate.remove(Opcode::Store, BAIL_OUT));
}

#[test]
fn counting_out_twice() {
    rejects(Rule::CountOut, |gate| gate.repeat_count(OUT));
}

#[test]
fn counting_in_by_two() {
    rejects(Rule::ByOne, |gate| {
        let one = gate.nth(Opcode::Iconst, IN);
        gate.func.replace(one).iconst(I32, 2);
    });
}

/// The count is restored to what it was before the body was called, whatever that did to it.
#[test]
fn counting_out_from_a_stale_count() {
    rejects(Rule::ByOne, |gate| {
        let old = gate.func.dfg.first_result(gate.nth(Opcode::Load, 0));
        let (_, subtraction) = gate.count(OUT);
        gate.func.dfg.inst_args_mut(subtraction)[0] = old;
    });
}

/// What runs between the load and the store may have changed the count.
#[test]
fn counting_in_from_a_stale_count() {
    let options = GateOptions { interleave: true, ..PLAIN };
    rejects_for("x86_64", options, Rule::ByOne, |gate| {
        let interleave = gate.nth(Opcode::CallIndirect, 0);
        let store = gate.nth(Opcode::Store, IN);
        gate.func.layout.remove_inst(interleave);
        gate.func.layout.insert_inst(interleave, store);
    });
}

#[test]
fn another_atomic_operation() {
    rejects_for("x86_64", ATOMIC, Rule::ByOne, |gate| {
        let count = gate.nth(Opcode::AtomicRmw, IN);
        let args = gate.func.dfg.inst_args(count);
        let (cell, one) = (args[0], args[1]);
        let flags = MemFlagsData::trusted();
        gate.func.replace(count).atomic_rmw(I32, flags, AtomicRmwOp::Xchg, cell, one);
    });
}

#[test]
fn without_the_fence_after_counting_in() {
    rejects(Rule::Fence, |gate| gate.remove(Opcode::SequencePoint, IN));
}

#[test]
fn without_the_fence_after_counting_out() {
    rejects(Rule::Fence, |gate| gate.remove(Opcode::SequencePoint, OUT));
}

#[test]
fn without_the_full_fence_of_an_atomic_count() {
    rejects_for("aarch64", ATOMIC, Rule::Fence, |gate| gate.remove(Opcode::Fence, IN));
}

#[test]
fn with_a_light_fence_where_a_full_one_is_due() {
    for n in [IN, OUT] {
        rejects_for("aarch64", ATOMIC, Rule::Fence, |gate| {
            let fence = gate.nth(Opcode::Fence, n);
            gate.func.replace(fence).sequence_point();
        });
    }
}

#[test]
fn accepts_a_full_fence_where_a_light_one_is_due() {
    let mut mutant = whole("x86_64", PLAIN);
    for fence in mutant.all(Opcode::SequencePoint).collect::<Vec<_>>() {
        mutant.func.replace(fence).fence();
    }
    check_gate(&mutant.func, &*support::isa("x86_64")).unwrap();
}

/// The fence is there, but before the count.
#[test]
fn with_the_fence_too_early() {
    rejects(Rule::Fence, |gate| {
        let fence = gate.nth(Opcode::SequencePoint, IN);
        let count = gate.nth(Opcode::Store, IN);
        gate.func.layout.remove_inst(fence);
        gate.func.layout.insert_inst(fence, count);
    });
}

#[test]
fn with_another_word_for_the_body() {
    rejects(Rule::LoadBody, |gate| gate.rename(Symbol::Lane, Symbol::Current));
}

#[test]
fn with_another_word_for_the_cell() {
    rejects(Rule::Foreign, |gate| gate.rename(Symbol::CellOffset, Symbol::OwnSlot));
}

#[test]
fn with_another_word_for_the_current_gate() {
    rejects(Rule::Restart, |gate| gate.rename(Symbol::Current, Symbol::Lane));
}

#[test]
fn with_another_stub_for_leave() {
    rejects(Rule::Removed, |gate| gate.rename(Symbol::Leave, Symbol::Removed));
}

#[test]
fn with_another_stub_for_removed() {
    rejects(Rule::Leave, |gate| gate.rename(Symbol::Removed, Symbol::Leave));
}

#[test]
fn calling_the_body_where_it_is_zero() {
    rejects(Rule::CallBody, |gate| gate.swap_edges(0));
}

#[test]
fn calling_the_body_without_a_test() {
    rejects(Rule::CallBody, |gate| gate.take_first_edge(0));
}

#[test]
fn calling_the_body_after_counting_out() {
    rejects(Rule::CallBody, |gate| {
        let call = gate.nth(Opcode::CallIndirect, 0);
        let fence = gate.nth(Opcode::SequencePoint, OUT);
        gate.func.layout.remove_inst(call);
        gate.func.layout.insert_inst(call, fence);
    });
}

#[test]
fn calling_the_body_twice() {
    rejects(Rule::CallBody, |gate| gate.repeat_call(0));
}

#[test]
fn with_arguments_swapped() {
    rejects(Rule::Arguments, |gate| {
        let call = gate.nth(Opcode::CallIndirect, 0);
        gate.func.dfg.inst_args_mut(call).swap(1, 2);
    });
}

#[test]
fn with_arguments_swapped_when_restarting() {
    rejects(Rule::Arguments, |gate| {
        let call = gate.nth(Opcode::CallIndirect, 3);
        gate.func.dfg.inst_args_mut(call).swap(1, 2);
    });
}

/// The same arguments, but the body will look for them elsewhere.
#[test]
fn with_another_calling_convention() {
    rejects(Rule::Arguments, |gate| {
        let signature = gate.func.dfg.signatures.keys().next().unwrap();
        gate.func.dfg.signatures[signature].call_conv = CallConv::WindowsFastcall;
    });
}

/// A stub of the host's convention would clobber the results.
#[test]
fn with_a_stub_that_preserves_nothing() {
    rejects(Rule::Arguments, |gate| {
        let signature = gate.func.dfg.signatures.keys().nth(1).unwrap();
        gate.func.dfg.signatures[signature].call_conv = CallConv::SystemV;
    });
}

#[test]
fn with_another_lane_for_leave() {
    rejects(Rule::Arguments, |gate| {
        let leave = gate.nth(Opcode::CallIndirect, 1);
        let args = gate.func.dfg.inst_args_mut(leave);
        args[1] = args[0];
    });
}

#[test]
fn without_the_check_for_leave() {
    rejects(Rule::CheckBody, |gate| gate.take_first_edge(1));
}

#[test]
fn without_loading_the_body_again() {
    rejects(Rule::CheckBody, |gate| {
        let first = gate.func.dfg.first_result(gate.nth(Opcode::Load, 1));
        let check = gate.nth(Opcode::Brif, 1);
        gate.func.dfg.inst_args_mut(check)[0] = first;
    });
}

#[test]
fn without_leave() {
    rejects(Rule::Leave, |gate| gate.remove(Opcode::CallIndirect, 1));
}

#[test]
fn leaving_on_the_wrong_edge() {
    rejects(Rule::Leave, |gate| gate.swap_edges(1));
}

#[test]
fn leaving_twice() {
    rejects(Rule::Leave, |gate| gate.repeat_call(1));
}

#[test]
fn restarting_where_there_is_no_current_gate() {
    rejects(Rule::Restart, |gate| gate.swap_edges(3));
}

#[test]
fn without_reporting_a_removed_function() {
    rejects(Rule::Removed, |gate| gate.remove(Opcode::CallIndirect, 4));
}

#[test]
fn returning_a_parameter() {
    rejects(Rule::Return, |gate| {
        let param = gate.param(0);
        let exit = gate.nth(Opcode::Return, 0);
        gate.func.dfg.inst_args_mut(exit)[0] = param;
    });
}

#[test]
fn returning_results_in_another_order() {
    rejects(Rule::Return, |gate| {
        let exit = gate.nth(Opcode::Return, 0);
        gate.func.dfg.inst_args_mut(exit).swap(0, 1);
    });
}

#[test]
fn returning_something_where_nothing_was_called() {
    rejects(Rule::Return, |gate| {
        let param = gate.param(0);
        let exit = gate.nth(Opcode::Return, 2);
        gate.func.dfg.inst_args_mut(exit)[0] = param;
    });
}

#[test]
fn counting_out_without_release() {
    rejects_for("aarch64", PLAIN, Rule::Ordering, |gate| {
        // Counting in stores plainly, so the first atomic store counts out.
        let store = gate.nth(Opcode::AtomicStore, 0);
        let args = gate.func.dfg.inst_args(store);
        let (value, at) = (args[0], args[1]);
        gate.func.replace(store).store(MemFlagsData::trusted(), value, at, 0);
    });
}

#[test]
fn loading_the_body_without_acquire() {
    rejects_for("aarch64", PLAIN, Rule::Ordering, |gate| {
        let load = gate.nth(Opcode::AtomicLoad, 0);
        let at = gate.func.dfg.inst_args(load)[0];
        gate.func.replace(load).load(I64, MemFlagsData::trusted(), at, 0);
    });
}

/// The optimizer would be free to load such a body once, before counting in.
#[test]
fn loading_the_body_as_if_it_never_changed() {
    rejects(Rule::Foreign, |gate| {
        let load = gate.nth(Opcode::Load, 1);
        let at = gate.func.dfg.inst_args(load)[0];
        gate.func.replace(load).load(I64, MemFlagsData::trusted().with_readonly(), at, 0);
    });
}

#[test]
fn storing_elsewhere() {
    rejects(Rule::Foreign, |gate| {
        let param = gate.param(0);
        gate.before(Opcode::SequencePoint, IN).ins().store(
            MemFlagsData::trusted(),
            param,
            param,
            0,
        );
    });
}

#[test]
fn trapping() {
    rejects(Rule::Foreign, |gate| {
        let exit = gate.nth(Opcode::Return, 0);
        gate.func.replace(exit).trap(TrapCode::HEAP_OUT_OF_BOUNDS);
    });
}

#[test]
fn changing_the_ledger() {
    rejects(Rule::Foreign, |gate| {
        let param = gate.param(0);
        gate.before(Opcode::SequencePoint, IN).ins().set_pinned_reg(param);
    });
}

#[test]
fn going_round() {
    rejects(Rule::Acyclic, |gate| {
        let call = gate.nth(Opcode::CallIndirect, 1);
        let block = gate.func.layout.inst_block(call).unwrap();
        let jump = gate.nth(Opcode::Jump, 0);
        gate.func.replace(jump).jump(block, &[]);
    });
}

#[test]
fn nothing_at_all() {
    let isa = support::isa("x86_64");
    assert_eq!(check_gate(&Function::new(), &*isa).unwrap_err().rule, Rule::CountIn);
}

/// An unwinder would not know that it is counted in there, or would take it that it is elsewhere.
#[test]
fn with_the_wrong_call_marked() {
    rejects(Rule::Frame, |gate| {
        let body = gate.nth(Opcode::CallIndirect, 0);
        gate.func.set_srcloc(body, SourceLoc::default());
    });
    rejects(Rule::Frame, |gate| {
        let [body, current] = [0, 3].map(|n| gate.nth(Opcode::CallIndirect, n));
        let mark = gate.func.srcloc(body);
        gate.func.set_srcloc(current, mark);
    });
}

/// Asserts that a plain gate for x86-64 is rejected for `rule` once it is mutated.
fn rejects(rule: Rule, mutate: impl FnOnce(&mut Mutant)) {
    rejects_for("x86_64", PLAIN, rule, mutate);
}

fn rejects_for(
    architecture: &str,
    options: GateOptions,
    rule: Rule,
    mutate: impl FnOnce(&mut Mutant),
) {
    let isa = support::isa(architecture);
    let mut mutant = whole(architecture, options);
    check_gate(&mutant.func, &*isa).unwrap();
    mutate(&mut mutant);
    support::verify(&mutant.func, &*isa);
    let verdict = check_gate(&mutant.func, &*isa).map_err(|violation| violation.rule);
    assert_eq!(verdict, Err(rule), "{}", mutant.func);
}

/// A gate that is whole, of a function with two parameters and two results.
fn whole(architecture: &str, options: GateOptions) -> Mutant {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(I64); 2];
    signature.returns = vec![AbiParam::new(I64); 2];
    let func = gate(&signature, options, &*support::isa(architecture)).unwrap();
    Mutant { func, asking: 0 }
}
