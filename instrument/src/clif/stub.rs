//! Calls of the slow path that the fast path does not have to prepare for.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{AbiParam, Function, InstBuilder, Signature, UserFuncName};
use cranelift_codegen::isa::TargetIsa;

use crate::signature::preserving_signature;
use crate::{Symbol, symbol};

/// A function that calls [`Symbol::StubTarget`], an `extern "C" fn(*const T, *const u32)` of the
/// host, with what it was given and with the ledger that is in the pinned register, and keeps every
/// register while doing so.
///
/// A gate that called the host directly would have to save, on every pass, the results that it
/// is about to return, for the sake of a call that happens once in the life of a version.
pub fn preserving_stub(isa: &dyn TargetIsa) -> Function {
    let signature = preserving_signature(isa);
    let mut func = Function::with_name_signature(UserFuncName::default(), signature);
    let pointer = isa.pointer_type();
    let mut host = Signature::new(isa.default_call_conv());
    host.params.extend([AbiParam::new(pointer); 3]);
    let host = func.import_signature(host);

    let block = func.dfg.make_block();
    let argument = func.dfg.append_block_param(block, pointer);
    let mut pos = FuncCursor::new(&mut func);
    pos.insert_block(block);
    let target = symbol::value(&mut pos, pointer, Symbol::StubTarget);
    let ledger = pos.ins().get_pinned_reg(pointer);
    let data = symbol::value(&mut pos, pointer, Symbol::StubData);
    pos.ins().call_indirect(host, target, &[argument, ledger, data]);
    pos.ins().return_(&[]);
    func
}
