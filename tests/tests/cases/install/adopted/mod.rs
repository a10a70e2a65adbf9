//! Code that others have made: modules of `cranelift-jit`, libraries, functions of this program.

mod library;
mod owners;

use std::thread;
use std::time::Duration;

use cranelift_jit::{JITBuilder, JITModule};
use lastout::cranelift_codegen::ir::Signature;
use lastout::cranelift_module::{Module, default_libcall_names};
use lastout::{Adopted, CallError, DropPolicy, Engine, FunctionType, VersionState};
use lastout_tests::support::{
    COUNTINGS, Door, Drops, caller, calling_back, constant, handle, install, install_counted,
};
use lastout_tests::{builder, call, clif, engine};

/// Of functions that call `call_back`: what it gets, and a number.
type CallingBack = fn(usize, i64) -> i64;

fn signature_of<F: FunctionType>(engine: &Engine) -> Signature {
    F::signature(engine.isa())
}

/// The functions of a text in a module, which is freed when they are let go, and `owned` after it.
///
/// They can call what is in `symbols`.
fn module(text: &str, symbols: &[(&str, *const u8)], owned: impl Send + 'static) -> Adopted {
    let mut builder = JITBuilder::new(default_libcall_names()).unwrap();
    builder.symbols(symbols.iter().copied());
    let mut module = JITModule::new(builder);
    let functions = clif::define(&mut module, text).unwrap();
    module.finalize_definitions().unwrap();
    let exports = functions.into_iter().map(|id| {
        let declaration = module.declarations().get_function_decl(id);
        let name = declaration.linkage_name(id).into_owned();
        (name, declaration.signature.clone(), module.get_finalized_function(id))
    });
    let exports: Vec<_> = exports.collect();
    let mut adopted = Adopted::new(move || {
        // SAFETY: nobody else has the module, and nobody is inside any more.
        unsafe { module.free_memory() };
        drop(owned);
    });
    for (name, signature, address) in exports {
        // SAFETY: the module's code is of this signature, and stays until the module is freed.
        unsafe { adopted.export(&name, &signature, address) };
    }
    adopted
}

/// What [`calling_back`] calls here: passes the door, and returns the number.
extern "C" fn pass_door(door: usize, number: i64) -> i64 {
    // SAFETY: tests give the address of a door that outlives the call.
    unsafe { &*std::ptr::with_exposed_provenance::<Door>(door) }.pass();
    number
}

fn address_of<T>(value: &T) -> usize {
    std::ptr::from_ref(value).expose_provenance()
}

#[test]
fn a_module_is_called_by_handle_by_address_and_from_units() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let drops = Drops::new();
        let text = constant("f", 1) + &caller("g", "f", 10);
        let installed = engine.adopt(module(&text, &[], drops.value())).unwrap();
        assert_eq!(installed.versions().len(), 2);
        install(&engine, &caller("importer", "f", 100));
        install(
            &engine,
            "function %by_address() -> i64 system_v {
                sig0 = () -> i64 system_v
                fn0 = %g() -> i64 system_v
             block0:
                v0 = func_addr.i64 fn0
                v1 = call_indirect sig0, v0()
                return v1
             }",
        );
        let [f, g, importer, by_address] =
            ["f", "g", "importer", "by_address"].map(|name| handle(&engine, name));
        // SAFETY: the function is of this type, and the handle keeps it.
        let entry: extern "C" fn() -> i64 = unsafe { std::mem::transmute(f.c_address().unwrap()) };
        let results = || [&f, &g, &importer, &by_address].map(|f| call!(f).unwrap());
        assert_eq!((results(), entry()), ([1, 11, 101, 11], 1));

        // The module's own calls stay in the module.
        engine.adopt(module(&constant("f", 2), &[], drops.value())).unwrap();
        assert_eq!((results(), entry()), ([2, 11, 102, 11], 2));
        assert_eq!(drops.count(), 0, "g is still there");
        engine.adopt(module(&constant("g", 3), &[], drops.value())).unwrap();
        assert_eq!((results(), entry()), ([2, 3, 102, 3], 2));
        assert_eq!(drops.count(), 1);
        drop(engine);
        assert_eq!(drops.count(), 3);
        assert_eq!(entry(), 0);
    }
}

/// Has a thread enter `f`, which passes a door, replaces it, and sees it freed no sooner than the
/// thread has left.
fn replace_while_a_thread_is_inside(
    engine: &Engine,
    drops: &Drops,
    expected: i64,
    replace: impl FnOnce(),
) {
    let f = engine.function::<CallingBack>("f").unwrap();
    let old = engine.versions("f").unwrap().pop().unwrap().version;
    let door = Door::default();
    let before = drops.count();
    thread::scope(|scope| {
        let inside = scope.spawn(|| call!(f, address_of(&door), 1));
        door.arrived();
        replace();
        assert_eq!((old.state(), drops.count()), (VersionState::Retired, before));
        let versions = engine.versions("f").unwrap();
        assert_eq!((versions.len(), versions[0].frames()), (2, 1));
        door.open();
        assert_eq!(inside.join().unwrap().unwrap(), expected);
    });
    if !old.wait_freed(Duration::ZERO) {
        assert_eq!((old.state(), drops.count()), (VersionState::Drained, before));
        assert_eq!(engine.collect(), 1);
        assert!(old.wait_freed(Duration::ZERO));
    }
    assert_eq!(drops.count(), before + 1);
    let versions = engine.versions("f").unwrap();
    assert_eq!((versions.len(), versions[0].frames()), (1, 0));
}

#[test]
fn the_last_thread_to_leave_a_module_frees_it_whatever_has_replaced_it() {
    for counting in COUNTINGS {
        for policy in [DropPolicy::Leaver, DropPolicy::Collector] {
            let builder = builder!().counting(counting).drop_policy(policy);
            let pass_door = pass_door as extern "C" fn(usize, i64) -> i64;
            let engine = builder.host_function("call_back", pass_door).build().unwrap();
            let drops = Drops::new();
            let adopt = |plus| {
                let symbols = [("call_back", pass_door as *const u8)];
                let module = module(&calling_back("f", plus), &symbols, drops.value());
                engine.adopt(module).unwrap();
            };
            let unit = |plus| drop(install_counted(&engine, &calling_back("f", plus), &drops));
            adopt(10);
            replace_while_a_thread_is_inside(&engine, &drops, 11, || adopt(20));
            replace_while_a_thread_is_inside(&engine, &drops, 21, || unit(30));
            replace_while_a_thread_is_inside(&engine, &drops, 31, || adopt(40));
            engine.remove("f").unwrap();
            engine.collect();
            assert_eq!(drops.count(), 4);
            assert_eq!(engine.stats().alive(), 0);
        }
    }
}

#[test]
fn modules_and_units_take_turns() {
    let engine = engine!();
    let drops = Drops::new();
    install(&engine, &constant("f", -1));
    let f = handle(&engine, "f");
    for number in 0..100 {
        let text = constant("f", number);
        if number % 3 == 0 {
            install_counted(&engine, &text, &drops);
        } else {
            engine.adopt(module(&text, &[], drops.value())).unwrap();
        }
        assert_eq!(call!(f).unwrap(), number);
        assert_eq!((drops.count() as i64, engine.stats().alive()), (number, 1));
    }
}

#[test]
fn a_module_goes_with_the_last_of_its_exports() {
    let engine = engine!();
    let drops = Drops::new();
    let texts = [1, 2, 3].map(|number| constant(&format!("f{number}"), number));
    let installed = engine.adopt(module(&texts.concat(), &[], drops.value())).unwrap();
    let f3 = handle(&engine, "f3");
    engine.remove("f1").unwrap();
    install(&engine, &constant("f2", 20));
    // Its payload is gone, the code it shares is not.
    assert!(installed.version("f2").unwrap().wait_freed(Duration::ZERO));
    assert_eq!((drops.count(), call!(f3).unwrap()), (0, 3));
    engine.remove("f3").unwrap();
    assert_eq!(drops.count(), 1);
    assert!(matches!(call!(f3), Err(CallError::Removed(_))));
}

#[test]
fn of_two_exports_with_one_name_the_later_counts() {
    extern "C" fn one() -> i64 {
        1
    }
    extern "C" fn two() -> i64 {
        2
    }
    let engine = engine!();
    let drops = Drops::new();
    let counted = drops.value();
    let mut adopted = Adopted::new(move || drop(counted));
    for function in [one, two] {
        let signature = signature_of::<fn() -> i64>(&engine);
        // SAFETY: the functions are of this type and there for good.
        unsafe { adopted.export("f", &signature, function as *const u8) };
    }
    assert_eq!(engine.adopt(adopted).unwrap().versions().len(), 1);
    assert_eq!(call!(handle(&engine, "f")).unwrap(), 2);
    engine.remove("f").unwrap();
    assert_eq!(drops.count(), 1);
}

#[test]
fn what_has_no_exports_or_is_never_installed_is_let_go() {
    let engine = engine!();
    let drops = Drops::new();
    drop(module(&constant("f", 1), &[], drops.value()));
    assert_eq!(drops.count(), 1);
    assert!(engine.adopt(module("", &[], drops.value())).unwrap().versions().is_empty());
    assert_eq!(drops.count(), 2);
    assert_eq!((engine.stats().installed, engine.stats().functions), (0, 0));
}

#[test]
fn a_module_calls_functions_of_the_engine_that_its_owner_keeps() {
    let engine = engine!();
    install(&engine, &constant("callee", 1));
    handle(&engine, "callee").c_address().unwrap();
    engine.remove("callee").unwrap();
    let nothing = engine.stats();

    let drops = Drops::new();
    install_counted(&engine, &constant("callee", 1), &drops);
    let callee = handle(&engine, "callee");
    let symbols = [("callee", callee.c_address().unwrap())];
    let owned = (callee, drops.value());
    engine.adopt(module(&caller("f", "callee", 10), &symbols, owned)).unwrap();
    let f = handle(&engine, "f");
    assert_eq!(call!(f).unwrap(), 11);
    install_counted(&engine, &constant("callee", 2), &drops);
    assert_eq!(call!(f).unwrap(), 12);
    engine.remove("callee").unwrap();
    assert!(matches!(call!(f), Err(CallError::Removed(name)) if &*name == "callee"));
    install(&engine, &constant("callee", 3));
    assert_eq!(call!(f).unwrap(), 13);
    engine.remove("callee").unwrap();
    assert_eq!(drops.count(), 2);
    engine.remove("f").unwrap();
    assert_eq!(drops.count(), 3);
    drop(f);
    let stats = engine.stats();
    assert_eq!((stats.code_bytes, stats.alive()), (nothing.code_bytes, 0));
}
