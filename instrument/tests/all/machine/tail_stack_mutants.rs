//! Gates that can be tail-called and do something wrong with registers or the stack.

use lastout_instrument::Symbol;

use super::kind::{HEADS, TAIL_GATE as GATE};
use super::tail_mutants::{CALLED, IN, OFFSET_OUT, OUT, ZEROS, refuses};
use super::word::Rule;

// The jumps, by their numbers among those with the same text.
const TO_COPY: usize = 0;
const TO_TAKE_AWAY: usize = 0;
const COPY_AGAIN: usize = 1;

/// `sub rsp, 8`.
const LOWER: [u8; 4] = [0x48, 0x83, 0xec, 8];
/// `add rsp, 8`.
const HIGHER: [u8; 4] = [0x48, 0x83, 0xc4, 8];

/// By which an unwinder gets to the caller, and to the lane.
#[test]
fn without_a_frame() {
    refuses(Rule::Memory, |it| it.drop(GATE, "mov rbp, rsp", 0));
    refuses(Rule::Alignment, |it| it.drop(GATE, "push r11", 0));
    refuses(Rule::Frame, |it| it.swap(GATE, "push r11", 0));
    refuses(Rule::Frame, |it| it.patch(GATE, "push rbp", 0, 0, 0x53)); // push rbx
    refuses(Rule::Frame, |it| it.patch(GATE, "push r11", 0, 1, 0x52)); // push r10
}

#[test]
fn with_a_frame_that_is_not_where_an_unwinder_looks() {
    refuses(Rule::Frame, |it| it.frame().outer = Some(-8));
    refuses(Rule::Memory, |it| it.frame().lane = None);
    refuses(Rule::Memory, |it| it.frame().lane = Some(-16));
    // Bodies return to somewhere else than what is compared with.
    refuses(Rule::Swap, |it| it.frame().body_return = None);
    refuses(Rule::Swap, |it| *it.frame().body_return.as_mut().unwrap() += 1);
}

#[test]
fn calling_with_the_stack_askew() {
    refuses(Rule::Alignment, |it| it.insert(GATE, "call r10", 0, &LOWER));
    for nth in 0..3 {
        refuses(Rule::Alignment, |it| it.insert(GATE, "call Leave", nth, &LOWER));
    }
    refuses(Rule::Alignment, |it| it.insert(GATE, "call Removed", 0, &LOWER));
    for nth in [0, 2, 3, 4] {
        refuses(Rule::Alignment, |it| it.drop(GATE, "push rdi", nth));
    }
}

#[test]
fn leaving_the_stack_lower_or_higher() {
    refuses(Rule::Stack, |it| it.insert(GATE, "ret", 0, &LOWER));
    refuses(Rule::Stack, |it| it.insert(GATE, "ret", 0, &HIGHER));
    refuses(Rule::Stack, |it| it.insert(GATE, "ret", 1, &LOWER));
    refuses(Rule::Stack, |it| it.patch(GATE, "add rsp, 0x10", 0, 3, 8));
    refuses(Rule::Stack, |it| it.insert(GATE, "jmp r10", 0, &LOWER));
    refuses(Rule::Stack, |it| it.insert(GATE, "jmp r11", 0, &HIGHER));
    refuses(Rule::Stack, |it| it.insert(GATE, ZEROS, 0, &LOWER));
    for nth in [2, 3, 4] {
        refuses(Rule::Stack, |it| it.drop(GATE, "pop rdi", nth));
    }
}

#[test]
fn without_copying_the_arguments() {
    refuses(Rule::Arguments, |it| it.drop(GATE, "jne near", TO_COPY));
    refuses(Rule::Stack, |it| it.drop(GATE, "test eax, eax", 0));
    refuses(Rule::Arguments, |it| it.drop(GATE, "push qword [rbp + rax + 8]", 0));
    // Those of one word less, one word further up or down, or too few.
    refuses(Rule::Stack, |it| it.patch(GATE, "push qword [rbp", 0, 3, 16));
    refuses(Rule::Arguments, |it| it.patch(GATE, "push qword [rbp", 0, 3, 0));
    refuses(Rule::Stack, |it| it.patch(GATE, "sub eax, 8", 0, 2, 4));
    refuses(Rule::Arguments, |it| it.patch(GATE, "sub eax, 8", 0, 2, 16));
    refuses(Rule::Alignment, |it| it.drop(GATE, "jne short", COPY_AGAIN));
}

#[test]
fn without_taking_the_arguments_away() {
    refuses(Rule::Stack, |it| it.drop(GATE, "jne short", TO_TAKE_AWAY));
    refuses(Rule::Flags, |it| it.drop(GATE, "test r11d, r11d", 0));
    refuses(Rule::Stack, |it| it.drop(GATE, "mov rsp, r11", 0));
    refuses(Rule::Memory, |it| it.drop(GATE, "add r11, rsp", 0));
    refuses(Rule::Stack, |it| it.drop(GATE, "pop qword [r11]", 0));
    // What the body has left is the lane.
    refuses(Rule::Flags, |it| it.patch(GATE, "mov r11, [rbp - 0x10]", 0, 3, 0xf8));
}

/// A head says how many there are.
#[test]
fn with_another_number_of_arguments() {
    for head in HEADS {
        refuses(Rule::Stack, |it| it.patch(head, "mov eax", 0, 1, 48));
    }
    refuses(Rule::Arguments, |it| it.patch(HEADS.end - 1, "mov eax", 0, 1, 16));
    refuses(Rule::Arguments, |it| it.patch(HEADS.end - 1, "mov eax", 0, 1, 0));
}

#[test]
fn with_another_head() {
    refuses(Rule::Memory, |it| it.name(0, Symbol::Lane, Symbol::Current));
    refuses(Rule::Jump, |it| it.name(0, Symbol::TailGate, Symbol::LeaveTail));
    refuses(Rule::Memory, |it| it.drop(0, "mov r11", 0));
}

#[test]
fn calling_with_another_argument() {
    for (register, mov) in [(1, 0x48), (2, 0x48), (6, 0x48), (7, 0x48), (0, 0x49), (1, 0x49)] {
        let move_rax = [mov, 0x89, 0xc0 | register];
        for text in ["call r10", "jmp r10", "jmp r11", ZEROS] {
            refuses(Rule::Arguments, |it| it.insert(GATE, text, 0, &move_rax));
        }
    }
    for vector in 0..8 {
        let clear = [0x0f, 0x57, 0xc0 | vector << 3 | vector];
        for text in ["call r10", "jmp r10", "jmp r11", ZEROS] {
            refuses(Rule::Arguments, |it| it.insert(GATE, text, 0, &clear));
        }
    }
}

#[test]
fn returning_something_else_than_the_results() {
    // mov rax, r11, and the same of rcx, rdx, rsi, rdi, r8, r9, r10
    let moves = [0xd8, 0xd9, 0xda, 0xde, 0xdf].map(|register| [0x4c, 0x89, register]);
    let moves = moves.into_iter().chain([0xd8, 0xd9, 0xda].map(|register| [0x4d, 0x89, register]));
    for change in moves.chain((0..8).map(|vector| [0x0f, 0x57, 0xc0 | vector << 3 | vector])) {
        refuses(Rule::Results, |it| it.insert(GATE, OFFSET_OUT, 0, &change));
        refuses(Rule::Results, |it| it.insert(GATE, "call Leave", 0, &[0x4d, 0x89, 0xda]));
    }
    // By way of r10.
    refuses(Rule::Results, |it| {
        it.patch(GATE, OFFSET_OUT, 0, 2, 0x93); // mov r10, [r11 - 0x40]
        it.patch(GATE, OUT, CALLED, 3, 0x17); // dec dword [r15 + r10]
    });
}

#[test]
fn changing_a_register_of_the_caller() {
    // mov rbx, rax; mov r12, rax; mov r13, rax; mov r14, rax
    for change in [[0x48, 0x89, 0xc3], [0x49, 0x89, 0xc4], [0x49, 0x89, 0xc5], [0x49, 0x89, 0xc6]] {
        for text in ["jmp r10", "jmp r11", ZEROS, "ret"] {
            refuses(Rule::Saved, |it| it.insert(GATE, text, 0, &change));
        }
    }
    refuses(Rule::Saved, |it| it.insert(GATE, "ret", 1, &[0x48, 0x89, 0xc3]));
    // mov r15, rax
    for text in ["call r10", "call Leave", "call Removed"] {
        refuses(Rule::Ledger, |it| it.insert(GATE, text, 0, &[0x49, 0x89, 0xc7]));
    }
    // mov rbp, rax
    for text in ["call r10", "call Leave", "call Removed"] {
        refuses(Rule::Frame, |it| it.insert(GATE, text, 0, &[0x48, 0x89, 0xc5]));
    }
}

/// A body does not keep flags, a stub keeps registers only, and a count sets them.
#[test]
fn jumping_on_a_test_from_before_something_else() {
    for text in [IN, "call r10", OUT, "add rsp", "add r11, rsp", "call Leave", "call Removed"] {
        refuses(Rule::Flags, |it| it.insert_after(GATE, text, 0, &[0x74, 0]));
    }
}
