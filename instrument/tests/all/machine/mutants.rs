//! Gates that are almost right, each refused for what is wrong with it.

use cranelift_codegen::binemit::Reloc;
use lastout_instrument::{Fixup, LaneLayout, Symbol};

use super::edit::{Edit, LAYOUT};
use super::kind::{BAIL, GATE, Kind, LEAVE};
use super::word::Rule;

const IN: &str = "inc dword [r15 + CellOffset]";
const OUT: &str = "dec dword [r15 + CellOffset]";
const LANE: &str = "mov r11, Lane";
/// `sub rsp, 8`.
const LOWER: [u8; 4] = [0x48, 0x83, 0xec, 8];
/// `add rsp, 8`.
const HIGHER: [u8; 4] = [0x48, 0x83, 0xc4, 8];
const JUMP: &str = "je";
const CHECK: &str = "cmp qword [r11], 0";

/// Asserts that the gate is refused for `rule` once it is edited.
fn refuses(rule: Rule, edit: impl FnOnce(&mut Edit)) {
    Edit::gate().refuses(rule, edit);
}

#[test]
fn counting_out_instead_of_in() {
    refuses(Rule::CountIn, |it| it.patch(GATE, IN, 0, 2, 0x8f));
}

#[test]
fn counting_in_instead_of_out() {
    refuses(Rule::CountOut, |it| it.patch(GATE, OUT, 0, 2, 0x87));
    refuses(Rule::CountOut, |it| it.patch(GATE, OUT, 1, 2, 0x87));
}

#[test]
fn without_counting() {
    refuses(Rule::CountIn, |it| it.drop(GATE, IN, 0));
    refuses(Rule::CountOut, |it| it.drop(GATE, OUT, 0));
    refuses(Rule::CountOut, |it| it.drop(GATE, OUT, 1));
}

#[test]
fn counting_by_two() {
    refuses(Rule::ByOne, |it| {
        it.insert_after(GATE, IN, 0, &[2]);
        it.patch(GATE, IN, 0, 1, 0x83); // add ..., 2
    });
    refuses(Rule::ByOne, |it| {
        it.insert_after(GATE, OUT, 0, &[0xff]);
        it.patch(GATE, OUT, 0, 1, 0x83); // or ..., -1
        it.patch(GATE, "or dword", 0, 2, 0xaf); // sub ..., -1
    });
    refuses(Rule::LoadBody, |it| it.repeat(GATE, IN, 0));
    refuses(Rule::CheckBody, |it| it.repeat(GATE, OUT, 0));
    refuses(Rule::CheckBody, |it| it.repeat(GATE, OUT, 1));
}

/// Next to the count is another thread's, or another lane's.
#[test]
fn counting_in_64_bits() {
    refuses(Rule::Instruction, |it| it.patch(GATE, IN, 0, 0, 0x49));
}

#[test]
fn counting_in_another_register_than_the_ledger() {
    refuses(Rule::Memory, |it| it.patch(GATE, IN, 0, 2, 0x86));
}

#[test]
fn loading_the_body_before_counting_in() {
    refuses(Rule::CountIn, |it| {
        it.swap(GATE, IN, 0);
        it.swap(GATE, IN, 0);
    });
}

#[test]
fn checking_before_counting_out() {
    refuses(Rule::CountOut, |it| {
        it.swap(GATE, OUT, 0);
        it.swap(GATE, OUT, 0);
    });
}

#[test]
fn without_the_test_of_the_body() {
    refuses(Rule::CallBody, |it| it.drop(GATE, JUMP, 0));
    refuses(Rule::Flags, |it| it.drop(GATE, "test r10, r10", 0));
}

#[test]
fn calling_the_body_where_it_is_zero() {
    refuses(Rule::CallBody, |it| it.patch(GATE, JUMP, 0, 0, 0x75));
}

#[test]
fn calling_something_else() {
    refuses(Rule::CallBody, |it| it.patch(GATE, "call r10", 0, 2, 0xd3));
}

#[test]
fn calling_the_body_twice() {
    refuses(Rule::CallBody, |it| it.repeat(GATE, "call r10", 0));
}

#[test]
fn jumping_to_the_body() {
    refuses(Rule::Restart, |it| it.patch(GATE, "call r10", 0, 2, 0xe2));
}

#[test]
fn calling_the_body_with_the_stack_askew() {
    refuses(Rule::Alignment, |it| {
        it.drop(GATE, "push rbp", 0);
        it.drop(GATE, "pop rbp", 0);
    });
    refuses(Rule::Alignment, |it| {
        it.insert(GATE, "call r10", 0, &LOWER);
        it.insert(GATE, "pop rbp", 0, &HIGHER);
    });
}

/// By which an unwinder gets to the caller.
#[test]
fn without_a_frame() {
    refuses(Rule::Frame, |it| it.drop(GATE, "mov rbp, rsp", 0));
    refuses(Rule::Frame, |it| it.swap(GATE, "push rbp", 0));
    refuses(Rule::Frame, |it| it.patch(GATE, "push rbp", 0, 0, 0x53)); // push rbx
    refuses(Rule::Frame, |it| it.patch(GATE, "mov rbp, rsp", 0, 2, 0xf5)); // mov rbp, rsi
    refuses(Rule::Frame, |it| {
        it.replace(GATE, "push rbp", 0, &LOWER[..0]);
        it.insert(GATE, "mov rbp, rsp", 0, &LOWER);
    });
}

#[test]
fn with_a_frame_that_is_not_where_an_unwinder_looks() {
    refuses(Rule::Frame, |it| it.frame().body_return = None);
    refuses(Rule::Frame, |it| *it.frame().body_return.as_mut().unwrap() += 1);
    refuses(Rule::Frame, |it| it.frame().lane = Some(-8));
    refuses(Rule::Frame, |it| it.frame().outer = Some(0));
}

#[test]
fn leaving_the_stack_lower_or_higher() {
    refuses(Rule::Stack, |it| it.drop(GATE, "pop rbp", 0));
    refuses(Rule::Alignment, |it| it.drop(GATE, "push rbp", 0));
    refuses(Rule::Stack, |it| it.insert_after(GATE, "call r10", 0, &HIGHER));
    refuses(Rule::Stack, |it| it.insert_after(GATE, "pop rbp", 0, &HIGHER));
    refuses(Rule::Stack, |it| it.insert(GATE, "ret", 0, &LOWER));
    refuses(Rule::Stack, |it| it.insert(GATE, "ret", 0, &HIGHER));
}

/// The body may have left anything in r11.
#[test]
fn checking_with_the_lane_from_before_the_call() {
    refuses(Rule::Memory, |it| it.drop(GATE, LANE, 1));
}

/// The lane may also be kept on the stack, but then it has to be the lane.
#[test]
fn checking_something_else_than_the_lane() {
    let keep = |it: &mut Edit, push: u8, pop: u8| {
        it.insert(GATE, "call r10", 0, &[0x41, push, 0x41, push]);
        it.insert(GATE, "pop rbp", 0, &[0x41, pop, 0x41, pop]);
        it.drop(GATE, LANE, 1);
    };
    let mut kept = Edit::gate();
    keep(&mut kept, 0x53, 0x5b); // push r11; pop r11
    assert!(kept.check().is_ok(), "{kept}");
    refuses(Rule::Memory, |it| keep(it, 0x52, 0x5b)); // push r10; pop r11
    refuses(Rule::Memory, |it| keep(it, 0x53, 0x5a)); // push r11; pop r10
}

/// Nor does it leave in r10 what was loaded.
#[test]
fn checking_what_was_loaded_before_the_call() {
    refuses(Rule::Flags, |it| it.replace(GATE, CHECK, 0, &[0x4d, 0x85, 0xd2])); // test r10, r10
}

#[test]
fn without_the_check() {
    refuses(Rule::CheckBody, |it| {
        it.drop(GATE, CHECK, 0);
        it.drop(GATE, JUMP, 1);
    });
    refuses(Rule::Flags, |it| it.drop(GATE, CHECK, 0));
    refuses(Rule::Leave, |it| it.drop(GATE, JUMP, 1));
}

#[test]
fn leaving_where_the_body_is_not_zero() {
    refuses(Rule::Return, |it| it.patch(GATE, JUMP, 1, 0, 0x75));
    refuses(Rule::LoadCurrent, |it| it.patch(BAIL, "jne", 0, 0, 0x74));
}

#[test]
fn going_to_the_other_tail() {
    refuses(Rule::Jump, |it| it.name(GATE, Symbol::LeaveTail, Symbol::Leave));
    refuses(Rule::CheckBody, |it| it.name(GATE, Symbol::BailTail, Symbol::LeaveTail));
    refuses(Rule::Leave, |it| it.name(GATE, Symbol::LeaveTail, Symbol::BailTail));
}

#[test]
fn with_another_symbol() {
    refuses(Rule::Memory, |it| it.name(GATE, Symbol::CellOffset, Symbol::Lane));
    refuses(Rule::Memory, |it| it.name(GATE, Symbol::Lane, Symbol::Current));
    refuses(Rule::Leave, |it| it.name(BAIL, Symbol::Leave, Symbol::Removed));
    refuses(Rule::Removed, |it| it.name(BAIL, Symbol::Removed, Symbol::Leave));
    refuses(Rule::Jump, |it| it.name(LEAVE, Symbol::Leave, Symbol::Interleave));
}

#[test]
fn with_a_fixup_that_fills_in_something_else() {
    let wrong: [fn(&mut Fixup); 7] = [
        |fixup| fixup.addend += 4,
        |fixup| fixup.addend -= 4,
        |fixup| fixup.offset += 1,
        |fixup| fixup.offset -= 1,
        |fixup| fixup.kind = Reloc::X86PCRel4,
        |fixup| fixup.offset = 1000,
        // The distance is right, but begins with the opcode.
        |fixup| (fixup.offset, fixup.addend) = (fixup.offset - 1, fixup.addend - 1),
    ];
    for wrong in wrong {
        for part in [GATE, LEAVE, BAIL] {
            for index in 0..Edit::gate().fixups(part).len() {
                refuses(Rule::Fixup, |it| wrong(&mut it.fixups(part)[index]));
            }
        }
    }
}

/// Four bytes of eight, and eight where there is room for four.
#[test]
fn with_a_fixup_of_another_size() {
    for part in [GATE, LEAVE, BAIL] {
        for index in 0..Edit::gate().fixups(part).len() {
            refuses(Rule::Fixup, |it| {
                let kind = &mut it.fixups(part)[index].kind;
                *kind = if *kind == Reloc::Abs8 { Reloc::Abs4 } else { Reloc::Abs8 };
            });
        }
    }
}

#[test]
fn without_a_fixup() {
    refuses(Rule::Memory, |it| _ = it.fixups(GATE).remove(0));
    refuses(Rule::Instruction, |it| _ = it.fixups(GATE).remove(1));
    refuses(Rule::Instruction, |it| _ = it.fixups(LEAVE).remove(0));
}

#[test]
fn passing_leave_something_else_than_the_lane() {
    refuses(Rule::Lane, |it| it.drop(LEAVE, "mov rdi, r11", 0));
    refuses(Rule::Lane, |it| it.patch(LEAVE, "mov rdi, r11", 0, 2, 0xd7));
    refuses(Rule::Lane, |it| it.drop(BAIL, "mov rdi, r11", 0));
}

#[test]
fn calling_leave_with_the_stack_askew() {
    refuses(Rule::Alignment, |it| {
        it.drop(LEAVE, "push rdi", 0);
        it.drop(LEAVE, "pop rdi", 0);
    });
    refuses(Rule::Alignment, |it| it.insert(BAIL, "call Leave", 0, &LOWER));
    refuses(Rule::Alignment, |it| it.insert(BAIL, "call Removed", 0, &LOWER));
}

#[test]
fn without_leave() {
    refuses(Rule::Leave, |it| it.drop(LEAVE, "call Leave", 0));
    refuses(Rule::Leave, |it| it.drop(BAIL, "call Leave", 0));
}

#[test]
fn leaving_twice() {
    refuses(Rule::Return, |it| it.repeat(LEAVE, "call Leave", 0));
    refuses(Rule::LoadCurrent, |it| it.repeat(BAIL, "call Leave", 0));
}

#[test]
fn without_reporting_a_removed_function() {
    refuses(Rule::Removed, |it| it.drop(BAIL, "call Removed", 0));
}

#[test]
fn with_the_distances_exchanged() {
    let (function, current) = (LAYOUT.current, LAYOUT.function);
    let exchanged = Edit::whole(Kind::Gate, LaneLayout { function, current, ..LAYOUT });
    refuses(Rule::Memory, |it| *it.part_mut(BAIL) = exchanged.part(BAIL).clone());
}

#[test]
fn restarting_where_there_is_no_current_gate() {
    refuses(Rule::Restart, |it| it.patch(BAIL, JUMP, 0, 0, 0x75));
    refuses(Rule::Restart, |it| it.drop(BAIL, JUMP, 0));
}

/// Tail calls do not grow the stack, and a call would come back.
#[test]
fn calling_the_current_gate() {
    refuses(Rule::CallBody, |it| it.patch(BAIL, "jmp r11", 0, 2, 0xd3));
}

#[test]
fn restarting_without_the_first_argument() {
    refuses(Rule::Stack, |it| it.drop(BAIL, "pop rdi", 0));
    refuses(Rule::Arguments, |it| it.patch(BAIL, "pop rdi", 0, 0, 0x59)); // pop rcx
    refuses(Rule::Arguments, |it| {
        it.insert(BAIL, "pop rdi", 0, &HIGHER);
        it.drop(BAIL, "pop rdi", 0);
    });
}

#[test]
fn calling_the_body_with_another_argument() {
    for register in 0..10 {
        let rule = match register {
            3 => Rule::Saved,
            4 => Rule::Stack,
            5 => Rule::Frame,
            _ => Rule::Arguments,
        };
        let move_r11 = [0x4c | register >> 3, 0x89, 0xd8 | register & 7];
        refuses(rule, |it| it.insert(GATE, "call r10", 0, &move_r11));
    }
    for vector in 0..8 {
        let clear = [0x0f, 0x57, 0xc0 | vector << 3 | vector];
        refuses(Rule::Arguments, |it| it.insert(GATE, "call r10", 0, &clear));
        refuses(Rule::Arguments, |it| it.insert(BAIL, "jmp r11", 0, &clear));
    }
}

#[test]
fn returning_something_else_than_the_results() {
    // xor eax, eax; xor edx, edx; xorps xmm0, xmm0; xorps xmm1, xmm1
    let clears: [&[u8]; 4] =
        [&[0x31, 0xc0], &[0x31, 0xd2], &[0x0f, 0x57, 0xc0], &[0x0f, 0x57, 0xc9]];
    for clear in clears {
        refuses(Rule::Results, |it| it.insert(GATE, "ret", 0, clear));
        refuses(Rule::Results, |it| it.insert(LEAVE, "ret", 0, clear));
    }
    refuses(Rule::Results, |it| it.patch(LEAVE, "pop rdi", 0, 0, 0x5a)); // pop rdx
}

#[test]
fn returning_something_else_than_zeros() {
    for clear in ["xor eax, eax", "xor edx, edx", "xorps xmm0, xmm0", "xorps xmm1, xmm1"] {
        refuses(Rule::Zeros, |it| it.drop(BAIL, clear, 0));
    }
}

#[test]
fn changing_a_register_of_the_caller() {
    refuses(Rule::Saved, |it| it.patch(LEAVE, "pop rdi", 0, 0, 0x5b)); // pop rbx
    refuses(Rule::Saved, |it| it.insert(GATE, "ret", 0, &[0x4d, 0x89, 0xde])); // mov r14, r11
    refuses(Rule::Saved, |it| it.insert(BAIL, "jmp r11", 0, &[0x4c, 0x89, 0xdb])); // mov rbx, r11
    // mov r15, r11
    let pin = [0x4d, 0x89, 0xdf];
    refuses(Rule::Ledger, |it| it.insert_after(GATE, LANE, 0, &pin));
    refuses(Rule::Ledger, |it| it.insert(LEAVE, "call Leave", 0, &pin));
    refuses(Rule::Ledger, |it| it.insert(BAIL, "call Removed", 0, &pin));
}

#[test]
fn with_instructions_that_no_path_comes_to() {
    refuses(Rule::Unreached, |it| it.insert_after(LEAVE, "ret", 0, &[0xc3]));
}

/// All of which change what an instruction does to memory.
#[test]
fn with_a_prefix() {
    let (lock, segment, short_address) = (0xf0, 0x64, 0x67);
    refuses(Rule::Lock, |it| it.insert(GATE, IN, 0, &[lock]));
    for prefix in [segment, short_address] {
        refuses(Rule::Memory, |it| it.insert(GATE, IN, 0, &[prefix]));
        refuses(Rule::Memory, |it| it.insert(GATE, "mov r10", 0, &[prefix]));
    }
}

/// A signal may come at any time, and its handler runs down there.
#[test]
fn reading_below_the_stack() {
    refuses(Rule::Stack, |it| {
        it.insert(BAIL, "pop rdi", 0, &LOWER);
        it.insert(BAIL, "sub rsp", 0, &HIGHER);
    });
}

/// The same, where the stack pointer is not raised by an addition.
#[test]
fn setting_the_stack_pointer() {
    refuses(Rule::Stack, |it| {
        it.insert(BAIL, "pop rdi", 0, &LOWER);
        it.insert(BAIL, "sub rsp", 0, &[0x4c, 0x89, 0xd4]); // mov rsp, r10
        it.insert(BAIL, "push rdi", 0, &[0x49, 0x89, 0xe2]); // mov r10, rsp
    });
}

/// The return address is in its place in the end.
#[test]
fn writing_into_the_frame_of_the_caller() {
    refuses(Rule::Stack, |it| {
        it.insert(LEAVE, "ret", 0, &[0x41, 0x52, 0x41, 0x53]); // push r10; push r11
        it.insert(LEAVE, "push r10", 0, &HIGHER);
        it.insert(LEAVE, "add rsp", 0, &[0x41, 0x5b]); // pop r11
    });
}

/// A body does not keep flags, a stub keeps registers only, and a count sets them.
#[test]
fn jumping_on_a_test_from_before_something_else() {
    refuses(Rule::Flags, |it| it.insert_after(GATE, OUT, 1, &[0x74, 0]));
    refuses(Rule::Flags, |it| it.insert_after(GATE, "call r10", 0, &[0x74, 0]));
    refuses(Rule::Flags, |it| it.insert_after(LEAVE, "call Leave", 0, &[0x74, 0]));
    refuses(Rule::Flags, |it| it.insert_after(BAIL, "call Removed", 0, &[0x74, 0]));
}

#[test]
fn with_something_behind_it_that_is_no_instruction() {
    refuses(Rule::Instruction, |it| it.insert_after(LEAVE, "ret", 0, &[0x06]));
}

#[test]
fn going_round() {
    refuses(Rule::Jump, |it| it.patch(GATE, JUMP, 0, 1, 0xfb));
}

#[test]
fn running_off_the_end() {
    refuses(Rule::Jump, |it| it.drop(LEAVE, "ret", 0));
}

#[test]
fn with_a_trap() {
    refuses(Rule::Instruction, |it| it.replace(GATE, "ret", 0, &[0xcc]));
}
