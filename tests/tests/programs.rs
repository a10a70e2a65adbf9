//! Random programs, the same in every run.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use arbitrary::Unstructured;
use lastout_tests::programs::{self, Options, Program};
use lastout_tests::random::Random;

/// How many bytes a program is made of.
const BYTES: usize = 2048;

/// Checks a program for each seed. The program is noted in a file meanwhile, as freed code that is
/// executed ends the process, and printed if the check fails.
fn for_each(seeds: impl Iterator<Item = u64>, options: Options, note: &str, check: fn(&Program)) {
    let note = Path::new(env!("CARGO_TARGET_TMPDIR")).join(note);
    for seed in seeds {
        let mut random = Random::new(seed);
        let bytes: Vec<u8> = (0..BYTES).map(|_| (random.number() >> 32) as u8).collect();
        let program = Program::generate(&mut Unstructured::new(&bytes), options).unwrap();
        fs::write(&note, format!("seed {seed}: {program:#?}\n")).unwrap();
        let checked = catch_unwind(AssertUnwindSafe(|| check(&program)));
        checked.unwrap_or_else(|panic| {
            eprintln!("seed {seed}: {program:#?}");
            resume_unwind(panic)
        });
    }
    fs::remove_file(note).unwrap();
}

#[test]
fn programs_do_the_same_under_gates() {
    for_each(1..=150, Options::ALL, "programs", programs::check);
}

#[test]
fn programs_do_the_same_while_they_are_replaced() {
    for_each(1..=10, Options::ALL, "shared programs", programs::check_shared);
}
