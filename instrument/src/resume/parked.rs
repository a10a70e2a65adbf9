//! The function in which a frame is while a marked call is in progress.

use cranelift_codegen::cursor::FuncCursor;
use cranelift_codegen::ir::{Function, InstBuilder, MemFlagsData, Signature};
use cranelift_codegen::isa::TargetIsa;

use crate::clif::function::{at_bottom_of_entry, empty_function};
use crate::dispatch::Callee;
use crate::{Symbol, symbol};

/// The parked call of a point at a call: makes the call, keeps the values that are alive meanwhile
/// in its own frame, and then goes on in whichever version is current.
///
/// `call` is the signature of what it calls: of the function whose slot is [`Symbol::Slot`]`(0)` if
/// the `callee` is replaceable, or else of the function at the address [`Symbol::StubTarget`].
/// [`Symbol::Slot`]`(1)` is the slot of the resume entry. `signature` is the [parked
/// call's](super::Resumable::parked_call_signature), and `resume_entry` that of the [resume
/// entry](super::Resumable::resume_entry_signature).
///
/// The resume entry has to stay until no frame is in here, since it is called without being tested
/// for.
pub fn parked_call(
    signature: Signature,
    call: &Signature,
    callee: Callee,
    resume_entry: &Signature,
    isa: &dyn TargetIsa,
) -> Function {
    let pointer = isa.pointer_type();
    let (mut func, mut params) = empty_function(signature);
    params.pop();
    let live = params.split_off(call.params.len());
    let call = func.import_signature(call.clone());
    let resume_entry = func.import_signature(resume_entry.clone());
    let mut pos = at_bottom_of_entry(&mut func);
    let in_slot = |pos: &mut FuncCursor<'_>, index| {
        let slot = symbol::value(pos, pointer, Symbol::Slot(index));
        pos.ins().load(pointer, MemFlagsData::trusted(), slot, 0)
    };
    let address = match callee {
        Callee::Replaceable => in_slot(&mut pos, 0),
        Callee::Fixed => symbol::value(&mut pos, pointer, Symbol::StubTarget),
    };
    let call = pos.ins().call_indirect(call, address, &params);
    let mut values = [&live, pos.func.dfg.inst_results(call)].concat();
    let gate = in_slot(&mut pos, 1);
    // There always is a resume entry, so the fallback is never called.
    values.push(pos.ins().iconst(pointer, 0));
    pos.ins().return_call_indirect(resume_entry, gate, &values);
    func
}
