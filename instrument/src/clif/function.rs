//! Functions that are made from nothing.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{Function, Signature, UserFuncName, Value};

/// A function with an entry block that is still empty, and that block's parameters.
pub(crate) fn empty_function(signature: Signature) -> (Function, Vec<Value>) {
    let mut func = Function::with_name_signature(UserFuncName::default(), signature);
    let block = func.dfg.make_block();
    func.layout.append_block(block);
    let types: Vec<_> = func.signature.params.iter().map(|param| param.value_type).collect();
    let params = types.into_iter().map(|ty| func.dfg.append_block_param(block, ty)).collect();
    (func, params)
}

/// A cursor where a function with one block is to be continued.
pub(crate) fn at_bottom_of_entry(func: &mut Function) -> FuncCursor<'_> {
    let entry = func.layout.entry_block().expect("the function was made with one");
    FuncCursor::new(func).at_bottom(entry)
}
