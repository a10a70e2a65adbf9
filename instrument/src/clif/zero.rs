//! The value of a type whose bits are all zero, and the function that returns such values.

use cranelift_codegen::cursor::FuncCursor;
use cranelift_codegen::ir::immediates::{Ieee16, Ieee32, Ieee64};
use cranelift_codegen::ir::{ConstantData, Function, InstBuilder, Signature, Type, Value, types};
use cranelift_codegen::isa::TargetIsa;

use super::function::{at_bottom_of_entry, empty_function};
use crate::{Error, check_signature};

/// What a tail call of a function with this signature goes to if there is no version: a function
/// that returns zeros.
///
/// # Errors
///
/// As [`check_signature`].
pub fn zeros(signature: &Signature, isa: &dyn TargetIsa) -> Result<Function, Error> {
    check_signature(signature, isa)?;
    let (mut func, _) = empty_function(signature.clone());
    let mut pos = at_bottom_of_entry(&mut func);
    let types = signature.returns.iter().map(|result| result.value_type);
    let zeros: Vec<_> = types.map(|ty| value(&mut pos, ty)).collect();
    pos.ins().return_(&zeros);
    Ok(func)
}

/// Zero of any type that a function can return.
pub(crate) fn value(pos: &mut FuncCursor<'_>, ty: Type) -> Value {
    let constant = |pos: &mut FuncCursor<'_>| {
        let bytes = ConstantData::from(vec![0; ty.bytes() as usize]);
        pos.func.dfg.constants.insert(bytes)
    };
    match ty {
        types::I128 => {
            let half = pos.ins().iconst(types::I64, 0);
            pos.ins().iconcat(half, half)
        }
        types::F16 => pos.ins().f16const(Ieee16::with_bits(0)),
        types::F32 => pos.ins().f32const(Ieee32::with_bits(0)),
        types::F64 => pos.ins().f64const(Ieee64::with_bits(0)),
        types::F128 => {
            let zero = constant(pos);
            pos.ins().f128const(zero)
        }
        vector if vector.is_vector() => {
            let zero = constant(pos);
            pos.ins().vconst(vector, zero)
        }
        integer => pos.ins().iconst(integer, 0),
    }
}
