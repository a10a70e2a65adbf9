use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, MemFlagsData, Signature, UserFuncName, types,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use super::{KEPT, Saved};
use crate::Engine;
use crate::host::process::among_others;

const XMM6: u16 = 17 + 6;
const XMM7: u16 = 17 + 7;
const RBX: u16 = KEPT[0];
const R12: u16 = KEPT[1];
const R13: u16 = KEPT[2];
const R14: u16 = KEPT[3];

/// The words below the frame pointer, of `rbx`, `r12`, `r13` and `r14`.
fn from(saves: &[(u16, i64)]) -> [u8; 4] {
    Saved::from_saves(saves).0
}

#[test]
fn registers_are_in_a_row_that_ends_on_sixteen_bytes_below_the_frame_pointer() {
    assert_eq!(from(&[]), [0; 4]);
    // One word, and one that is left free.
    assert_eq!(from(&[(RBX, 4)]), [2, 0, 0, 0]);
    assert_eq!(from(&[(RBX, 4), (R12, 3)]), [2, 1, 0, 0]);
    assert_eq!(from(&[(RBX, 6), (R12, 5), (R13, 4)]), [4, 3, 2, 0]);
    assert_eq!(from(&[(RBX, 6), (R12, 5), (R13, 4), (R14, 3)]), [4, 3, 2, 1]);
    assert_eq!(from(&[(R13, 4), (R14, 3)]), [0, 0, 2, 1]);
    // The distance from the end of the caller's frame does not matter.
    assert_eq!(from(&[(RBX, 16), (R12, 15), (R13, 14)]), [4, 3, 2, 0]);
}

#[test]
fn vectors_take_two_words_on_sixteen_bytes() {
    assert_eq!(from(&[(XMM6, 4)]), [0; 4]);
    assert_eq!(from(&[(RBX, 6), (R12, 5), (XMM6, 4)]), [4, 3, 0, 0]);
    // One word between them is free.
    assert_eq!(from(&[(RBX, 6), (XMM6, 4)]), [4, 0, 0, 0]);
    assert_eq!(from(&[(R12, 10), (R13, 9), (R14, 8), (XMM6, 6), (XMM7, 4)]), [0, 8, 7, 6]);
}

/// Compiles a function that calls another of its signature while it holds so many integers and
/// floats.
fn compiled(isa: &dyn TargetIsa, convention: CallConv, integers: i32, floats: i32) -> Context {
    let mut signature = Signature::new(convention);
    signature.params.push(AbiParam::new(types::I64));
    let mut func = Function::with_name_signature(UserFuncName::default(), signature.clone());
    let mut buffers = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut func, &mut buffers);
    let block = builder.create_block();
    builder.append_block_params_for_function_params(block);
    builder.switch_to_block(block);
    builder.seal_all_blocks();
    let pointer = builder.block_params(block)[0];
    let flags = MemFlagsData::trusted();
    let load = |builder: &mut FunctionBuilder<'_>, ty, count: i32| -> Vec<_> {
        (0..count).map(|index| builder.ins().load(ty, flags, pointer, 16 * index)).collect()
    };
    let held = [load(&mut builder, types::I64, integers), load(&mut builder, types::F64, floats)];
    let callee = builder.import_signature(signature);
    builder.ins().call_indirect(callee, pointer, &[pointer]);
    for value in held.concat() {
        builder.ins().store(flags, value, pointer, 0);
    }
    builder.ins().return_(&[]);
    builder.finalize(isa.frontend_config());
    let mut context = Context::for_function(func);
    context.compile(isa, &mut ControlPlane::default()).unwrap();
    context
}

/// For each register that calls keep, how many words below the frame pointer an instruction at the
/// beginning of a function stores it. Only the code is read, and not what Cranelift says of it.
fn stored(code: &[u8]) -> [u8; 4] {
    // push rbp; mov rbp, rsp
    let code = code.strip_prefix(&[0x55, 0x48, 0x89, 0xe5]).unwrap();
    // sub rsp, size
    let (room, mut code) = match *code {
        [0x48, 0x83, 0xec, size, ref rest @ ..] => (usize::from(size), rest),
        [0x48, 0x81, 0xec, low, high, 0, 0, ref rest @ ..] => {
            (usize::from(u16::from_le_bytes([low, high])), rest)
        }
        _ => return [0; 4],
    };
    let mut stored = [0; 4];
    // mov [rsp + distance], register
    while let [0x48 | 0x4c, 0x89, mod_rm, 0x24, rest @ ..] = code {
        let extended = code[0] == 0x4c;
        let register = u16::from(mod_rm >> 3 & 7) + if extended { 8 } else { 0 };
        let (distance, rest) = match mod_rm >> 6 {
            0 => (0, rest),
            1 => (usize::from(rest[0]), &rest[1..]),
            _ => (usize::from(u16::from_le_bytes([rest[0], rest[1]])), &rest[4..]),
        };
        if let Some(kept) = KEPT.iter().position(|&kept| kept == register) {
            stored[kept] = ((room - distance) / 8) as u8;
        }
        code = rest;
    }
    stored
}

#[test]
fn what_functions_of_every_convention_save_is_found() {
    let _others = among_others();
    let engine = Engine::new().unwrap();
    let isa = engine.isa();
    let mut saving = 0;
    for convention in [
        CallConv::SystemV,
        CallConv::Tail,
        CallConv::Fast,
        CallConv::WindowsFastcall,
        CallConv::PreserveAll,
    ] {
        for integers in 0..9 {
            for floats in 0..5 {
                let context = compiled(isa, convention, integers, floats);
                let compiled = context.compiled_code().unwrap();
                let saved = Saved::of(compiled, isa).unwrap();
                assert_eq!(saved.0, stored(compiled.code_buffer()), "{convention}");
                saving += u32::from(saved.0.iter().any(|words| *words != 0));
            }
        }
    }
    assert!(saving > 50, "hardly any of them have saved something: {saving}");
}
