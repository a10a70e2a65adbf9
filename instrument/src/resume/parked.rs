//! The small functions beside the large one: who forwards, who waits, and who stays.

use cranelift_codegen::cursor::FuncCursor;
use cranelift_codegen::ir::{
    AbiParam, ExtFuncData, ExternalName, Function, InstBuilder, MemFlagsData, Signature,
    UserExternalName, Value,
};
use cranelift_codegen::isa::TargetIsa;

use super::{PointNames, Resumable, ResumePoint, import};
use crate::clif::function::{at_bottom_of_entry, empty_function};
use crate::dispatch::Callee;
use crate::{Symbol, symbol};

impl Resumable<'_> {
    /// The replaceable function by which frames come to a point: it tail-calls the code, and has no
    /// use for the fallback.
    pub fn resume_entry(&self, point: &ResumePoint, names: &PointNames) -> Function {
        let (mut func, mut params) = empty_function(self.resume_entry_signature(point));
        params.pop();
        let code = import(&mut func, &names.code, self.code_signature(point), true);
        at_bottom_of_entry(&mut func).ins().return_call(code, &params);
        func
    }

    /// The resume entry for frames at a point of other versions, where something else is alive:
    /// `converter` makes what is alive here of that, and then the code is tail-called.
    ///
    /// `converted` is the converter's signature, whose results the point
    /// [accepts](ResumePoint::accepts).
    pub fn converting_resume_entry(
        &self,
        point: &ResumePoint,
        names: &PointNames,
        converter: &UserExternalName,
        converted: &Signature,
    ) -> Function {
        let signature = self.converting_signature(point, converted);
        let (mut func, mut params) = empty_function(signature);
        params.pop();
        let results = params.split_off(converted.params.len());
        let converter = import(&mut func, converter, converted.clone(), true);
        let code = import(&mut func, &names.code, self.code_signature(point), true);
        let mut pos = at_bottom_of_entry(&mut func);
        let call = pos.ins().call(converter, &params);
        let mut values = pos.func.dfg.inst_results(call).to_vec();
        values.extend(results);
        pos.ins().return_call(code, &values);
        func
    }

    /// The signature of a [converting resume entry](Self::converting_resume_entry).
    pub fn converting_signature(&self, point: &ResumePoint, converted: &Signature) -> Signature {
        let mut signature = self.resume_entry_signature(point);
        let alive = converted.params.iter().map(|param| AbiParam::new(param.value_type));
        signature.params.splice(..point.live.len(), alive);
        signature
    }

    /// What makes the call of a point in the version itself, and then tail-calls its code: where
    /// the parked call is gone.
    ///
    /// `None` if the point is not at a call.
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

/// The parked call of a point at a call: makes the call, with what is alive meanwhile in its own
/// frame, and then goes on in whichever version is current.
///
/// `call` is what it calls, which is the function that has the slot [`Symbol::Slot`]`(0)` if it is
/// replaceable, or else at the address [`Symbol::StubTarget`]. [`Symbol::Slot`]`(1)` is the slot of
/// the resume entry. `signature` is the [parked call's](Resumable::parked_call_signature), and
/// `resume_entry` that of the [resume entry](Resumable::resume_entry_signature).
///
/// Whoever takes the resume entry away sees to it that nobody is in here who would miss it.
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

/// What takes the place of a resume entry or a parked call that is not there: tail-calls the
/// fallback, which is the last argument, with the others.
///
/// `signature` is that of what is not there.
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
