//! The entry for typed calls in machine code, for x86-64.
//!
//! What Cranelift makes of [`host_entry`](crate::host_entry) sets up a frame by `rbp`, and takes
//! the stack pointer back from it after the body has loaded `rbp` from memory. So the next call
//! waits for a store to be forwarded. In the code below nothing waits.
//!
//! This is for the signatures that have a [gate](crate::machine_gate) in machine code and leave two
//! registers for the ledger and the function, which the host passes first:
//!
//! ```text
//!   entry        push  rbp                       a frame like any other
//!                mov   rbp, rsp
//!                push  r15
//!                push  rbx
//!                mov   r15, rdi                  the ledger
//!                mov   rbx, [rsi + lane]
//!                mov   rdi, rdx                  the integer arguments, as many as there are
//!                mov   rsi, rcx
//!                mov   rdx, r8
//!                mov   rcx, r9
//!                mov   rax, [rbx + cell offset]
//!                add   dword [r15 + rax], 1      count in
//!                mov   rax, [rbx]                load the body
//!                test  rax, rax
//!                jz    bail
//!                call  rax                       call the body
//!                mov   rcx, [rbx + cell offset]
//!                sub   dword [r15 + rcx], 1      count out
//!                cmp   qword [rbx], 0            check the body
//!                je    leave
//!   done         pop   rbx
//!                pop   r15
//!                pop   rbp
//!                ret
//!   leave        mov   rdi, rbx
//!                call  leave stub                which keeps every register
//!                jmp   done
//!   bail         mov   rax, [rbx + cell offset]
//!                sub   dword [r15 + rax], 1      count out
//!                cmp   qword [rbx], 0            check the body
//!                jne   restart
//!                mov   r10, rdi
//!                mov   rdi, rbx
//!                call  leave stub
//!                mov   rdi, r10
//!   restart      mov   rax, [rbx + function]
//!                mov   rax, [rax + current]
//!                test  rax, rax
//!                jz    removed
//!                call  rax                       restart
//!                jmp   done
//!   removed      mov   rdi, rbx
//!                call  removed stub
//!                zero  rax, rdx, xmm0, xmm1
//!                jmp   done
//! ```

use cranelift_codegen::ir::{AbiParam, ArgumentExtension, Signature};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use lastout_reclaim::{Counting, Step};

use super::encoder::Encoder;
use super::gate::has_machine_code;
use crate::{GateOptions, LaneLayout, MachineCode, Symbol};

/// The entry, if the signatures have one in machine code.
pub(super) fn entry(
    outer: &Signature,
    inner: &Signature,
    layout: LaneLayout,
    options: GateOptions,
    isa: &dyn TargetIsa,
) -> Option<MachineCode> {
    let integers = inner.params.iter().filter(|param| param.value_type.is_int()).count();
    let fits = has_machine_code(inner, options, isa)
        && has_machine_code(outer, options, isa)
        && outer.call_conv == CallConv::SystemV
        && integers <= SHUFFLE.len()
        && pass(&outer.params, &inner.params)
        && pass(&inner.returns, &outer.returns);
    fits.then(|| lower(integers, layout))
}

/// Whether what is given as `from` can be taken as `to` without being extended.
fn pass(from: &[AbiParam], to: &[AbiParam]) -> bool {
    from.len() == to.len()
        && from.iter().zip(to).all(|(from, to)| {
            let extended =
                to.extension == ArgumentExtension::None || to.extension == from.extension;
            extended && from.value_type == to.value_type
        })
}

/// Moves each integer argument to where it would be without the two that come first.
const SHUFFLE: [[u8; 3]; 4] = [
    [0x48, 0x89, 0xd7], // mov rdi, rdx
    [0x48, 0x89, 0xce], // mov rsi, rcx
    [0x4c, 0x89, 0xc2], // mov rdx, r8
    [0x4c, 0x89, 0xc9], // mov rcx, r9
];

fn lower(integers: usize, layout: LaneLayout) -> MachineCode {
    let mut code = Encoder::default();
    code.put(&[0x55, 0x48, 0x89, 0xe5]); // push rbp; mov rbp, rsp
    code.put(&[0x41, 0x57, 0x53]); // push r15; push rbx
    code.frame().outer = Some(-8);
    code.put(&[0x49, 0x89, 0xff]); // mov r15, rdi
    code.load(RBX_FROM_RSI, layout.lane);
    SHUFFLE[..integers].iter().for_each(|instruction| code.put(instruction));
    let (mut bail, mut leave) = (None, None);
    for step in Counting::Plain.gate() {
        match step {
            Step::CountIn => {
                code.load(RAX_FROM_RBX, layout.cell_offset);
                code.put(&[0x41, 0x83, 0x04, 0x07, 1]); // add dword [r15 + rax], 1
            }
            Step::LightFence => {}
            Step::LoadBody => {
                code.put(&[0x48, 0x8b, 0x03]); // mov rax, [rbx]
                code.put(&[0x48, 0x85, 0xc0]); // test rax, rax
                bail = Some(code.short_jump(0x74)); // jz
            }
            Step::CallBody => {
                code.put(&[0xff, 0xd0]); // call rax
                code.frame().body_return = Some(code.here());
            }
            Step::CountOut => {
                code.load(RCX_FROM_RBX, layout.cell_offset);
                code.put(&[0x41, 0x83, 0x2c, 0x0f, 1]); // sub dword [r15 + rcx], 1
            }
            Step::CheckBody => {
                code.put(&COMPARE_BODY);
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
    let done = code.here();
    code.put(&[0x5b, 0x41, 0x5f, 0x5d, 0xc3]); // pop rbx; pop r15; pop rbp; ret

    code.land(leave.expect("a gate checks the body"));
    code.put(&LANE_TO_RDI);
    code.jump(0xe8, Symbol::Leave); // call
    code.jump_back(done);

    code.land(bail.expect("a gate loads the body"));
    let [Step::CountOut, Step::LightFence, Step::CheckBody, Step::Restart] = Counting::Plain.bail()
    else {
        unreachable!("these are the steps below")
    };
    code.load(RAX_FROM_RBX, layout.cell_offset);
    code.put(&[0x41, 0x83, 0x2c, 0x07, 1]); // sub dword [r15 + rax], 1
    code.put(&COMPARE_BODY);
    let restart = code.short_jump(0x75); // jne
    code.put(&[0x49, 0x89, 0xfa]); // mov r10, rdi
    code.put(&LANE_TO_RDI);
    code.jump(0xe8, Symbol::Leave); // call
    code.put(&[0x4c, 0x89, 0xd7]); // mov rdi, r10
    code.land(restart);
    code.load(RAX_FROM_RBX, layout.function);
    code.load(RAX_FROM_RAX, layout.current);
    code.put(&[0x48, 0x85, 0xc0]); // test rax, rax
    let removed = code.short_jump(0x74); // jz
    code.put(&[0xff, 0xd0]); // call rax
    code.jump_back(done);

    code.land(removed);
    code.put(&LANE_TO_RDI);
    code.jump(0xe8, Symbol::Removed); // call
    code.zero_results();
    code.jump_back(done);
    code.finish()
}

// `mov`s of 64 bits from memory, but for the distance.
const RBX_FROM_RSI: u8 = 0x9e;
const RAX_FROM_RBX: u8 = 0x83;
const RCX_FROM_RBX: u8 = 0x8b;
const RAX_FROM_RAX: u8 = 0x80;

/// `cmp qword [rbx], 0`.
const COMPARE_BODY: [u8; 4] = [0x48, 0x83, 0x3b, 0];

/// `mov rdi, rbx`.
const LANE_TO_RDI: [u8; 3] = [0x48, 0x89, 0xdf];
