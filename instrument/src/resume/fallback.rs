//! Where a frame goes on that finds nothing to move to, which is in its own version.

use cranelift_codegen::ir::{ExtFuncData, ExternalName, Function, InstBuilder, Signature, Value};

use super::point::{PointNames, ResumePoint};
use super::resumable::{Resumable, import};
use crate::clif::function::{at_bottom_of_entry, empty_function};

impl Resumable<'_> {
    /// The fallback of a point at a call: it makes the call in the version itself, and then
    /// tail-calls the version's code.
    ///
    /// `None` if the point is not at a call: there the fallback is the code.
    pub fn fallback(&self, point: &ResumePoint, names: &PointNames) -> Option<Function> {
        let (callee, signature) = self.callee(point).zip(point.call.as_ref())?;
        let (mut func, mut params) = empty_function(point.fallback_signature(&self.func.signature));
        let live = params.split_off(signature.params.len());
        let name = match callee.name {
            ExternalName::User(name) => {
                let name = self.func.params.user_named_funcs()[name].clone();
                ExternalName::user(func.declare_imported_user_function(name))
            }
            ref name => name.clone(),
        };
        let signature = func.import_signature(signature.clone());
        let callee = func.import_function(ExtFuncData { name, signature, ..callee.clone() });
        let code = import(&mut func, &names.code, self.code_signature(point), true);
        let mut pos = at_bottom_of_entry(&mut func);
        let call = pos.ins().call(callee, &params);
        let values = [&live, pos.func.dfg.inst_results(call)].concat();
        pos.ins().return_call(code, &values);
        Some(func)
    }
}

/// What takes the place of a resume entry or a parked call that is gone: it tail-calls the
/// fallback, which is the last argument, with the other arguments.
///
/// `signature` is the signature of the resume entry or the parked call.
///
/// # Panics
///
/// If `signature` has no parameters, and so none for the fallback.
pub fn call_fallback(signature: &Signature) -> Function {
    let (mut func, mut params) = empty_function(signature.clone());
    let fallback: Option<Value> = params.pop();
    let mut its_signature = signature.clone();
    its_signature.params.pop();
    let its_signature = func.import_signature(its_signature);
    let mut pos = at_bottom_of_entry(&mut func);
    let fallback = fallback.expect("its last parameter is the address of the fallback");
    pos.ins().return_call_indirect(its_signature, fallback, &params);
    func
}
