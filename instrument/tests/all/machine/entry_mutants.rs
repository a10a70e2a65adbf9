//! Entries that are almost right, each refused for what is wrong with it.

use cranelift_codegen::binemit::Reloc;
use lastout_instrument::{Fixup, LaneLayout, Symbol};

use super::edit::{Edit, LAYOUT};
use super::kind::{ENTRY, Kind};
use super::word::Rule;

const LANE: &str = "mov rbx, [rsi + 0x38]";
const OFFSET: &str = "mov rax, [rbx - 0x40]";
const IN: &str = "add dword [r15 + rax], 1";
const OFFSET_OUT: &str = "mov rcx, [rbx - 0x40]";
const OUT: &str = "sub dword [r15 + rcx], 1";
/// Where there is no body. The offset is in rax again.
const BAIL_OUT: &str = "sub dword [r15 + rax], 1";
const BODY: &str = "mov rax, [rbx]";
const TEST: &str = "test rax, rax";
const CHECK: &str = "cmp qword [rbx], 0";
const FUNCTION: &str = "mov rax, [rbx + 0x128]";
const CURRENT: &str = "mov rax, [rax - 0x58]";
const CALL: &str = "call rax";
const SHUFFLE: [&str; 4] = ["mov rdi, rdx", "mov rsi, rcx", "mov rdx, r8", "mov rcx, r9"];

// By their numbers among those with the same text.
const BAIL: usize = 0;
const LEAVE: usize = 1;
const REMOVED: usize = 2;
const RESTART: usize = 1;

/// `sub rsp, 8`.
const LOWER: [u8; 4] = [0x48, 0x83, 0xec, 8];
/// `add rsp, 8`.
const HIGHER: [u8; 4] = [0x48, 0x83, 0xc4, 8];
/// `je` to what follows.
const JUMP: [u8; 2] = [0x74, 0];
/// `xor eax, eax; xor edx, edx; xorps xmm0, xmm0; xorps xmm1, xmm1`, each by itself.
const CLEARS: [&[u8]; 4] = [&[0x31, 0xc0], &[0x31, 0xd2], &[0x0f, 0x57, 0xc0], &[0x0f, 0x57, 0xc9]];

/// Everything that an entry calls: by its text, and its number among those with the same text.
const CALLS: [(&str, usize); 5] =
    [(CALL, 0), (CALL, RESTART), ("call Leave", 0), ("call Leave", 1), ("call Removed", 0)];

/// Asserts that the entry is refused for `rule` once it is edited.
fn refuses(rule: Rule, edit: impl FnOnce(&mut Edit)) {
    Edit::entry().refuses(rule, edit);
}

#[test]
fn without_counting() {
    refuses(Rule::CountIn, |it| it.drop(ENTRY, IN, 0));
    refuses(Rule::CountOut, |it| it.drop(ENTRY, OUT, 0));
    refuses(Rule::CountOut, |it| it.drop(ENTRY, BAIL_OUT, 0));
}

#[test]
fn counting_the_other_way() {
    refuses(Rule::CountIn, |it| it.patch(ENTRY, IN, 0, 2, 0x2c));
    refuses(Rule::CountOut, |it| it.patch(ENTRY, OUT, 0, 2, 0x04));
    refuses(Rule::CountOut, |it| it.patch(ENTRY, BAIL_OUT, 0, 2, 0x04));
}

#[test]
fn counting_by_two() {
    refuses(Rule::ByOne, |it| it.patch(ENTRY, IN, 0, 4, 2));
    refuses(Rule::ByOne, |it| it.patch(ENTRY, OUT, 0, 4, 0xff));
    refuses(Rule::LoadBody, |it| it.repeat(ENTRY, IN, 0));
    refuses(Rule::CheckBody, |it| it.repeat(ENTRY, OUT, 0));
    refuses(Rule::CheckBody, |it| it.repeat(ENTRY, BAIL_OUT, 0));
}

/// Next to the count is another thread's, or another lane's.
#[test]
fn counting_in_64_bits() {
    refuses(Rule::Instruction, |it| it.patch(ENTRY, IN, 0, 0, 0x49));
}

#[test]
fn counting_somewhere_else() {
    refuses(Rule::Memory, |it| it.patch(ENTRY, IN, 0, 0, 0x40)); // [rdi + rax]
    refuses(Rule::Memory, |it| it.patch(ENTRY, IN, 0, 3, 0x47)); // [r15 + rax * 2]
    refuses(Rule::Memory, |it| it.patch(ENTRY, IN, 0, 3, 0x27)); // [r15]
    refuses(Rule::Memory, |it| it.patch(ENTRY, OUT, 0, 3, 0x07)); // [r15 + rax]
}

/// The body may have left anything in a register.
#[test]
fn counting_with_another_offset() {
    refuses(Rule::Memory, |it| it.drop(ENTRY, OFFSET, 0));
    refuses(Rule::Memory, |it| it.drop(ENTRY, OFFSET_OUT, 0));
    refuses(Rule::Memory, |it| it.drop(ENTRY, OFFSET, 1));
}

#[test]
fn looking_at_the_body_too_early() {
    refuses(Rule::CountIn, |it| it.insert(ENTRY, IN, 0, &[0x48, 0x83, 0x3b, 0])); // CHECK
    refuses(Rule::CountOut, |it| it.swap(ENTRY, OUT, 0));
    refuses(Rule::CountOut, |it| it.swap(ENTRY, BAIL_OUT, 0));
}

#[test]
fn without_the_test_of_the_body() {
    refuses(Rule::CallBody, |it| it.drop(ENTRY, "je", BAIL));
    refuses(Rule::Flags, |it| it.drop(ENTRY, TEST, 0));
}

#[test]
fn calling_the_body_where_it_is_zero() {
    refuses(Rule::CallBody, |it| it.patch(ENTRY, "je", BAIL, 0, 0x75));
}

#[test]
fn calling_something_else() {
    refuses(Rule::CallBody, |it| it.patch(ENTRY, CALL, 0, 1, 0xd3)); // call rbx
    refuses(Rule::Restart, |it| it.patch(ENTRY, CALL, RESTART, 1, 0xd3));
}

#[test]
fn calling_the_body_twice() {
    refuses(Rule::CallBody, |it| it.repeat(ENTRY, CALL, 0));
    refuses(Rule::CallBody, |it| it.repeat(ENTRY, CALL, RESTART));
}

#[test]
fn without_a_call() {
    refuses(Rule::CallBody, |it| it.drop(ENTRY, CALL, 0));
    refuses(Rule::Restart, |it| it.drop(ENTRY, CALL, RESTART));
}

/// No code would put back the registers.
#[test]
fn jumping_instead_of_calling() {
    refuses(Rule::Restart, |it| it.patch(ENTRY, CALL, 0, 1, 0xe0));
    refuses(Rule::Restart, |it| it.patch(ENTRY, CALL, RESTART, 1, 0xe0));
}

#[test]
fn calling_with_the_stack_askew() {
    refuses(Rule::Alignment, |it| {
        it.drop(ENTRY, "push rbp", 0);
        it.drop(ENTRY, "pop rbp", 0);
    });
    for (call, nth) in CALLS {
        refuses(Rule::Alignment, |it| it.insert(ENTRY, call, nth, &LOWER));
    }
}

#[test]
fn without_a_frame() {
    refuses(Rule::Frame, |it| it.drop(ENTRY, "mov rbp, rsp", 0));
    refuses(Rule::Frame, |it| it.swap(ENTRY, "push rbp", 0));
    refuses(Rule::Frame, |it| it.patch(ENTRY, "push rbp", 0, 0, 0x53)); // push rbx
    for (call, nth) in CALLS {
        // mov rbp, rbx
        refuses(Rule::Frame, |it| it.insert(ENTRY, call, nth, &[0x48, 0x89, 0xdd]));
    }
}

/// What it has saved is put back by an unwinder, too, and the lane is counted out.
#[test]
fn with_a_frame_that_is_not_where_an_unwinder_looks() {
    refuses(Rule::Frame, |it| it.frame().body_return = None);
    refuses(Rule::Frame, |it| *it.frame().body_return.as_mut().unwrap() -= 1);
    refuses(Rule::Frame, |it| it.frame().lane = Some(-8));
    refuses(Rule::Frame, |it| it.frame().outer = None);
    refuses(Rule::Frame, |it| it.frame().outer = Some(-16));
    // The other way round.
    refuses(Rule::Frame, |it| {
        it.swap(ENTRY, "push r15", 0);
        it.swap(ENTRY, "pop rbx", 0);
    });
    // The lane is in no register that the body keeps.
    refuses(Rule::Frame, |it| it.insert(ENTRY, CALL, 0, &[0x48, 0x89, 0xc3])); // mov rbx, rax
}

#[test]
fn leaving_the_stack_lower_or_higher() {
    refuses(Rule::Stack, |it| it.drop(ENTRY, "pop rbp", 0));
    refuses(Rule::Stack, |it| it.drop(ENTRY, "pop r15", 0));
    refuses(Rule::Stack, |it| it.insert(ENTRY, "ret", 0, &LOWER));
    refuses(Rule::Stack, |it| it.insert(ENTRY, "ret", 0, &HIGHER));
}

#[test]
fn without_saving_a_register() {
    refuses(Rule::Frame, |it| it.patch(ENTRY, "push r15", 0, 1, 0x56)); // push r14
    refuses(Rule::Frame, |it| it.patch(ENTRY, "push rbx", 0, 0, 0x50)); // push rax
    refuses(Rule::Saved, |it| it.patch(ENTRY, "pop r15", 0, 1, 0x5b)); // pop r11
    refuses(Rule::Saved, |it| it.patch(ENTRY, "pop rbx", 0, 0, 0x5f)); // pop rdi
    refuses(Rule::Saved, |it| it.swap(ENTRY, "pop rbx", 0));
    refuses(Rule::Saved, |it| it.swap(ENTRY, "pop r15", 0));
}

#[test]
fn changing_a_register_of_the_caller() {
    // r12, r13, r14
    for mov in [[0x49, 0x89, 0xdc], [0x49, 0x89, 0xdd], [0x49, 0x89, 0xde]] {
        refuses(Rule::Saved, |it| it.insert(ENTRY, IN, 0, &mov));
        refuses(Rule::Saved, |it| it.insert(ENTRY, "call Removed", 0, &mov));
    }
}

#[test]
fn without_the_ledger() {
    refuses(Rule::Memory, |it| it.drop(ENTRY, "mov r15, rdi", 0));
    refuses(Rule::Memory, |it| it.patch(ENTRY, "mov r15, rdi", 0, 2, 0xf7)); // mov r15, rsi
    // After the first argument is in rdi.
    refuses(Rule::Memory, |it| {
        it.swap(ENTRY, "mov r15, rdi", 0);
        it.swap(ENTRY, "mov r15, rdi", 0);
    });
}

#[test]
fn calling_with_something_else_in_the_pinned_register() {
    for (call, nth) in CALLS {
        // mov r15, rbx
        refuses(Rule::Ledger, |it| it.insert(ENTRY, call, nth, &[0x49, 0x89, 0xdf]));
    }
}

#[test]
fn with_another_lane() {
    refuses(Rule::Memory, |it| it.drop(ENTRY, LANE, 0));
    refuses(Rule::Memory, |it| it.patch(ENTRY, LANE, 0, 2, 0x9f)); // [rdi + 0x38]
    refuses(Rule::Memory, |it| it.patch(ENTRY, LANE, 0, 3, 0x30)); // [rsi + 0x30]
    refuses(Rule::Memory, |it| it.patch(ENTRY, BODY, 0, 2, 0x07)); // [rdi]
    refuses(Rule::Memory, |it| it.patch(ENTRY, CHECK, 0, 2, 0x3f)); // [rdi]
}

/// What is counted in one lane has to be counted out there.
#[test]
fn with_two_lanes() {
    refuses(Rule::Lane, |it| it.repeat(ENTRY, LANE, 0));
    refuses(Rule::Lane, |it| {
        // mov rcx, [rbx + 0x128]; mov rbx, [rcx + 0x38]
        it.insert(ENTRY, OFFSET_OUT, 0, &[0x48, 0x8b, 0x59, 0x38]);
        it.insert(ENTRY, "mov rbx, [rcx", 0, &[0x48, 0x8b, 0x8b, 0x28, 1, 0, 0]);
    });
}

#[test]
fn with_distances_exchanged() {
    let LaneLayout { function, cell_offset, current, lane, .. } = LAYOUT;
    let exchanged = [
        (Rule::Memory, LaneLayout { function: cell_offset, cell_offset: function, ..LAYOUT }),
        (Rule::Memory, LaneLayout { function: current, current: function, ..LAYOUT }),
        (Rule::Memory, LaneLayout { function: lane, lane: function, ..LAYOUT }),
        (Rule::Memory, LaneLayout { cell_offset: current, current: cell_offset, ..LAYOUT }),
        (Rule::Memory, LaneLayout { cell_offset: lane, lane: cell_offset, ..LAYOUT }),
        // It looks for the lane where the current gate is.
        (Rule::CountIn, LaneLayout { current: lane, lane: current, ..LAYOUT }),
    ];
    for (rule, layout) in exchanged {
        let other = Edit::whole(Edit::entry().kind(), layout);
        refuses(rule, |it| *it.part_mut(ENTRY) = other.part(ENTRY).clone());
    }
}

#[test]
fn without_moving_an_argument() {
    for mov in SHUFFLE {
        refuses(Rule::Arguments, |it| it.drop(ENTRY, mov, 0));
    }
    for integers in 0..4 {
        let fewer = Edit::whole(Kind::Entry { integers }, LAYOUT);
        refuses(Rule::Arguments, |it| *it.part_mut(ENTRY) = fewer.part(ENTRY).clone());
    }
}

#[test]
fn moving_an_argument_over_another() {
    for (over, rule) in
        [(LANE, Rule::Memory), (SHUFFLE[0], Rule::Arguments), (SHUFFLE[1], Rule::Arguments)]
    {
        refuses(rule, |it| {
            it.swap(ENTRY, over, 0);
            it.swap(ENTRY, over, 0);
        });
    }
}

#[test]
fn calling_with_another_argument() {
    for nth in [0, RESTART] {
        for register in [1, 2, 6, 7] {
            let move_rbx = [0x48, 0x89, 0xd8 | register];
            refuses(Rule::Arguments, |it| it.insert(ENTRY, CALL, nth, &move_rbx));
        }
        for vector in 0..8 {
            let clear = [0x0f, 0x57, 0xc0 | vector << 3 | vector];
            refuses(Rule::Arguments, |it| it.insert(ENTRY, CALL, nth, &clear));
        }
    }
}

/// Where leave was called with the lane.
#[test]
fn restarting_without_the_first_argument() {
    refuses(Rule::Arguments, |it| it.drop(ENTRY, "mov r10, rdi", 0));
    refuses(Rule::Arguments, |it| it.drop(ENTRY, "mov rdi, r10", 0));
    refuses(Rule::Arguments, |it| it.swap(ENTRY, "mov r10, rdi", 0));
}

#[test]
fn without_the_check() {
    refuses(Rule::CheckBody, |it| {
        it.drop(ENTRY, CHECK, 0);
        it.drop(ENTRY, "je", LEAVE);
    });
    refuses(Rule::Flags, |it| it.drop(ENTRY, CHECK, 0));
    refuses(Rule::Flags, |it| it.drop(ENTRY, CHECK, 1));
    refuses(Rule::Leave, |it| it.drop(ENTRY, "je", LEAVE));
    refuses(Rule::LoadCurrent, |it| it.drop(ENTRY, "jne", 0));
}

/// A result says nothing of the body.
#[test]
fn checking_what_the_body_returned() {
    refuses(Rule::Flags, |it| it.replace(ENTRY, CHECK, 0, &[0x48, 0x85, 0xc0])); // TEST
}

#[test]
fn leaving_where_the_body_is_not_zero() {
    refuses(Rule::Return, |it| it.patch(ENTRY, "je", LEAVE, 0, 0x75));
    refuses(Rule::LoadCurrent, |it| it.patch(ENTRY, "jne", 0, 0, 0x74));
}

#[test]
fn without_leave() {
    refuses(Rule::Leave, |it| it.drop(ENTRY, "call Leave", 0));
    refuses(Rule::Leave, |it| it.drop(ENTRY, "call Leave", 1));
}

#[test]
fn leaving_twice() {
    refuses(Rule::Return, |it| it.repeat(ENTRY, "call Leave", 0));
    refuses(Rule::LoadCurrent, |it| it.repeat(ENTRY, "call Leave", 1));
}

#[test]
fn passing_something_else_than_the_lane() {
    for nth in 0..3 {
        refuses(Rule::Lane, |it| it.drop(ENTRY, "mov rdi, rbx", nth));
        refuses(Rule::Lane, |it| it.patch(ENTRY, "mov rdi, rbx", nth, 2, 0xc7)); // mov rdi, rax
    }
}

#[test]
fn with_another_symbol() {
    refuses(Rule::Leave, |it| it.name(ENTRY, Symbol::Leave, Symbol::Removed));
    refuses(Rule::Removed, |it| it.name(ENTRY, Symbol::Removed, Symbol::Leave));
    refuses(Rule::Jump, |it| it.name(ENTRY, Symbol::Leave, Symbol::LeaveTail));
}

/// The tails are entered with the stack as the caller has left it.
#[test]
fn going_to_a_tail_of_gates() {
    refuses(Rule::Jump, |it| {
        it.name(ENTRY, Symbol::Leave, Symbol::LeaveTail);
        it.patch(ENTRY, "call LeaveTail", 0, 0, 0xe9);
    });
}

#[test]
fn without_the_current_gate() {
    refuses(Rule::Flags, |it| it.drop(ENTRY, CURRENT, 0));
    refuses(Rule::Memory, |it| it.drop(ENTRY, FUNCTION, 0));
}

#[test]
fn restarting_where_there_is_no_current_gate() {
    refuses(Rule::Restart, |it| it.drop(ENTRY, TEST, 1));
    refuses(Rule::Restart, |it| it.drop(ENTRY, "je", REMOVED));
    refuses(Rule::Restart, |it| it.patch(ENTRY, "je", REMOVED, 0, 0x75));
}

#[test]
fn without_reporting_a_removed_function() {
    refuses(Rule::Removed, |it| it.drop(ENTRY, "call Removed", 0));
    refuses(Rule::Return, |it| it.repeat(ENTRY, "call Removed", 0));
}

#[test]
fn returning_something_else_than_zeros() {
    for clear in ["xor edx, edx", "xorps xmm0, xmm0", "xorps xmm1, xmm1"] {
        refuses(Rule::Zeros, |it| it.drop(ENTRY, clear, 0));
    }
    // rax is 0 anyway, unless something else is put there.
    refuses(Rule::Zeros, |it| it.insert_after(ENTRY, "xor eax, eax", 0, &[0x48, 0x89, 0xd8]));
}

#[test]
fn returning_something_else_than_the_results() {
    for clear in CLEARS {
        refuses(Rule::Results, |it| it.insert(ENTRY, OFFSET_OUT, 0, clear));
        for nth in [0, RESTART] {
            refuses(Rule::Results, |it| it.insert(ENTRY, "jmp", nth, clear));
        }
    }
    refuses(Rule::Results, |it| it.patch(ENTRY, "pop rbp", 0, 0, 0x58)); // pop rax
    refuses(Rule::Results, |it| it.patch(ENTRY, "pop rbp", 0, 0, 0x5a)); // pop rdx
    // mov rax, [rbx - 0x40]
    refuses(Rule::Results, |it| {
        it.patch(ENTRY, OFFSET_OUT, 0, 2, 0x83);
        it.patch(ENTRY, OUT, 0, 3, 0x07);
    });
}

#[test]
fn with_a_fixup_that_fills_in_something_else() {
    let wrong: [fn(&mut Fixup); 8] = [
        |fixup| fixup.addend += 4,
        |fixup| fixup.addend -= 4,
        |fixup| fixup.offset += 1,
        |fixup| fixup.offset -= 1,
        |fixup| fixup.kind = Reloc::X86PCRel4,
        |fixup| fixup.kind = Reloc::Abs8,
        |fixup| fixup.offset = 1000,
        // The distance is right, but begins with the opcode.
        |fixup| (fixup.offset, fixup.addend) = (fixup.offset - 1, fixup.addend - 1),
    ];
    for wrong in wrong {
        for index in 0..Edit::entry().fixups(ENTRY).len() {
            refuses(Rule::Fixup, |it| wrong(&mut it.fixups(ENTRY)[index]));
        }
    }
}

#[test]
fn without_a_fixup() {
    for index in 0..3 {
        refuses(Rule::Instruction, |it| _ = it.fixups(ENTRY).remove(index));
    }
}

#[test]
fn with_instructions_that_no_path_comes_to() {
    refuses(Rule::Unreached, |it| it.insert_after(ENTRY, "jmp", 2, &[0xc3]));
    refuses(Rule::Instruction, |it| it.insert_after(ENTRY, "jmp", 2, &[0x06]));
}

#[test]
fn with_a_prefix() {
    let (lock, segment, short_address) = (0xf0, 0x64, 0x67);
    refuses(Rule::Lock, |it| it.insert(ENTRY, IN, 0, &[lock]));
    for prefix in [segment, short_address] {
        for text in [IN, LANE, BODY] {
            refuses(Rule::Memory, |it| it.insert(ENTRY, text, 0, &[prefix]));
        }
    }
}

/// A signal may come at any time, and its handler runs down there.
#[test]
fn reading_below_the_stack() {
    refuses(Rule::Stack, |it| {
        it.insert(ENTRY, "pop rbp", 0, &LOWER);
        it.insert(ENTRY, "sub rsp", 0, &HIGHER);
    });
}

#[test]
fn setting_the_stack_pointer() {
    refuses(Rule::Stack, |it| it.insert(ENTRY, CALL, 0, &[0x48, 0x89, 0xdc])); // mov rsp, rbx
}

/// The return address is in its place in the end.
#[test]
fn writing_into_the_frame_of_the_caller() {
    // pop r11; push r10
    refuses(Rule::Stack, |it| it.insert(ENTRY, "ret", 0, &[0x41, 0x5b, 0x41, 0x52]));
}

/// A body does not keep flags, a stub keeps registers only, and a count sets them.
#[test]
fn jumping_on_a_test_from_before_something_else() {
    for (text, nth) in CALLS.into_iter().chain([(IN, 0), (OUT, 0), (BAIL_OUT, 0)]) {
        refuses(Rule::Flags, |it| it.insert_after(ENTRY, text, nth, &JUMP));
    }
}

#[test]
fn returning_by_another_way() {
    for nth in 0..3 {
        refuses(Rule::Stack, |it| it.nudge(ENTRY, "jmp", nth, 1)); // without pop rbx
        refuses(Rule::Jump, |it| it.patch(ENTRY, "jmp", nth, 1, 0xfe)); // going round
    }
    refuses(Rule::Jump, |it| it.drop(ENTRY, "jmp", 2));
    refuses(Rule::Instruction, |it| it.replace(ENTRY, "ret", 0, &[0xcc])); // a trap
}
