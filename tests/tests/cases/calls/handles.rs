//! Typed calls through handles: every type and convention, and what the caller's registers see.

use lastout::{DropPolicy, Engine, Error, Handle, Installed, Unit, Version, VersionInfo};
use lastout_tests::support::{COUNTINGS, constant, install};
use lastout_tests::{builder, call, engine};

#[test]
fn what_should_be_shared_by_threads_can_be() {
    fn sent<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    sent::<Unit>();
    shared::<Engine>();
    shared::<Installed>();
    shared::<Handle<fn(*const u8) -> *mut u8>>();
    shared::<Version>();
    shared::<VersionInfo>();
    shared::<Error>();
    shared::<DropPolicy>();
}

#[test]
fn a_handle_is_called_from_many_threads_and_outlives_its_clones() {
    let engine = engine!();
    install(&engine, &constant("f", 1));
    let f = engine.function::<fn() -> i64>("f").unwrap();
    let clone = f.clone();
    assert_eq!(format!("{clone:?}"), "Handle(f () -> i64 system_v)");
    drop(f);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let clone = clone.clone();
            scope.spawn(move || assert_eq!(call!(clone).unwrap(), 1));
        }
    });
    install(&engine, &constant("f", 2));
    assert_eq!(call!(clone).unwrap(), 2);
    assert_eq!(clone.name(), "f");
}

/// Checks that a function of one parameter returns its argument, for some arguments.
macro_rules! identity {
    ($engine:expr, $rust:ty, $clif:literal, $values:expr) => {{
        let name = format!("id_{}", $clif.replace(' ', "_"));
        let ty = $clif.split(' ').next().unwrap();
        install(
            $engine,
            &format!(
                "function %{name}({0}) -> {0} system_v {{
                 block0(v0: {ty}):
                    return v0
                 }}",
                $clif
            ),
        );
        let f = $engine.function::<fn($rust) -> $rust>(&name).unwrap();
        for value in $values {
            assert_eq!(call!(f, value).unwrap(), value, "{}", $clif);
        }
    }};
}

#[test]
fn every_type_goes_in_and_out() {
    for counting in COUNTINGS {
        let engine = &builder!().counting(counting).build().unwrap();
        identity!(engine, i8, "i8", [0, 1, -1, i8::MIN, i8::MAX]);
        identity!(engine, i8, "i8 sext", [0, 1, -1, i8::MIN, i8::MAX]);
        identity!(engine, u8, "i8 uext", [0, 1, 0x7f, 0x80, u8::MAX]);
        identity!(engine, i16, "i16", [0, 1, -1, i16::MIN, i16::MAX]);
        identity!(engine, u16, "i16 uext", [0, 1, 0x7fff, 0x8000, u16::MAX]);
        identity!(engine, i32, "i32", [0, 1, -1, i32::MIN, i32::MAX]);
        identity!(engine, u32, "i32 uext", [0, 1, 0x8000_0000, u32::MAX]);
        identity!(engine, i64, "i64", [0, 1, -1, i64::MIN, i64::MAX]);
        identity!(engine, u64, "i64 uext", [0, 1, 1 << 63, u64::MAX]);
        identity!(engine, usize, "i64 sext", [0, 1, usize::MAX]);
        identity!(engine, f32, "f32", [0.0, -1.5, f32::MAX, f32::INFINITY]);
        identity!(engine, f64, "f64", [0.0, -1.5, f64::MAX, f64::NEG_INFINITY]);
        let mut local = 0u8;
        let pointer = &raw mut local;
        let f = engine.function::<fn(*mut u8) -> *const u8>("id_i64").unwrap();
        assert_eq!(call!(f, pointer).unwrap(), pointer.cast_const());
    }
}

#[test]
fn narrow_values_are_extended_on_the_way_in_and_on_the_way_out() {
    let engine = engine!();
    // What is above the value is rubbish unless something extends.
    install(
        &engine,
        "function %rubbish(i64) -> i8 system_v {
         block0(v0: i64):
            v1 = ireduce.i8 v0
            return v1
         }
         function %widen(i8 sext, i16 uext) -> i64 system_v {
         block0(v0: i8, v1: i16):
            v2 = sextend.i64 v0
            v3 = uextend.i64 v1
            v4 = iconst.i64 100000
            v5 = imul v2, v4
            v6 = iadd v5, v3
            return v6
         }",
    );
    let signed = engine.function::<fn(i64) -> i8>("rubbish").unwrap();
    let unsigned = engine.function::<fn(i64) -> u8>("rubbish").unwrap();
    for value in [0x1234_5680, 0x1234_567f, -1, 0x100] {
        let signed = i64::from(call!(signed, value).unwrap());
        let unsigned = i64::from(call!(unsigned, value).unwrap());
        assert_eq!(signed, i64::from(value as i8));
        assert_eq!(unsigned, i64::from(value as u8));
    }
    let widen = engine.function::<fn(i8, u16) -> i64>("widen").unwrap();
    assert_eq!(call!(widen, -3, 0xffff).unwrap(), -300_000 + 0xffff);
    // A host that passes an `i16` where the function takes its parameter as unsigned.
    let widen = engine.function::<fn(i8, i16) -> i64>("widen").unwrap();
    assert_eq!(call!(widen, -3, -1).unwrap(), -300_000 + 0xffff);
}

#[test]
fn twelve_arguments_arrive_in_every_calling_convention() {
    let conventions = match cfg!(target_arch = "x86_64") {
        true => &["system_v", "fast", "tail", "windows_fastcall"][..],
        false => &["system_v", "fast", "tail"][..],
    };
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        for convention in conventions {
            // Each argument has a weight of its own, so that none can take another's place.
            install(
                &engine,
                &format!(
                    "function %f(i64, f64, i32, f32, i64, f64, i16 sext, i64, i8 uext, f64, i64,
                                 i64) -> f64 {convention} {{
                     block0(v0: i64, v1: f64, v2: i32, v3: f32, v4: i64, v5: f64, v6: i16,
                            v7: i64, v8: i8, v9: f64, v10: i64, v11: i64):
                        v12 = f64const 0x1.4p3
                        v20 = fcvt_from_sint.f64 v0
                        v21 = fcvt_from_sint.f64 v2
                        v22 = fpromote.f64 v3
                        v23 = fcvt_from_sint.f64 v4
                        v24 = sextend.i64 v6
                        v25 = fcvt_from_sint.f64 v24
                        v26 = fcvt_from_sint.f64 v7
                        v27 = uextend.i64 v8
                        v28 = fcvt_from_sint.f64 v27
                        v29 = fcvt_from_sint.f64 v10
                        v30 = fcvt_from_sint.f64 v11
                        v40 = fmul v20, v12
                        v41 = fadd v40, v1
                        v42 = fmul v41, v12
                        v43 = fadd v42, v21
                        v44 = fmul v43, v12
                        v45 = fadd v44, v22
                        v46 = fmul v45, v12
                        v47 = fadd v46, v23
                        v48 = fmul v47, v12
                        v49 = fadd v48, v5
                        v50 = fmul v49, v12
                        v51 = fadd v50, v25
                        v52 = fmul v51, v12
                        v53 = fadd v52, v26
                        v54 = fmul v53, v12
                        v55 = fadd v54, v28
                        v56 = fmul v55, v12
                        v57 = fadd v56, v9
                        v58 = fmul v57, v12
                        v59 = fadd v58, v29
                        v60 = fmul v59, v12
                        v61 = fadd v60, v30
                        return v61
                     }}"
                ),
            );
            type F = fn(i64, f64, i32, f32, i64, f64, i16, i64, u8, f64, i64, i64) -> f64;
            let f = engine.function::<F>("f").unwrap();
            let sum = call!(f, 1, 2.0, 3, 4.0, 5, 6.0, 7, 8, 9, 1.0, 2, 3).unwrap();
            assert_eq!(sum, 123_456_789_123.0, "{convention}");
            engine.remove("f").unwrap();
        }
    }
}

#[test]
fn a_handle_must_have_the_functions_type() {
    let engine = engine!();
    install(
        &engine,
        "function %f(i64, f32) -> i8 tail {
         block0(v0: i64, v1: f32):
            v2 = iconst.i8 -1
            return v2
         }
         function %none() system_v {
         block0:
            return
         }",
    );
    fn refused<F: lastout::FunctionType>(engine: &Engine, name: &str) {
        match engine.function::<F>(name) {
            Err(Error::SignatureMismatch { name: of, .. }) => assert_eq!(of, name),
            other => panic!("{other:?}"),
        }
    }
    refused::<fn(i64) -> i8>(&engine, "f");
    refused::<fn(i64, f32)>(&engine, "f");
    refused::<fn(i64, f64) -> i8>(&engine, "f");
    refused::<fn(i32, f32) -> i8>(&engine, "f");
    refused::<fn(f32, i64) -> i8>(&engine, "f");
    refused::<fn(i64, f32) -> i16>(&engine, "f");
    refused::<fn(i64, f32, i64) -> i8>(&engine, "f");
    refused::<fn() -> i64>(&engine, "none");
    refused::<fn(i64)>(&engine, "none");
    let f = engine.function::<fn(*const u8, f32) -> i8>("f").unwrap();
    assert_eq!(call!(f, std::ptr::null(), 0.0).unwrap(), -1);
    call!(engine.function::<fn()>("none").unwrap()).unwrap();
    let unknown = engine.function::<fn()>("nobody");
    assert!(matches!(unknown, Err(Error::UnknownFunction(name)) if name == "nobody"));
}

#[test]
fn a_struct_return_pointer_is_an_argument_to_the_host() {
    let engine = engine!();
    install(
        &engine,
        "function %f(i64 sret, i64) system_v {
         block0(v0: i64, v1: i64):
            store v1, v0
            v2 = iadd v1, v1
            store v2, v0+8
            return
         }",
    );
    let f = engine.function::<fn(*mut i64, i64)>("f").unwrap();
    let mut words = [0; 2];
    call!(f, words.as_mut_ptr(), 21).unwrap();
    assert_eq!(words, [21, 42]);
}
