//! Definitions that a unit refuses: with an error, whatever they are, and never with a panic.

use lastout::Unit;
use lastout::cranelift_codegen::Context;
use lastout::cranelift_codegen::ir::{Function, Signature};
use lastout::cranelift_module::{
    DataDescription, FuncId, Linkage, Module, ModuleError, ModuleRelocTarget,
};
use lastout_tests::support::{constant, nullary};
use lastout_tests::{builder, call, engine};

fn parse(text: &str) -> Function {
    cranelift_reader::parse_functions(text).unwrap().remove(0)
}

/// Declares the function of a text as an export, and tries to define it.
fn define(unit: &mut Unit, text: &str) -> Result<FuncId, ModuleError> {
    let function = parse(text);
    let name = function.name.to_string();
    let name = name.trim_start_matches('%');
    let id = unit.declare_function(name, Linkage::Export, &function.signature)?;
    unit.define_function(id, &mut Context::for_function(function))?;
    Ok(id)
}

/// What a definition is refused with.
fn refused(unit: &mut Unit, text: &str) -> String {
    format!("{:#}", define(unit, text).unwrap_err())
}

#[test]
fn a_unit_is_good_for_other_definitions_after_an_error() {
    let engine = engine!();
    let mut unit = engine.unit();
    refused(&mut unit, "function %f() -> i64 system_v { block0: v0 = iconst.i32 1 return v0 }");
    define(&mut unit, &constant("f", 1)).unwrap();
    engine.install(unit).unwrap();
    assert_eq!(call!(engine.function::<fn() -> i64>("f").unwrap()).unwrap(), 1);
}

#[test]
fn what_is_defined_twice_or_is_not_to_be_defined() {
    let engine = engine!();
    let mut unit = engine.unit();
    let id = define(&mut unit, &constant("f", 1)).unwrap();
    let again = unit.define_function(id, &mut Context::for_function(parse(&constant("f", 2))));
    assert!(matches!(again, Err(ModuleError::DuplicateDefinition(name)) if name == "f"));
    let again = unit.define_function_bytes(id, 1, &[0xc3], &[]);
    assert!(matches!(again, Err(ModuleError::DuplicateDefinition(name)) if name == "f"));

    let import = unit.declare_function("import", Linkage::Import, &nullary()).unwrap();
    let mut context = Context::for_function(parse(&constant("f", 2)));
    let defined = unit.define_function(import, &mut context);
    assert!(matches!(defined, Err(ModuleError::InvalidImportDefinition(name)) if name == "import"));

    let undeclared = unit.define_function(FuncId::from_u32(9), &mut context);
    assert!(matches!(undeclared, Err(ModuleError::Undeclared(_))));

    let mut description = DataDescription::new();
    description.define_zeroinit(1);
    let data = unit.declare_data("data", Linkage::Local, false, false).unwrap();
    unit.define_data(data, &description).unwrap();
    let again = unit.define_data(data, &description);
    assert!(matches!(again, Err(ModuleError::DuplicateDefinition(name)) if name == "data"));
    let import = unit.declare_data("import.data", Linkage::Import, false, false).unwrap();
    let defined = unit.define_data(import, &description);
    assert!(matches!(defined, Err(ModuleError::InvalidImportDefinition(_))));
    let foreign = lastout::cranelift_module::DataId::from_u32(9);
    assert!(matches!(unit.define_data(foreign, &description), Err(ModuleError::Undeclared(_))));
}

#[test]
fn declarations_that_contradict_each_other() {
    let engine = engine!();
    let mut unit = engine.unit();
    unit.declare_function("f", Linkage::Import, &nullary()).unwrap();
    let other = Signature::new(nullary().call_conv);
    let declared = unit.declare_function("f", Linkage::Export, &other);
    assert!(matches!(declared, Err(ModuleError::IncompatibleSignature(..))));
    let declared = unit.declare_data("f", Linkage::Export, false, false);
    assert!(matches!(declared, Err(ModuleError::IncompatibleDeclaration(_))));
    unit.declare_data("data", Linkage::Import, false, false).unwrap();
    let declared = unit.declare_function("data", Linkage::Export, &nullary());
    assert!(matches!(declared, Err(ModuleError::IncompatibleDeclaration(_))));
}

#[test]
fn a_context_with_another_signature() {
    let engine = engine!();
    let mut unit = engine.unit();
    let id = unit.declare_function("f", Linkage::Export, &nullary()).unwrap();
    let text = "function %f(i64) -> i64 system_v { block0(v0: i64): return v0 }";
    let defined = unit.define_function(id, &mut Context::for_function(parse(text)));
    assert!(matches!(defined, Err(ModuleError::IncompatibleSignature(name, ..)) if name == "f"));
}

#[test]
fn names_that_are_not_declared() {
    let engine = engine!();
    for callee in ["u0:5", "u2:0", "u3:0", "u4:0", "u4:99", "u77:0", "%test_case"] {
        let mut unit = engine.unit();
        let called = format!(
            "function %f() system_v {{
                fn0 = {callee}() system_v
             block0:
                call fn0()
                return
             }}"
        );
        let error = refused(&mut unit, &called);
        assert!(error.contains("is not declared in this unit"), "{error}");
        let mut unit = engine.unit();
        let addressed = format!(
            "function %f() -> i64 system_v {{
                gv0 = symbol {callee}
             block0:
                v0 = symbol_value.i64 gv0
                return v0
             }}"
        );
        let error = refused(&mut unit, &addressed);
        assert!(error.contains("is not declared in this unit"), "{error}");
    }
}

#[test]
fn calls_of_replaceable_functions_that_a_gate_cannot_count() {
    let engine = engine!();
    let callee = |unit: &mut Unit| {
        let text = "function %callee() -> i64 tail { block0: v0 = iconst.i64 1 return v0 }";
        let signature = parse(text).signature.clone();
        unit.declare_function("callee", Linkage::Import, &signature).unwrap();
    };
    for (text, why) in [
        (
            "function %f() -> i64 system_v {
                sig0 = () -> i64 tail
                fn0 = u0:0 sig0
             block0:
                v9 = iconst.i64 1
                try_call fn0(), sig0, block1(ret0), [ context v9, default: block2(exn0, exn1) ]
             block1(v0: i64):
                return v0
             block2(v1: i64, v2: i64):
                return v1
             }",
            "contexts",
        ),
        (
            "function %f() -> i64 system_v {
                fn0 = patchable u0:0() -> i64 tail
             block0:
                v0 = call fn0()
                return v0
             }",
            "patchable",
        ),
    ] {
        let mut unit = engine.unit();
        callee(&mut unit);
        let error = refused(&mut unit, text);
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn the_pinned_register() {
    let engine = engine!();
    for text in [
        "function %f() -> i64 system_v { block0: v0 = get_pinned_reg.i64 return v0 }",
        "function %f(i64) system_v { block0(v0: i64): set_pinned_reg v0 return }",
    ] {
        let error = refused(&mut engine.unit(), text);
        assert!(error.contains("the pinned register holds the thread's ledger"), "{error}");
    }
}

/// Signatures that no function can have here, or that Cranelift would panic at.
const BAD_SIGNATURES: &[&str] = &[
    "(i64 sarg(7)) system_v",
    "(i64 sret) -> i64 system_v",
    "(i64 sret, i64 sret) system_v",
    "() -> i64 sret system_v",
    "(i128) system_v",
    "() -> i128 fast",
    "() -> i64 preserve_all",
    "() apple_aarch64",
    "() probestack",
    "(f128) windows_fastcall",
    "() -> f16 windows_fastcall",
];

#[test]
fn signatures_that_cannot_be_compiled() {
    let engine = engine!();
    for signature in BAD_SIGNATURES {
        let text = format!(
            "function %f() system_v {{
                sig0 = {signature}
             block0:
                return
             }}"
        );
        let bad = parse(&text).dfg.signatures.values().next().unwrap().clone();
        // As the signature of a function, by any means to define it; and to declare it.
        let mut unit = engine.unit();
        let id = unit.declare_function("f", Linkage::Local, &bad).unwrap();
        let mut function = parse("function %f() system_v { block0: trap user1 }");
        function.signature = bad.clone();
        let block = function.layout.entry_block().unwrap();
        for param in &bad.params {
            function.dfg.append_block_param(block, param.value_type);
        }
        let defined = unit.define_function(id, &mut Context::for_function(function));
        assert!(defined.is_err(), "{signature}");
        assert!(unit.define_function_bytes(id, 16, &[0xcc], &[]).is_err(), "{signature}");
        assert!(engine.declare("declared", &bad).is_err(), "{signature}");
        // As the signature of a callee.
        assert!(define(&mut unit, &text.replace("%f", "%g")).is_err(), "{signature}");
    }
    assert_eq!(engine.stats().functions, 0);
}

#[test]
fn wide_integers_are_fine_where_they_are_asked_for() {
    let engine = builder!().flag("enable_llvm_abi_extensions", "true").build().unwrap();
    let text = |name: &str, convention: &str| {
        format!(
            "function %{name}(i128) -> i128 {convention} {{
             block0(v0: i128):
                return v0
             }}"
        )
    };
    for convention in ["system_v", "fast", "tail"] {
        let mut unit = engine.unit();
        define(&mut unit, &text("f", convention)).unwrap();
        engine.install(unit).unwrap();
        engine.remove("f").unwrap();
    }
}

#[test]
fn what_is_not_valid_clif() {
    let engine = engine!();
    for text in [
        "function %f() -> i64 system_v { block0: return }",
        "function %f() -> i64 system_v { block0: v0 = iconst.i32 0 return v0 }",
        "function %f(i64) system_v { block0: return }",
    ] {
        let error = define(&mut engine.unit(), text).unwrap_err();
        assert!(matches!(error, ModuleError::Compilation(_)), "{error}");
    }
    // Without any block, and with an empty one.
    let mut unit = engine.unit();
    let id = unit.declare_function("f", Linkage::Local, &nullary()).unwrap();
    let mut function = Function::with_name_signature(Default::default(), nullary());
    assert!(unit.define_function(id, &mut Context::for_function(function.clone())).is_err());
    let block = function.dfg.make_block();
    function.layout.append_block(block);
    assert!(unit.define_function(id, &mut Context::for_function(function)).is_err());
}

#[test]
fn what_cranelift_has_no_code_for() {
    let engine = engine!();
    for text in [
        "function %f(i64, i64) -> i64 system_v {
         block0(v0: i64, v1: i64):
            v2 = uextend.i128 v0
            v3 = uextend.i128 v1
            v4 = sdiv v2, v3
            v5 = ireduce.i64 v4
            return v5
         }",
        "function %f() -> i64, i64, i64, i64, i64 system_v {
         block0:
            v0 = iconst.i64 0
            return v0, v0, v0, v0, v0
         }",
        "function %f() -> i64 system_v {
            gv0 = symbol tls u1:0
         block0:
            v0 = tls_value.i64 gv0
            return v0
         }",
    ] {
        let mut unit = engine.unit();
        unit.declare_anonymous_data(false, false).unwrap();
        let error = define(&mut unit, text);
        assert!(matches!(error, Err(ModuleError::Compilation(_))), "{error:?}\n{text}");
    }
}

#[test]
fn data_that_is_not_well_described() {
    let engine = engine!();
    let mut unit = engine.unit();
    for anonymous in [false, true] {
        let declared = match anonymous {
            false => unit.declare_data("tls", Linkage::Local, true, true),
            true => unit.declare_anonymous_data(true, true),
        };
        assert!(matches!(declared, Err(ModuleError::Backend(_))));
    }
    let id = unit.declare_data("data", Linkage::Local, true, false).unwrap();
    let uninitialized = unit.define_data(id, &DataDescription::new());
    assert!(uninitialized.unwrap_err().to_string().contains("has no contents"));
    for align in [0, 3, 8192, u64::MAX] {
        let mut description = DataDescription::new();
        description.define_zeroinit(8);
        description.align = Some(align);
        let defined = unit.define_data(id, &description);
        assert!(defined.unwrap_err().to_string().contains("alignment"), "{align}");
        let function = unit.declare_function("f", Linkage::Local, &nullary()).unwrap();
        let defined = unit.define_function_bytes(function, align, &[0xc3], &[]);
        assert!(defined.unwrap_err().to_string().contains("alignment"), "{align}");
    }
    // References to what another description has imported.
    let mut other = DataDescription::new();
    let function = other.import_function(ModuleRelocTarget::user(0, 0));
    let global = other.import_global_value(ModuleRelocTarget::user(1, 0));
    let mut description = DataDescription::new();
    description.define_zeroinit(8);
    description.write_function_addr(0, function);
    assert!(matches!(unit.define_data(id, &description), Err(ModuleError::Undeclared(_))));
    let mut description = DataDescription::new();
    description.define_zeroinit(8);
    description.write_data_addr(0, global, 0);
    assert!(matches!(unit.define_data(id, &description), Err(ModuleError::Undeclared(_))));
}
