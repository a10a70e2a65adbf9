//! Gates that can be tail-called and almost follow the protocol, each refused for what is wrong
//! with it.

use iced_x86::Code;
use lastout_instrument::{LaneLayout, Symbol};
use lastout_reclaim::{Counting, Step};

use super::edit::{Edit, LAYOUT};
use super::kind::{Kind, TAIL_GATE as GATE};
use super::listing::decode;
use super::word::Rule;

const OFFSET: &str = "mov r10, [r11 - 0x40]";
pub(crate) const IN: &str = "inc dword [r15 + r10]";
const BODY: &str = "mov r10, [r11]";
const TEST: &str = "test r10, r10";
const LANE: &str = "mov r11, [rbp - 8]";
pub(crate) const OFFSET_OUT: &str = "mov r11, [r11 - 0x40]";
pub(crate) const OUT: &str = "dec dword [r15 + r11]";
const CHECK: &str = "cmp qword [r11], 0";
const TAKE: &str = "mov rax, [rbp - 8]";
const SWAP: &str = "mov [rbp - 8], r11";
const OFFSET_TAKEN: &str = "mov r11, [rax - 0x40]";
const CHECK_TAKEN: &str = "cmp qword [rax], 0";
const BAIL_OUT: &str = "dec dword [r15 + r10]";
const FUNCTION: &str = "mov r11, [r11 + 0x128]";
const CURRENT: &str = "mov r11, [r11 - 0x58]";
pub(crate) const ZEROS: &str = "jmp qword [r11 - 0x60]";

// Which of several with the same text: where it was called, where it was tail-called, and in the
// common bail.
pub(crate) const CALLED: usize = 0;
const TAIL_CALLED: usize = 1;
const BAIL: usize = 2;

// The jumps, by their numbers among those with the same text.
const TO_TRANSFER: usize = 0;
const TO_BAIL: usize = 1;
const TO_LEAVE: usize = 2;
const TO_BAIL_TAIL_CALLED: usize = 3;
const PAST_LEAVE_TAKEN: usize = 1;
const PAST_LEAVE: usize = 2;

/// Asserts that the gate is refused for `rule` once it is edited.
pub(crate) fn refuses(rule: Rule, edit: impl FnOnce(&mut Edit)) {
    Edit::tail_gate().refuses(rule, edit);
}

#[test]
fn without_counting() {
    refuses(Rule::CountIn, |it| it.drop(GATE, IN, CALLED));
    refuses(Rule::CountIn, |it| it.drop(GATE, IN, TAIL_CALLED));
    refuses(Rule::CountOut, |it| it.drop(GATE, OUT, CALLED));
    refuses(Rule::CountOut, |it| it.drop(GATE, OUT, TAIL_CALLED));
    refuses(Rule::CountOut, |it| it.drop(GATE, BAIL_OUT, 0));
}

#[test]
fn counting_twice() {
    refuses(Rule::LoadBody, |it| it.repeat(GATE, IN, CALLED));
    refuses(Rule::LoadBody, |it| it.repeat(GATE, IN, TAIL_CALLED));
    refuses(Rule::CheckBody, |it| it.repeat(GATE, OUT, CALLED));
    refuses(Rule::CheckBody, |it| it.repeat(GATE, OUT, TAIL_CALLED));
    refuses(Rule::CheckBody, |it| it.repeat(GATE, BAIL_OUT, 0));
}

#[test]
fn counting_the_other_way() {
    for nth in [CALLED, TAIL_CALLED] {
        refuses(Rule::CountIn, |it| it.patch(GATE, IN, nth, 2, 0x0c));
        refuses(Rule::CountOut, |it| it.patch(GATE, OUT, nth, 2, 0x04));
    }
    refuses(Rule::CountOut, |it| it.patch(GATE, BAIL_OUT, 0, 2, 0x04));
}

/// The body that tail-calls is all that keeps the function alive which it tail-calls.
#[test]
fn counting_out_the_taken_lane_before_counting_in() {
    refuses(Rule::CountIn, |it| {
        it.insert(GATE, OFFSET, TAIL_CALLED, &[0x43, 0xff, 0x0c, 0x1f]); // OUT
        it.insert(GATE, OUT, TAIL_CALLED, &[0x4c, 0x8b, 0x98, 0xc0, 0xff, 0xff, 0xff]);
        it.insert(GATE, OFFSET_TAKEN, 0, &[0x48, 0x8b, 0x45, 0xf8]); // TAKE
    });
}

/// It would be out of the frame of a body that does not run in the end.
#[test]
fn counting_out_the_taken_lane_before_the_body_is_there() {
    refuses(Rule::LoadBody, |it| {
        it.insert(GATE, BODY, TAIL_CALLED, &[0x43, 0xff, 0x0c, 0x1f]); // OUT
        it.insert(GATE, OUT, TAIL_CALLED, &[0x4c, 0x8b, 0x98, 0xc0, 0xff, 0xff, 0xff]);
        it.insert(GATE, OFFSET_TAKEN, 0, &[0x48, 0x8b, 0x45, 0xf8]); // TAKE
    });
}

#[test]
fn counting_another_lane() {
    // The lane that the gate was entered with is not the one that the last body has left.
    refuses(Rule::Memory, |it| it.drop(GATE, LANE, 0));
    refuses(Rule::Memory, |it| it.drop(GATE, OFFSET_OUT, 0));
    let own = [0x4d, 0x8b, 0x9b, 0xc0, 0xff, 0xff, 0xff]; // mov r11, [r11 - 0x40]
    refuses(Rule::CountOut, |it| it.replace(GATE, OFFSET_TAKEN, 0, &own));
    refuses(Rule::Memory, |it| it.drop(GATE, OFFSET_TAKEN, 0));
    for nth in [CALLED, TAIL_CALLED, BAIL] {
        refuses(Rule::Memory, |it| it.drop(GATE, OFFSET, nth));
    }
}

#[test]
fn without_the_test_of_the_body() {
    for nth in [CALLED, TAIL_CALLED] {
        refuses(Rule::Flags, |it| it.drop(GATE, TEST, nth));
    }
    refuses(Rule::CallBody, |it| it.drop(GATE, "je near", TO_BAIL));
    refuses(Rule::CallBody, |it| it.patch(GATE, "je near", TO_BAIL, 1, 0x85)); // jne
    refuses(Rule::CountOut, |it| it.drop(GATE, "je near", TO_BAIL_TAIL_CALLED));
    refuses(Rule::Swap, |it| it.patch(GATE, "je near", TO_BAIL_TAIL_CALLED, 1, 0x85)); // jne
}

#[test]
fn loading_the_body_before_counting_in() {
    for nth in [CALLED, TAIL_CALLED] {
        refuses(Rule::CountIn, |it| it.insert(GATE, OFFSET, nth, &[0x4d, 0x8b, 0x13])); // BODY
    }
}

/// Versions that tail-call would be pinned, and the stack would grow.
#[test]
fn without_the_transfer() {
    refuses(Rule::Swap, |it| it.drop(GATE, "je near", TO_TRANSFER));
    refuses(Rule::Flags, |it| it.drop(GATE, "cmp [rsp], r10", 0));
}

#[test]
fn comparing_with_another_address() {
    for by in [1, 4, 0xfd] {
        refuses(Rule::Swap, |it| {
            let at = decode(it.part(GATE))[0].range().start + 3;
            let distance = &mut it.part_mut(GATE).bytes[at];
            *distance = distance.wrapping_add(by);
        });
    }
    refuses(Rule::Flags, |it| it.drop(GATE, "lea r10", 0));
    refuses(Rule::Flags, |it| it.patch(GATE, "cmp [rsp], r10", 0, 2, 0x1c)); // r11
}

/// A frame of the caller, which is not one of a gate.
#[test]
fn taking_over_any_frame() {
    refuses(Rule::Memory, |it| {
        let at = decode(it.part(GATE))[2].range().start;
        it.part_mut(GATE).bytes[at..at + 2].copy_from_slice(&[0x90, 0xe9]); // nop; jmp
    });
}

#[test]
fn without_the_swap() {
    refuses(Rule::Swap, |it| it.drop(GATE, SWAP, 0));
}

/// Then it is its own lane that is counted out.
#[test]
fn taking_the_lane_after_the_swap() {
    refuses(Rule::CountOut, |it| it.swap(GATE, TAKE, 0));
}

#[test]
fn swapping_before_the_body_is_there() {
    refuses(Rule::LoadBody, |it| {
        it.insert(GATE, BODY, TAIL_CALLED, &[0x4c, 0x89, 0x5d, 0xf8]); // SWAP
    });
}

#[test]
fn swapping_after_counting_out() {
    refuses(Rule::Swap, |it| {
        it.swap(GATE, SWAP, 0);
        it.swap(GATE, SWAP, 0);
    });
}

#[test]
fn swapping_something_else() {
    refuses(Rule::Lane, |it| it.patch(GATE, SWAP, 0, 2, 0x55)); // r10
    for word in [0, 8, 0xf0] {
        refuses(Rule::Memory, |it| it.patch(GATE, SWAP, 0, 3, word));
        refuses(Rule::Memory, |it| it.patch(GATE, TAKE, 0, 3, word));
    }
}

#[test]
fn without_the_check() {
    refuses(Rule::CheckBody, |it| {
        it.drop(GATE, CHECK, CALLED);
        it.drop(GATE, "je near", TO_LEAVE);
    });
    refuses(Rule::CheckBody, |it| {
        it.drop(GATE, CHECK_TAKEN, 0);
        it.replace(GATE, "jne near", PAST_LEAVE_TAKEN, &[0xeb, 14]); // past leave
    });
    refuses(Rule::Flags, |it| it.drop(GATE, CHECK, CALLED));
    refuses(Rule::Flags, |it| it.drop(GATE, CHECK, TAIL_CALLED));
    refuses(Rule::Flags, |it| it.drop(GATE, CHECK_TAKEN, 0));
    refuses(Rule::Leave, |it| it.drop(GATE, "je near", TO_LEAVE));
}

/// It was counted out, but the other may be the one that is to be freed.
#[test]
fn checking_another_lane() {
    refuses(Rule::Memory, |it| it.drop(GATE, LANE, 1));
    // cmp qword [rax], 0, and [r11]: after the swap that is the offset.
    refuses(Rule::Memory, |it| it.patch(GATE, CHECK_TAKEN, 0, 0, 0x49));
    refuses(Rule::CheckBody, |it| {
        it.patch(GATE, CHECK_TAKEN, 0, 0, 0x49);
        it.patch(GATE, "cmp qword [r8], 0", 0, 2, 0x3b);
        it.insert(GATE, CHECK, TAIL_CALLED, &[0x4c, 0x8b, 0x5d, 0xf8]); // LANE
    });
}

#[test]
fn leaving_where_the_body_is_not_zero() {
    refuses(Rule::Return, |it| it.patch(GATE, "je near", TO_LEAVE, 1, 0x85));
    refuses(Rule::JumpBody, |it| it.patch(GATE, "jne near", PAST_LEAVE_TAKEN, 1, 0x84));
    refuses(Rule::LoadCurrent, |it| it.patch(GATE, "jne near", PAST_LEAVE, 1, 0x84));
}

#[test]
fn without_leave() {
    for nth in 0..3 {
        refuses(Rule::Leave, |it| it.drop(GATE, "call Leave", nth));
    }
}

#[test]
fn leaving_twice() {
    for (nth, rule) in [Rule::Return, Rule::JumpBody, Rule::LoadCurrent].into_iter().enumerate() {
        refuses(rule, |it| it.repeat(GATE, "call Leave", nth));
    }
}

#[test]
fn leaving_with_another_lane() {
    // The taken lane's stub gets what the frame has now.
    refuses(Rule::Leave, |it| {
        it.insert(GATE, "call Leave", TAIL_CALLED, &[0x48, 0x8b, 0x7d, 0xf8]); // mov rdi, [rbp - 8]
    });
    for (text, nth) in [("mov rdi, r11", 0), ("mov rdi, r11", 1), ("mov rdi, rax", 0)] {
        refuses(Rule::Lane, |it| it.drop(GATE, text, nth));
    }
    refuses(Rule::Lane, |it| it.drop(GATE, "mov rdi, r11", 2));
}

#[test]
fn without_the_body_in_r10() {
    // mov r10, rax; mov r10, r11
    for (rule, text) in [(Rule::CallBody, "call r10"), (Rule::Restart, "jmp r10")] {
        refuses(rule, |it| it.insert(GATE, text, 0, &[0x49, 0x89, 0xc2]));
        refuses(rule, |it| it.insert(GATE, text, 0, &[0x4d, 0x89, 0xda]));
    }
    refuses(Rule::CallBody, |it| it.patch(GATE, "call r10", 0, 2, 0xd3)); // call r11
    refuses(Rule::Restart, |it| it.patch(GATE, "jmp r10", 0, 2, 0xe0)); // jmp rax
}

/// The processor cannot tell which gate is returned to.
#[test]
fn calling_where_it_should_jump() {
    refuses(Rule::JumpBody, |it| it.patch(GATE, "jmp r10", 0, 2, 0xd2));
    refuses(Rule::CallBody, |it| it.patch(GATE, "call r10", 0, 2, 0xe2));
    refuses(Rule::CallBody, |it| it.patch(GATE, "jmp r11", 0, 2, 0xd3));
}

#[test]
fn bailing_without_counting_out() {
    refuses(Rule::CountOut, |it| it.nudge(GATE, "je near", TO_BAIL, 11));
    refuses(Rule::CountOut, |it| it.nudge(GATE, "je near", TO_BAIL_TAIL_CALLED, 11));
}

/// What bails has not taken anything over.
#[test]
fn bailing_with_the_lane_swapped() {
    refuses(Rule::CountOut, |it| {
        it.insert(GATE, OFFSET, BAIL, &[0x4c, 0x89, 0x5d, 0xf8]); // SWAP
    });
}

#[test]
fn restarting_where_there_is_no_current_gate() {
    refuses(Rule::Restart, |it| it.patch(GATE, "je short", 0, 0, 0x75));
    refuses(Rule::Restart, |it| it.drop(GATE, "je short", 0));
    refuses(Rule::Restart, |it| it.drop(GATE, "test r11, r11", 0));
    refuses(Rule::Flags, |it| it.drop(GATE, CURRENT, 0));
    refuses(Rule::Memory, |it| it.drop(GATE, FUNCTION, 0));
}

#[test]
fn without_reporting_a_removed_function() {
    refuses(Rule::Removed, |it| it.drop(GATE, "call Removed", 0));
    refuses(Rule::Return, |it| it.repeat(GATE, "call Removed", 0));
    refuses(Rule::Removed, |it| it.name(GATE, Symbol::Removed, Symbol::Leave));
    refuses(Rule::Lane, |it| it.drop(GATE, "mov r11, r10", 0));
}

#[test]
fn without_zeros() {
    refuses(Rule::Memory, |it| it.drop(GATE, FUNCTION, 1));
    // What was zero a moment ago is called.
    refuses(Rule::Return, |it| {
        it.insert(GATE, ZEROS, 0, &[0x4d, 0x8b, 0x9b, 0xa8, 0xff, 0xff, 0xff])
    });
    let LaneLayout { current, lane, no_version, .. } = LAYOUT;
    for other in [current, lane, no_version + 8] {
        let kind = Edit::tail_gate().kind();
        let other = Edit::whole(kind, LaneLayout { no_version: other, ..LAYOUT });
        let check = |it: &mut Edit| *it.part_mut(GATE) = other.part(GATE).clone();
        refuses(Rule::Memory, check);
    }
}

#[test]
fn with_distances_exchanged() {
    let LaneLayout { function, cell_offset, current, .. } = LAYOUT;
    for layout in [
        LaneLayout { function: cell_offset, cell_offset: function, ..LAYOUT },
        LaneLayout { function: current, current: function, ..LAYOUT },
        LaneLayout { cell_offset: current, current: cell_offset, ..LAYOUT },
    ] {
        let other = Edit::whole(Edit::tail_gate().kind(), layout);
        refuses(Rule::Memory, |it| *it.part_mut(GATE) = other.part(GATE).clone());
    }
}

const ATOMIC: Kind = Kind::Tail { counting: Counting::Atomic, interleave: false };

/// The count is a full fence if it is locked, and only then.
#[test]
fn without_a_lock() {
    let atomic = Edit::whole(ATOMIC, LAYOUT);
    let lines = decode(atomic.part(GATE));
    let locks: Vec<_> = lines.iter().filter(|line| line.instruction.has_lock_prefix()).collect();
    assert_eq!(locks.len(), 5, "{atomic}");
    for lock in locks {
        atomic.clone().refuses(Rule::Lock, |it| it.part_mut(GATE).bytes[lock.range().start] = 0x90);
    }
    let counts = |code| matches!(code, Code::Inc_rm32 | Code::Dec_rm32);
    let plain = Edit::tail_gate();
    for line in decode(plain.part(GATE)).iter().filter(|line| counts(line.instruction.code())) {
        plain.clone().refuses(Rule::Lock, |it| it.insert_at(GATE, line.range().start, &[0xf0]));
    }
}

/// Before each step of each way.
#[test]
fn without_a_hook() {
    for counting in [Counting::Plain, Counting::Atomic] {
        let whole = Edit::whole(Kind::Tail { counting, interleave: true }, LAYOUT);
        let lines = decode(whole.part(GATE));
        let hooks = lines.iter().filter(|line| line.text() == "call Interleave").count();
        // As many as there are steps that are instructions.
        let steps = [counting.tail_gate(), counting.transfer(), counting.bail()].concat();
        assert_eq!(hooks, steps.iter().filter(|&&step| step != Step::LightFence).count());
        for hook in 0..hooks {
            whole.clone().refuses(Rule::Hook, |it| it.drop(GATE, "call Interleave", hook));
        }
    }
    refuses(Rule::Jump, |it| it.name(GATE, Symbol::Leave, Symbol::Interleave));
}
