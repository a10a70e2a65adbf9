//! Entries: for callers that do not have the ledger in the pinned register.
//!
//! Cranelift does not save the pinned register, although the host's calling convention says that
//! a callee must. So both entries put it back before they return.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, MemFlagsData, Signature, Type, Value,
};
use cranelift_codegen::isa::TargetIsa;

use super::function::{at_bottom_of_entry, empty_function};
use super::gate::{Gate, LaneSource};
use crate::frame::{Word, keep};
use crate::signature::current_ledger_signature;
use crate::{Error, GateOptions, LaneLayout, Symbol, can_be_tail_called, check_signature, symbol};

/// The entry for typed calls from the host: takes the ledger and the address of a function, which
/// is that of its slot, before the arguments, so that one entry serves all functions of a
/// signature.
///
/// `outer` is the signature that the host calls with, without those two. It has the parameter and
/// result types of `inner`, the function's own, but may differ in extension flags and calling
/// convention.
///
/// An entry is a gate itself: the same steps, for the lane that is current as the call begins. So
/// the host goes through one call less than it would by way of the slot. A function that [can be
/// tail-called](can_be_tail_called) is called through its slot nevertheless. An entry refers to
/// [`Symbol::Leave`], [`Symbol::Removed`] and, if asked for, [`Symbol::Interleave`].
///
/// # Errors
///
/// As [`check_signature`] of either.
pub fn host_entry(
    outer: &Signature,
    inner: &Signature,
    layout: LaneLayout,
    options: GateOptions,
    isa: &dyn TargetIsa,
) -> Result<Function, Error> {
    check_signature(outer, isa)?;
    check_signature(inner, isa)?;
    let pointer = isa.pointer_type();
    let mut signature = outer.clone();
    signature.params.splice(0..0, [AbiParam::new(pointer), AbiParam::new(pointer)]);
    let (mut func, params) = empty_function(signature);
    let mut pos = at_bottom_of_entry(&mut func);
    if can_be_tail_called(inner, isa) {
        let outer = keep_outer_and_set(&mut pos, params[0], pointer);
        forward(pos, inner, params[1], &params[2..], outer, isa);
        return Ok(func);
    }
    enter(pos, inner, params[0], params[1], params[2..].to_vec(), layout, options, isa);
    Ok(func)
}

/// The stable entry of one function, for callers that know only its address: any thread, through
/// C's calling convention or whichever the function was declared with.
///
/// The entry asks [`Symbol::CurrentLedger`] for the ledger, and so registers the thread if need be.
/// In all else it is like a [`host_entry`] whose function is [`Symbol::OwnSlot`].
///
/// # Errors
///
/// As [`check_signature`].
pub fn c_entry(
    signature: &Signature,
    layout: LaneLayout,
    options: GateOptions,
    isa: &dyn TargetIsa,
) -> Result<Function, Error> {
    check_signature(signature, isa)?;
    let pointer = isa.pointer_type();
    let (mut func, params) = empty_function(signature.clone());
    let asking = func.import_signature(current_ledger_signature(isa));
    let mut pos = at_bottom_of_entry(&mut func);
    let current_ledger = symbol::value(&mut pos, pointer, Symbol::CurrentLedger);
    let call = pos.ins().call_indirect(asking, current_ledger, &[]);
    let ledger = pos.func.dfg.first_result(call);
    let function = symbol::value(&mut pos, pointer, Symbol::OwnSlot);
    if can_be_tail_called(signature, isa) {
        enter_tail_called(pos, signature, ledger, function, &params, isa);
        return Ok(func);
    }
    enter(pos, signature, ledger, function, params, layout, options, isa);
    Ok(func)
}

/// Calls the version of `function` that is current, with the pinned register set to `ledger`, and
/// returns what it returns.
#[expect(clippy::too_many_arguments, reason = "it is the common part of two functions")]
fn enter<'a>(
    mut pos: FuncCursor<'a>,
    signature: &'a Signature,
    ledger: Value,
    function: Value,
    arguments: Vec<Value>,
    layout: LaneLayout,
    options: GateOptions,
    isa: &dyn TargetIsa,
) {
    let pointer = isa.pointer_type();
    let outer = keep_outer_and_set(&mut pos, ledger, pointer);
    let lane = pos.ins().load(pointer, MemFlagsData::trusted(), function, layout.lane);
    keep(&mut pos, Word::Lane, lane, pointer);
    let source = LaneSource::Function { function, lane, layout };
    Gate::new(pos, options, isa, signature, arguments, source, Some(outer)).emit();
}

/// Sets the pinned register to the ledger; returns what it held, which an unwinder finds in the
/// frame.
fn keep_outer_and_set(pos: &mut FuncCursor<'_>, ledger: Value, pointer: Type) -> Value {
    let outer = pos.ins().get_pinned_reg(pointer);
    keep(pos, Word::Outer, outer, pointer);
    pos.ins().set_pinned_reg(ledger);
    outer
}

/// Calls a function through its slot, with the pinned register set, and returns what it returns.
///
/// A function that can be tail-called has to be called by its gate, since bodies that tail-call
/// each other hand on the frame of that gate.
fn forward(
    mut pos: FuncCursor<'_>,
    signature: &Signature,
    function: Value,
    arguments: &[Value],
    outer: Value,
    isa: &dyn TargetIsa,
) {
    let gate = pos.ins().load(isa.pointer_type(), MemFlagsData::trusted(), function, 0);
    let sig_ref = pos.func.import_signature(signature.clone());
    let call = pos.ins().call_indirect(sig_ref, gate, arguments);
    let results = pos.func.dfg.inst_results(call).to_vec();
    pos.ins().set_pinned_reg(outer);
    pos.ins().return_(&results);
}

/// The stable entry of a function that can be tail-called. If the caller has the ledger in the
/// pinned register already, the entry leaves no frame, so that a tail call of the address takes no
/// stack.
fn enter_tail_called(
    mut pos: FuncCursor<'_>,
    signature: &Signature,
    ledger: Value,
    function: Value,
    arguments: &[Value],
    isa: &dyn TargetIsa,
) {
    let pointer = isa.pointer_type();
    let pinned = pos.ins().get_pinned_reg(pointer);
    let same = pos.ins().icmp(IntCC::Equal, pinned, ledger);
    let tail = pos.func.dfg.make_block();
    let framed = pos.func.dfg.make_block();
    pos.ins().brif(same, tail, &[], framed, &[]);

    pos.insert_block(tail);
    let gate = pos.ins().load(pointer, MemFlagsData::trusted(), function, 0);
    let sig_ref = pos.func.import_signature(signature.clone());
    pos.ins().return_call_indirect(sig_ref, gate, arguments);

    pos.insert_block(framed);
    pos.func.layout.set_cold(framed);
    let outer = keep_outer_and_set(&mut pos, ledger, pointer);
    forward(pos, signature, function, arguments, outer, isa);
}
