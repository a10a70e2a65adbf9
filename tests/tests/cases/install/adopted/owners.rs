//! Owners: released once, whatever happens, and their code leaves the counts alone.

use std::sync::Mutex;
use std::time::Duration;

use lastout::cranelift_codegen::ir::{AbiParam, Signature, types};
use lastout::cranelift_codegen::isa::CallConv;
use lastout::{Adopted, DropPolicy, Engine, Error, Stats, VersionState};
use lastout_tests::support::{COUNTINGS, Callback, Drops, calling_back, constant, handle, install};
use lastout_tests::{builder, call, engine};

use super::{CallingBack, address_of, signature_of};

extern "C" fn minus_one() -> i64 {
    -1
}

/// Tries to adopt replacements of `f` and `g`, and `name` besides. Nothing must change.
fn refused(engine: &Engine, name: &str, signature: &Signature, address: *const u8) -> Error {
    // Which pages are kept for the next block says nothing about what is held.
    let stats = || Stats { committed_bytes: 0, ..engine.stats() };
    let before = stats();
    let drops = Drops::new();
    let counted = drops.value();
    let mut adopted = Adopted::new(move || drop(counted));
    let replacing = signature_of::<fn() -> i64>(engine);
    for known in ["f", "g", "new"] {
        // SAFETY: the function is of this type and there for good.
        unsafe { adopted.export(known, &replacing, minus_one as *const u8) };
    }
    // SAFETY: nothing is installed.
    unsafe { adopted.export(name, signature, address) };
    assert_eq!(drops.count(), 0);
    let error = engine.adopt(adopted).unwrap_err();
    assert_eq!(drops.count(), 1, "{error}");
    assert_eq!(stats(), before, "{error}");
    assert_eq!(["f", "g"].map(|name| call!(handle(engine, name)).unwrap()), [1, 2]);
    assert!(matches!(engine.versions("new"), Err(Error::UnknownFunction(_))));
    error
}

#[test]
fn what_cannot_be_adopted_is_let_go_and_changes_nothing() {
    let engine = engine!();
    install(&engine, &(constant("f", 1) + &constant("g", 2)));
    handle(&engine, "f");
    let nullary = signature_of::<fn() -> i64>(&engine);
    let unary = signature_of::<fn(i64) -> i64>(&engine);
    let code = minus_one as *const u8;

    let error = refused(&engine, "a", &nullary, std::ptr::null());
    assert!(matches!(error, Error::Undefined(name) if name == "a"));
    let error = refused(&engine, "z", &nullary, std::ptr::null());
    assert!(matches!(error, Error::Undefined(name) if name == "z"));
    let error = refused(&engine, "call_back", &nullary, code);
    assert!(matches!(error, Error::HostSymbol(name) if name == "call_back"));
    let error = refused(&engine, "g", &unary, code);
    assert!(matches!(
        error,
        Error::SignatureMismatch { name, existing, given }
            if name == "g" && *existing == nullary && *given == unary
    ));
    let mut impossible = Signature::new(CallConv::PreserveAll);
    impossible.returns.push(AbiParam::new(types::I64));
    let error = refused(&engine, "z", &impossible, code);
    assert!(matches!(error, Error::Instrument(_)), "{error}");
}

/// Runs the closure at an address.
extern "C" fn run(closure: usize) -> i64 {
    // SAFETY: tests give the address of a reference to a closure, which outlives the call.
    let closure = unsafe { &*std::ptr::with_exposed_provenance::<&dyn Fn()>(closure) };
    closure();
    1
}

#[test]
fn an_owner_may_panic() {
    for policy in [DropPolicy::Leaver, DropPolicy::Collector] {
        let engine = builder!().drop_policy(policy).build().unwrap();
        let drops = Drops::new();
        let adopt = || {
            let counted = drops.value();
            let mut adopted = Adopted::new(move || {
                let _counted = counted;
                panic!("an owner panics, as it is meant to");
            });
            let signature = signature_of::<fn(usize) -> i64>(&engine);
            // SAFETY: the function is of this type and there for good.
            unsafe { adopted.export("f", &signature, run as *const u8) };
            engine.adopt(adopted).unwrap().versions()[0].clone()
        };
        let left = adopt();
        let f = engine.function::<fn(usize) -> i64>("f").unwrap();
        let replace: &dyn Fn() = &|| drop(adopt());
        assert_eq!(call!(f, address_of(&replace)).unwrap(), 1);
        engine.collect();
        assert!(left.wait_freed(Duration::ZERO));
        assert_eq!(drops.count(), 1);

        let replaced = engine.versions("f").unwrap()[0].version.clone();
        adopt();
        engine.collect();
        assert!(replaced.wait_freed(Duration::ZERO));
        assert_eq!(drops.count(), 2);
        drop(engine);
        assert_eq!(drops.count(), 3);
    }
}

/// Calls `callee(callback, x)`, with nothing in the registers that callees keep, the pinned one
/// among them.
#[cfg(target_arch = "x86_64")]
extern "C" fn with_spoiled_registers(
    callee: extern "C" fn(usize, i64) -> i64,
    callback: usize,
    x: i64,
) -> i64 {
    let result;
    // SAFETY: it is a call of a C function with two arguments. What is overwritten is declared to
    // be, so the compiler restores what its own caller expects to be kept.
    unsafe {
        std::arch::asm!(
            "mov r12, -1", "mov r13, r12", "mov r14, r12", "mov r15, r12",
            "call rax",
            "mov r15, 1", "mov r14, r15",
            inlateout("rax") callee => result,
            inlateout("rdi") callback => _,
            inlateout("rsi") x => _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            clobber_abi("C"),
        );
    }
    result
}

#[test]
#[cfg(target_arch = "x86_64")]
fn adopted_code_may_use_the_pinned_register_and_counts_stay_right() {
    for counting in COUNTINGS {
        for policy in [DropPolicy::Leaver, DropPolicy::Collector] {
            let engine = builder!().counting(counting).drop_policy(policy).build().unwrap();
            let drops = Drops::new();
            let adopt = || {
                let counted = drops.value();
                let mut adopted = Adopted::new(move || drop(counted));
                let signature = signature_of::<fn(usize, usize, i64) -> i64>(&engine);
                let address = with_spoiled_registers as *const u8;
                // SAFETY: the function is of this type and there for good.
                unsafe { adopted.export("spoils", &signature, address) };
                engine.adopt(adopted).unwrap().versions()[0].clone()
            };
            let mut spoiling = adopt();
            install(&engine, &calling_back("inner", 10));
            // Counts in and out around what spoils the registers.
            install(
                &engine,
                "function %outer(i64, i64, i64) -> i64 system_v {
                    fn0 = %spoils(i64, i64, i64) -> i64 system_v
                 block0(v0: i64, v1: i64, v2: i64):
                    v3 = call fn0(v0, v1, v2)
                    v4 = call fn0(v0, v1, v3)
                    return v4
                 }",
            );
            let inner = engine.function::<CallingBack>("inner").unwrap();
            let inner = inner.c_address().unwrap().expose_provenance();
            let outer = engine.function::<fn(usize, usize, i64) -> i64>("outer").unwrap();
            let frames = |name: &str| -> Vec<u64> {
                engine.versions(name).unwrap().iter().map(|info| info.frames()).collect()
            };
            for round in 0..20 {
                let old = spoiling.clone();
                let replaced = Mutex::new(None);
                let replace = || {
                    for name in ["outer", "spoils", "inner"] {
                        assert_eq!(frames(name), [1]);
                    }
                    *replaced.lock().unwrap() = Some(adopt());
                    assert_eq!(frames("spoils"), [1, 0]);
                    assert_eq!(old.state(), VersionState::Retired);
                };
                // The second call in `outer` is of what the first has been replaced by.
                let callback = Callback::new(|x| {
                    if x == 1 {
                        replace();
                    } else {
                        assert_eq!(frames("outer"), [1]);
                    }
                    x
                });
                let result = call!(outer, inner, callback.address(), 1);
                assert_eq!(result.unwrap(), 21);
                engine.collect();
                for name in ["outer", "spoils", "inner"] {
                    assert_eq!(frames(name), [0]);
                }
                assert!(old.wait_freed(Duration::ZERO));
                assert_eq!(drops.count(), round + 1);
                spoiling = replaced.lock().unwrap().take().unwrap();
            }
        }
    }
}
