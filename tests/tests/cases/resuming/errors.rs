//! What cannot have points is refused, and says why.

use cranelift_codegen::Context;
use cranelift_codegen::ir::{Block, Function, Inst};
use cranelift_module::{Linkage, Module, ModuleError};
use lastout::{Live, ResumePoints};
use lastout_tests::engine;
use lastout_tests::moving::{calls, loop_headers, ty};

const LOOP: &str = "function %f(i64) -> i64 tail {
        fn0 = %call_back(i64, i64) -> i64 system_v
        fn1 = colocated %own(i64, i64) -> i64 system_v
     block0(v0: i64):
        jump block1(v0)
     block1(v1: i64):
        v2 = call fn0(v0, v1)
        v3 = call fn1(v0, v1)
        brif v2, block2, block1(v3)
     block2:
        return v1
     }";

/// What is said when a function is defined with these points.
fn refusal(text: &str, linkage: Linkage, mark: impl Fn(&Function, &mut ResumePoints)) -> String {
    let engine = engine!();
    let mut unit = engine.unit();
    let mut func = cranelift_reader::parse_functions(text).unwrap().remove(0);
    let id = unit.declare_function("f", linkage, &func.signature).unwrap();
    lastout_tests::clif::resolve_callees(&mut unit, &mut func).unwrap();
    let own = unit.declarations().get_name("own");
    if let Some(cranelift_module::FuncOrDataId::Func(own)) = own {
        let signature = unit.declarations().get_function_decl(own).signature.clone();
        unit.declare_function("own", Linkage::Local, &signature).unwrap();
    }
    let mut points = ResumePoints::new();
    mark(&func, &mut points);
    let error = unit.define_resumable_function(id, &mut Context::for_function(func), &points);
    match error.unwrap_err() {
        ModuleError::Backend(error) => error.to_string(),
        error => error.to_string(),
    }
}

#[test]
fn what_cannot_move_is_refused() {
    let refused = |text: &str| {
        refusal(text, Linkage::Export, |func, points| {
            points.block(3, loop_headers(func)[0]);
        })
    };
    let conventional = LOOP.replacen("tail", "system_v", 1);
    assert!(refused(&conventional).contains("`tail` convention"));
    let slots = LOOP.replace("block0(v0: i64):", "ss0 = explicit_slot 8\nblock0(v0: i64):");
    assert!(refused(&slots).contains("stack slots"));
    let frame = LOOP.replace("jump block1(v0)", "v9 = get_frame_pointer.i64\njump block1(v9)");
    assert!(refused(&frame).contains("looks at its frame"));
    let local = refusal(LOOP, Linkage::Local, |_, _| {});
    assert!(local.contains("cannot be replaced"), "{local}");
}

#[test]
fn points_that_are_none_are_refused() {
    type Mark = fn(&Function, &mut ResumePoints);

    fn header(func: &Function) -> Block {
        loop_headers(func)[0]
    }

    let cases: [(&str, Mark); 8] = [
        ("point 3: there is no such block", |_, points| {
            points.block(3, Block::from_u32(99));
        }),
        ("point 3: there is no such instruction", |_, points| {
            points.call(3, Inst::from_u32(99));
        }),
        ("point 3: the instruction is not a `call`", |func, points| {
            let block = func.layout.entry_block().unwrap();
            points.call(3, func.layout.last_inst(block).unwrap());
        }),
        ("point 3: another point", |func, points| {
            points.block(3, header(func)).block(3, Block::from_u32(2));
        }),
        ("point 4: another point", |func, points| {
            points.block(3, header(func)).block(4, header(func));
        }),
        ("point 3: two of its values have the same label", |func, points| {
            let entry = func.layout.entry_block().unwrap();
            let (one, other) =
                (func.dfg.block_params(entry)[0], func.dfg.block_params(header(func))[0]);
            points.block(3, header(func)).label(1, one).label(1, other);
        }),
        ("point 5: there is a converter, and no such point", |func, points| {
            let own = cranelift_module::FuncId::from_u32(2);
            points.block(3, header(func)).convert(5, &[], own);
        }),
        ("point 3: the converter", |func, points| {
            let own = cranelift_module::FuncId::from_u32(2);
            let from = [Live { label: None, ty: ty("i64") }];
            points.block(3, header(func)).convert(3, &from, own);
        }),
    ];
    for (expected, mark) in cases {
        let why = refusal(LOOP, Linkage::Export, mark);
        assert!(why.contains(expected), "{why}");
    }
}

#[test]
fn a_call_within_the_version_cannot_be_left() {
    let mark_local = |func: &Function, points: &mut ResumePoints| {
        let host = calls(func)[0];
        let local = func.layout.next_inst(host).unwrap();
        points.call(3, local);
    };
    let why = refusal(LOOP, Linkage::Export, mark_local);
    assert!(why.contains("would have to stay"), "{why}");
}
