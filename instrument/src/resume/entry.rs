//! The functions by which frames come to a point.

use cranelift_codegen::ir::{AbiParam, Function, InstBuilder, Signature, UserExternalName};

use super::point::{PointNames, ResumePoint};
use super::resumable::{Resumable, import};
use crate::clif::function::{at_bottom_of_entry, empty_function};

impl Resumable<'_> {
    /// The replaceable function by which frames come to a point: it tail-calls the code, and does
    /// not use the fallback.
    pub fn resume_entry(&self, point: &ResumePoint, names: &PointNames) -> Function {
        let (mut func, mut params) = empty_function(self.resume_entry_signature(point));
        params.pop();
        let code = import(&mut func, &names.code, self.code_signature(point), true);
        at_bottom_of_entry(&mut func).ins().return_call(code, &params);
        func
    }

    /// The resume entry for frames of versions in which something else is alive at the point: it
    /// calls the `converter`, which makes what is alive here of that, and then tail-calls the code.
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
}
