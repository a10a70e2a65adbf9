//! The plain gate in machine code, for x86-64.
//!
//! A gate takes 74 bytes here, where that of Cranelift takes 245 for the same steps. Cranelift sets
//! up a frame, moves arguments out of the way of calls that are hardly ever made, and loads
//! addresses that it could do without. Written down, what every call runs fits into one cache line.
//! That matters more than the instructions do: a program has many gates, and goes through one after
//! the other.
//!
//! This is for signatures whose arguments and results are all in registers, which the gate then
//! does not touch. Other signatures, atomic counts, and gates with a hook between steps are lowered
//! to CLIF by [`gate`](crate::gate()), from the same list of steps.
//!
//! ```text
//!   head         inc   dword [r15 + cell]        count in
//!                mov   r11, lane
//!                mov   r10, [r11]                load the body
//!                test  r10, r10
//!                jz    bail
//!                push  rbp                       a frame like any other
//!                mov   rbp, rsp
//!                call  r10                       call the body
//!                pop   rbp
//!                dec   dword [r15 + cell]        count out
//!                mov   r11, lane
//!                cmp   qword [r11], 0            check the body
//!                je    leave
//!                ret
//!   leave        jmp   leave tail
//!   bail         dec   dword [r15 + cell]        count out
//!                jmp   bail tail
//! ```
//!
//! The lane is loaded twice, and not kept on the stack meanwhile. Keeping it there makes a gate
//! shorter, but a program in which many functions call each other slower, since the check then
//! waits for the stack.
//!
//! What remains is the second call and return. In a loop, leaving the counts out makes no
//! difference, since they are hidden behind the branches. To be rid of the second call, the steps
//! would have to be in the caller, where the call is. That is possible, since the caller's code is
//! kept by its own gate. But then every call of a replaceable function is as long as a gate, and an
//! exception has a frame to clean up at each.
//!
//! The light fences are no instructions here, since the processor keeps loads in order with loads,
//! stores with stores, and loads before later stores; r10 and r11 carry neither arguments nor
//! results. The *tails* are shared by all gates of an engine. They are entered with the stack as
//! the caller of the gate has left it, and with the lane in r11:
//!
//! ```text
//!   leave tail   push  rdi
//!                mov   rdi, r11
//!                call  leave stub                which keeps every register
//!                pop   rdi
//!                ret
//!
//!   bail tail    push  rdi
//!                mov   rdi, r11
//!                cmp   qword [r11], 0            check the body
//!                jne   restart
//!                call  leave stub
//!   restart      mov   r11, [r11 + function]
//!                mov   r11, [r11 + current]
//!                test  r11, r11
//!                jz    removed
//!                pop   rdi
//!                jmp   r11                       restart
//!   removed      call  removed stub
//!                pop   rdi
//!                zero  rax, rdx, xmm0, xmm1
//!                ret
//! ```

use cranelift_codegen::ir::{AbiParam, ArgumentPurpose, Signature, Type};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use lastout_reclaim::{Counting, Step};

use super::encoder::Encoder;
use crate::{GateOptions, LaneLayout, MachineCode, MachineGate, Symbol, check_signature};

/// See [`MachineGate`]. It is a constant, and not chosen by the ISA, since the runtime reads the
/// gates of its own host only.
pub const MACHINE_GATE: MachineGate = MachineGate { lane: 9, body_return: 32 };

/// The gate of a lane, if the signature has one in machine code.
pub(super) fn gate(
    signature: &Signature,
    options: GateOptions,
    isa: &dyn TargetIsa,
) -> Option<MachineCode> {
    has_machine_code(signature, options, isa).then(lower)
}

/// Whether calls of functions with this signature can be made in machine code that leaves arguments
/// and results where they are.
pub(super) fn has_machine_code(
    signature: &Signature,
    options: GateOptions,
    isa: &dyn TargetIsa,
) -> bool {
    let plain = options == GateOptions { counting: Counting::Plain, interleave: false };
    plain && check_signature(signature, isa).is_ok() && in_registers(signature)
}

/// The leave tail and the bail tail.
pub(super) fn tails(layout: LaneLayout) -> [MachineCode; 2] {
    let mut leave = Encoder::default();
    leave.put(&[0x57]); // push rdi
    leave.put(&[0x4c, 0x89, 0xdf]); // mov rdi, r11
    leave.jump(0xe8, Symbol::Leave); // call
    leave.put(&[0x5f, 0xc3]); // pop rdi; ret

    let mut bail = Encoder::default();
    bail.put(&[0x57]); // push rdi
    bail.put(&[0x4c, 0x89, 0xdf]); // mov rdi, r11
    bail.compare_body();
    let restart = bail.short_jump(0x75); // jne
    bail.jump(0xe8, Symbol::Leave); // call
    bail.land(restart);
    bail.load_r11(layout.function);
    bail.load_r11(layout.current);
    bail.put(&[0x4d, 0x85, 0xdb]); // test r11, r11
    let removed = bail.short_jump(0x74); // jz
    bail.put(&[0x5f]); // pop rdi
    bail.put(&[0x41, 0xff, 0xe3]); // jmp r11
    bail.land(removed);
    bail.jump(0xe8, Symbol::Removed); // call
    bail.put(&[0x5f]); // pop rdi
    bail.zero_results();
    bail.put(&[0xc3]); // ret
    [leave.finish(), bail.finish()]
}

/// Whether all arguments and results are in registers: in C's calling convention, six integers
/// and eight floats or vectors, and two of each as results.
fn in_registers(signature: &Signature) -> bool {
    let fit = |params: &[AbiParam], integers: usize, others: usize| {
        let class = |class: fn(Type) -> bool| {
            params.iter().filter(move |param| class(param.value_type)).count()
        };
        let integer = class(|ty| ty.is_int() && ty.bits() <= 64);
        let other =
            class(|ty| ty.is_float() && ty.bits() <= 64 || ty.is_vector() && ty.bits() == 128);
        integer <= integers && other <= others && integer + other == params.len()
    };
    let on_stack = |param: &AbiParam| matches!(param.purpose, ArgumentPurpose::StructArgument(_));
    matches!(signature.call_conv, CallConv::SystemV | CallConv::Fast)
        && fit(&signature.params, 6, 8)
        && fit(&signature.returns, 2, 2)
        && !signature.params.iter().any(on_stack)
}

fn lower() -> MachineCode {
    let mut code = Encoder::default();
    let (mut bail, mut leave) = (None, None);
    for step in Counting::Plain.gate() {
        match step {
            Step::CountIn => code.count(0x87), // inc
            Step::LightFence => {}
            Step::LoadBody => {
                code.lane();
                debug_assert_eq!(code.here(), MACHINE_GATE.lane + 8);
                code.put(&[0x4d, 0x8b, 0x13]); // mov r10, [r11]
                code.put(&[0x4d, 0x85, 0xd2]); // test r10, r10
                bail = Some(code.short_jump(0x74)); // jz
            }
            Step::CallBody => {
                code.put(&[0x55, 0x48, 0x89, 0xe5]); // push rbp; mov rbp, rsp
                code.put(&[0x41, 0xff, 0xd2]); // call r10
                debug_assert_eq!(code.here(), MACHINE_GATE.body_return);
                code.put(&[0x5d]); // pop rbp
            }
            Step::CountOut => code.count(0x8f), // dec
            Step::CheckBody => {
                code.lane();
                code.compare_body();
                leave = Some(code.short_jump(0x74)); // je
            }
            Step::CountInFenced
            | Step::PushLane
            | Step::SwapLane
            | Step::PopLane
            | Step::CountOutFenced
            | Step::CountOutTaken
            | Step::CountOutTakenFenced
            | Step::CheckTaken
            | Step::JumpBody
            | Step::Restart => {
                unreachable!("not a step of the plain gate")
            }
        }
    }
    code.put(&[0xc3]); // ret
    code.land(leave.expect("a gate checks the body"));
    code.jump(0xe9, Symbol::LeaveTail);
    code.land(bail.expect("a gate loads the body"));
    let [Step::CountOut, Step::LightFence, Step::CheckBody, Step::Restart] = Counting::Plain.bail()
    else {
        unreachable!("the last two steps are the bail tail's")
    };
    code.count(0x8f); // dec
    code.jump(0xe9, Symbol::BailTail);
    code.finish()
}
