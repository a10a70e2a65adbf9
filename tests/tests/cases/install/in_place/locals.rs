//! Units with functions of their own besides the one that is written over.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, TrapCode, types};
use lastout::cranelift_module::{Linkage, Module};
use lastout::{CallError, FunctionType, TrapCause, Unit};
use lastout_tests::emit::Emitter;

use super::*;

type Unary = fn(i64) -> i64;

/// Exports `f`, which calls `local`, a function that was there before: they trap if they are given
/// 1 and 2, and otherwise return a number more than that.
fn with_local(engine: &Engine, number: i64) -> Unit {
    let mut unit = engine.unit();
    let signature = Unary::signature(engine.isa());
    let local = unit.declare_function("local", Linkage::Local, &signature).unwrap();
    let f = unit.declare_function("f", Linkage::Export, &signature).unwrap();
    for (id, bad, callee) in [(local, 2, None), (f, 1, Some(local))] {
        let define = Emitter::default().define(&mut unit, id, |builder, unit, params| {
            let is_bad = builder.ins().icmp_imm_s(IntCC::Equal, params[0], bad);
            builder.ins().trapnz(is_bad, TrapCode::unwrap_user(bad as u8));
            let result = match callee {
                Some(callee) => {
                    let callee = unit.declare_func_in_func(callee, builder.func);
                    let call = builder.ins().call(callee, params);
                    builder.inst_results(call)[0]
                }
                None => {
                    let number = builder.ins().iconst(types::I64, number);
                    builder.ins().iadd(params[0], number)
                }
            };
            builder.ins().return_(&[result]);
        });
        define.unwrap();
    }
    unit
}

#[test]
fn they_need_no_more_room_than_before_and_trap_as_before() {
    let engine = builder!().traps(true).build().unwrap();
    engine.install(with_local(&engine, 10)).unwrap();
    let f = engine.function::<Unary>("f").unwrap();
    let trapped = |bad: i64| {
        let Err(CallError::Trap(trap)) = call!(f, bad) else { panic!("no trap") };
        (trap.cause, trap.location.to_string())
    };
    for number in [10, 20, 30] {
        if number > 10 {
            engine.replace_in_place(with_local(&engine, number), LIMIT).unwrap();
        }
        assert_eq!(call!(f, 5).unwrap(), 5 + number);
        for (bad, function) in [(1, "`f`#"), (2, "`local`#")] {
            let (cause, place) = trapped(bad);
            assert_eq!(cause, TrapCause::Code(TrapCode::unwrap_user(bad as u8)));
            assert!(place.starts_with(function), "{place}");
        }
    }
    drop(f);
    engine.remove("f").unwrap();
    assert_eq!(engine.stats().alive(), 0);
}
