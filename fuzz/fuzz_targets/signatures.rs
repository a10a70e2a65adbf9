//! Gates pass on what direct calls pass, see [`signature`].
//!
//! `cargo +nightly fuzz run signatures -- -len_control=0 -max_len=256`
#![no_main]

use lastout_tests::signature::{self, Case};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|case: Case| signature::check(&case));
