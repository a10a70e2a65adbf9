//! Rounds, in each of which every way is timed, one after the other; and figures from them.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use lastout_tests::measure::median;
use serde_json::Value;

use crate::{Loop, Way};

/// Nanoseconds a call, by way, in each round.
pub(crate) struct Rounds(Vec<BTreeMap<&'static str, f64>>);

impl Rounds {
    /// Runs every way with `argument`, which makes so many calls, in every round. Each round takes
    /// the next of `layouts`, which are the same ways in code that lies otherwise.
    pub(crate) fn run(rounds: usize, layouts: &[Vec<Way>], argument: i64, calls: i64) -> Self {
        let round = |layout: &Vec<Way>| {
            layout.iter().map(|(way, run)| (*way, time(run, argument) / calls as f64)).collect()
        };
        layouts.iter().map(round).for_each(drop::<BTreeMap<_, f64>>);
        Self(layouts.iter().cycle().take(rounds).map(round).collect())
    }

    /// Nanoseconds a call: the median.
    pub(crate) fn ns(&self, way: &str) -> f64 {
        self.median(|round| round[way])
    }

    /// Nanoseconds a call in the fastest round.
    pub(crate) fn least(&self, way: &str) -> f64 {
        self.0.iter().map(|round| round[way]).fold(f64::INFINITY, f64::min)
    }

    /// The median of the ratios to `other` in a round.
    pub(crate) fn ratio(&self, way: &str, other: &str) -> f64 {
        self.median(|round| round[way] / round[other])
    }

    /// The median of the nanoseconds in a round that it takes more than `other`.
    pub(crate) fn above(&self, way: &str, other: &str) -> f64 {
        self.median(|round| round[way] - round[other])
    }

    pub(crate) fn has(&self, way: &str) -> bool {
        self.0[0].contains_key(way)
    }

    fn median(&self, figure: impl Fn(&BTreeMap<&'static str, f64>) -> f64) -> f64 {
        median(self.0.iter().map(figure).collect())
    }

    /// A figure of each way, rounded to what it is good for.
    pub(crate) fn report(&self, figure: impl Fn(&'static str) -> f64) -> Value {
        self.0[0].keys().map(|&way| (way.to_owned(), rounded(figure(way)))).collect()
    }
}

/// With three digits after the point.
pub(crate) fn rounded(figure: f64) -> Value {
    ((figure * 1000.0).round() / 1000.0).into()
}

/// Nanoseconds.
pub(crate) fn time(run: &Loop, argument: i64) -> f64 {
    let began = Instant::now();
    black_box(run(black_box(argument)));
    began.elapsed().as_nanos() as f64
}

/// Panics unless all ways have the same result.
pub(crate) fn check_results(layouts: &[Vec<Way>], argument: i64) {
    let [(expected_of, run), ..] = &layouts[0][..] else { return };
    let expected = run(argument);
    for (way, run) in layouts.iter().flatten() {
        assert_eq!(run(argument), expected, "`{way}` and `{expected_of}` differ");
    }
}
