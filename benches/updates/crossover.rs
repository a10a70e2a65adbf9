//! From how many calls on patched sites are worth what they cost.

use crate::calls::{CASES, Calls};
use crate::figures::Quartiles;
use crate::replace::BySites;

/// By the number of call sites: how often a function has to be called between one replacement and
/// the next, by all its callers together, for patched calls to save what the replacement takes
/// longer; for each of [`CASES`]. `None` if they save nothing that could be told from noise.
pub(crate) type Crossover = Vec<(usize, [Option<f64>; CASES.len()])>;

pub(crate) fn crossover(replace: &BySites, calls: &[Calls; CASES.len()]) -> Crossover {
    let of = |(sites, longer): &(usize, Quartiles)| {
        let ns = 1e3 * longer.median.max(0.0);
        let enough = |calls: &Calls| Some((ns / calls.saved()?).ceil());
        (*sites, calls.each_ref().map(enough))
    };
    replace.longer.iter().map(of).collect()
}
