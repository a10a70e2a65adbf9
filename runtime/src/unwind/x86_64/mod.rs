//! x86-64: the registers by their numbers in unwind tables, how to go on in a frame, and what a
//! signal has interrupted.

use std::mem::offset_of;

use cranelift_codegen::gimli::{Register, X86_64};
use libc::{REG_RBP, REG_RCX, REG_RDI, REG_RDX, REG_RIP, REG_RSI, REG_RSP, ucontext_t};

use super::{AfterTrap, Interrupted, Registers};

pub(in crate::unwind) const FRAME_POINTER: Register = X86_64::RBP;
pub(in crate::unwind) const RETURN_ADDRESS: Register = X86_64::RA;
/// The register in which an entry, and the gate of tail calls, have the lane that counts them.
pub(in crate::unwind) const LANE: Register = X86_64::RBX;
/// The register that has the ledger.
pub(in crate::unwind) const PINNED: Register = X86_64::R15;

/// The registers that calls keep, by their numbers in unwind tables. The frame pointer is not among
/// them, since its place is known, nor the pinned register, which no function saves.
pub(in crate::unwind) const KEPT: [u16; 4] =
    [X86_64::RBX.0, X86_64::R12.0, X86_64::R13.0, X86_64::R14.0];

/// How many words below the frame pointer an entry in machine code saves each of [`KEPT`], or 0:
/// `push r15; push rbx`.
pub(in crate::unwind) const ENTRY_SAVES: [u8; KEPT.len()] = [2, 0, 0, 0];

// The code below has the places of these as numbers.
const _: () = assert!(
    offset_of!(Registers, kept) == 24
        && offset_of!(Registers, pinned) == 56
        && offset_of!(Registers, payload) == 64
);

/// Goes on in the frame that has these registers.
///
/// # Safety
///
/// The frame is on the stack of the calling thread, and those below it are left for good.
#[unsafe(naked)]
pub(in crate::unwind) unsafe extern "C" fn resume(registers: *const Registers) -> ! {
    std::arch::naked_asm!(
        "mov rcx, [rdi]",
        "mov rsi, [rdi + 8]",
        "mov rbp, [rdi + 16]",
        "mov rbx, [rdi + 24]",
        "mov r12, [rdi + 32]",
        "mov r13, [rdi + 40]",
        "mov r14, [rdi + 48]",
        "mov r15, [rdi + 56]",
        "mov rax, [rdi + 64]",
        "mov rdx, [rdi + 72]",
        // From here on a signal may write over the registers' values.
        "mov rsp, rsi",
        "jmp rcx",
    )
}

/// The place where a signal has interrupted a thread, if traps can be caught on this processor.
pub(in crate::unwind) fn interrupted(context: &ucontext_t) -> Option<Interrupted> {
    let register = |number: i32| context.uc_mcontext.gregs[number as usize] as usize;
    let (pc, sp) = (register(REG_RIP), register(REG_RSP));
    Some(Interrupted { pc, sp, frame_pointer: register(REG_RBP) })
}

/// Makes the thread go on in `then` after the handler, with the registers of the frame that is
/// returned to at `returned`.
pub(in crate::unwind) fn go_on_after_signal(
    context: &mut ucontext_t,
    returned: usize,
    at: usize,
    then: AfterTrap,
) {
    let registers = &mut context.uc_mcontext.gregs;
    let sp = registers[REG_RSP as usize] as usize;
    let mut set = |number: i32, value: usize| registers[number as usize] = value as i64;
    // The stack pointer goes below what the frame has there, and is as a call would leave it.
    set(REG_RSP, ((sp - 256) & !15) - 8);
    set(REG_RDI, returned);
    set(REG_RSI, at);
    set(REG_RDX, sp);
    set(REG_RCX, then as *const () as usize);
    set(REG_RIP, collect as *const () as usize);
}

/// Collects the registers that calls keep, and goes on in `then`.
#[unsafe(naked)]
unsafe extern "C" fn collect(returned: usize, at: usize, sp: usize, then: AfterTrap) -> ! {
    std::arch::naked_asm!(
        // `Registers`, from its end.
        "push 0",
        "push 0",
        "push r15",
        "push r14",
        "push r13",
        "push r12",
        "push rbx",
        "push rbp",
        "push rdx",
        "push rdi",
        "mov rdi, rsp",
        "and rsp, -16",
        "call rcx",
        "ud2",
    )
}
