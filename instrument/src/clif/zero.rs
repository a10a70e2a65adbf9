//! The value of a type whose bits are all zero.

use cranelift_codegen::cursor::FuncCursor;
use cranelift_codegen::ir::immediates::{Ieee16, Ieee32, Ieee64};
use cranelift_codegen::ir::{ConstantData, InstBuilder, Type, Value, types};

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
