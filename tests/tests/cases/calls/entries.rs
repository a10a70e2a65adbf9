//! Stable entries: calls from C, and what callers of either kind of entry find in their registers.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::mpsc::channel;
use std::thread;

use lastout::{Counting, Engine, Handle};
use lastout_tests::support::{COUNTINGS, caller, constant, install};
use lastout_tests::{builder, call, engine};

type C = extern "C" fn() -> i64;

/// The entry of a function of this type, as C has it.
fn entry(engine: &Engine, name: &str) -> C {
    let handle: Handle<fn() -> i64> = engine.function(name).unwrap();
    // SAFETY: the function is of this type, and the tests call it only while its name, or a
    // handle, keeps it.
    unsafe { std::mem::transmute(handle.c_address().unwrap()) }
}

#[test]
fn an_entry_is_called_from_threads_that_know_nothing_of_the_engine() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        install(&engine, &constant("inner", 1));
        install(&engine, &caller("f", "inner", 10));
        let f = entry(&engine, "f");
        assert_eq!(thread::spawn(move || f()).join().unwrap(), 11);
        install(&engine, &constant("inner", 2));
        assert_eq!(thread::spawn(move || f()).join().unwrap(), 12);
        install(&engine, &caller("f", "inner", 20));
        assert_eq!(thread::spawn(move || f()).join().unwrap(), 22);
        assert_eq!(f as usize, entry(&engine, "f") as usize);
    }
}

#[test]
fn an_entry_of_a_removed_function_returns_zero() {
    let engine = engine!();
    install(&engine, &constant("f", 1));
    let handle = engine.function::<fn() -> i64>("f").unwrap();
    let f = entry(&engine, "f");
    engine.remove("f").unwrap();
    assert_eq!(f(), 0);
    // What C has met is not told to the next caller from Rust.
    install(&engine, &constant("g", 5));
    let g = engine.function::<fn() -> i64>("g").unwrap();
    assert_eq!(call!(g).unwrap(), 5);
    install(&engine, &constant("f", 2));
    assert_eq!(f(), 2);
    assert_eq!(call!(handle).unwrap(), 2);
}

#[test]
fn functions_can_be_called_while_a_thread_ends() {
    /// Calls both entries as the thread ends, and tells what they return.
    struct AtExit(C, Handle<fn() -> i64>, std::sync::mpsc::Sender<(i64, i64)>);

    impl Drop for AtExit {
        fn drop(&mut self) {
            let AtExit(c, handle, results) = self;
            results.send((c(), call!(handle).unwrap())).unwrap();
        }
    }

    thread_local! {
        static EARLY: RefCell<Option<AtExit>> = const { RefCell::new(None) };
        static LATE: RefCell<Option<AtExit>> = const { RefCell::new(None) };
    }

    let engine = engine!();
    install(&engine, &constant("f", 1));
    let f = engine.function::<fn() -> i64>("f").unwrap();
    let c = entry(&engine, "f");
    // With variables that were made before the thread first called a function and after it, so
    // that they are destroyed in either order; and with one that never calls one before its end.
    for call_first in [false, true] {
        let (sender, results) = channel();
        let f = f.clone();
        let other = thread::spawn(move || {
            EARLY.set(Some(AtExit(c, f.clone(), sender.clone())));
            if call_first {
                c();
            }
            LATE.set(Some(AtExit(c, f, sender)));
        });
        other.join().unwrap();
        assert_eq!(results.iter().collect::<Vec<_>>(), [(1, 1), (1, 1)]);
    }
    // Nobody is left inside: the version goes as soon as it is replaced.
    let versions = engine.versions("f").unwrap();
    assert_eq!(versions[0].frames(), 0);
    install(&engine, &constant("f", 2));
    assert!(versions[0].version.wait_freed(std::time::Duration::ZERO));
}

#[cfg(target_arch = "x86_64")]
mod registers {
    use std::arch::asm;
    use std::ffi::c_void;
    use std::sync::atomic::{AtomicI64, Ordering};

    use lastout_tests::support::Door;

    use super::*;

    extern "C" fn pinned() -> i64 {
        let r15: i64;
        // SAFETY: it only reads a register.
        unsafe { asm!("mov {}, r15", out(reg) r15, options(nomem, nostack, preserves_flags)) };
        r15
    }

    #[test]
    fn the_contexts_of_threads_that_have_ended_are_used_again() {
        let engine = builder!().host_function("pinned", pinned as C).build().unwrap();
        install(&engine, &caller("f", "pinned", 0));
        let f = entry(&engine, "f");
        // Tests that run at the same time have a few threads too.
        let ledgers: HashSet<i64> =
            (0..100).map(|_| thread::spawn(move || f()).join().unwrap()).collect();
        assert!(ledgers.len() < 20, "{} contexts for 100 threads, one at a time", ledgers.len());
        // At the same time, everyone has one of its own.
        let barrier = std::sync::Barrier::new(8);
        let mut ledgers: Vec<i64> = thread::scope(|scope| {
            let call = || {
                barrier.wait();
                let ledger = f();
                barrier.wait();
                ledger
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(call)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        ledgers.sort_unstable();
        ledgers.dedup();
        assert_eq!(ledgers.len(), 8);
    }

    #[test]
    fn a_thread_that_has_given_up_its_context_takes_another() {
        /// What the thread does after its context was released.
        struct Late<'a> {
            f: C,
            door: &'a Door,
            ledger: AtomicI64,
        }

        extern "C" fn late(late: *mut c_void) {
            // SAFETY: the key is set to a `Late` that outlives the thread.
            let late = unsafe { &*late.cast::<Late<'_>>() };
            late.door.pass();
            late.ledger.store((late.f)(), Ordering::Relaxed);
        }

        let engine = builder!().host_function("pinned", pinned as C).build().unwrap();
        install(&engine, &caller("f", "pinned", 0));
        let f = entry(&engine, "f");
        // Keys have their destructors run in the order in which they were made: this one's after
        // the one that releases contexts, since a call has been made.
        f();
        let mut key = 0;
        // SAFETY: the key is written to a local, and the destructor takes what it is set to.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(late)) }, 0);
        let (ending, staying) = (Door::default(), Door::default());
        let visit = Late { f, door: &ending, ledger: AtomicI64::new(0) };
        thread::scope(|scope| {
            scope.spawn(|| {
                f();
                // SAFETY: the key exists, and its value outlives the thread.
                unsafe { libc::pthread_setspecific(key, (&raw const visit).cast()) };
            });
            ending.arrived();
            // Takes over the context that was released last.
            let other = scope.spawn(|| {
                let ledger = f();
                staying.pass();
                ledger
            });
            staying.arrived();
            ending.open();
            // The end of a scope does not wait for destructors.
            while visit.ledger.load(Ordering::Relaxed) == 0 {
                thread::sleep(std::time::Duration::from_millis(1));
            }
            staying.open();
            assert_ne!(other.join().unwrap(), visit.ledger.load(Ordering::Relaxed));
        });
    }

    /// Calls `function` with marks in the registers that a callee must preserve, and returns what
    /// is there afterwards.
    fn preserved(function: C) -> [u64; 4] {
        let (mut r12, mut r13, mut r14, mut r15) = (12u64, 13u64, 14u64, 15u64);
        // SAFETY: the call follows C's convention for a function without parameters, and the
        // stack is aligned as the operands are all in registers.
        unsafe {
            asm!(
                "call {function}",
                function = in(reg) function,
                inout("r12") r12, inout("r13") r13, inout("r14") r14, inout("r15") r15,
                clobber_abi("C"),
            );
        }
        [r12, r13, r14, r15]
    }

    /// A function that uses many registers, in a calling convention that preserves none of them.
    const CLOBBERS: &str = "function %clobbers(i64) -> i64 tail {
         block0(v0: i64):
            v1 = load.i64 v0
            v2 = load.i64 v0+8
            v3 = load.i64 v0+16
            v4 = load.i64 v0+24
            v5 = load.i64 v0+32
            v6 = load.i64 v0+40
            v7 = load.i64 v0+48
            v8 = load.i64 v0+56
            v9 = load.i64 v0+64
            v10 = load.i64 v0+72
            v11 = load.i64 v0+80
            v12 = load.i64 v0+88
            v13 = load.i64 v0+96
            store v13, v0
            store v12, v0+8
            store v11, v0+16
            store v10, v0+24
            store v9, v0+32
            store v8, v0+40
            store v7, v0+48
            store v6, v0+56
            store v5, v0+64
            store v4, v0+72
            store v3, v0+80
            store v2, v0+88
            store v1, v0+96
            return v1
         }";

    type Clobbers = Handle<fn(*mut i64) -> i64>;

    thread_local! {
        static CALLED: RefCell<Option<Clobbers>> = const { RefCell::new(None) };
    }

    extern "C" fn through_the_handle() -> i64 {
        let mut words = [1i64; 13];
        CALLED.with_borrow(|f| call!(f.as_ref().unwrap(), words.as_mut_ptr()).unwrap())
    }

    #[test]
    fn calls_preserve_the_registers_that_c_says_they_do() {
        let tail_caller = "function %f() -> i64 system_v {
                ss0 = explicit_slot 104
                fn0 = %clobbers(i64) -> i64 tail
             block0:
                v0 = stack_addr.i64 ss0
                v1 = call fn0(v0)
                return v1
             }";
        for counting in [Counting::Plain, Counting::Atomic] {
            let engine = builder!().counting(counting).build().unwrap();
            install(&engine, CLOBBERS);
            install(&engine, tail_caller);
            assert_eq!(preserved(entry(&engine, "f")), [12, 13, 14, 15]);
            CALLED.set(Some(engine.function("clobbers").unwrap()));
            assert_eq!(preserved(through_the_handle), [12, 13, 14, 15]);
            // And where there is nothing to call.
            let f = engine.function::<fn() -> i64>("f").unwrap();
            let entry = entry(&engine, "f");
            engine.remove("f").unwrap();
            assert_eq!(preserved(entry), [12, 13, 14, 15]);
            drop(f);
        }
    }
}
