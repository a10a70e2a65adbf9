//! The same calls on several threads at a time.

use std::collections::BTreeMap;
use std::hint::{self, black_box};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lastout_tests::measure::median;

use crate::{Loop, Way};

/// Calls between two looks at the clock.
const CALLS: i64 = 10_000;

/// The rate of each of so many threads that make the same calls at the same time, by that of one
/// thread alone. In every round, one thread alone comes first and last.
pub(crate) fn on_threads(
    threads: usize,
    rounds: usize,
    layouts: &[Vec<Way>],
) -> BTreeMap<&'static str, f64> {
    let relative = |index: usize| {
        let rates = layouts.iter().cycle().take(rounds).map(|layout| {
            let (_, run) = &layout[index];
            let (before, together, after) = (rate(run, 1), rate(run, threads), rate(run, 1));
            2.0 * together / (before + after)
        });
        median(rates.collect())
    };
    layouts[0].iter().enumerate().map(|(index, (way, _))| (*way, relative(index))).collect()
}

/// Calls per second that each of so many threads makes, on average, while all of them do.
fn rate(run: &Loop, threads: usize) -> f64 {
    const TIME: Duration = Duration::from_millis(10);
    let ready = AtomicUsize::new(0);
    let of_thread = || {
        // Whatever a thread's first call does is not counted.
        black_box(run(1));
        ready.fetch_add(1, Ordering::SeqCst);
        // Awake, so that all begin at once.
        while ready.load(Ordering::SeqCst) < threads {
            hint::spin_loop();
        }
        let began = Instant::now();
        let mut calls = 0;
        while began.elapsed() < TIME {
            black_box(run(CALLS));
            calls += CALLS;
        }
        calls as f64 / began.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(of_thread)).collect();
        let rates = all.into_iter().map(|thread| thread.join().expect("the loops return"));
        rates.sum::<f64>() / threads as f64
    })
}
