//! Frames that move to the version that is current: out of loops that never end, and out of calls
//! that never return.

#[path = "moving/errors.rs"]
mod errors;
#[path = "moving/leaving.rs"]
mod leaving;
#[path = "moving/loops.rs"]
mod loops;
#[path = "moving/many.rs"]
mod many;
#[path = "moving/matching.rs"]
mod matching;
#[path = "moving/suspended.rs"]
mod suspended;

use lastout::Engine;
use lastout_tests::layers;
use lastout_tests::support::builder;

/// An engine for each way in which gates are made and calls find them.
fn engines() -> Vec<(String, Engine)> {
    use lastout::Dispatch;

    let ways = [Dispatch::Slot, Dispatch::PatchedSites];
    let engines = ways.into_iter().flat_map(|dispatch| {
        let engines = layers::engines(move || builder().dispatch(dispatch));
        engines.map(move |(name, engine)| (format!("{dispatch:?}, {name}"), engine))
    });
    engines.collect()
}
