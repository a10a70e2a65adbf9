//! Every small change of a gate is refused, but for those that change nothing of account.

use std::collections::BTreeSet;

use crate::edit::Edit;
use crate::listing::{decode, listing};
use crate::prove::PARTS;

#[test]
fn flipping_a_bit() {
    let harmless = [
        // The caller expects nothing in either.
        "bail tail + 0x2b  pop rdi -> pop rsi",
        // Pushed to align the stack; the body has not kept rdi either.
        "leave tail + 0x00  push rdi -> push rbp",
        "leave tail + 0x00  push rdi -> push rbx",
        "leave tail + 0x00  push rdi -> push rsi",
        "leave tail + 0x09  pop rdi -> pop rsi",
    ];
    let whole = Edit::whole();
    let mut tally = Tally::default();
    for (part, name) in PARTS.iter().enumerate() {
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
    tally.check(700, &harmless);
}

fn difference(before: &str, after: &str) -> String {
    let changed = before.lines().zip(after.lines()).filter(|(before, after)| before != after);
    let changes = changed.map(|(before, after)| format!("{} -> {}", before.trim(), &after[8..]));
    changes.collect::<Vec<_>>().join(", ")
}

#[test]
fn leaving_out_an_instruction() {
    let whole = Edit::whole();
    let mut tally = Tally::default();
    for (part, name) in PARTS.iter().enumerate() {
        for line in decode(whole.part(part)) {
            let mut mutant = whole.clone();
            mutant.blank(part, line.range());
            tally.count(&mutant, || format!("{name}: {}", line.text()));
        }
    }
    tally.check(30, &[]);
}

#[test]
fn exchanging_two_instructions() {
    let whole = Edit::whole();
    let mut tally = Tally::default();
    for (part, name) in PARTS.iter().enumerate() {
        for lines in decode(whole.part(part)).windows(2) {
            let mut mutant = whole.clone();
            mutant.swap_at(part, lines[0].range());
            tally.count(&mutant, || format!("{name}: {} / {}", lines[0].text(), lines[1].text()));
        }
    }
    // What does not depend on what is next to it.
    let harmless = [
        "bail tail: mov rdi, r11 / cmp qword [r11], 0",
        "bail tail: pop rdi / xor eax, eax",
        "bail tail: xor eax, eax / xor edx, edx",
        "bail tail: xor edx, edx / xorps xmm0, xmm0",
        "bail tail: xorps xmm0, xmm0 / xorps xmm1, xmm1",
        "gate: add dword [r15 + CellOffset], 1 / mov r11, Lane",
        "gate: add rsp, 8 / sub dword [r15 + CellOffset], 1",
        "gate: sub dword [r15 + CellOffset], 1 / mov r11, Lane",
        "leave tail: push rdi / mov rdi, r11",
    ];
    tally.check(20, &harmless);
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
