//! Whether calls keep what they have to.

/// Calls `call`, and checks that the registers that C's convention has calls keep are what they
/// were, if it returns.
///
/// # Panics
///
/// If they are not.
pub(super) fn keeping_registers<R>(call: impl FnOnce() -> R) -> R {
    let mut state = (Some(call), None);
    let changed = marked(&mut state, |(call, result)| *result = call.take().map(|call| call()));
    assert_eq!(changed, 0, "a call has changed registers that it has to keep, as this mask says");
    state.1.expect("it was called")
}

/// Calls `call` with `state` and with marks in the registers. Returns which have lost theirs.
#[cfg(target_arch = "x86_64")]
fn marked<S, F: Fn(&mut S) + Copy>(state: &mut S, call: F) -> u64 {
    extern "C-unwind" fn shim<S, F: Fn(&mut S)>(both: &mut (&mut S, F)) {
        (both.1)(both.0);
    }

    type Shim<S, F> = extern "C-unwind" fn(&mut (&mut S, F));
    let mut both = (state, call);
    let shim: Shim<S, F> = shim::<S, F>;
    // SAFETY: the function is called with what it takes.
    unsafe { call_marked(shim as *const (), (&raw mut both).cast()) }
}

/// Calls a function of one argument with a mark in each register that calls keep. What it returns
/// has a bit for each that has another value then.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C-unwind" fn call_marked(function: *const (), argument: *mut ()) -> u64 {
    std::arch::naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "push rbx",
        ".cfi_def_cfa_offset 24",
        ".cfi_offset rbx, -24",
        "push r12",
        ".cfi_def_cfa_offset 32",
        ".cfi_offset r12, -32",
        "push r13",
        ".cfi_def_cfa_offset 40",
        ".cfi_offset r13, -40",
        "push r14",
        ".cfi_def_cfa_offset 48",
        ".cfi_offset r14, -48",
        "push r15",
        ".cfi_def_cfa_offset 56",
        ".cfi_offset r15, -56",
        "sub rsp, 8",
        ".cfi_def_cfa_offset 64",
        "mov rax, rdi",
        "mov rdi, rsi",
        "mov ebp, 0x111",
        "mov ebx, 0x222",
        "mov r12d, 0x333",
        "mov r13d, 0x444",
        "mov r14d, 0x555",
        "mov r15d, 0x666",
        "call rax",
        "xor eax, eax",
        "xor ecx, ecx",
        "cmp rbp, 0x111",
        "setne al",
        "cmp rbx, 0x222",
        "setne cl",
        "lea eax, [rcx + 2 * rax]",
        "cmp r12, 0x333",
        "setne cl",
        "lea eax, [rcx + 2 * rax]",
        "cmp r13, 0x444",
        "setne cl",
        "lea eax, [rcx + 2 * rax]",
        "cmp r14, 0x555",
        "setne cl",
        "lea eax, [rcx + 2 * rax]",
        "cmp r15, 0x666",
        "setne cl",
        "lea eax, [rcx + 2 * rax]",
        "add rsp, 8",
        ".cfi_def_cfa_offset 56",
        "pop r15",
        ".cfi_def_cfa_offset 48",
        "pop r14",
        ".cfi_def_cfa_offset 40",
        "pop r13",
        ".cfi_def_cfa_offset 32",
        "pop r12",
        ".cfi_def_cfa_offset 24",
        "pop rbx",
        ".cfi_def_cfa_offset 16",
        "pop rbp",
        ".cfi_def_cfa_offset 8",
        "ret",
        ".cfi_endproc",
    )
}

/// On other hosts nothing is looked at.
#[cfg(not(target_arch = "x86_64"))]
fn marked<S, F: Fn(&mut S) + Copy>(state: &mut S, call: F) -> u64 {
    call(state);
    0
}
