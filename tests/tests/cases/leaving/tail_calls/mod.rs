//! Tail calls of replaceable functions: in constant stack, counted exactly, and freed behind.

mod hops;
mod left;
mod owned;
mod results;

use std::time::Duration;

use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa::CallConv;
use lastout::Engine;
use lastout_tests::support::{Drops, install, install_counted};
use lastout_tests::{call, engine};

/// A function `(steps, sum) -> i64` that tail-calls another of that type with one step less and
/// `plus` more, until no step is left.
fn stepping(name: &str, next: &str, plus: i64) -> String {
    format!(
        "function %{name}(i64, i64) -> i64 tail {{
            fn0 = %{next}(i64, i64) -> i64 tail
         block0(v0: i64, v1: i64):
            brif v0, block1, block2
         block1:
            v2 = iconst.i64 -1
            v3 = iadd v0, v2
            v4 = iconst.i64 {plus}
            v5 = iadd v1, v4
            return_call fn0(v3, v5)
         block2:
            return v1
         }}\n"
    )
}

/// Makes a function of that type known that is installed later.
fn declare(engine: &Engine, name: &str) {
    let mut signature = Signature::new(CallConv::Tail);
    signature.params.extend([AbiParam::new(types::I64); 2]);
    signature.returns.push(AbiParam::new(types::I64));
    engine.declare(name, &signature).unwrap();
}

#[test]
fn two_units_tail_call_each_other_in_constant_stack() {
    let engine = engine!();
    declare(&engine, "odd");
    let drops = Drops::new();
    install_counted(&engine, &stepping("even", "odd", 1), &drops);
    install_counted(&engine, &stepping("odd", "even", 1), &drops);
    let even = engine.function::<fn(i64, i64) -> i64>("even").unwrap();
    for steps in [0, 1, 2, 3, 1000, 1_000_000] {
        assert_eq!(call!(even, steps, 0).unwrap(), steps);
    }
    assert_eq!(drops.count(), 0);
    engine.remove("even").unwrap();
    drop(even);
    engine.remove("odd").unwrap();
    assert_eq!(drops.count(), 2);
}

#[test]
fn old_versions_are_freed_while_the_chain_goes_on() {
    let engine = engine!();
    declare(&engine, "odd");
    let drops = Drops::new();
    install_counted(&engine, &stepping("even", "odd", 1), &drops);
    let odd = install_counted(&engine, &stepping("odd", "even", 1), &drops);
    let even = engine.function::<fn(i64, i64) -> i64>("even").unwrap();
    let steps = 50_000_000;
    let sum = std::thread::scope(|scope| {
        let chain = scope.spawn(|| call!(even, steps, 0).unwrap());
        while engine.versions("even").unwrap()[0].threads.is_empty()
            && engine.versions("odd").unwrap()[0].threads.is_empty()
        {}
        install(&engine, &stepping("even", "odd", 3));
        install(&engine, &stepping("odd", "even", 3));
        assert!(odd.versions()[0].wait_freed(Duration::from_secs(60)));
        assert!(!chain.is_finished(), "the chain is over too soon to tell");
        chain.join().unwrap()
    });
    assert_eq!(drops.count(), 2);
    assert!(sum > steps && sum < 3 * steps);
}
