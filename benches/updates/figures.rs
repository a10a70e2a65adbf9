//! What is made of many samples, and how they are taken.

use serde_json::{Value, json};

use crate::subject::WAYS;
use crate::{Result, progress};

/// The middle of many samples, and between what half of them lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quartiles {
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
}

impl Quartiles {
    /// Of at least one sample.
    pub(crate) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |quarter: usize| samples[(samples.len() - 1) * quarter / 4];
        Self { lower: at(1), median: at(2), upper: at(3) }
    }

    pub(crate) fn times(self, factor: f64) -> Self {
        let Self { lower, median, upper } = self;
        Self { lower: lower * factor, median: median * factor, upper: upper * factor }
    }
}

/// A figure of both ways, in the order of [`WAYS`].
pub(crate) type Both<T = Quartiles> = [T; 2];

/// Samples both ways in every round, and takes turns at which comes first, so that a machine whose
/// speed drifts, or what one way leaves in caches, treats both alike. The first round is not
/// counted.
pub(crate) fn in_turn<T>(
    what: &str,
    rounds: usize,
    mut sample: impl FnMut(usize) -> Result<T>,
) -> Result<Both<Vec<T>>> {
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        progress(what, round, rounds);
        for way in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            let sample = sample(way)?;
            if round > 0 {
                samples[way].push(sample);
            }
        }
    }
    Ok(samples)
}

/// Figures of both ways, by what they depend on.
pub(crate) type Table = Vec<(usize, Both)>;

/// The medians, by way and then by what they depend on.
pub(crate) fn medians(table: &[(usize, Both)]) -> Value {
    by_way(|way| keyed(table.iter().map(|(key, both)| (key, json!(both[way].median)))))
}

/// Something for each way, by its name.
pub(crate) fn by_way(of: impl Fn(usize) -> Value) -> Value {
    keyed(WAYS.iter().enumerate().map(|(way, (name, _))| (name, of(way))))
}

/// An object with these entries.
pub(crate) fn keyed<K: ToString>(entries: impl Iterator<Item = (K, Value)>) -> Value {
    Value::Object(entries.map(|(key, value)| (key.to_string(), value)).collect())
}

/// A column for each way: its median, and in brackets the quartiles.
pub(crate) fn columns(both: Both) -> String {
    let column = |of: Quartiles| {
        format!(
            "{:>9} {:21}",
            digits(of.median),
            format!("({} to {})", digits(of.lower), digits(of.upper))
        )
    };
    both.map(column).concat()
}

/// A number with three digits that matter, or all before the point.
pub(crate) fn digits(number: f64) -> String {
    let decimals = match number.abs() {
        small if small < 10.0 => 2,
        middle if middle < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}
