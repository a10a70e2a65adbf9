//! Functions that have no version: removed, or declared and not installed yet.

use std::sync::atomic::{AtomicI64, Ordering};

use lastout::{CallError, Engine, Error, Handle};
use lastout_tests::support::{
    COUNTINGS, Callback, caller, calling_back, constant, handle, install, signature, unit,
};
use lastout_tests::{builder, call, engine};

/// The name of the removed function that a call has met.
fn removed<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    match result {
        Err(CallError::Removed(name)) => name.to_string(),
        other => panic!("{other:?}"),
    }
}

/// The signature of the first function of a text.
#[test]
fn a_removed_function_is_an_error_to_its_handles_and_forgotten_by_name() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        install(&engine, &constant("f", 1));
        let f = handle(&engine, "f");
        engine.remove("f").unwrap();
        assert_eq!(removed(call!(f)), "f");
        assert_eq!(removed(call!(f)), "f");
        assert!(matches!(engine.function::<fn() -> i64>("f"), Err(Error::UnknownFunction(_))));
        assert!(matches!(engine.versions("f"), Err(Error::UnknownFunction(_))));
        assert!(matches!(engine.remove("f"), Err(Error::UnknownFunction(name)) if name == "f"));
        assert_eq!(engine.stats().functions, 0);
        assert_eq!(engine.stats().alive(), 0);
    }
}

#[test]
fn a_caller_of_a_removed_function_goes_on_with_zeros_and_the_error_comes_out() {
    let engine = builder!().build().unwrap();
    install(&engine, &constant("inner", 41));
    install(&engine, &calling_back("tell", 0));
    install(
        &engine,
        "function %outer(i64) -> i64 system_v {
            fn0 = %inner() -> i64 system_v
            fn1 = %tell(i64, i64) -> i64 system_v
         block0(v0: i64):
            v1 = call fn0()
            v2 = call fn1(v0, v1)
            return v2
         }",
    );
    let outer = engine.function::<fn(usize) -> i64>("outer").unwrap();
    let told = AtomicI64::new(-1);
    let callback = Callback::new(|value| {
        told.store(value, Ordering::SeqCst);
        value
    });
    assert_eq!(call!(outer, callback.address()).unwrap(), 41);
    assert_eq!(told.load(Ordering::SeqCst), 41);
    engine.remove("inner").unwrap();
    assert_eq!(removed(call!(outer, callback.address())), "inner");
    assert_eq!(told.load(Ordering::SeqCst), 0);
}

#[test]
fn zeros_of_every_type_are_returned() {
    let engine = engine!();
    let text = "function %f() -> i8, f64, i32x4 fast {
         block0:
            v0 = iconst.i8 1
            v1 = f64const 0x1.0
            v2 = iconst.i32 1
            v3 = splat.i32x4 v2
            return v0, v1, v3
         }";
    let ones = "function %ones() -> i64 system_v {
            fn0 = %f() -> i8, f64, i32x4 fast
         block0:
            v0, v1, v2 = call fn0()
            v3 = extractlane v2, 3
            v4 = uextend.i64 v3
            v5 = uextend.i64 v0
            v6 = fcvt_to_sint_sat.i64 v1
            v7 = iadd v4, v5
            v8 = iadd v6, v7
            return v8
         }";
    install(&engine, text);
    install(&engine, ones);
    let c: extern "C" fn() -> i64 = {
        let ones = handle(&engine, "ones");
        assert_eq!(call!(ones).unwrap(), 3);
        // SAFETY: the function is of this type, and its name keeps it until the end of the test.
        unsafe { std::mem::transmute(ones.c_address().unwrap()) }
    };
    assert_eq!(c(), 3);
    engine.remove("f").unwrap();
    assert_eq!(c(), 0);
}

#[test]
fn what_an_inner_call_meets_is_told_to_the_inner_caller_only() {
    let engine = engine!();
    install(&engine, &constant("gone", 1));
    install(&engine, &calling_back("outer", 0));
    let gone = handle(&engine, "gone");
    let outer = engine.function::<fn(usize, i64) -> i64>("outer").unwrap();
    engine.remove("gone").unwrap();
    let callback = Callback::new(|value| {
        assert_eq!(removed(call!(gone)), "gone");
        value
    });
    assert_eq!(call!(outer, callback.address(), 7).unwrap(), 7);
}

/// A function that calls `first`, then calls back.
fn meets_first_and_calls_back(engine: &Engine) -> Handle<fn(usize) -> i64> {
    install(
        engine,
        "function %outer(i64) -> i64 system_v {
            fn0 = %first() -> i64 system_v
            fn1 = %call_back(i64, i64) -> i64 system_v
         block0(v0: i64):
            v1 = call fn0()
            v2 = call fn1(v0, v1)
            return v2
         }",
    );
    engine.function("outer").unwrap()
}

#[test]
fn what_an_outer_call_has_met_is_not_told_to_inner_callers() {
    let engine = engine!();
    install(&engine, &(constant("first", 1) + &constant("there", 2)));
    let outer = meets_first_and_calls_back(&engine);
    let there = handle(&engine, "there");
    engine.remove("first").unwrap();
    let callback = Callback::new(|_| call!(there).unwrap());
    assert_eq!(removed(call!(outer, callback.address())), "first");
    assert_eq!(call!(there).unwrap(), 2);
}

#[test]
fn an_inner_error_does_not_take_the_name_from_the_outer_one() {
    let engine = engine!();
    install(&engine, &(constant("first", 1) + &constant("second", 2)));
    let outer = meets_first_and_calls_back(&engine);
    let second = handle(&engine, "second");
    engine.remove("first").unwrap();
    engine.remove("second").unwrap();
    let callback = Callback::new(|_| {
        assert_eq!(removed(call!(second)), "second");
        0
    });
    assert_eq!(removed(call!(outer, callback.address())), "first");
}

/// A stable entry that is called outside of any call through a handle has nobody to tell.
#[test]
fn what_c_code_meets_is_not_told_to_later_calls() {
    let engine = engine!();
    install(&engine, &(constant("f", 1) + &constant("gone", 2)));
    let (f, gone) = (handle(&engine, "f"), handle(&engine, "gone"));
    // SAFETY: it is a function of this type, and the handle keeps it.
    let entry: extern "C" fn() -> i64 = unsafe { std::mem::transmute(gone.c_address().unwrap()) };
    engine.remove("gone").unwrap();
    for _ in 0..3 {
        assert_eq!(entry(), 0);
        assert_eq!(call!(f).unwrap(), 1);
        assert_eq!(removed(call!(gone)), "gone");
        assert_eq!(call!(f).unwrap(), 1);
    }
}

#[test]
fn installing_again_revives_a_function_for_old_handles_and_importers() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        install(&engine, &constant("f", 1));
        install(&engine, &caller("g", "f", 10));
        let (f, g) = (handle(&engine, "f"), handle(&engine, "g"));
        let entry = f.c_address().unwrap();
        for value in 2..6 {
            engine.remove("f").unwrap();
            assert_eq!(removed(call!(g)), "f");
            install(&engine, &constant("f", value));
            assert_eq!(call!(f).unwrap(), value);
            assert_eq!(call!(g).unwrap(), value + 10);
            assert_eq!(handle(&engine, "f").c_address().unwrap(), entry);
        }
    }
}

#[test]
fn a_name_is_free_for_another_signature_once_nothing_keeps_the_removed_function() {
    let engine = engine!();
    install(&engine, &constant("f", 1));
    let f = handle(&engine, "f");
    engine.remove("f").unwrap();
    let other = "function %f(i64) -> i64 system_v {
         block0(v0: i64):
            return v0
         }";
    let refused = engine.install(unit(&engine, other));
    assert!(matches!(refused, Err(Error::SignatureMismatch { name, .. }) if name == "f"));
    drop(f);
    install(&engine, other);
    assert_eq!(call!(engine.function::<fn(i64) -> i64>("f").unwrap(), 3).unwrap(), 3);
}

#[test]
fn declared_functions_can_be_imported_before_they_are_installed() {
    let engine = engine!();
    let signature = signature(&constant("f", 0));
    engine.declare("f", &signature).unwrap();
    engine.declare("f", &signature).unwrap();
    let f = handle(&engine, "f");
    assert_eq!(removed(call!(f)), "f");
    install(&engine, &caller("g", "f", 1));
    assert_eq!(removed(call!(handle(&engine, "g"))), "f");
    install(&engine, &constant("f", 1));
    assert_eq!(call!(f).unwrap(), 1);
    assert_eq!(call!(handle(&engine, "g")).unwrap(), 2);
    // Declaring what is there leaves it there.
    engine.declare("f", &signature).unwrap();
    assert_eq!(call!(f).unwrap(), 1);
}

/// `name(n)` is `then` where n is 0, and else `other(n - 1)`.
fn parity(name: &str, other: &str, then: i64) -> String {
    format!(
        "function %{name}(i64) -> i64 system_v {{
            fn0 = %{other}(i64) -> i64 system_v
         block0(v0: i64):
            brif v0, block1, block2
         block1:
            v1 = iconst.i64 -1
            v2 = iadd v0, v1
            v3 = call fn0(v2)
            return v3
         block2:
            v4 = iconst.i64 {then}
            return v4
         }}"
    )
}

#[test]
fn units_that_import_each_other_recurse_and_are_freed() {
    let engine = engine!();
    let empty = engine.stats();
    engine.declare("odd", &signature(&parity("odd", "even", 0))).unwrap();
    install(&engine, &parity("even", "odd", 1));
    install(&engine, &parity("odd", "even", 0));
    let even = engine.function::<fn(i64) -> i64>("even").unwrap();
    assert_eq!(call!(even, 1000).unwrap(), 1);
    assert_eq!(call!(even, 1001).unwrap(), 0);
    // The units keep each other's functions, but not each other's versions.
    engine.remove("even").unwrap();
    assert_eq!(engine.stats().alive(), 1);
    engine.remove("odd").unwrap();
    assert_eq!(engine.stats().alive(), 0);
    drop(even);
    let left = engine.stats();
    assert_eq!(left.functions, 0);
    // The entry for typed calls is the engine's.
    assert!(left.code_bytes <= empty.code_bytes + 512);
}

#[test]
fn removing_leaves_nothing_behind() {
    let engine = engine!();
    let round = |number: usize| {
        let name = format!("f{number}");
        install(&engine, &constant(&name, 1));
        assert_eq!(call!(handle(&engine, &name)).unwrap(), 1);
        engine.remove(&name).unwrap();
    };
    round(0);
    let before = engine.stats();
    for number in 1..200 {
        round(number);
    }
    let after = engine.stats();
    assert_eq!(after.code_bytes, before.code_bytes);
    assert_eq!(after.data_bytes, before.data_bytes);
    assert_eq!(after.functions, 0);
    assert_eq!(after.alive(), 0);
}

#[test]
fn names_are_counted_right_among_many_tombstones() {
    let engine = engine!();
    for round in 0..3 {
        for number in 0..40 {
            install(&engine, &constant(&format!("f{number}"), round));
        }
        assert_eq!(engine.stats().functions, 40);
        let kept: Vec<_> =
            (0..40).step_by(3).map(|number| handle(&engine, &format!("f{number}"))).collect();
        for number in 0..40 {
            engine.remove(&format!("f{number}")).unwrap();
        }
        assert_eq!(engine.stats().functions, 0);
        for f in &kept {
            install(&engine, &constant(f.name(), 7));
            assert_eq!(call!(f).unwrap(), 7);
        }
        assert_eq!(engine.stats().functions, kept.len());
    }
}
