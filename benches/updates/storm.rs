//! Replacements without pause, while threads call what is replaced without pause.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_utils::{Backoff, CachePadded};
use lastout::Handle;
use lastout_tests::clif;

use crate::Result;
use crate::figures::{Both, Quartiles, in_turn};
use crate::looping;
use crate::subject::Subject;

/// How many threads call.
pub(crate) const THREADS: usize = 2;

/// Where a loop lies can matter more than how it calls. Each of them starts one instruction of
/// three bytes further, and all have the same number of rounds.
const PLACES: usize = 8;
const ROUNDS: usize = 2 * PLACES;

/// Replacements in each round.
const REPLACEMENTS: usize = 4_000;

/// What happens in a second, while threads call.
pub(crate) struct Rates {
    pub(crate) replacements: Both,
    /// The calls of all threads, meanwhile.
    pub(crate) calls_meanwhile: Both,
    /// Their calls while nothing is replaced.
    pub(crate) calls_before: Both,
}

/// How fast a function is replaced while threads call it, each from one call in a loop.
pub(crate) fn rates() -> Result<Rates> {
    let subjects = Subject::both(1, 1)?;
    for Subject { engine, .. } in &subjects {
        for place in 0..PLACES {
            let mut unit = engine.unit();
            clif::define(&mut unit, &looping::text(&format!("%loop{place}"), "%f0", place))?;
            engine.install(unit)?;
        }
    }
    let mut rounds = [0; 2];
    let samples = in_turn("replaced while called", ROUNDS, |way| {
        rounds[way] += 1;
        round(&subjects[way], rounds[way] % PLACES)
    })?;
    let of = |index: usize| {
        samples.each_ref().map(|rounds| {
            Quartiles::of(rounds.iter().map(|round: &[f64; 3]| round[index]).collect())
        })
    };
    Ok(Rates { replacements: of(0), calls_meanwhile: of(1), calls_before: of(2) })
}

/// A counter that shares no cache line with another.
type Calls = CachePadded<AtomicU64>;

fn round(subject: &Subject, place: usize) -> Result<[f64; 3]> {
    const BATCH: i64 = 1_000;
    const PAUSE: Duration = Duration::from_millis(20);
    let function: Handle<fn(i64, i64) -> i64> = subject.engine.function(&format!("loop{place}"))?;
    let units = (0..REPLACEMENTS).map(|_| subject.unit(0..1));
    let units = units.collect::<Result<Vec<_>>>()?;
    let stop = AtomicBool::new(false);
    let calls: [Calls; THREADS] = Default::default();
    let all_calls = || calls.iter().map(|calls| calls.load(Ordering::Relaxed)).sum::<u64>();
    let run = |calls: &Calls| -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            // SAFETY: the loop is sound for all numbers of calls but 0, and so is what it calls.
            unsafe { function.call(BATCH, 1) }?;
            calls.fetch_add(BATCH as u64, Ordering::Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads = calls.each_ref().map(|calls| scope.spawn(|| run(calls)));
        let backoff = Backoff::new();
        while calls.iter().any(|calls| calls.load(Ordering::Relaxed) == 0) {
            backoff.snooze();
        }
        // Calls per second since then.
        let rate = |(began, before): (Instant, u64)| {
            (all_calls() - before) as f64 / began.elapsed().as_secs_f64()
        };
        let began = (Instant::now(), all_calls());
        thread::sleep(PAUSE);
        let calls_before = rate(began);

        let began = (Instant::now(), all_calls());
        let installed =
            units.into_iter().try_for_each(|unit| subject.engine.install(unit).map(drop));
        let calls_meanwhile = rate(began);
        let replacements = REPLACEMENTS as f64 / began.0.elapsed().as_secs_f64();
        // In any case, or the threads would not end.
        stop.store(true, Ordering::Relaxed);
        installed?;
        for thread in threads {
            thread.join().map_err(|_| "a thread has panicked")??;
        }
        Ok([replacements, calls_meanwhile, calls_before])
    })
}
