//! Every small change of a gate or an entry is refused, but for those that change nothing of
//! account.

use std::collections::BTreeSet;

use super::edit::Edit;
use super::listing::{decode, listing};

#[test]
fn flipping_a_bit_of_a_gate() {
    let harmless = [
        // The caller expects nothing in either.
        "bail tail + 0x2b  pop rdi -> pop rsi",
        // Pushed to align the stack; the body has not kept rdi either.
        "leave tail + 0x00  push rdi -> push rbp",
        "leave tail + 0x00  push rdi -> push rbx",
        "leave tail + 0x00  push rdi -> push rsi",
        "leave tail + 0x09  pop rdi -> pop rsi",
    ];
    flip(&Edit::gate()).check(700, &harmless);
}

#[test]
fn flipping_a_bit_of_an_entry() {
    flip(&Edit::entry()).check(1100, &[]);
}

#[test]
fn flipping_a_bit_of_a_gate_that_can_be_tail_called() {
    let harmless = [
        // The lane is in both.
        "gate + 0x10c  mov rdi, r11 -> mov rdi, r10",
        "gate + 0x115  mov r11, [r11 + 0x128] -> mov r11, [r10 + 0x128]",
        // Pushed to align the stack.
        "gate + 0x7f  push rdi -> push rbp",
        "gate + 0x7f  push rdi -> push rbx",
        "gate + 0x7f  push rdi -> push rsi",
        // The lane is in both here, too.
        "gate + 0xf2  mov r11, [r11 + 0x128] -> mov r11, [r10 + 0x128]",
    ];
    flip(&Edit::tail_gate()).check(2000, &harmless);
}

fn flip(whole: &Edit) -> Tally {
    let mut tally = Tally::default();
    for (part, name) in whole.kind().parts().iter().enumerate() {
        let before = listing(whole.part(part));
        for byte in 0..whole.part(part).bytes.len() {
            for bit in 0..8 {
                let mut mutant = whole.clone();
                mutant.part_mut(part).bytes[byte] ^= 1 << bit;
                let after = listing(mutant.part(part));
                let what = || format!("{name} + {}", difference(&before, &after));
                // Another way to write the same instructions.
                if after != before {
                    tally.count(&mutant, what);
                }
            }
        }
    }
    tally
}

fn difference(before: &str, after: &str) -> String {
    let changed = before.lines().zip(after.lines()).filter(|(before, after)| before != after);
    let text = |line: &str| line.trim().split_once("  ").map(|(_, text)| text.to_owned());
    let changes = changed
        .map(|(before, after)| format!("{} -> {}", before.trim(), text(after).unwrap_or_default()));
    changes.collect::<Vec<_>>().join(", ")
}

#[test]
fn leaving_out_an_instruction() {
    leave_out(&Edit::gate()).check(30, &[]);
    // The function's current gate, which is 0, is in that register already.
    leave_out(&Edit::entry()).check(30, &["entry: xor eax, eax"]);
    leave_out(&Edit::tail_gate()).check(80, &[]);
}

fn leave_out(whole: &Edit) -> Tally {
    let mut tally = Tally::default();
    for (part, name) in whole.kind().parts().iter().enumerate() {
        for line in decode(whole.part(part)) {
            let mut mutant = whole.clone();
            mutant.blank(part, line.range());
            tally.count(&mutant, || format!("{name}: {}", line.text()));
        }
    }
    tally
}

#[test]
fn exchanging_two_instructions_of_a_gate() {
    // What does not depend on what is next to it.
    let harmless = [
        "bail tail: mov rdi, r11 / cmp qword [r11], 0",
        "bail tail: pop rdi / xor eax, eax",
        "bail tail: xor eax, eax / xor edx, edx",
        "bail tail: xor edx, edx / xorps xmm0, xmm0",
        "bail tail: xorps xmm0, xmm0 / xorps xmm1, xmm1",
        "gate: dec dword [r15 + CellOffset] / mov r11, Lane",
        "gate: inc dword [r15 + CellOffset] / mov r11, Lane",
        "gate: pop rbp / dec dword [r15 + CellOffset]",
        "leave tail: push rdi / mov rdi, r11",
    ];
    exchange(&Edit::gate()).check(20, &harmless);
}

#[test]
fn exchanging_two_instructions_of_an_entry() {
    let harmless = [
        // A stub keeps registers.
        "entry: call Removed / xor eax, eax",
        // The rest does not depend on what is next to it.
        "entry: mov r15, rdi / mov rbx, [rsi + 0x38]",
        "entry: mov rbx, [rsi + 0x38] / mov rdi, rdx",
        "entry: mov rcx, r9 / mov rax, [rbx - 0x40]",
        "entry: mov rdi, rdx / mov rsi, rcx",
        "entry: mov rdx, r8 / mov rcx, r9",
        "entry: mov rsi, rcx / mov rdx, r8",
        "entry: push rbx / mov r15, rdi",
        "entry: xor eax, eax / xor edx, edx",
        "entry: xor edx, edx / xorps xmm0, xmm0",
        "entry: xorps xmm0, xmm0 / xorps xmm1, xmm1",
    ];
    exchange(&Edit::entry()).check(20, &harmless);
}

#[test]
fn exchanging_two_instructions_of_a_gate_that_can_be_tail_called() {
    // What does not depend on what is next to it.
    let harmless = [
        "gate: mov r11, r10 / push rdi",
        "gate: pop rbp / test r11d, r11d",
        "gate: pop rdi / mov r11, [r11 + 0x128]",
        "gate: pop rdi / pop rdi",
        "gate: push rax / test eax, eax",
        "gate: push rdi / mov rdi, r11",
        "gate: push rdi / push rdi",
        "head of 0: mov r11, Lane / mov eax, 0",
        "head of 16: mov r11, Lane / mov eax, 0x10",
        "head of 32: mov r11, Lane / mov eax, 0x20",
    ];
    exchange(&Edit::tail_gate()).check(60, &harmless);
}

fn exchange(whole: &Edit) -> Tally {
    let mut tally = Tally::default();
    for (part, name) in whole.kind().parts().iter().enumerate() {
        for lines in decode(whole.part(part)).windows(2) {
            let mut mutant = whole.clone();
            mutant.swap_at(part, lines[0].range());
            tally.count(&mutant, || format!("{name}: {} / {}", lines[0].text(), lines[1].text()));
        }
    }
    tally
}

/// What became of the mutants.
#[derive(Default)]
struct Tally {
    refused: usize,
    accepted: BTreeSet<String>,
}

impl Tally {
    fn count(&mut self, mutant: &Edit, what: impl FnOnce() -> String) {
        match mutant.check() {
            Ok(_) => {
                self.accepted.insert(what());
            }
            Err(_) => self.refused += 1,
        }
    }

    fn check(&self, at_least: usize, harmless: &[&str]) {
        let accepted: Vec<_> = self.accepted.iter().map(String::as_str).collect();
        assert_eq!(accepted, harmless, "accepted, and what should be");
        assert!(self.refused >= at_least, "{} were refused", self.refused);
    }
}
