//! An engine does what its model does, see [`ops`].
//!
//! `cargo +nightly fuzz run engine_ops -- -len_control=0 -max_len=4096`
#![no_main]

use lastout_tests::ops::{self, Scenario};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|scenario: Scenario| ops::check(&scenario));
