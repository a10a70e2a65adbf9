//! What calls keep: whether the registers that belong to the caller are as they were, however a
//! call is left.
//!
//! Code in Rust cannot tell: it saves registers for itself. So the calls are made from a function
//! in machine code, which has known values in all of them, and looks at them when the call has
//! returned, or when it is unwound past: it is a frame with something to clean up.

#![cfg(target_arch = "x86_64")]
#![expect(clippy::missing_panics_doc, reason = "whatever fails here fails the test")]

use std::ffi::{c_int, c_void};

/// What there is to look at, in the order in which it is stored.
const NAMES: [&str; 8] = ["rbx", "rbp", "r12", "r13", "r14", "r15", "mxcsr", "flags"];
/// The first of the values that are in the registers; the others count up from there.
const KNOWN: u64 = 0x5ca1_ab1e_0ddb_a110;
/// All exceptions masked, as always, and rounding towards zero, as never.
const MXCSR: u64 = 0x7f80;
/// The direction flag, which calls find clear and leave clear.
const DIRECTION: u64 = 1 << 10;

std::arch::global_asm!(
    ".pushsection .text.lastout_tests_call_from_known, \"ax\", @progbits",
    ".globl lastout_tests_call_from_known",
    ".type lastout_tests_call_from_known, @function",
    "lastout_tests_call_from_known:",
    ".cfi_startproc",
    ".cfi_personality 0x1b, {personality}",
    // What the personality goes on at.
    ".cfi_lsda 0x1b, .Llastout_tests_unwound",
    "push rbp",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_rel_offset rbp, 0",
    "push rbx",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_rel_offset rbx, 0",
    "push r12",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_rel_offset r12, 0",
    "push r13",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_rel_offset r13, 0",
    "push r14",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_rel_offset r14, 0",
    "push r15",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_rel_offset r15, 0",
    "push rcx",
    ".cfi_adjust_cfa_offset 8",
    "sub rsp, 16",
    ".cfi_adjust_cfa_offset 16",
    "stmxcsr [rsp + 8]",
    "mov dword ptr [rsp], {mxcsr}",
    "ldmxcsr [rsp]",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "movabs rbx, {known}",
    "lea rbp, [rbx + 1]",
    "lea r12, [rbx + 2]",
    "lea r13, [rbx + 3]",
    "lea r14, [rbx + 4]",
    "lea r15, [rbx + 5]",
    "call rax",
    "xor r8d, r8d",
    "jmp 2f",
    ".Llastout_tests_unwound:",
    "mov r8, rax",
    "2:",
    "mov rcx, [rsp + 16]",
    "mov [rcx], rbx",
    "mov [rcx + 8], rbp",
    "mov [rcx + 16], r12",
    "mov [rcx + 24], r13",
    "mov [rcx + 32], r14",
    "mov [rcx + 40], r15",
    "stmxcsr [rcx + 48]",
    "pushfq",
    "pop qword ptr [rcx + 56]",
    "cld",
    "ldmxcsr [rsp + 8]",
    "test r8, r8",
    "jnz 3f",
    ".cfi_remember_state",
    "add rsp, 24",
    ".cfi_adjust_cfa_offset -24",
    "pop r15",
    ".cfi_adjust_cfa_offset -8",
    ".cfi_same_value r15",
    "pop r14",
    ".cfi_adjust_cfa_offset -8",
    ".cfi_same_value r14",
    "pop r13",
    ".cfi_adjust_cfa_offset -8",
    ".cfi_same_value r13",
    "pop r12",
    ".cfi_adjust_cfa_offset -8",
    ".cfi_same_value r12",
    "pop rbx",
    ".cfi_adjust_cfa_offset -8",
    ".cfi_same_value rbx",
    "pop rbp",
    ".cfi_adjust_cfa_offset -8",
    ".cfi_same_value rbp",
    "ret",
    ".cfi_restore_state",
    "3:",
    "mov rdi, r8",
    "call {resume}",
    "ud2",
    ".cfi_endproc",
    ".size lastout_tests_call_from_known, . - lastout_tests_call_from_known",
    ".popsection",
    personality = sym personality,
    resume = sym _Unwind_Resume,
    known = const KNOWN,
    mxcsr = const MXCSR,
);

unsafe extern "C-unwind" {
    fn lastout_tests_call_from_known(
        function: usize,
        first: usize,
        second: i64,
        found: &mut Found,
    ) -> i64;
    fn _Unwind_Resume(exception: *mut c_void) -> !;
}

unsafe extern "C" {
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    fn _Unwind_SetIP(context: *mut c_void, address: usize);
    fn _Unwind_SetGR(context: *mut c_void, register: c_int, value: usize);
    fn _Unwind_GetLanguageSpecificData(context: *mut c_void) -> *const c_void;
}

/// Cleans up once.
unsafe extern "C" fn personality(
    _version: c_int,
    actions: c_int,
    _class: u64,
    exception: *mut c_void,
    context: *mut c_void,
) -> c_int {
    const CLEANUP_PHASE: c_int = 2;
    const INSTALL_CONTEXT: c_int = 7;
    const CONTINUE_UNWIND: c_int = 8;
    const RAX: c_int = 0;

    // SAFETY: the unwinder is at a frame of the function above.
    unsafe {
        let clean_up = _Unwind_GetLanguageSpecificData(context).expose_provenance();
        if actions & CLEANUP_PHASE == 0 || _Unwind_GetIP(context) > clean_up {
            return CONTINUE_UNWIND;
        }
        _Unwind_SetGR(context, RAX, exception.expose_provenance());
        _Unwind_SetIP(context, clean_up);
    }
    INSTALL_CONTEXT
}

/// Calls what is at an address, `extern "C-unwind" fn(usize, i64) -> i64`, and sees that the
/// caller's registers are as they were, by whatever way it is left: if not, the process ends.
///
/// # Safety
///
/// It may be called so.
pub unsafe fn call_address(function: usize, first: usize, second: i64) -> i64 {
    let mut found = Found([0; NAMES.len()]);
    // SAFETY: as the caller says.
    unsafe { lastout_tests_call_from_known(function, first, second, &mut found) }
}

/// What there was in the registers: looked at when dropped, after the function that has written it
/// has returned or been unwound.
#[repr(transparent)]
struct Found([u64; NAMES.len()]);

impl Drop for Found {
    fn drop(&mut self) {
        let as_known = |(index, (name, found)): &(u64, (&str, u64))| match *name {
            // What has happened is noted in the low bits.
            "mxcsr" => found & !0x3f == MXCSR,
            "flags" => found & DIRECTION == 0,
            _ => *found == KNOWN + index,
        };
        let found = (0..).zip(NAMES.into_iter().zip(self.0));
        let changed: Vec<_> = found.filter(|found| !as_known(found)).collect();
        if !changed.is_empty() {
            // A panic might be under way already, or the thread be about to exit.
            eprintln!("a call has not kept {changed:x?}");
            std::process::abort();
        }
    }
}

/// Runs `call`, and sees that the caller's registers are as they were, by whatever way it is left.
///
/// Between here and what it calls there are frames in Rust, which restore some of them.
pub fn keeps<R>(call: impl FnOnce() -> R) -> R {
    struct State<F, R>(Option<F>, Option<R>);

    extern "C-unwind" fn run<F: FnOnce() -> R, R>(state: usize, _: i64) -> i64 {
        let state = std::ptr::with_exposed_provenance_mut::<State<F, R>>(state);
        // SAFETY: it is the state below.
        let state = unsafe { &mut *state };
        state.1 = state.0.take().map(|call| call());
        0
    }

    fn runner<F: FnOnce() -> R, R>(_: &State<F, R>) -> extern "C-unwind" fn(usize, i64) -> i64 {
        run::<F, R>
    }

    let mut state = State(Some(call), None);
    let run = runner(&state);
    // SAFETY: that is its type.
    unsafe { call_address(run as *const () as usize, (&raw mut state).expose_provenance(), 0) };
    state.1.expect("the call has returned")
}
