//! Random programs, the same in every run.

use std::fmt::Debug;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use lastout_tests::programs::{self, Moves, Program, ways};
use lastout_tests::random::Random;

/// How many bytes each is made of.
const BYTES: usize = 2048;

/// Checks what is made of random bytes, for each seed. It is noted in a file meanwhile, as freed
/// code that is executed ends the process, and printed if the check fails.
fn for_each<T: for<'a> Arbitrary<'a> + Debug>(
    seeds: impl Iterator<Item = u64>,
    note: &str,
    mut check: impl FnMut(&T),
) {
    let note = Path::new(env!("CARGO_TARGET_TMPDIR")).join(note);
    for seed in seeds {
        let mut random = Random::new(seed);
        let bytes: Vec<u8> = (0..BYTES).map(|_| (random.number() >> 32) as u8).collect();
        let input = T::arbitrary(&mut Unstructured::new(&bytes)).unwrap();
        fs::write(&note, format!("seed {seed}: {input:#?}\n")).unwrap();
        let checked = catch_unwind(AssertUnwindSafe(|| check(&input)));
        checked.unwrap_or_else(|panic| {
            eprintln!("seed {seed}: {input:#?}");
            resume_unwind(panic)
        });
    }
    fs::remove_file(note).unwrap();
}

#[test]
fn programs_do_the_same_under_gates() {
    for_each(1..=150, "programs", programs::check);
}

/// Those that are checked above.
#[test]
fn frames_of_programs_move_and_stay() {
    let mut all = [0; 8];
    for_each(1..=150, "moves", |program: &Program| {
        let Moves { looping, staying, returned, resumed, resumed_in_old, unwound, .. } =
            programs::moves(program);
        let Moves { in_place, held_up, .. } = programs::moves(program);
        let counts =
            [looping, staying, returned, resumed, resumed_in_old, unwound, in_place, held_up];
        all.iter_mut().zip(counts).for_each(|(all, count)| *all += count);
    });
    let least = if cfg!(target_arch = "x86_64") { [20, 20, 200, 10, 20, 3, 8, 8] } else { [0; 8] };
    assert!(all.iter().zip(least).all(|(all, least)| *all >= least), "{all:?}");
}

#[test]
fn programs_do_the_same_while_they_are_replaced() {
    for_each(1..=10, "shared programs", programs::check_shared);
}

#[test]
fn threads_come_in_and_go_out_as_in_the_model() {
    for_each(1..=100, "ways", ways::check);
}
