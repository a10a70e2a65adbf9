//! A caller of functions of any signature, with arguments and results in memory.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, MemFlagsData, Signature, UserFuncName, types,
};
use cranelift_codegen::isa::CallConv;

use super::link::{self, Image, Linker};

/// How far values are apart in memory.
const STEP: usize = 16;

/// Calls functions of a signature, by code that Cranelift has made.
pub(crate) struct Caller {
    image: Image,
    start: usize,
    signature: Signature,
}

impl Caller {
    pub(crate) fn of(signature: &Signature) -> Self {
        let mut linker = Linker::default();
        let code = link::compile(caller(signature));
        let start = linker.put(&code, |symbol| panic!("callers do not refer to {symbol:?}"));
        Self { image: linker.link(), start, signature: signature.clone() }
    }

    /// Calls what is at an address with the ledger in the pinned register and gives it arguments,
    /// each in its first bytes. Returns the results, as many bytes of each as it has.
    ///
    /// # Safety
    ///
    /// It is a function of the signature, and does nothing that it should not with these arguments.
    pub(crate) unsafe fn call(
        &self,
        function: usize,
        ledger: u64,
        arguments: &[u128],
    ) -> Vec<Vec<u8>> {
        assert_eq!(arguments.len(), self.signature.params.len());
        let returns = &self.signature.returns;
        // What is not written is not zero.
        let mut results = vec![u128::MAX; returns.len() + 1];
        // SAFETY: it was compiled to be called like this.
        let call: extern "C" fn(u64, usize, *const u128, *mut u128) =
            unsafe { std::mem::transmute(self.image.at(self.start)) };
        call(ledger, function, arguments.as_ptr(), results.as_mut_ptr());
        let moved = results.pop().expect("it is behind the results") as u64;
        assert_eq!(moved, 0, "the stack pointer is where it was");
        let sizes = returns.iter().map(|result| result.value_type.bytes() as usize);
        results
            .iter()
            .zip(sizes)
            .map(|(result, size)| result.to_le_bytes()[..size].to_vec())
            .collect()
    }
}

/// `extern "C" fn(ledger, function, arguments, results)`, which stores behind the results by how
/// much the call has moved the stack pointer.
fn caller(signature: &Signature) -> Function {
    let mut own = Signature::new(CallConv::SystemV);
    own.params = vec![AbiParam::new(types::I64); 4];
    let mut func = Function::with_name_signature(UserFuncName::default(), own);
    let block = func.dfg.make_block();
    let [ledger, function, arguments, results] =
        [(); 4].map(|()| func.dfg.append_block_param(block, types::I64));
    let signature_ref = func.import_signature(signature.clone());
    let mut pos = FuncCursor::new(&mut func);
    pos.insert_block(block);
    let outer = pos.ins().get_pinned_reg(types::I64);
    pos.ins().set_pinned_reg(ledger);
    let flags = MemFlagsData::trusted();
    let params = signature.params.iter().zip((0..).step_by(STEP));
    let values: Vec<_> =
        params.map(|(param, at)| pos.ins().load(param.value_type, flags, arguments, at)).collect();
    let before = pos.ins().get_stack_pointer(types::I64);
    let call = pos.ins().call_indirect(signature_ref, function, &values);
    let after = pos.ins().get_stack_pointer(types::I64);
    pos.ins().set_pinned_reg(outer);
    let returned = pos.func.dfg.inst_results(call).to_vec();
    let moved = pos.ins().isub(after, before);
    for (value, at) in returned.into_iter().chain([moved]).zip((0..).step_by(STEP)) {
        pos.ins().store(flags, value, results, at);
    }
    pos.ins().return_(&[]);
    func
}
