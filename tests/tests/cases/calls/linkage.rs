//! What the linkage of a declaration means: which calls and addresses stay in their version, and
//! which go to the current one.

use lastout::cranelift_codegen::Context;
use lastout::cranelift_codegen::ir::Function;
use lastout::cranelift_module::{DataDescription, FuncId, Linkage, Module};
use lastout::{Engine, Unit};
use lastout_tests::support::{COUNTINGS, caller, constant, handle, install, nullary};
use lastout_tests::{builder, call, engine};

/// The only function of a text.
fn parse(text: &str) -> Function {
    cranelift_reader::parse_functions(text).unwrap().remove(0)
}

fn define(unit: &mut Unit, id: FuncId, function: Function) {
    unit.define_function(id, &mut Context::for_function(function)).unwrap();
}

/// Defines `id` as a function that returns a number.
fn define_constant(unit: &mut Unit, id: FuncId, value: i64) {
    define(unit, id, parse(&constant("f", value)));
}

/// What a function of type `() -> i64` does with `callee`, as `declare_func_in_func` has it.
enum Use {
    /// Calls it.
    Call,
    /// Takes its address and calls that, as other units would.
    CallAddress,
    /// Returns its address.
    Address,
}

fn define_user(unit: &mut Unit, id: FuncId, callee: FuncId, how: Use) {
    use lastout::cranelift_codegen::cursor::{Cursor, FuncCursor};
    use lastout::cranelift_codegen::ir::{InstBuilder, types};

    let mut function = Function::with_name_signature(Default::default(), nullary());
    let callee = unit.declare_func_in_func(callee, &mut function);
    let signature = function.dfg.ext_funcs[callee].signature;
    let block = function.dfg.make_block();
    let mut pos = FuncCursor::new(&mut function);
    pos.insert_block(block);
    let result = match how {
        Use::Call => {
            let call = pos.ins().call(callee, &[]);
            pos.func.dfg.first_result(call)
        }
        Use::CallAddress => {
            let address = pos.ins().func_addr(types::I64, callee);
            let call = pos.ins().call_indirect(signature, address, &[]);
            pos.func.dfg.first_result(call)
        }
        Use::Address => pos.ins().func_addr(types::I64, callee),
    };
    pos.ins().return_(&[result]);
    define(unit, id, function);
}

fn declare(unit: &mut Unit, name: &str, linkage: Linkage) -> FuncId {
    unit.declare_function(name, linkage, &nullary()).unwrap()
}

/// Calls what an address points to.
fn call_address(address: i64) -> i64 {
    let address = std::ptr::with_exposed_provenance::<u8>(address as usize);
    // SAFETY: the tests pass entries of functions of this type, which their names keep.
    let function: extern "C" fn() -> i64 = unsafe { std::mem::transmute(address) };
    function()
}

/// A unit with `callee` of some linkage, returning 1, and exported functions `by_call`,
/// `by_address` and `address` that use it.
fn users(engine: &Engine, linkage: Linkage) -> Unit {
    let mut unit = engine.unit();
    let callee = declare(&mut unit, "callee", linkage);
    for (name, how) in
        [("by_call", Use::Call), ("by_address", Use::CallAddress), ("address", Use::Address)]
    {
        let id = declare(&mut unit, name, Linkage::Export);
        define_user(&mut unit, id, callee, how);
    }
    if linkage != Linkage::Import {
        define_constant(&mut unit, callee, 1);
    }
    unit
}

#[test]
fn calls_of_what_is_not_preemptible_stay_in_their_version() {
    for linkage in [Linkage::Local, Linkage::Hidden, Linkage::Export] {
        let engine = engine!();
        engine.install(users(&engine, linkage)).unwrap();
        install(&engine, &constant("callee", 2));
        assert_eq!(call!(handle(&engine, "callee")).unwrap(), 2, "{linkage:?}");
        assert_eq!(call!(handle(&engine, "by_call")).unwrap(), 1, "{linkage:?}");
        assert_eq!(call!(handle(&engine, "by_address")).unwrap(), 1, "{linkage:?}");
        // Callers that are installed later get the current one.
        install(&engine, &caller("later", "callee", 10));
        assert_eq!(call!(handle(&engine, "later")).unwrap(), 12, "{linkage:?}");
    }
}

#[test]
fn what_is_local_or_hidden_is_unknown_to_the_engine() {
    for linkage in [Linkage::Local, Linkage::Hidden] {
        let engine = engine!();
        let installed = engine.install(users(&engine, linkage)).unwrap();
        assert!(engine.function::<fn() -> i64>("callee").is_err());
        assert!(installed.version("callee").is_none());
        assert_eq!(installed.versions().len(), 3);
        assert_eq!(engine.stats().functions, 3);
    }
}

#[test]
fn calls_of_what_is_preemptible_or_imported_go_to_the_current_version() {
    for counting in COUNTINGS {
        for linkage in [Linkage::Preemptible, Linkage::Import] {
            let engine = builder!().counting(counting).build().unwrap();
            if linkage == Linkage::Import {
                install(&engine, &constant("callee", 1));
            }
            engine.install(users(&engine, linkage)).unwrap();
            let address = call!(handle(&engine, "address")).unwrap();
            for value in 1..4 {
                assert_eq!(call!(handle(&engine, "by_call")).unwrap(), value, "{linkage:?}");
                assert_eq!(call!(handle(&engine, "by_address")).unwrap(), value, "{linkage:?}");
                assert_eq!(call!(handle(&engine, "address")).unwrap(), address, "{linkage:?}");
                assert_eq!(call_address(address), value, "{linkage:?}");
                let c_address = handle(&engine, "callee").c_address().unwrap();
                assert_eq!(c_address.addr(), address as usize);
                install(&engine, &constant("callee", value + 1));
            }
        }
    }
}

#[test]
fn a_preemptible_function_that_is_not_defined_is_an_import() {
    let engine = engine!();
    install(&engine, &constant("callee", 5));
    let mut unit = engine.unit();
    let callee = declare(&mut unit, "callee", Linkage::Preemptible);
    let id = declare(&mut unit, "f", Linkage::Export);
    define_user(&mut unit, id, callee, Use::Call);
    engine.install(unit).unwrap();
    assert_eq!(call!(handle(&engine, "f")).unwrap(), 5);
}

#[test]
fn what_is_called_as_an_import_and_then_defined_as_a_local_stays_in_its_version() {
    for linkage in [Linkage::Local, Linkage::Hidden] {
        let engine = engine!();
        // Of this name, but another function.
        install(&engine, &constant("callee", 7));
        let mut unit = users(&engine, Linkage::Import);
        let callee = declare(&mut unit, "callee", linkage);
        define_constant(&mut unit, callee, 1);
        engine.install(unit).unwrap();
        install(&engine, &constant("callee", 8));
        assert_eq!(call!(handle(&engine, "by_call")).unwrap(), 1);
        assert_eq!(call!(handle(&engine, "by_address")).unwrap(), 1);
    }
}

#[test]
fn what_is_called_as_an_import_and_then_defined_as_an_export_is_replaceable() {
    let engine = engine!();
    let mut unit = users(&engine, Linkage::Import);
    let callee = declare(&mut unit, "callee", Linkage::Export);
    define_constant(&mut unit, callee, 1);
    engine.install(unit).unwrap();
    assert_eq!(call!(handle(&engine, "by_call")).unwrap(), 1);
    install(&engine, &constant("callee", 2));
    // It was an import when the calls were compiled.
    assert_eq!(call!(handle(&engine, "by_call")).unwrap(), 2);
}

#[test]
fn an_anonymous_function_is_the_units_own() {
    let engine = engine!();
    let mut unit = engine.unit();
    let anonymous = unit.declare_anonymous_function(&nullary()).unwrap();
    let other = unit.declare_anonymous_function(&nullary()).unwrap();
    let id = declare(&mut unit, "f", Linkage::Export);
    define_user(&mut unit, id, anonymous, Use::Call);
    define_user(&mut unit, anonymous, other, Use::CallAddress);
    define_constant(&mut unit, other, 3);
    let installed = engine.install(unit).unwrap();
    assert_eq!(call!(handle(&engine, "f")).unwrap(), 3);
    assert_eq!(installed.versions().len(), 1);
}

#[test]
fn data_holds_the_stable_entry_of_what_can_be_replaced() {
    let engine = engine!();
    install(&engine, &constant("imported", 1));
    let mut unit = engine.unit();
    let preemptible = declare(&mut unit, "preemptible", Linkage::Preemptible);
    define_constant(&mut unit, preemptible, 10);
    let local = declare(&mut unit, "local", Linkage::Local);
    define_constant(&mut unit, local, 100);
    let imported = declare(&mut unit, "imported", Linkage::Import);
    let table = unit.declare_data("table", Linkage::Local, false, false).unwrap();
    let mut description = DataDescription::new();
    description.define_zeroinit(24);
    for (number, id) in [imported, preemptible, local].into_iter().enumerate() {
        let function = unit.declare_func_in_data(id, &mut description);
        description.write_function_addr(8 * number as u32, function);
    }
    unit.define_data(table, &description).unwrap();
    let mut sum = parse(
        "function %sum() -> i64 system_v {
            gv0 = symbol u1:0
            sig0 = () -> i64 system_v
         block0:
            v0 = symbol_value.i64 gv0
            v1 = load.i64 v0
            v2 = load.i64 v0+8
            v3 = load.i64 v0+16
            v4 = call_indirect sig0, v1()
            v5 = call_indirect sig0, v2()
            v6 = call_indirect sig0, v3()
            v7 = iadd v4, v5
            v8 = iadd v6, v7
            return v8
         }",
    );
    sum.name = Default::default();
    let id = declare(&mut unit, "sum", Linkage::Export);
    define(&mut unit, id, sum);
    engine.install(unit).unwrap();
    let sum = handle(&engine, "sum");
    assert_eq!(call!(sum).unwrap(), 111);
    install(&engine, &(constant("imported", 2) + &constant("preemptible", 20)));
    install(&engine, &constant("local", 200));
    assert_eq!(call!(sum).unwrap(), 122);
}

#[test]
fn a_unit_that_replaces_several_functions_replaces_all_of_them() {
    let engine = engine!();
    for version in 0..5 {
        let text: String =
            (0..8).map(|number| constant(&format!("f{number}"), 10 * version + number)).collect();
        let installed = install(&engine, &text);
        assert!(installed.versions().iter().all(|v| v.number() == version as u64 + 1));
        for number in 0..8 {
            let f = handle(&engine, &format!("f{number}"));
            assert_eq!(call!(f).unwrap(), 10 * version + number);
        }
        assert_eq!(engine.stats().alive(), 8);
    }
}

#[test]
fn recursion_through_the_slot_and_direct_recursion_give_the_same() {
    let engine = engine!();
    let factorial = |name: &str, how: &str| {
        format!(
            "function %{name}(i64) -> i64 system_v {{
                fn0 = {how} %{name}(i64) -> i64 system_v
             block0(v0: i64):
                brif v0, block1, block2
             block1:
                v1 = iconst.i64 -1
                v2 = iadd v0, v1
                v3 = call fn0(v2)
                v4 = imul v0, v3
                return v4
             block2:
                v5 = iconst.i64 1
                return v5
             }}"
        )
    };
    install(&engine, &factorial("direct", "colocated"));
    install(&engine, &factorial("replaceable", ""));
    for name in ["direct", "replaceable"] {
        let f = engine.function::<fn(i64) -> i64>(name).unwrap();
        assert_eq!(call!(f, 20).unwrap(), 2_432_902_008_176_640_000);
    }
}
