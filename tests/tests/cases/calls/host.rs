//! What units import from the host: functions with and without a type, and the runtime library.

use std::sync::atomic::{AtomicI64, Ordering};

use lastout::Error;
use lastout_tests::support::{Callback, calling_back, constant, handle, install, unit};
use lastout_tests::{builder, call, engine};

#[test]
fn a_typed_host_function_gets_its_arguments_and_returns_its_result() {
    extern "C" fn mix(a: i8, b: u16, c: f64, d: i64, e: f32, f: *const u8) -> f64 {
        f64::from(a) + f64::from(b) + c + d as f64 + f64::from(e) + f.addr() as f64
    }

    let mix = mix as extern "C" fn(i8, u16, f64, i64, f32, *const u8) -> f64;
    let engine = builder!().host_function("mix", mix).build().unwrap();
    install(
        &engine,
        "function %f() -> f64 system_v {
            fn0 = %mix(i8 sext, i16 uext, f64, i64, f32, i64) -> f64 system_v
         block0:
            v0 = iconst.i8 -2
            v1 = iconst.i16 0xffff
            v2 = f64const 0x1.8p0
            v3 = iconst.i64 -100000
            v4 = f32const 0x1.0p-2
            v5 = iconst.i64 4096
            v6 = call fn0(v0, v1, v2, v3, v4, v5)
            return v6
         }",
    );
    let f = engine.function::<fn() -> f64>("f").unwrap();
    assert_eq!(call!(f).unwrap(), -2.0 + 65535.0 + 1.5 - 100_000.0 + 0.25 + 4096.0);
}

#[test]
fn a_host_function_can_call_functions_of_the_engine() {
    let engine = engine!();
    install(&engine, &(calling_back("f", 100) + &constant("g", 20)));
    let g = handle(&engine, "g");
    let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
    let innermost = Callback::new(|x| x + call!(g).unwrap());
    let middle = Callback::new(|x| call!(f, innermost.address(), x + 1).unwrap() + 1000);
    assert_eq!(call!(f, middle.address(), 1).unwrap(), 1 + 1 + 20 + 100 + 1000 + 100);
}

#[test]
fn an_untyped_symbol_is_called_with_whatever_signature_the_unit_says() {
    extern "C" fn add(a: i64, b: i64) -> i64 {
        a + b
    }

    let engine = builder!().host_symbol("add", (add as *const ()).cast()).build().unwrap();
    install(
        &engine,
        "function %f() -> i64 system_v {
            fn0 = %add(i64, i64) -> i64 system_v
         block0:
            v0 = iconst.i64 40
            v1 = iconst.i64 2
            v2 = call fn0(v0, v1)
            return v2
         }",
    );
    assert_eq!(call!(handle(&engine, "f")).unwrap(), 42);
}

#[test]
fn the_address_of_a_host_function_is_its_own() {
    extern "C" fn two() -> i64 {
        2
    }

    let two = two as extern "C" fn() -> i64;
    let engine = builder!().host_function("two", two).build().unwrap();
    install(
        &engine,
        "function %f() -> i64 system_v {
            fn0 = %two() -> i64 system_v
         block0:
            v0 = func_addr.i64 fn0
            return v0
         }",
    );
    assert_eq!(call!(handle(&engine, "f")).unwrap(), two as usize as i64);
}

#[test]
fn an_import_of_a_host_function_must_have_its_signature() {
    let engine = engine!();
    for (signature, fits) in [
        ("(i64, i64) -> i64 system_v", true),
        ("(i64 sext, i64) -> i64 uext system_v", true),
        ("(i64) -> i64 system_v", false),
        ("(i64, i64) system_v", false),
        ("(i64, f64) -> i64 system_v", false),
        ("(i64, i32) -> i64 system_v", false),
        ("(i64, i64) -> i64 tail", false),
        ("(i64, i64) -> i64 windows_fastcall", false),
        ("(i64, i64 sarg(16)) -> i64 system_v", false),
    ] {
        let x86_only = signature.contains("fastcall") || signature.contains("sarg");
        if x86_only && !cfg!(target_arch = "x86_64") {
            continue;
        }
        let text = format!(
            "function %f() -> i64 system_v {{
                fn0 = %call_back{signature}
             block0:
                v0 = func_addr.i64 fn0
                return v0
             }}"
        );
        match engine.install(unit(&engine, &text)) {
            Ok(_) => assert!(fits, "{signature}"),
            Err(Error::SignatureMismatch { name, existing, given }) => {
                assert!(!fits, "{signature}");
                assert_eq!(name, "call_back");
                assert_eq!(given.to_string(), signature);
                assert_eq!(existing.to_string(), "(i64, i64) -> i64 system_v");
            }
            Err(error) => panic!("{signature}: {error}"),
        }
    }
}

#[test]
fn a_symbol_of_the_host_keeps_its_name() {
    let engine = engine!();
    let refused = engine.install(unit(&engine, &constant("call_back", 1)));
    assert!(matches!(refused, Err(Error::HostSymbol(name)) if name == "call_back"));
    let signature = {
        install(&engine, &constant("f", 1));
        handle(&engine, "f").signature().clone()
    };
    let refused = engine.declare("call_back", &signature);
    assert!(matches!(refused, Err(Error::HostSymbol(name)) if name == "call_back"));
    let looked_up = engine.function::<fn(usize, i64) -> i64>("call_back");
    assert!(matches!(looked_up, Err(Error::UnknownFunction(_))));
}

#[test]
fn of_two_host_symbols_with_one_name_the_later_counts() {
    static ONE: AtomicI64 = AtomicI64::new(1);
    static TWO: AtomicI64 = AtomicI64::new(2);
    let builder = builder!().host_symbol("number", ONE.as_ptr().cast());
    let engine = builder.host_symbol("number", TWO.as_ptr().cast()).build().unwrap();
    use lastout::cranelift_module::{Linkage, Module};
    let mut unit = engine.unit();
    unit.declare_data("number", Linkage::Import, false, false).unwrap();
    lastout_tests::clif::define(
        &mut unit,
        "function %f() -> i64 system_v {
            gv0 = symbol u1:0
         block0:
            v0 = symbol_value.i64 gv0
            v1 = load.i64 v0
            return v1
         }",
    )
    .unwrap();
    engine.install(unit).unwrap();
    assert_eq!(call!(handle(&engine, "f")).unwrap(), TWO.load(Ordering::Relaxed));
}

// No other host has struct arguments.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_struct_argument_is_copied_with_the_hosts_memcpy() {
    let engine = engine!();
    // Writes to its copy of the argument, and returns what it has read.
    install(
        &engine,
        "function %last(i64 sarg(512)) -> i64 system_v {
         block0(v0: i64):
            v1 = load.i64 v0+504
            v2 = iconst.i64 0
            store v2, v0+504
            return v1
         }",
    );
    install(
        &engine,
        "function %f(i64) -> i64 system_v {
            fn0 = %last(i64 sarg(512)) -> i64 system_v
         block0(v0: i64):
            v1 = call fn0(v0)
            v2 = call fn0(v0)
            v3 = iadd v1, v2
            return v3
         }",
    );
    let mut words = [0i64; 64];
    words[63] = 21;
    let f = engine.function::<fn(*const i64) -> i64>("f").unwrap();
    assert_eq!(call!(f, words.as_ptr()).unwrap(), 42);
    let last = engine.function::<fn(*const i64) -> i64>("last").unwrap();
    assert_eq!(call!(last, words.as_ptr()).unwrap(), 21);
    assert_eq!(words[63], 21);
}

#[test]
fn a_direct_call_of_what_is_too_far_away_goes_by_way_of_a_veneer() {
    extern "C" fn mix(a: i8, b: f64, c: i64, d: f32, e: i64, f: i64, g: i64, h: i64) -> f64 {
        f64::from(a) + b + f64::from(d) + (c + 10 * e + 100 * f + 1000 * g + 10_000 * h) as f64
    }
    extern "C" fn half(x: f64) -> f64 {
        x / 2.0
    }
    extern "C" fn whole(x: f64) -> i64 {
        x as i64
    }

    let mix = mix as extern "C" fn(i8, f64, i64, f32, i64, i64, i64, i64) -> f64;
    let half = half as extern "C" fn(f64) -> f64;
    let whole = whole as extern "C" fn(f64) -> i64;
    let builder = builder!().host_function("mix", mix).host_function("half", half);
    // Some of them typed, some not.
    let engine = builder.host_symbol("whole", whole as *const u8).build().unwrap();
    let function = |name: &str, plus: i64| {
        format!(
            "function %{name}(i64, f64) -> i64 system_v {{
                fn0 = colocated %mix(i8 sext, f64, i64, f32, i64, i64, i64, i64) -> f64 system_v
                fn1 = colocated %half(f64) -> f64 system_v
                fn2 = colocated %whole(f64) -> i64 system_v
                fn3 = %half(f64) -> f64 system_v
             block0(v0: i64, v1: f64):
                v2 = iconst.i8 -100
                v3 = f32const 0x1.0p-2
                v4 = iconst.i64 {plus}
                v5 = iadd v0, v4
                v6 = call fn0(v2, v1, v5, v3, v5, v5, v5, v5)
                v7 = call fn1(v6)
                v8 = call fn3(v7)
                v9 = call fn1(v8)
                v10 = call fn2(v9)
                v11 = call fn2(v1)
                v12 = iadd v10, v11
                return v12
             }}\n"
        )
    };
    let names = ["f", "g", "h"];
    let texts: String = (0..).zip(names).map(|(plus, name)| function(name, plus)).collect();
    for _ in 0..2 {
        install(&engine, &texts);
        for (plus, name) in (0..).zip(names) {
            let function = engine.function::<fn(i64, f64) -> i64>(name).unwrap();
            for (x, y) in [(1i64, 0.5), (-77, 1e6), (123_456, -3.75)] {
                let mixed = -100.0 + y + 0.25 + (11_111 * (x + plus)) as f64;
                assert_eq!(call!(function, x, y).unwrap(), (mixed / 8.0) as i64 + y as i64);
            }
            // Otherwise this is no test.
            let code = function.c_address().unwrap().addr() as isize;
            for host in [mix as usize, half as usize, whole as usize] {
                assert!(code.abs_diff(host as isize) > 1 << 31, "the host is in reach");
            }
        }
    }
}

#[test]
fn library_calls_go_to_the_hosts_library() {
    let engine = engine!();
    install(
        &engine,
        "function %f(f64) -> f64 system_v {
            fn0 = %FloorF64(f64) -> f64 system_v
            fn1 = %CeilF64(f64) -> f64 system_v
            fn2 = %TruncF64(f64) -> f64 system_v
            fn3 = %NearestF64(f64) -> f64 system_v
            fn4 = %FmaF64(f64, f64, f64) -> f64 system_v
         block0(v0: f64):
            v1 = call fn0(v0)
            v2 = call fn1(v0)
            v3 = call fn2(v0)
            v4 = call fn3(v0)
            v5 = fmul v1, v2
            v6 = fmul v3, v4
            v7 = call fn4(v0, v5, v6)
            return v7
         }",
    );
    let f = engine.function::<fn(f64) -> f64>("f").unwrap();
    for x in [2.5f64, -2.5, 3.5, 0.1] {
        let (down, up, in_, near) = (x.floor(), x.ceil(), x.trunc(), x.round_ties_even());
        assert_eq!(call!(f, x).unwrap(), x.mul_add(down * up, in_ * near));
    }
}
