//! An engine does what its model does, see [`ops`]: `cargo +nightly fuzz run engine_ops`.
#![no_main]

use lastout_tests::ops::{self, Scenario};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|scenario: Scenario| ops::check(&scenario));
