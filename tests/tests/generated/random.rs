//! The checks that the fuzz targets run, on random input, for about a second each.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use lastout_tests::ops::{self, Op, Scenario};
use lastout_tests::signature::{self, Case};
use proptest::collection::vec;
use proptest::prelude::*;

/// Any value of a type, shrunk by making the bytes that it is read from smaller.
fn read_from<T: for<'a> Arbitrary<'a> + Debug>(bytes: usize) -> impl Strategy<Value = T> {
    let read = |bytes: Vec<u8>| T::arbitrary(&mut Unstructured::new(&bytes));
    vec(any::<u8>(), bytes).prop_filter_map("too few bytes", move |bytes| read(bytes).ok())
}

/// Scenarios whose operations can be left out one by one.
fn scenarios() -> impl Strategy<Value = Scenario> {
    let ops = |most| vec(read_from::<Op>(128), 0..most);
    let parts = (read_from::<Scenario>(16), ops(48), ops(12));
    parts.prop_map(|(scenario, ops, afterwards)| Scenario { ops, afterwards, ..scenario })
}

/// Runs a check with its input noted in a file meanwhile: freed code that is executed ends the
/// process, and then the file is what is left to tell why.
fn noted<T: Debug>(name: &str, input: &T, check: impl FnOnce(&T)) {
    let note = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&note, format!("{input:#?}\n")).unwrap();
    check(input);
    fs::remove_file(note).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_engine_does_what_its_model_does(scenario in scenarios()) {
        noted("scenario", &scenario, ops::check);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn gates_pass_on_what_direct_calls_pass(case in read_from::<Case>(128)) {
        noted("case", &case, signature::check);
    }
}
