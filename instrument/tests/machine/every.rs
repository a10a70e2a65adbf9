//! Every small change of a gate is refused, but for those that change nothing of account.

use std::collections::BTreeSet;

use crate::edit::Edit;
use crate::listing::{decode, listing};
use crate::prove::PARTS;

/// Changes that the gate is as good with, as they should be reported.
type Harmless = &'static [&'static str];

#[test]
fn flipping_a_bit() {
    let harmless: Harmless = &[];
    let whole = Edit::whole();
    let mut tally = Tally::default();
    for (part, name) in PARTS.iter().enumerate() {
        let before = listing(whole.part(part));
        for byte in 0..whole.part(part).bytes.len() {
            for bit in 0..8 {
                let mut mutant = whole.clone();
                mutant.part_mut(part).bytes[byte] ^= 1 << bit;
                let after = listing(mutant.part(part));
                let what = || format!("{name}: {}", difference(&before, &after));
                // Another way to write the same instructions.
                if after != before {
                    tally.count(&mutant, what);
                }
            }
        }
    }
    tally.check(900, harmless);
}

fn difference(before: &str, after: &str) -> String {
    let changed = |(before, after): (&str, &str)| {
        (before != after).then(|| format!("{} -> {}", before.trim(), after[4..].trim()))
    };
    let lines = before.lines().zip(after.lines());
    lines.filter_map(changed).collect::<Vec<_>>().join(", ")
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
            tally.count(&mutant, || format!("{name}: {}, {}", lines[0].text(), lines[1].text()));
        }
    }
    tally.check(30, &[]);
}

#[derive(Default)]
struct Tally {
    refused: usize,
    accepted: BTreeSet<String>,
}

impl Tally {
    fn count(&mut self, mutant: &Edit, what: impl FnOnce() -> String) {
        match mutant.check() {
            Ok(()) => drop(self.accepted.insert(what())),
            Err(_) => self.refused += 1,
        }
    }

    fn check(&self, at_least: usize, harmless: Harmless) {
        let accepted: Vec<_> = self.accepted.iter().map(String::as_str).collect();
        assert_eq!(accepted, harmless, "accepted, and what should be");
        assert!(self.refused >= at_least, "{} were refused", self.refused);
    }
}
