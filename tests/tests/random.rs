//! The checks that the fuzz targets run, on random input, for about a second each.

use arbitrary::{Arbitrary, Unstructured};
use lastout_tests::ops::{self, Op, Scenario};
use lastout_tests::signature;
use proptest::collection::vec;
use proptest::prelude::*;

/// Any value of a type, shrunk by making the bytes that it is read from fewer and smaller.
fn arbitrary<T: for<'a> Arbitrary<'a> + std::fmt::Debug>(bytes: usize) -> impl Strategy<Value = T> {
    let read = |bytes: Vec<u8>| T::arbitrary(&mut Unstructured::new(&bytes));
    vec(any::<u8>(), bytes).prop_filter_map("too few bytes", move |bytes| read(bytes).ok())
}

/// Scenarios whose operations can be left out one by one.
fn scenarios() -> impl Strategy<Value = Scenario> {
    let ops = |most| vec(arbitrary::<Op>(128), 0..most);
    let parts = (arbitrary::<Scenario>(16), ops(48), ops(12));
    parts.prop_map(|(scenario, ops, afterwards)| Scenario { ops, afterwards, ..scenario })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_engine_does_what_its_model_does(scenario in scenarios()) {
        ops::check(&scenario);
    }

    #[test]
    fn gates_pass_on_what_direct_calls_pass(case in arbitrary::<signature::Case>(128)) {
        signature::check(&case);
    }
}
