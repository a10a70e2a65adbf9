//! What it takes to replace functions that no thread is inside of: by the number of call sites, by the
//! number of functions there are, and by how many are replaced at once.

use std::iter;

use lastout_tests::measure::median;

use crate::Result;
use crate::figures::{Both, Quartiles, Table, in_turn};
use crate::subject::Subject;

/// How many call sites the function has that is replaced.
const SITES: [usize; 6] = [1, 10, 100, 1_000, 10_000, 100_000];

/// How many functions there are, of which one is replaced.
const FUNCTIONS: [usize; 3] = [1, 1_000, 100_000];

/// How many functions are replaced by one install.
const BATCHES: [usize; 5] = [1, 10, 100, 1_000, 10_000];

const ROUNDS: usize = 41;

/// Replacements of each way in each round.
const REPEATS: usize = 9;

/// What it takes to replace a function, by the number of its call sites.
pub(crate) struct BySites {
    pub(crate) us: Table,
    /// How many microseconds longer it takes if these are patched.
    pub(crate) longer: Vec<(usize, Quartiles)>,
    /// How many of these call a jump that is patched, with others of their unit.
    pub(crate) by_jump: Vec<(usize, usize)>,
}

pub(crate) fn by_sites() -> Result<BySites> {
    let mut by_sites = BySites { us: Vec::new(), longer: Vec::new(), by_jump: Vec::new() };
    for sites in SITES {
        let subjects = Subject::both(1, sites)?;
        by_sites.by_jump.push((sites, sites_by_jump(&subjects, sites)));
        let what = format!("replaced, {sites} call sites");
        let samples: Both<Vec<Vec<f64>>> = in_turn(&what, ROUNDS, |way| {
            (0..REPEATS).map(|_| subjects[way].replace(0..1)).collect()
        })?;
        let [slot, patched] = &samples;
        // Round by round, as the machine is not always as fast.
        let longer = iter::zip(slot, patched)
            .map(|(slot, patched)| median(patched.clone()) - median(slot.clone()));
        by_sites.longer.push((sites, Quartiles::of(longer.collect())));
        by_sites.us.push((sites, quartiles(samples)));
    }
    Ok(by_sites)
}

/// How many of the call sites call a jump. All of them are patched, or this is not what it says.
fn sites_by_jump(subjects: &[Subject; 2], sites: usize) -> usize {
    let [slot, patched] = subjects.each_ref().map(|subject| subject.engine.stats());
    assert_eq!(slot.patched_calls + slot.patched_calls_by_jump, 0);
    assert_eq!(patched.patched_calls + patched.patched_calls_by_jump, sites);
    patched.patched_calls_by_jump
}

/// Microseconds to replace a function with one call site, another one each time, by how many of
/// its like there are.
pub(crate) fn by_functions() -> Result<Table> {
    let of = |functions: usize| {
        let subjects = Subject::both(functions, 1)?;
        // The next one is far from the last, and all have their turn: no size is a multiple of 7.
        let stride = functions / 7 * 3 + 1;
        let mut next = [0; 2];
        let what = format!("replaced, {functions} functions");
        let samples = in_turn(&what, ROUNDS, |way| {
            let replace = |_| {
                let function = next[way];
                next[way] = (function + stride) % functions;
                subjects[way].replace(function..function + 1)
            };
            (0..REPEATS).map(replace).collect()
        })?;
        Ok((functions, quartiles(samples)))
    };
    FUNCTIONS.into_iter().map(of).collect()
}

/// How long installs of several functions take.
pub(crate) struct Batches {
    /// Microseconds for an install, by how many functions it replaces.
    pub(crate) us: Table,
    /// The most heavy fences that any of them took.
    pub(crate) most_fences: Both<u64>,
}

/// Installs that replace several functions, each of which has one call site.
pub(crate) fn batches() -> Result<Batches> {
    let subjects = Subject::both(BATCHES[BATCHES.len() - 1], 1)?;
    let mut most_fences = [0; 2];
    let mut of = |functions: usize| {
        let what = format!("batches of {functions}");
        let samples = in_turn(&what, ROUNDS, |way| {
            let Subject { engine, .. } = &subjects[way];
            let before = engine.stats().heavy_fences;
            let took = subjects[way].replace(0..functions)?;
            most_fences[way] = most_fences[way].max(engine.stats().heavy_fences - before);
            Ok(vec![took])
        })?;
        Ok((functions, quartiles(samples)))
    };
    let us = BATCHES.into_iter().map(&mut of).collect::<Result<_>>()?;
    Ok(Batches { us, most_fences })
}

fn quartiles(samples: Both<Vec<Vec<f64>>>) -> Both {
    samples.map(|rounds| Quartiles::of(rounds.concat()))
}
