//! Programs do the same on two threads while a third replaces their functions, see [`programs`].
//!
//! `cargo +nightly fuzz run shared_programs -- -len_control=0 -max_len=4096`
#![no_main]

use lastout_tests::programs::{self, Program};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|program: Program| programs::check_shared(&program));
