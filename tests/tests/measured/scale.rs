//! Twenty thousand functions at a time.

use cranelift_codegen::ir::{InstBuilder, types};
use cranelift_module::{Linkage, Module};
use lastout::{Engine, FunctionType, Handle};
use lastout_tests::call;
use lastout_tests::emit::Emitter;

const FUNCTIONS: i64 = 20_000;

type Nullary = fn() -> i64;

fn install(engine: &Engine, emitter: &mut Emitter, name: &str, result: i64) {
    let mut unit = engine.unit();
    let signature = Nullary::signature(engine.isa());
    let id = unit.declare_function(name, Linkage::Export, &signature).unwrap();
    let body = emitter.define(&mut unit, id, |builder, _, _| {
        let result = builder.ins().iconst(types::I64, result);
        builder.ins().return_(&[result]);
    });
    body.unwrap();
    engine.install(unit).unwrap();
}

#[test]
fn nothing_is_left_of_twenty_thousand_functions_that_were_there_at_once() {
    let engine = Engine::new().unwrap();
    let mut emitter = Emitter::default();
    install(&engine, &mut emitter, "warm", 0);
    engine.function::<Nullary>("warm").unwrap();
    engine.remove("warm").unwrap();
    let before = engine.stats();

    let name = |number: i64| format!("f{number}");
    for number in 0..FUNCTIONS {
        install(&engine, &mut emitter, &name(number), number);
    }
    let functions = (0..FUNCTIONS).map(|number| engine.function(&name(number)).unwrap());
    let functions: Vec<Handle<Nullary>> = functions.collect();
    let all_return = |plus: i64| {
        for (number, function) in (0..).zip(&functions) {
            assert_eq!(call!(function).unwrap(), number + plus);
        }
    };
    all_return(0);
    let once = engine.stats();
    assert_eq!((once.functions, once.alive()), (FUNCTIONS as usize, FUNCTIONS as u64));

    // In another order than that of their places.
    for step in 0..FUNCTIONS {
        let number = step * 7919 % FUNCTIONS;
        install(&engine, &mut emitter, &name(number), number + 1);
    }
    all_return(1);
    let twice = engine.stats();
    assert_eq!((twice.functions, twice.alive()), (FUNCTIONS as usize, FUNCTIONS as u64));
    assert!(twice.heavy_fences >= before.heavy_fences + FUNCTIONS as u64);

    for step in 0..FUNCTIONS {
        engine.remove(&name(step * 7907 % FUNCTIONS)).unwrap();
    }
    assert!(functions.iter().all(|function| call!(function).is_err()));
    drop(functions);
    let after = engine.stats();
    assert_eq!((after.functions, after.alive()), (0, 0));
    assert_eq!((after.code_bytes, after.data_bytes), (before.code_bytes, before.data_bytes));
    // A few empty pages are kept for what comes next.
    assert!(once.committed_bytes > 100 * before.committed_bytes, "{once:?}");
    assert!(after.committed_bytes <= 20 * before.committed_bytes, "{before:?} {after:?}");
}
