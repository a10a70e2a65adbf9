//! Frames that move to the version that is current: out of loops that never end, and out of calls
//! that never return.

mod errors;
mod leaving;
mod loops;
mod many;
mod matching;
mod parked;

use lastout::Engine;
use lastout_tests::{builder, layers};

/// An engine for each way in which gates are made.
fn engines() -> impl Iterator<Item = (String, Engine)> {
    layers::engines(|| builder!())
}
