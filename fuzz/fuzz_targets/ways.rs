//! Threads come into functions and go out of them as in a model of the ledger, see [`ways`].
//!
//! `cargo +nightly fuzz run ways -- -len_control=0 -max_len=2048`
#![no_main]

use lastout_tests::programs::ways::{self, Sequence};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|sequence: Sequence| ways::check(&sequence));
