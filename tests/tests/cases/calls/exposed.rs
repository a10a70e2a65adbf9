//! Functions without a name in the engine, called from the host.

use std::thread;

use lastout::cranelift_codegen::Context;
use lastout::cranelift_module::{FuncId, Linkage, Module};
use lastout::{Engine, Error, Installed, Unit, VersionState};
use lastout_tests::support::{
    COUNTINGS, Callback, Door, Drops, Nullary, calling_back, constant, install,
};
use lastout_tests::{builder, call, engine};

/// Defines the function of a text, under this name and linkage, or without a name.
fn define(unit: &mut Unit, name: Option<(&str, Linkage)>, text: &str) -> FuncId {
    let mut function = cranelift_reader::parse_functions(text).unwrap().remove(0);
    let signature = function.signature.clone();
    let id = match name {
        Some((name, linkage)) => unit.declare_function(name, linkage, &signature),
        None => unit.declare_anonymous_function(&signature),
    };
    let id = id.unwrap();
    function.name = Default::default();
    unit.define_function(id, &mut Context::for_function(function)).unwrap();
    id
}

/// Installs an anonymous function that returns a number.
fn install_constant(engine: &Engine, value: i64, drops: &Drops) -> (Installed, FuncId) {
    let mut unit = engine.unit();
    let id = define(&mut unit, None, &constant("f", value));
    unit.expose(id);
    unit.attach(drops.value());
    (engine.install(unit).unwrap(), id)
}

#[test]
fn compiling_calling_and_dropping_leaves_no_trace() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let drops = Drops::new();
        let round = |value: i64| {
            let (installed, id) = install_constant(&engine, value, &drops);
            let f: Nullary = installed.function(id).unwrap();
            drop(installed);
            assert_eq!(call!(f).unwrap(), value);
            let version = f.versions()[0].version.clone();
            assert_eq!(version.state(), VersionState::Live);
            drop(f);
            assert_eq!(version.state(), VersionState::Freed);
        };
        // Compiles the entry for typed calls, which the engine keeps.
        round(0);
        let before = engine.stats();
        for value in 1..100 {
            round(value);
        }
        let after = engine.stats();
        assert_eq!(after.data_bytes, before.data_bytes);
        assert_eq!(after.code_bytes, before.code_bytes);
        assert_eq!((after.functions, after.installed, after.freed), (0, 100, 100));
        assert_eq!(drops.count(), 100);
    }
}

#[test]
fn functions_of_any_linkage_can_be_exposed() {
    let engine = engine!();
    let mut unit = engine.unit();
    let ids = [
        define(&mut unit, None, &constant("f", 0)),
        define(&mut unit, Some(("local", Linkage::Local)), &constant("f", 1)),
        define(&mut unit, Some(("hidden", Linkage::Hidden)), &constant("f", 2)),
        define(&mut unit, Some(("export", Linkage::Export)), &constant("f", 3)),
        define(&mut unit, Some(("preemptible", Linkage::Preemptible)), &constant("f", 4)),
    ];
    for id in ids {
        unit.expose(id);
        unit.expose(id);
    }
    let installed = engine.install(unit).unwrap();
    assert_eq!(installed.versions().len(), 5);
    for (value, id) in (0..).zip(ids) {
        let f: Nullary = installed.function(id).unwrap();
        assert_eq!(call!(f).unwrap(), value);
    }
    for unknown in ["local", "hidden"] {
        assert!(engine.function::<fn() -> i64>(unknown).is_err());
    }
    // One that has a name is replaced like any other.
    install(&engine, &constant("export", 30));
    let f: Nullary = installed.function(ids[3]).unwrap();
    assert_eq!(call!(f).unwrap(), 30);
}

#[test]
fn two_units_can_expose_functions_of_one_name() {
    let engine = engine!();
    let [one, two] = [1, 2].map(|value| {
        let mut unit = engine.unit();
        let id = define(&mut unit, Some(("f", Linkage::Local)), &constant("f", value));
        unit.expose(id);
        engine.install(unit).unwrap().function::<fn() -> i64>(id).unwrap()
    });
    assert_eq!((call!(one).unwrap(), call!(two).unwrap()), (1, 2));
    assert_eq!(one.name(), "f");
}

#[test]
fn what_is_installed_keeps_what_it_exposes_until_its_last_handle() {
    let engine = engine!();
    let drops = Drops::new();
    let (installed, id) = install_constant(&engine, 1, &drops);
    assert_eq!(drops.count(), 0);
    let f: Nullary = installed.function(id).unwrap();
    let too = f.clone();
    drop(installed);
    drop(f);
    assert_eq!(drops.count(), 0);
    assert_eq!(call!(too).unwrap(), 1);
    drop(too);
    assert_eq!(drops.count(), 1);
}

#[test]
fn what_cannot_be_exposed_is_an_error() {
    let engine = engine!();
    let before = engine.stats();
    let drops = Drops::new();
    let refused = |expose: &dyn Fn(&mut Unit) -> FuncId| {
        let mut unit = engine.unit();
        define(&mut unit, Some(("f", Linkage::Export)), &constant("f", 1));
        let id = expose(&mut unit);
        unit.expose(id);
        unit.attach(drops.value());
        match engine.install(unit) {
            Err(Error::Undefined(name)) => name,
            other => panic!("{other:?}"),
        }
    };
    let signature =
        |unit: &Unit| unit.declarations().get_function_decl(FuncId::from_u32(0)).signature.clone();
    let undefined = refused(&|unit| {
        unit.declare_function("undefined", Linkage::Local, &signature(unit)).unwrap()
    });
    assert_eq!(undefined, "undefined");
    let imported = refused(&|unit| {
        unit.declare_function("imported", Linkage::Import, &signature(unit)).unwrap()
    });
    assert_eq!(imported, "imported");
    // Of another unit, perhaps.
    refused(&|_| FuncId::from_u32(77));
    assert_eq!(drops.count(), 3);
    assert_eq!(engine.stats(), before);
}

#[test]
fn a_handle_to_what_is_not_exposed_or_of_another_type_is_an_error() {
    let engine = engine!();
    let (installed, id) = install_constant(&engine, 1, &Drops::new());
    let unknown = installed.function::<fn() -> i64>(FuncId::from_u32(9));
    assert!(matches!(unknown, Err(Error::UnknownFunction(_))));
    let mismatch = installed.function::<fn(i64) -> i64>(id);
    assert!(matches!(mismatch, Err(Error::SignatureMismatch { .. })));
}

#[test]
fn an_exposed_function_outlives_the_engine() {
    let engine = engine!();
    let drops = Drops::new();
    let mut unit = engine.unit();
    let text = calling_back("f", 1).replace("%call_back", "u0:0");
    let signature = cranelift_reader::parse_functions(&text).unwrap()[0].signature.clone();
    unit.declare_function("call_back", Linkage::Import, &signature).unwrap();
    let id = define(&mut unit, None, &text);
    unit.expose(id);
    unit.attach(drops.value());
    let f = engine.install(unit).unwrap().function::<fn(usize, i64) -> i64>(id).unwrap();
    let door = Door::default();
    let wait = door.callback();
    thread::scope(|scope| {
        let inside = scope.spawn(|| call!(f, wait.address(), 1).unwrap());
        door.arrived();
        drop(engine);
        assert_eq!(drops.count(), 0);
        door.open();
        assert_eq!(inside.join().unwrap(), 2);
    });
    let same = Callback::new(|x| x);
    assert_eq!(call!(f, same.address(), 2).unwrap(), 3);
    drop(f);
    assert_eq!(drops.count(), 1);
}
