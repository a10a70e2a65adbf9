//! Signatures that try what calling conventions treat differently.

use cranelift_codegen::ir::{AbiParam, ArgumentPurpose, Signature, Type, types::*};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use lastout_instrument::check_signature;

/// Every combination of a calling convention and a shape that a gate for `isa` can forward.
pub(crate) fn forwardable(isa: &dyn TargetIsa) -> Vec<Signature> {
    use CallConv::{Fast, PreserveAll, SystemV, Tail, WindowsFastcall};
    let all =
        [Fast, Tail, SystemV, WindowsFastcall, PreserveAll].into_iter().flat_map(|call_conv| {
            shapes(isa.pointer_type()).map(move |shape| shape.signature(call_conv))
        });
    all.filter(|signature| check_signature(signature, isa).is_ok()).collect()
}

struct Shape {
    params: Vec<AbiParam>,
    returns: Vec<AbiParam>,
}

impl Shape {
    fn signature(self, call_conv: CallConv) -> Signature {
        Signature { params: self.params, returns: self.returns, call_conv }
    }
}

fn shapes(pointer: Type) -> impl Iterator<Item = Shape> {
    let plain = |types: &[Type]| types.iter().copied().map(AbiParam::new).collect::<Vec<_>>();
    let types = |params: &[Type], returns: &[Type]| Shape {
        params: plain(params),
        returns: plain(returns),
    };
    let special = |purpose| AbiParam::special(pointer, purpose);
    [
        types(&[], &[]),
        types(&[I8, I16, I32, I64], &[I8]),
        types(&[I8, I16, I32, I64], &[]),
        types(&[I128, I64, I128], &[I128]),
        types(&[F32, F64], &[F64]),
        types(&[I8X16, F32X4, F64X2], &[I32X4]),
        types(&[I64; 14], &[I64]),
        types(&[F64; 12], &[F32]),
        types(&[I64, F64, I32, F32, I128, I8X16, I64, F64, I64, I64, I64, I64, I64], &[I64, F64]),
        types(&[I64], &[I64, I32]),
        types(&[I64], &[I64, F64, I64, F32]),
        Shape {
            params: vec![AbiParam::new(I8).sext(), AbiParam::new(I16).uext()],
            returns: vec![AbiParam::new(I8).sext()],
        },
        Shape {
            params: vec![special(ArgumentPurpose::StructReturn), AbiParam::new(I64)],
            returns: vec![],
        },
        Shape {
            params: vec![special(ArgumentPurpose::StructArgument(24)), AbiParam::new(I64)],
            returns: vec![AbiParam::new(I64)],
        },
    ]
    .into_iter()
}
