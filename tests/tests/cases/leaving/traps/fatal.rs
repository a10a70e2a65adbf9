//! What ends the process, as it would have done without anything that catches traps.

use std::hint::black_box;

use lastout::Engine;
use lastout_tests::child::{Ended, child};
use lastout_tests::registers::call_address;
use lastout_tests::support::{Callback, calling_back, calls, install};
use lastout_tests::{builder, call};

use super::{trap_in, trapping_at_seven};

/// An engine that catches traps, and has caught one.
fn catching() -> Engine {
    let engine = builder!().traps(true).build().unwrap();
    install(&engine, &trapping_at_seven("f"));
    assert_eq!(trap_in(call!(calls(&engine, "f"), 0, 7), "f"), Some(super::SEVEN));
    engine
}

/// That a process of its own that does this dies of a signal.
fn dies_of(signal: i32, ended: Option<Ended>) {
    let Some(ended) = ended else { return };
    assert_eq!(ended.signal(), Some(signal), "{ended:?}");
    assert!(!ended.errors.contains("panicked"), "{ended:?}");
}

/// A store to nowhere, by a function in Rust.
fn fault() {
    let nowhere = std::ptr::without_provenance_mut::<u8>(black_box(8));
    // SAFETY: none; it is to fail.
    unsafe { nowhere.write_volatile(1) };
}

#[test]
fn a_trap_in_an_engine_that_does_not_catch_them() {
    dies_of(
        libc::SIGILL,
        child("ud2", || {
            let other = catching();
            let engine = builder!().build().unwrap();
            install(&engine, &trapping_at_seven("f"));
            let _ = call!(calls(&engine, "f"), 0, 7);
            drop(other);
        }),
    );
    dies_of(
        libc::SIGFPE,
        child("division", || {
            let engine = builder!().build().unwrap();
            install(
                &engine,
                "function %f(i64, i64) -> i64 system_v {
                 block0(v0: i64, v1: i64):
                    v2 = iconst.i64 0x8000_0000_0000_0000
                    v3 = sdiv v2, v1
                    return v3
                 }",
            );
            let _ = call!(calls(&engine, "f"), 0, -1);
        }),
    );
}

#[test]
fn a_trap_below_an_entry_that_the_host_has_called() {
    dies_of(
        libc::SIGILL,
        child("entry", || {
            let engine = catching();
            let entry = calls(&engine, "f").c_address().unwrap().expose_provenance();
            // SAFETY: it is the entry of a function of this type.
            unsafe { call_address(entry, 0, 7) };
        }),
    );
    // Not even if there is a call by handle further out: there are functions of Rust between.
    dies_of(
        libc::SIGILL,
        child("entry further in", || {
            let engine = catching();
            let entry = calls(&engine, "f").c_address().unwrap().expose_provenance();
            install(&engine, &calling_back("g", 1));
            let callback = Callback::new(|argument| {
                // SAFETY: as above.
                unsafe { call_address(entry, 0, argument) }
            });
            let _ = call!(calls(&engine, "g"), callback.address(), 7);
        }),
    );
}

#[test]
fn a_breakpoint_in_generated_code() {
    dies_of(
        libc::SIGTRAP,
        child("breakpoint", || {
            let engine = catching();
            install(
                &engine,
                "function %f(i64, i64) -> i64 system_v {
                 block0(v0: i64, v1: i64):
                    debugtrap
                    return v1
                 }",
            );
            let _ = call!(calls(&engine, "f"), 0, 7);
        }),
    );
}

#[test]
fn a_fault_in_rust() {
    dies_of(
        libc::SIGSEGV,
        child("outside", || {
            let _engine = catching();
            fault();
        }),
    );
    dies_of(
        libc::SIGSEGV,
        child("inside", || {
            let engine = catching();
            install(&engine, &calling_back("g", 1));
            let callback = Callback::new(|argument| {
                fault();
                argument
            });
            let _ = call!(calls(&engine, "g"), callback.address(), 7);
        }),
    );
}

/// Recurses without end, with a frame that is not small.
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn overflow(number: u64) -> u64 {
    let room = black_box([number; 64]);
    room[(number % 64) as usize] + overflow(number + 1)
}

#[test]
fn an_overflow_of_the_stack_is_reported_by_rust() {
    let ended = child("rust", || {
        let _engine = catching();
        black_box(overflow(1));
    });
    let overflown = |ended: Option<Ended>| {
        let Some(ended) = ended else { return };
        assert_eq!(ended.signal(), Some(libc::SIGABRT), "{ended:?}");
        assert!(ended.errors.contains("has overflowed its stack"), "{ended:?}");
    };
    overflown(ended);
    for convention in ["system_v", "tail"] {
        overflown(child(convention, || {
            let engine = catching();
            install(
                &engine,
                &format!(
                    "function %endless(i64, i64) -> i64 {convention} {{
                        fn0 = %endless(i64, i64) -> i64 {convention}
                     block0(v0: i64, v1: i64):
                        v2 = call fn0(v0, v1)
                        v3 = iadd v2, v1
                        return v3
                     }}"
                ),
            );
            let _ = call!(calls(&engine, "endless"), 0, 7);
        }));
    }
}
