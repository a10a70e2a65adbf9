//! What the handler has to know of the processor.

/// Where a thread was when it got a signal.
pub(super) struct Interrupted {
    pub(super) pc: usize,
    pub(super) sp: usize,
    pub(super) frame_pointer: usize,
}

#[cfg(target_arch = "x86_64")]
mod this {
    use libc::{REG_RBP, REG_RDI, REG_RDX, REG_RIP, REG_RSI, REG_RSP, ucontext_t};

    use super::Interrupted;
    use crate::unwind::traps::signals::fail;

    /// Where a thread was when it got a signal, if traps can be caught on this processor.
    pub(in super::super) fn interrupted(context: &ucontext_t) -> Option<Interrupted> {
        let register = |number: i32| context.uc_mcontext.gregs[number as usize] as usize;
        let (pc, sp) = (register(REG_RIP), register(REG_RSP));
        Some(Interrupted { pc, sp, frame_pointer: register(REG_RBP) })
    }

    /// Has the thread go on in [`fail`] after the handler, with the registers of the frame that
    /// would have gone on at `returned`.
    pub(in super::super) fn go_on(context: &mut ucontext_t, returned: usize, at: usize) {
        let registers = &mut context.uc_mcontext.gregs;
        let sp = registers[REG_RSP as usize] as usize;
        let mut set = |number: i32, value: usize| registers[number as usize] = value as i64;
        // Below what the frame has there, and as a call would leave it.
        set(REG_RSP, ((sp - 256) & !15) - 8);
        set(REG_RDI, returned);
        set(REG_RSI, at);
        set(REG_RDX, sp);
        set(REG_RIP, collect as *const () as usize);
    }

    /// Collects the registers that calls keep, and goes on in [`fail`].
    #[unsafe(naked)]
    unsafe extern "C" fn collect(returned: usize, at: usize, sp: usize) -> ! {
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
            "call {fail}",
            "ud2",
            fail = sym fail,
        )
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod this {
    use libc::ucontext_t;

    use super::Interrupted;
    use crate::unwind::traps::signals::fail;

    /// Traps are caught on x86-64 only.
    pub(in super::super) fn interrupted(_context: &ucontext_t) -> Option<Interrupted> {
        None
    }

    pub(in super::super) fn go_on(_context: &mut ucontext_t, _returned: usize, _at: usize) {
        unreachable!("no trap is caught, and {:p} is not called", fail as *const ());
    }
}

pub(super) use this::{go_on, interrupted};
