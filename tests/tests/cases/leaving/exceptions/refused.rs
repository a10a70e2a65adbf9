//! Handlers that cannot be: they are refused when the function is defined.

use cranelift_codegen::Context;
use lastout::cranelift_module::{Linkage, Module, ModuleError};
use lastout_tests::engine;

/// Why a function is not accepted.
fn refusal(text: &str) -> String {
    let engine = engine!();
    let mut unit = engine.unit();
    let function = cranelift_reader::parse_functions(text).unwrap().remove(0);
    let id = unit.declare_function("f", Linkage::Export, &function.signature).unwrap();
    let defined = unit.define_function(id, &mut Context::for_function(function));
    match defined.unwrap_err() {
        ModuleError::Backend(error) => error.to_string(),
        other => panic!("{other}"),
    }
}

/// A function that calls what it is given, in a convention, with these handlers.
fn catching(convention: &str, handlers: &str) -> String {
    format!(
        "function %f(i64, i64) -> i64 system_v {{
            sig0 = (i64) -> i64 {convention}
         block0(v0: i64, v1: i64):
            try_call_indirect v0(v1), sig0, block1(ret0), [ {handlers} ]
         block1(v2: i64):
            return v2
         block2(v3: i64):
            return v3
         }}"
    )
}

#[test]
fn calls_whose_convention_has_no_handlers_are_refused() {
    for convention in ["fast", "windows_fastcall"] {
        let why = refusal(&catching(convention, "tag1: block2(ret0)"));
        assert!(why.contains("cannot catch exceptions"), "{convention}: {why}");
    }
}

#[test]
fn contexts_are_refused() {
    let why = refusal(&catching("system_v", "context v1, tag1: block2(exn0)"));
    assert!(why.contains("have no contexts"), "{why}");
    let why = refusal(&catching("tail", "tag2: block2(exn0), context v1, default: block2(exn1)"));
    assert!(why.contains("have no contexts"), "{why}");
}
