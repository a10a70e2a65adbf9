//! What a call costs, by the way in which it is made: ratios to a bare slot call, which is what
//! leaks when the callee is replaced.
//!
//! ```text
//! cargo bench -p lastout --bench calls [-- --json]
//! ```
//!
//! Every way is timed in every round, one after the other, so that a machine whose speed drifts
//! treats all alike; the figures are medians over the rounds, and the ratios medians of the ratios
//! within a round.

use std::collections::BTreeMap;
use std::hint::{self, black_box};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lastout_tests::measure::{machine, median};
use serde_json::{Value, json};

mod rivals;
mod subject;
mod text;

use subject::{Loop, Subject};

pub(crate) type Error = Box<dyn std::error::Error>;

/// Rounds, and the calls of each way in each.
const ROUNDS: usize = 41;
const CALLS: i64 = 100_000;

/// The bodies that are measured, by what they are to take, in nanoseconds.
const BODIES: [u32; 4] = [0, 1, 5, 20];

/// The ways in which the same callee is called, in the order of the table.
const WAYS: [(&str, &str); 13] = [
    ("slot", "through a pointer in memory: no counting, never freed"),
    ("direct", "direct, in a module of cranelift-jit"),
    ("within_unit", "direct, within a unit of lastout"),
    ("gate", "from another unit of lastout, through slot and gate"),
    ("shared_atomic", "through a slot; the function counts in a shared word"),
    ("rust_slot", "from here on from Rust: an atomic pointer, never freed"),
    ("handle", "a typed handle of lastout"),
    ("arc_swap", "arc-swap: load"),
    ("epoch", "crossbeam-epoch: pin, load"),
    ("seize", "seize: enter, protect"),
    ("haphazard", "haphazard: load with a hazard pointer of the thread's"),
    ("rwlock", "std's RwLock: read"),
    ("arc_clone", "std's Arc: clone"),
];

fn main() -> Result<(), Error> {
    let json = std::env::args().any(|arg| arg == "--json");
    let per_step = time_of_a_step()?;
    println!("{}, {ROUNDS} rounds of {CALLS} calls", machine());
    println!("ns per call, and in brackets the ratio to a slot call, by what the body takes;");
    println!("calls per second of each of two threads, by those of one alone, empty body\n");
    let mut measured = BTreeMap::new();
    let mut two_threads = BTreeMap::new();
    for body in BODIES {
        let steps = (f64::from(body) / per_step).round() as usize;
        let subject = Subject::new(steps)?;
        measured.insert(body, measure(&subject));
        if body == 0 {
            two_threads = on_two_threads(&subject);
        }
    }
    print!("{:14}", "");
    for body in BODIES {
        print!("{body:10} ns     ");
    }
    println!(" two threads");
    for (way, what) in WAYS {
        print!("{way:14}");
        for body in BODIES {
            let [ns, ratio] = measured[&body][way];
            print!("{ns:8.2} ({ratio:5.2}x)");
        }
        println!("{:11.2}   {what}", two_threads[way]);
    }
    if json {
        println!("{}", report(&measured, &two_threads));
    }
    Ok(())
}

/// Medians over the rounds, by way: nanoseconds a call, and the ratio to a slot call.
type Measured = BTreeMap<&'static str, [f64; 2]>;

fn report(measured: &BTreeMap<u32, Measured>, two_threads: &BTreeMap<&str, f64>) -> Value {
    let of = |index: usize| -> Value {
        let bodies = measured.iter().map(|(body, ways)| {
            let ways = ways.iter().map(|(way, figures)| (way.to_string(), json!(figures[index])));
            (body.to_string(), Value::Object(ways.collect()))
        });
        Value::Object(bodies.collect())
    };
    json!({
        "machine": machine(),
        "ns": of(0),
        "ratio_to_slot": of(1),
        "two_threads": two_threads,
    })
}

fn measure(subject: &Subject) -> Measured {
    let round = || -> BTreeMap<&str, f64> {
        subject.ways.iter().map(|(way, run)| (*way, time(run))).collect()
    };
    round();
    let rounds: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
    let of = |way| {
        let ns = rounds.iter().map(|round| round[way]);
        let ratios = rounds.iter().map(|round| round[way] / round["slot"]);
        [median(ns.collect()), median(ratios.collect())]
    };
    WAYS.map(|(way, _)| (way, of(way))).into()
}

/// The rate of each of two threads that make the same calls at the same time, by that of one
/// thread alone. In every round, one thread alone comes first and last.
fn on_two_threads(subject: &Subject) -> BTreeMap<&'static str, f64> {
    let rate = |run: &Loop| {
        let rates = (0..ROUNDS / 4).map(|_| {
            let (before, together, after) = (rate(run, 1), rate(run, 2), rate(run, 1));
            2.0 * together / (before + after)
        });
        median(rates.collect())
    };
    subject.ways.iter().map(|(way, run)| (*way, rate(run))).collect()
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
            black_box(run(CALLS / 10));
            calls += CALLS / 10;
        }
        calls as f64 / began.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(of_thread)).collect();
        let rates = all.into_iter().map(|thread| thread.join().expect("the loops return"));
        rates.sum::<f64>() / threads as f64
    })
}

/// Nanoseconds a call.
fn time(run: &Loop) -> f64 {
    let began = Instant::now();
    black_box(run(CALLS));
    began.elapsed().as_nanos() as f64 / CALLS as f64
}

/// How long one step of a body takes, from bodies that are long enough to tell.
fn time_of_a_step() -> Result<f64, Error> {
    const STEPS: [usize; 2] = [32, 96];
    let mut fastest = [f64::INFINITY; 2];
    let subjects = [Subject::new(STEPS[0])?, Subject::new(STEPS[1])?];
    for _ in 0..ROUNDS {
        for (fastest, subject) in fastest.iter_mut().zip(&subjects) {
            let slot = subject.ways.iter().find(|(way, _)| *way == "slot");
            let (_, run) = slot.expect("there is such a way");
            *fastest = fastest.min(time(run));
        }
    }
    Ok((fastest[1] - fastest[0]) / (STEPS[1] - STEPS[0]) as f64)
}
