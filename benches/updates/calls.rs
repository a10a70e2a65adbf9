//! What a call costs, from generated code that does nothing else.

use std::iter;
use std::time::Instant;

use lastout::Dispatch;
use lastout_tests::measure::median;

use crate::Result;
use crate::figures::{Both, Quartiles, in_turn};
use crate::looping::Looping;
use crate::subject::{Subject, WAYS};

/// What is called and how, by its name in the report, and in the tables: a function from a loop,
/// whose body takes so many nanoseconds; an empty one, while another thread runs the same loop;
/// and many empty ones in turn, through the first or the second gate of each. Versions use these
/// two in turn, and only what the first one needs is next to the slot.
pub(crate) const CASES: [(&str, &str); 5] = [
    ("0", "empty body"),
    ("5", "body of 5 ns"),
    ("two_threads", "two threads"),
    ("in_turn_first_gate", "4096, first gate"),
    ("in_turn_second_gate", "4096, second gate"),
];

/// Where a call and its callee lie can matter more than how the call is made. So everything is
/// measured in several places: in each of them the loop starts one instruction of three bytes
/// further, and every eight the callee sits behind another gate.
const PLACES: usize = 32;

const ROUNDS: usize = 21;

/// What a call of a function costs, in nanoseconds.
#[derive(Default)]
pub(crate) struct Calls {
    /// The medians of all places.
    ns: Both<Vec<f64>>,
    /// How much less a patched call has cost than another one right before or after, in all places.
    saved: Vec<f64>,
}

impl Calls {
    fn add(&mut self, samples: Both<Vec<f64>>) {
        let differences = iter::zip(&samples[0], &samples[1]).map(|(slot, patched)| slot - patched);
        self.saved.push(median(differences.collect()));
        for (ns, samples) in self.ns.iter_mut().zip(samples) {
            ns.push(median(samples));
        }
    }

    /// Over all places.
    pub(crate) fn ns(&self) -> Both {
        self.ns.clone().map(Quartiles::of)
    }

    /// What a patched call saves, over all places.
    pub(crate) fn difference(&self) -> Quartiles {
        Quartiles::of(self.saved.clone())
    }

    /// What a patched call saves, if it saves anything: in three of four places, that is.
    pub(crate) fn saved(&self) -> Option<f64> {
        let Quartiles { lower, median, .. } = self.difference();
        (lower > 0.0).then_some(median)
    }
}

/// All [`CASES`].
pub(crate) fn calls() -> Result<[Calls; CASES.len()]> {
    let step = time_of_a_step()?;
    let steps = (5.0 / step).round() as usize;
    Ok([
        one(0, Looping::time)?,
        one(steps, Looping::time)?,
        one(0, Looping::time_beside_another)?,
        many_in_turn(Gate::First)?,
        many_in_turn(Gate::Second)?,
    ])
}

/// Calls of one function, from a loop.
fn one(steps: usize, time: impl Fn(&Looping) -> Result<f64>) -> Result<Calls> {
    let mut calls = Calls::default();
    for place in 0..PLACES {
        let [slot, patched] = WAYS.map(|(_, dispatch)| Looping::new(dispatch, steps, place));
        let loops = [slot?, patched?];
        let what = format!("called, in place {place}");
        let samples = in_turn(&what, ROUNDS, |way| time(&loops[way]))?;
        calls.add(samples);
    }
    Ok(calls)
}

/// Which gate of a function its version is behind.
#[derive(Clone, Copy, PartialEq)]
enum Gate {
    First,
    Second,
}

/// Calls of many functions one after the other, each from a place of its own: what each of them
/// needs is not at hand.
fn many_in_turn(gate: Gate) -> Result<Calls> {
    const FUNCTIONS: usize = 4096;
    const PLACES: usize = 8;
    /// How often all of them are called for a sample.
    const TURNS: usize = 3;
    let mut calls = Calls::default();
    for place in 0..PLACES {
        // Other engines, and so other addresses of everything.
        let subjects = Subject::both(FUNCTIONS, 1)?;
        if gate == Gate::First {
            for subject in &subjects {
                subject.replace(0..FUNCTIONS)?;
            }
        }
        let callers = [subjects[0].callers()?, subjects[1].callers()?];
        let what = format!("called in turn, in place {place}");
        let samples = in_turn(&what, 2 * ROUNDS, |way| {
            let began = Instant::now();
            for caller in iter::repeat_n(&callers[way], TURNS).flatten() {
                // SAFETY: the callers are sound for every argument, and so is what they call.
                unsafe { caller.call(1) }?;
            }
            Ok(began.elapsed().as_nanos() as f64 / (TURNS * FUNCTIONS) as f64)
        })?;
        calls.add(samples);
    }
    Ok(calls)
}

/// How long one step of a body takes, from bodies that are long enough to tell. The fastest of many
/// samples, each so short that a busy machine leaves some of them alone.
fn time_of_a_step() -> Result<f64> {
    const STEPS: [usize; 2] = [32, 96];
    const SAMPLES: usize = 500;
    const CALLS: i64 = 500;
    let [short, long] = STEPS.map(|steps| Looping::new(Dispatch::Slot, steps, 0));
    let loops = [short?, long?];
    let samples = in_turn("called, long bodies", SAMPLES, |index| loops[index].time_of(CALLS))?;
    let [short, long] = samples.map(|samples| samples.into_iter().fold(f64::INFINITY, f64::min));
    Ok((long - short) / (STEPS[1] - STEPS[0]) as f64)
}
