//! Functions that are compiled, called once and dropped, two hundred thousand of them: nothing
//! is left of them.

use std::time::Instant;

use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::{FuncId, Linkage, Module};
use lastout::{Engine, FunctionType, Handle, Unit};
use lastout_tests::call;
use lastout_tests::child::child;
use lastout_tests::emit::Emitter;
use lastout_tests::measure::{allocated, resident};

const FUNCTIONS: i64 = 200_000;
/// After so many, everything that grows with the number of threads, types or tables has grown.
const WARM_UP: i64 = 5_000;
/// What the allocator may have in hand at one time and not at another.
const SLACK: usize = 1 << 20;

type Plus = fn(i64) -> i64;

/// Adds `number` to its argument.
fn define(emitter: &mut Emitter, unit: &mut Unit, id: FuncId, number: i64) {
    let body = |builder: &mut FunctionBuilder<'_>, _: &mut Unit, params: &[Value]| {
        let sum = builder.ins().iadd_imm_s(params[0], number);
        builder.ins().return_(&[sum]);
    };
    emitter.define(unit, id, body).unwrap();
}

fn anonymous(engine: &Engine, emitter: &mut Emitter, number: i64) {
    let mut unit = engine.unit();
    let id = unit.declare_anonymous_function(&Plus::signature(engine.isa())).unwrap();
    define(emitter, &mut unit, id, number);
    unit.expose(id);
    let plus: Handle<Plus> = engine.install(unit).unwrap().function(id).unwrap();
    assert_eq!(call!(plus, 1).unwrap(), number + 1);
}

fn named(engine: &Engine, emitter: &mut Emitter, number: i64) {
    let name = format!("plus_{number}");
    let mut unit = engine.unit();
    let signature = Plus::signature(engine.isa());
    let id = unit.declare_function(&name, Linkage::Export, &signature).unwrap();
    define(emitter, &mut unit, id, number);
    engine.install(unit).unwrap();
    let plus: Handle<Plus> = engine.function(&name).unwrap();
    assert_eq!(call!(plus, 1).unwrap(), number + 1);
    engine.remove(&name).unwrap();
}

/// In a process of its own, whose memory is nobody else's.
#[test]
fn nothing_is_left_of_two_hundred_thousand_functions() {
    if let Some(ended) = child("functions", come_and_go) {
        assert!(ended.well(), "{}", ended.errors);
    }
}

fn come_and_go() {
    let engine = Engine::new().unwrap();
    let mut emitter = Emitter::default();
    let start = Instant::now();
    let mut baseline = None;
    for number in 0..FUNCTIONS {
        if number % 4 == 0 {
            named(&engine, &mut emitter, number);
        } else {
            anonymous(&engine, &mut emitter, number);
        }
        if number == WARM_UP {
            baseline = Some((allocated(), resident(), engine.stats()));
        }
        if number % 20_000 == 0 {
            eprintln!("{number} functions, {:?}, {} KiB", start.elapsed(), resident() >> 10);
        }
    }
    let (had, before, baseline) = baseline.expect("there were more functions than that");
    let (has, after, stats) = (allocated(), resident(), engine.stats());
    eprintln!("{FUNCTIONS} functions, {:?}, {} KiB", start.elapsed(), after >> 10);
    assert_eq!(stats.freed, FUNCTIONS as u64);
    assert_eq!((stats.functions, stats.alive()), (0, 0));
    assert_eq!(stats.committed_bytes, baseline.committed_bytes);
    assert_eq!(stats.code_bytes, baseline.code_bytes);
    assert!(has <= had + SLACK / 16, "{had} bytes allocated before, {has} after");
    assert!(after <= before + SLACK, "{before} bytes resident before, {after} after");
}
