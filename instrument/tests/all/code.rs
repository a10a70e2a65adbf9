//! What Cranelift makes of gates.

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_codegen::{CodegenError, Context};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction};
use lastout_instrument::{GateFrame, GateOptions, gate};
use lastout_reclaim::Counting;

use crate::support::{self, signatures};

/// Every gate compiles; what cannot is a signature that Cranelift refuses to any function.
#[test]
fn every_gate_compiles() {
    for architecture in ["x86_64", "aarch64"] {
        let isa = support::isa(architecture);
        for signature in signatures::forwardable(&*isa) {
            for counting in [Counting::Plain, Counting::Atomic] {
                match compile(&signature, counting, &*isa) {
                    Ok(_) => {}
                    Err(CodegenError::Unsupported(why)) if why.contains("return values") => {}
                    Err(error) => panic!("{architecture}, {signature}: {error}"),
                }
            }
        }
    }
}

/// A register that the fast path had to save would cost every call a store and a load, and a
/// count that is no single instruction costs more than that.
///
/// Atomic counts are dear enough that one register, saved where six integers leave too few free,
/// does not show.
#[test]
fn the_fast_path_saves_no_registers() {
    let isa = support::isa("x86_64");
    for call_conv in [CallConv::SystemV, CallConv::Fast, CallConv::Tail] {
        for (ints, floats) in [(0, 0), (1, 1), (6, 0), (0, 8), (6, 8)] {
            let mut signature = Signature::new(call_conv);
            signature.params = vec![AbiParam::new(types::I64); ints];
            signature.params.extend(vec![AbiParam::new(types::F64); floats]);
            signature.returns = vec![AbiParam::new(types::I64), AbiParam::new(types::F64)];
            let code = compile(&signature, Counting::Plain, &*isa).unwrap();
            let none = "offset_downward_to_clobbers: 0 }";
            assert!(code.contains(none), "{signature}:\n{code}");
            let ins = code.lines().filter(|line| line.contains("addl $0x1, ("));
            let outs = code.lines().filter(|line| line.contains("addl $0xffffffff, ("));
            assert_eq!((ins.count(), outs.count()), (1, 2), "{signature}:\n{code}");
        }
    }
}

/// What an unwinder takes for the place that the body returns to is that: the last call before the
/// count goes down. There may be others before it, which copy struct arguments.
#[test]
fn the_call_of_the_body_is_known() {
    let isa = support::isa("x86_64");
    for signature in signatures::forwardable(&*isa) {
        let options = GateOptions { counting: Counting::Plain, interleave: false };
        let func = gate(&signature, options, &*isa).unwrap();
        let mut context = Context::for_function(func);
        let Ok(compiled) = context.compile(&*isa, &mut ControlPlane::default()) else {
            // As above.
            continue;
        };
        let frame = GateFrame::of(compiled);
        assert_eq!((frame.lane, frame.outer), (None, None), "{signature}");
        let returned = frame.body_return.expect("a gate calls the body") as usize;
        let code = compiled.code_buffer();
        let instructions = Decoder::new(64, code, DecoderOptions::NONE).into_iter();
        let (before, after): (Vec<_>, Vec<_>) =
            instructions.partition(|it| (it.next_ip() as usize) <= returned);
        let call = before.last().map(|it| (it.code(), it.next_ip() as usize));
        assert_eq!(call, Some((Code::Call_rm64, returned)), "{signature}");
        let counts_out =
            |it: &Instruction| it.code() == Code::Add_rm32_imm8 && it.immediate8() == u8::MAX;
        let next = after.iter().find(|it| counts_out(it) || it.code() == Code::Call_rm64);
        assert!(next.is_some_and(counts_out), "{signature}");
    }
}

/// The instructions of a gate, before they are bytes.
fn compile(
    signature: &Signature,
    counting: Counting,
    isa: &dyn TargetIsa,
) -> Result<String, CodegenError> {
    let options = GateOptions { counting, interleave: false };
    let func = gate(signature, options, isa).unwrap();
    support::verify(&func, isa);
    let mut context = Context::for_function(func);
    context.set_disasm(true);
    let code = context.compile(isa, &mut ControlPlane::default()).map_err(|error| error.inner)?;
    Ok(code.vcode.clone().expect("it was asked for"))
}
