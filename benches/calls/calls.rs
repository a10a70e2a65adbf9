//! One callee that is called in a loop, by all ways, from generated code and from Rust.
//!
//! A call that takes two nanoseconds takes a third more or less depending on where in a cache line
//! it is, so the rounds take turns with code that lies differently.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Error;
use crate::measure::{Rounds, check_results, rounded, time};
use crate::subject::subject;
use crate::threads::on_threads;

/// Rounds, and the calls of each way in each.
const ROUNDS: usize = 120;
const CALLS: i64 = 50_000;

/// Rounds on several threads.
const THREAD_ROUNDS: usize = 16;

/// In how many ways code lies.
const LAYOUTS: usize = 4;

/// The bodies that are measured, by what they are to take, in nanoseconds.
const BODIES: [u32; 4] = [0, 1, 5, 20];

/// The ways in which the same callee is called, in the order of the table. Those from Rust come
/// after `rust_slot`, and are compared with it too.
const WAYS: [(&str, &str); 15] = [
    ("slot", "through a pointer in memory: no counting, never freed"),
    ("direct", "direct, in a module of cranelift-jit"),
    ("within_unit", "direct, within a unit of lastout"),
    ("gate", "from another unit of lastout, through slot and gate"),
    ("gate_patched", "by a call of the gate, patched in its place"),
    ("gate_patched_jump", "by way of a jump to the gate, which is patched"),
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

/// Rivals that keep a callee from being freed while it is called: all of them, and those of them
/// that write to no word that other callers write to. The function that counts in a shared word
/// is not safe: nothing keeps it between the slot and the count.
const RIVALS: [(&str, &[&str]); 2] = [
    ("cheapest_safe_rival", &["arc_swap", "epoch", "seize", "haphazard", "rwlock", "arc_clone"]),
    ("cheapest_unshared_rival", &["arc_swap", "epoch", "seize", "haphazard"]),
];

/// The bare slot call that a way is above: from the same side.
fn bare(way: &str) -> &'static str {
    let position = |name| WAYS.iter().position(|(way, _)| *way == name);
    if position(way) < position("rust_slot") { "slot" } else { "rust_slot" }
}

/// What was measured.
pub(crate) struct Calls {
    bodies: BTreeMap<u32, Rounds>,
    /// On how many threads at once, and the rate of each by that of one alone.
    threads: Vec<(usize, BTreeMap<&'static str, f64>)>,
}

impl Calls {
    pub(crate) fn measure() -> Result<Self, Error> {
        let per_step = time_of_a_step()?;
        let mut calls = Self { bodies: BTreeMap::new(), threads: Vec::new() };
        for body in BODIES {
            eprintln!("calls of a body of {body} ns");
            let steps = (f64::from(body) / per_step).round() as usize;
            let layouts = (0..LAYOUTS).map(|layout| subject(steps, layout));
            let layouts = layouts.collect::<Result<Vec<_>, Error>>()?;
            check_results(&layouts, 1000);
            calls.bodies.insert(body, Rounds::run(ROUNDS, &layouts, CALLS, CALLS));
            if body == 0 {
                let processors =
                    std::thread::available_parallelism().map_or(1, |count| count.get());
                let more = (processors > 2).then_some(processors);
                for threads in [2].into_iter().chain(more) {
                    eprintln!("the same on {threads} threads");
                    let rates = on_threads(threads, THREAD_ROUNDS, &layouts);
                    calls.threads.push((threads, rates));
                }
            }
        }
        Ok(calls)
    }

    pub(crate) fn print(&self) {
        println!("{ROUNDS} rounds of {CALLS} calls; ns per call, and in brackets the ratio to a");
        println!("slot call, by what the body takes; and of the empty body: ns in the fastest");
        println!("round, ns above a slot call from the same side, and calls per second of each");
        println!("of several threads, by those of one alone\n");
        print!("{:17}", "");
        for body in BODIES {
            print!("{body:10} ns     ");
        }
        print!(" fastest  above");
        for (threads, _) in &self.threads {
            print!(" {threads:3} threads");
        }
        println!();
        let empty = &self.bodies[&0];
        for (way, what) in WAYS {
            print!("{way:17}");
            for rounds in self.bodies.values() {
                print!("{:8.2} ({:5.2}x)", rounds.ns(way), rounds.ratio(way, "slot"));
            }
            print!("{:8.2}{:7.2}", empty.least(way), empty.above(way, bare(way)));
            for (_, rates) in &self.threads {
                print!("{:12.2}", rates[way]);
            }
            println!("   {what}");
        }
        println!();
        for (which, rivals) in RIVALS {
            let rival = self.cheapest(rivals);
            println!(
                "{which}, empty body: {rival}, {:.2} ns; {:.2} times `gate`, {:.2} times \
                 `gate_patched`",
                empty.ns(rival),
                empty.ratio(rival, "gate"),
                empty.ratio(rival, "gate_patched"),
            );
        }
        println!();
    }

    /// The cheapest of them for the empty body.
    fn cheapest(&self, rivals: &[&'static str]) -> &'static str {
        let empty = &self.bodies[&0];
        let by_ns = |a: &&str, b: &&str| empty.ns(a).total_cmp(&empty.ns(b));
        rivals.iter().copied().min_by(by_ns).expect("there are some")
    }

    fn report_cheapest(&self, rivals: &[&'static str]) -> Value {
        let (empty, rival) = (&self.bodies[&0], self.cheapest(rivals));
        json!({
            "way": rival,
            "ns": rounded(empty.ns(rival)),
            "ratio_to_gate": rounded(empty.ratio(rival, "gate")),
            "ratio_to_gate_patched": rounded(empty.ratio(rival, "gate_patched")),
            "ns_above_slot": rounded(empty.above(rival, bare(rival))),
        })
    }

    pub(crate) fn report(&self) -> Value {
        let of = |figure: fn(&Rounds, &str) -> f64| -> Value {
            let figures = |(body, rounds): (&u32, &Rounds)| {
                (body.to_string(), rounds.report(|way| figure(rounds, way)))
            };
            self.bodies.iter().map(figures).collect()
        };
        let rates = |rates: &BTreeMap<&'static str, f64>| -> Value {
            rates.iter().map(|(&way, &rate)| (way.to_owned(), rounded(rate))).collect()
        };
        let mut report = json!({
            "ns": of(Rounds::ns),
            "ns_min": of(Rounds::least),
            "ratio_to_slot": of(|rounds, way| rounds.ratio(way, "slot")),
            "ns_above_slot": of(|rounds, way| rounds.above(way, bare(way))),
            "two_threads": rates(&self.threads[0].1),
        });
        for (which, rivals) in RIVALS {
            report[which] = self.report_cheapest(rivals);
        }
        if let Some((_, all)) = self.threads.get(1) {
            report["all_threads"] = rates(all);
        }
        report
    }
}

/// How long one step of a body takes, from bodies that are long enough to tell.
fn time_of_a_step() -> Result<f64, Error> {
    const STEPS: [usize; 2] = [32, 96];
    let mut fastest = [f64::INFINITY; 2];
    let subjects = [subject(STEPS[0], 0)?, subject(STEPS[1], 0)?];
    for _ in 0..ROUNDS {
        for (fastest, ways) in fastest.iter_mut().zip(&subjects) {
            let slot = ways.iter().find(|(way, _)| *way == "slot");
            let (_, run) = slot.expect("there is such a way");
            *fastest = fastest.min(time(run, CALLS) / CALLS as f64);
        }
    }
    Ok((fastest[1] - fastest[0]) / (STEPS[1] - STEPS[0]) as f64)
}
