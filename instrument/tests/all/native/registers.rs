//! What is in the processor's registers, before and after calls.

use std::arch::naked_asm;
use std::mem::offset_of;

use super::world::{self, called};

/// The registers of C's calling convention.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    /// Arguments: rdi, rsi, rdx, rcx, r8, r9.
    pub(crate) integers: [u64; 6],
    /// rbx, rbp, r12, r13, r14, r15.
    pub(crate) kept: [u64; 6],
    /// rax, rdx.
    integer_results: [u64; 2],
    /// Arguments: xmm0 to xmm7.
    pub(crate) vectors: [u128; 8],
    /// xmm0, xmm1.
    vector_results: [u128; 2],
    /// Where a callee was to return to.
    pub(crate) returned: u64,
}

/// What a function returns.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    integers: [u64; 2],
    vectors: [u128; 2],
}

impl Registers {
    /// Something different in each, but in those that are for the entry itself.
    pub(crate) fn for_call(own: usize) -> Self {
        let number = |tag: u64| move |index: usize| (tag << 32) + index as u64 + 1;
        let wide =
            |index| (u128::from(number(0x77)(index)) << 64) + u128::from(number(0x55)(index));
        let mut integers = std::array::from_fn(number(0x11));
        integers[..own].copy_from_slice(&[world::ledger(), world::function()][..own]);
        Self {
            integers,
            kept: std::array::from_fn(number(0x33)),
            integer_results: [u64::MAX; 2],
            vectors: std::array::from_fn(wide),
            vector_results: [u128::MAX; 2],
            returned: 0,
        }
    }

    pub(crate) fn results_of(whose: u64) -> Results {
        let (integer, vector) = ((whose << 40) + 0xabcd, (u128::from(whose) << 100) + 0xef01);
        Results { integers: [integer, integer + 1], vectors: [vector, vector + 1] }
    }

    pub(crate) fn results(&self) -> Results {
        Results { integers: self.integer_results, vectors: self.vector_results }
    }

    /// The first integer.
    pub(crate) fn result(&self) -> u64 {
        self.integer_results[0]
    }

    pub(crate) fn set_results(&mut self, Results { integers, vectors }: Results) {
        (self.integer_results, self.vector_results) = (integers, vectors);
    }

    pub(crate) fn pinned(&self) -> u64 {
        self.kept[5]
    }

    pub(crate) fn set_pinned(&mut self, value: u64) {
        self.kept[5] = value;
    }

    pub(crate) fn frame_pointer(&self) -> u64 {
        self.kept[1]
    }

    /// Where entries in machine code have their lane.
    pub(crate) fn rbx(&self) -> u64 {
        self.kept[0]
    }
}

const INTEGERS: usize = offset_of!(Registers, integers);
const KEPT: usize = offset_of!(Registers, kept);
const INTEGER_RESULTS: usize = offset_of!(Registers, integer_results);
const VECTORS: usize = offset_of!(Registers, vectors);
const VECTOR_RESULTS: usize = offset_of!(Registers, vector_results);
const RETURNED: usize = offset_of!(Registers, returned);

/// Calls `function` with these registers, and stores what it leaves: kept registers and results.
///
/// # Safety
///
/// The function takes them by C's calling convention.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn call(function: usize, registers: &mut Registers) {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        "push rsi",
        "mov rax, rdi",
        "mov r10, rsi",
        "mov rdi, [r10 + {integers}]",
        "mov rsi, [r10 + {integers} + 8]",
        "mov rdx, [r10 + {integers} + 16]",
        "mov rcx, [r10 + {integers} + 24]",
        "mov r8, [r10 + {integers} + 32]",
        "mov r9, [r10 + {integers} + 40]",
        "mov rbx, [r10 + {kept}]",
        "mov rbp, [r10 + {kept} + 8]",
        "mov r12, [r10 + {kept} + 16]",
        "mov r13, [r10 + {kept} + 24]",
        "mov r14, [r10 + {kept} + 32]",
        "mov r15, [r10 + {kept} + 40]",
        "movups xmm0, [r10 + {vectors}]",
        "movups xmm1, [r10 + {vectors} + 16]",
        "movups xmm2, [r10 + {vectors} + 32]",
        "movups xmm3, [r10 + {vectors} + 48]",
        "movups xmm4, [r10 + {vectors} + 64]",
        "movups xmm5, [r10 + {vectors} + 80]",
        "movups xmm6, [r10 + {vectors} + 96]",
        "movups xmm7, [r10 + {vectors} + 112]",
        "call rax",
        "pop r10",
        "mov [r10 + {integer_results}], rax",
        "mov [r10 + {integer_results} + 8], rdx",
        "movups [r10 + {vector_results}], xmm0",
        "movups [r10 + {vector_results} + 16], xmm1",
        "mov [r10 + {kept}], rbx",
        "mov [r10 + {kept} + 8], rbp",
        "mov [r10 + {kept} + 16], r12",
        "mov [r10 + {kept} + 24], r13",
        "mov [r10 + {kept} + 32], r14",
        "mov [r10 + {kept} + 40], r15",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        integers = const INTEGERS,
        kept = const KEPT,
        vectors = const VECTORS,
        integer_results = const INTEGER_RESULTS,
        vector_results = const VECTOR_RESULTS,
    )
}

/// What entries call: hands the registers that it gets to [`called`], and returns the results that
/// those have then: the second integer also in rcx, where functions have it that can be
/// tail-called. It leaves nothing in a register that it need not keep.
///
/// # Safety
///
/// A world is being tried.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn callee<const WHO: u64>() {
    naked_asm!(
        "sub rsp, {size} + 8",
        "mov [rsp + {integers}], rdi",
        "mov [rsp + {integers} + 8], rsi",
        "mov [rsp + {integers} + 16], rdx",
        "mov [rsp + {integers} + 24], rcx",
        "mov [rsp + {integers} + 32], r8",
        "mov [rsp + {integers} + 40], r9",
        "mov [rsp + {kept}], rbx",
        "mov [rsp + {kept} + 8], rbp",
        "mov [rsp + {kept} + 40], r15",
        "mov rax, [rsp + {size} + 8]",
        "mov [rsp + {returned}], rax",
        // These fault unless the stack is aligned.
        "movaps [rsp + {vectors}], xmm0",
        "movaps [rsp + {vectors} + 16], xmm1",
        "movaps [rsp + {vectors} + 32], xmm2",
        "movaps [rsp + {vectors} + 48], xmm3",
        "movaps [rsp + {vectors} + 64], xmm4",
        "movaps [rsp + {vectors} + 80], xmm5",
        "movaps [rsp + {vectors} + 96], xmm6",
        "movaps [rsp + {vectors} + 112], xmm7",
        "mov rdi, rsp",
        "call {called}",
        "mov rax, [rsp + {integer_results}]",
        "mov rdx, [rsp + {integer_results} + 8]",
        "movups xmm0, [rsp + {vector_results}]",
        "movups xmm1, [rsp + {vector_results} + 16]",
        "mov rcx, rdx",
        "mov rsi, -1", "mov rdi, -1", "mov r8, -1",
        "mov r9, -1", "mov r10, -1", "mov r11, -1",
        "add rsp, {size} + 8",
        "ret",
        size = const size_of::<Registers>(),
        integers = const INTEGERS,
        kept = const KEPT,
        vectors = const VECTORS,
        integer_results = const INTEGER_RESULTS,
        vector_results = const VECTOR_RESULTS,
        returned = const RETURNED,
        called = sym called::<WHO>,
    )
}
