//! What is called where a function has been removed, and how many bytes of arguments functions take
//! off the stack.

use cranelift_codegen::ir::{AbiParam, ArgumentPurpose, Signature, Type, types::*};
use cranelift_codegen::isa::CallConv;
use lastout_instrument::{stack_bytes, zeros};

use super::caller::Caller;
use super::link::{self, Linker, Target};
use crate::support::{self, signatures};

/// The caller finds the stack pointer where it was, whatever the arguments are.
#[test]
fn are_returned_by_functions_of_every_signature() {
    let isa = support::isa("x86_64");
    let forwardable = signatures::forwardable(&*isa).into_iter();
    let wide = [F16, F32, F64, F128, I8X16, I16X8, I32X4, F32X4, F64X2, I8, I16, I32, I64, I128];
    let all = wide.map(|ty| signature(&[I64; 9], &[ty]));
    let many = [
        signature(&[F64; 11], &[F128, F16, F32, F64, I8X16, I8, I128, I64, I16]),
        signature(&[I64; 7], &[I64; 14]),
        signature(&[I64; 7], &[F64; 14]),
    ];
    let all = forwardable.chain(all).chain(many).filter(|it| it.call_conv == CallConv::Tail);
    let mut tried = 0;
    for signature in all {
        let code = link::compile(zeros(&signature, &*isa).unwrap());
        assert!(stack_bytes(&code.bytes, &*isa).is_some(), "{signature}");
        let mut linker = Linker::default();
        let start = linker.put(&code, |symbol| -> Target { panic!("{symbol:?}") });
        let image = linker.link();
        // Some are the addresses of structs.
        let memory = [0_u128; 8];
        let arguments = vec![memory.as_ptr().expose_provenance() as u128; signature.params.len()];
        // SAFETY: it does nothing but return.
        let results = unsafe { Caller::of(&signature).call(image.at(start), 0, &arguments) };
        assert!(results.into_iter().flatten().all(|byte| byte == 0), "{signature}");
        tried += 1;
    }
    assert!(tried > 25, "{tried} signatures");
}

fn signature(params: &[Type], returns: &[Type]) -> Signature {
    let plain = |types: &[Type]| types.iter().copied().map(AbiParam::new).collect();
    Signature { params: plain(params), returns: plain(returns), call_conv: CallConv::Tail }
}

/// Always a multiple of 16.
#[test]
fn bytes_on_the_stack() {
    let cases: [(&[Type], &[Type], u32); 20] = [
        (&[], &[], 0),
        (&[I64; 6], &[], 0),
        (&[I64; 7], &[], 16),
        (&[I8; 8], &[], 16),
        (&[I32; 9], &[], 32),
        (&[F64; 8], &[], 0),
        (&[F32; 9], &[], 16),
        (&[I64X2; 9], &[], 16),
        (&[F64, F64, F64, F64, F64, F64, F64, F64, F64, I8X16], &[], 32),
        (&[F128; 10], &[], 32),
        (&[I128; 3], &[], 0),
        (&[I128; 4], &[], 16),
        (&[I64, I64, I64, I64, I64, I128], &[], 16),
        (&[I64; 6], &[I64; 8], 0),
        // The address of an area for results takes the first register.
        (&[I64; 6], &[I64; 9], 16),
        (&[I64; 5], &[F64; 9], 0),
        (&[I64; 6], &[I128; 5], 16),
        (&[I64; 14], &[I64; 20], 80),
        (&[I64; 1000], &[], 7952),
        (&[I64; 8190], &[], 65_472),
    ];
    for (params, returns, bytes) in cases {
        check(&signature(params, returns), bytes);
    }
    for (size, ints, bytes) in [
        (0, 0, 0),
        (8, 0, 16),
        (16, 0, 16),
        (24, 0, 32),
        (24, 7, 32),
        (800, 9, 832),
        (65_520, 0, 65_520),
    ] {
        let mut by_value = signature(&vec![I64; ints], &[I64]);
        by_value.params.insert(0, AbiParam::special(I64, ArgumentPurpose::StructArgument(size)));
        check(&by_value, bytes);
    }
    let mut address = signature(&[I64; 6], &[]);
    address.params[0].purpose = ArgumentPurpose::StructReturn;
    check(&address, 0);
}

fn check(signature: &Signature, bytes: u32) {
    let isa = support::isa("x86_64");
    let code = link::compile(zeros(signature, &*isa).unwrap()).bytes;
    assert_eq!(stack_bytes(&code, &*isa), Some(bytes), "{signature}");
}

/// Code that does not end with the return says nothing.
#[test]
fn of_other_code_nothing_is_known() {
    let isa = support::isa("x86_64");
    let pop_rbp = 0x5d;
    for code in [
        &[][..],
        &[0xc3],
        &[pop_rbp, 0xc3, 0x00],
        &[pop_rbp, 0xc2, 0x10, 0x00, 0x90],
        &[pop_rbp, 0xcc],
        &[pop_rbp, 0x90, 0xc3],
        &[0xc2, 0x10, 0x00],
    ] {
        assert_eq!(stack_bytes(code, &*isa), None, "{code:x?}");
    }
    assert_eq!(stack_bytes(&[0x90, pop_rbp, 0xc2, 0x30, 0x01], &*isa), Some(0x130));
}
