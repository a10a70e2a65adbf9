//! Ways in from code that does not have the ledger in the pinned register.
//!
//! Cranelift does not save the pinned register, although the host's calling convention says that
//! a callee must. So both entries put it back before they return.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, MemFlagsData, Signature, UserFuncName, Value,
};
use cranelift_codegen::isa::TargetIsa;

use crate::{Error, Symbol, check_signature, symbol};

/// The entry for typed calls from the host: takes the ledger and the address of a slot before the
/// arguments, so that one entry serves all functions of a signature.
///
/// `outer` is the signature that the host calls with, without those two. It has the parameter and
/// result types of `inner`, the function's own, but may differ in extension flags and calling
/// convention.
///
/// # Errors
///
/// As [`check_signature`] of either.
pub fn host_entry(
    outer: &Signature,
    inner: &Signature,
    isa: &dyn TargetIsa,
) -> Result<Function, Error> {
    check_signature(outer, isa)?;
    check_signature(inner, isa)?;
    let pointer = isa.pointer_type();
    let mut signature = outer.clone();
    signature.params.splice(0..0, [AbiParam::new(pointer), AbiParam::new(pointer)]);
    let (mut func, params) = function(signature);
    let mut pos = FuncCursor::new(&mut func).at_bottom_of_entry();
    call_through_slot(&mut pos, inner, params[0], params[1], &params[2..], isa);
    Ok(func)
}

/// The stable entry of one function, for callers that know only its address: any thread, through
/// C's calling convention or whichever the function was declared with.
///
/// It asks [`Symbol::CurrentLedger`] for the ledger, and so registers the thread if need be.
///
/// # Errors
///
/// As [`check_signature`].
pub fn c_entry(signature: &Signature, isa: &dyn TargetIsa) -> Result<Function, Error> {
    check_signature(signature, isa)?;
    let pointer = isa.pointer_type();
    let (mut func, params) = function(signature.clone());
    let mut asking = Signature::new(isa.default_call_conv());
    asking.returns.push(AbiParam::new(pointer));
    let asking = func.import_signature(asking);
    let mut pos = FuncCursor::new(&mut func).at_bottom_of_entry();
    let current_ledger = symbol::value(&mut pos, pointer, Symbol::CurrentLedger);
    let call = pos.ins().call_indirect(asking, current_ledger, &[]);
    let ledger = pos.func.dfg.first_result(call);
    let slot = symbol::value(&mut pos, pointer, Symbol::OwnSlot);
    call_through_slot(&mut pos, signature, ledger, slot, &params, isa);
    Ok(func)
}

/// A function with an entry block that is still empty, and that block's parameters.
fn function(signature: Signature) -> (Function, Vec<Value>) {
    let mut func = Function::with_name_signature(UserFuncName::default(), signature);
    let block = func.dfg.make_block();
    func.layout.append_block(block);
    let types: Vec<_> = func.signature.params.iter().map(|param| param.value_type).collect();
    let params = types.into_iter().map(|ty| func.dfg.append_block_param(block, ty)).collect();
    (func, params)
}

/// Calls the gate in `slot` with the pinned register set to `ledger`, and returns what it returns.
fn call_through_slot(
    pos: &mut FuncCursor<'_>,
    signature: &Signature,
    ledger: Value,
    slot: Value,
    arguments: &[Value],
    isa: &dyn TargetIsa,
) {
    let pointer = isa.pointer_type();
    let signature = pos.func.import_signature(signature.clone());
    let outer = pos.ins().get_pinned_reg(pointer);
    pos.ins().set_pinned_reg(ledger);
    let gate = pos.ins().load(pointer, MemFlagsData::trusted(), slot, 0);
    let call = pos.ins().call_indirect(signature, gate, arguments);
    pos.ins().set_pinned_reg(outer);
    let results = pos.func.dfg.inst_results(call).to_vec();
    pos.ins().return_(&results);
}

/// A cursor where a function with one block is to be continued.
trait AtBottomOfEntry {
    fn at_bottom_of_entry(self) -> Self;
}

impl AtBottomOfEntry for FuncCursor<'_> {
    fn at_bottom_of_entry(mut self) -> Self {
        let entry = self.func.layout.entry_block().expect("the function was made with one");
        self.goto_bottom(entry);
        self
    }
}
