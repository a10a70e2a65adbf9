//! Programs do the same under gates, while they replace their functions, see [`programs`].
//!
//! `cargo +nightly fuzz run programs -- -len_control=0 -max_len=4096`
#![no_main]

use lastout_tests::programs::{self, Program};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|program: Program| programs::check(&program));
