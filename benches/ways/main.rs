//! What each way into and out of a function costs, beside the way that programs have without.
//!
//! ```text
//! cargo bench --bench ways [-- --json]
//! ```

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use lastout_tests::measure::{machine, median};
use lexopt::prelude::*;
use serde_json::{Value as Json, json};

mod subject;

/// How many times every way is timed, in turns.
const ROUNDS: usize = 40;

/// Something to time: runs so many times.
pub(crate) type Way<'a> = Box<dyn Fn(i64) + 'a>;

/// Ways that are compared with the first of them.
pub(crate) struct Group<'a> {
    title: &'static str,
    /// How many times each is run in a round.
    times: i64,
    ways: Vec<(&'static str, Way<'a>)>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut json = false;
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("json") => json = true,
            // Cargo says so to every bench.
            Long("bench") => {}
            _ => return Err(arg.unexpected().into()),
        }
    }
    println!("{}", machine());
    println!("{ROUNDS} rounds; ns, the same in the fastest round, and the ratio to the first");
    let subject = subject::Subject::new()?;
    let mut report = BTreeMap::new();
    for group in subject.groups() {
        println!("\n{}", group.title);
        let figures = group.measure();
        for (name, [median, least, ratio]) in &figures {
            println!("  {name:<46} {median:>9.2} {least:>9.2}  ({ratio:>6.2}x)");
        }
        let figures = figures.into_iter().map(|(name, [median, least, ratio])| {
            (name.to_owned(), json!({ "ns": median, "ns_min": least, "ratio": ratio }))
        });
        report.insert(group.title, figures.collect::<serde_json::Map<_, _>>());
    }
    if json {
        println!("{}", json!({ "machine": machine(), "ways": Json::from_iter(report) }));
    }
    Ok(())
}

impl Group<'_> {
    /// For each way the median, the least, and the median of the ratios to the first.
    fn measure(&self) -> Vec<(&'static str, [f64; 3])> {
        let time = |way: &Way<'_>| {
            let began = Instant::now();
            way(black_box(self.times));
            began.elapsed().as_nanos() as f64 / self.times as f64
        };
        let round = |_| self.ways.iter().map(|(_, way)| time(way)).collect::<Vec<_>>();
        round(0);
        let rounds: Vec<_> = (0..ROUNDS).map(round).collect();
        let figures = |number: usize| {
            let all = || rounds.iter().map(|round| round[number]);
            let ratios = rounds.iter().map(|round| round[number] / round[0]);
            [median(all().collect()), all().fold(f64::INFINITY, f64::min), median(ratios.collect())]
        };
        self.ways.iter().enumerate().map(|(number, (name, _))| (*name, figures(number))).collect()
    }
}
