//! Points that are none. What functions are refused is in `golden/resume-refused.clif`.

use cranelift_codegen::ir::{AbiParam, Function};
use cranelift_codegen::ir::{Block, Inst, Value, types};
use cranelift_reader::parse_functions;
use lastout_instrument::Error;
use lastout_instrument::resume::{Mark, PointPosition, Resumable};

use crate::support;

const TEXT: &str = "function u0:0(i64, i64) -> i64 tail {
    sig0 = (i64) -> i64 tail
    sig1 = (i64 sret) system_v
    fn0 = u0:1 sig0
    fn1 = u0:2 sig1
block0(v0: i64, v1: i64):
    v2 = call fn0(v0)
    v3 = call_indirect sig0, v1(v0)
    call fn1(v2)
    v4 = iadd v2, v3
    v5 = iadd v4, v1
    return v5
}";

fn function() -> Function {
    parse_functions(TEXT).unwrap().remove(0)
}

/// The instruction of this number in the order of the code.
fn inst(func: &Function, number: usize) -> Inst {
    let block = func.layout.entry_block().unwrap();
    func.layout.block_insts(block).nth(number).unwrap()
}

fn at(id: u32, position: PointPosition) -> Mark {
    Mark { id, position, labels: Vec::new() }
}

#[track_caller]
fn refused(func: &Function, marks: &[Mark]) -> Error {
    let isa = support::isa("x86_64");
    match Resumable::new(func, marks, &*isa) {
        Ok(_) => panic!("it is taken"),
        Err(error) => error,
    }
}

#[test]
fn each_point_that_is_none_says_which_and_why() {
    let func = function();
    let block = PointPosition::Block(Block::from_u32(0));
    let call = PointPosition::Call(inst(&func, 0));
    let labelled = |position, labels: &[(u32, u32)]| {
        let labels = labels.iter().map(|&(label, value)| (label, Value::from_u32(value)));
        vec![Mark { id: 9, position, labels: labels.collect() }]
    };
    let cases = [
        (vec![at(9, PointPosition::Block(Block::from_u32(7)))], "there is no such block"),
        (vec![at(9, PointPosition::Call(Inst::from_u32(99)))], "there is no such instruction"),
        (vec![at(9, PointPosition::Call(inst(&func, 1)))], "the instruction is not a `call`"),
        (vec![at(9, PointPosition::Call(inst(&func, 3)))], "the instruction is not a `call`"),
        (
            vec![at(9, PointPosition::Call(inst(&func, 2)))],
            "an argument or a result of the call has a special purpose",
        ),
        (vec![at(9, block), at(9, call)], "another point has its number or its place"),
        (vec![at(8, block), at(9, block)], "another point has its number or its place"),
        (labelled(block, &[(1, 77)]), "one of its labels is of a value that does not exist"),
        (labelled(block, &[(1, 0), (1, 1)]), "two of its values have the same label"),
    ];
    for (marks, why) in cases {
        let error = refused(&func, &marks);
        assert_eq!(error, Error::Point { id: 9, why });
        assert_eq!(error.to_string(), format!("point 9: {why}"));
    }
}

#[test]
fn labels_of_what_is_not_alive_do_no_harm() {
    let func = function();
    let isa = support::isa("x86_64");
    let position = PointPosition::Call(inst(&func, 0));
    // Of v4 and v5 neither is defined yet.
    let labels = [(1, 5), (1, 4), (2, 1)].map(|(label, value)| (label, Value::from_u32(value)));
    let marks = [Mark { id: 1, position, labels: labels.to_vec() }];
    let resumable = Resumable::new(&func, &marks, &*isa).unwrap();
    let live: Vec<_> = resumable.points()[0].live.iter().map(|live| live.label).collect();
    assert_eq!(live, [Some(2), None]);
}

/// The function may have them, but not with what is alive, or the fallback, besides.
#[test]
fn what_is_alive_has_to_fit_into_a_call() {
    let mut func = function();
    let block = func.layout.entry_block().unwrap();
    for _ in 0..0xfff0 / 8 - 2 {
        func.signature.params.push(AbiParam::new(types::I64));
        func.dfg.append_block_param(block, types::I64);
    }
    let error = refused(&func, &[at(1, PointPosition::Block(block))]);
    let Error::Signature { why, .. } = error else { panic!("{error}") };
    assert_eq!(why, "there are more bytes of arguments than a return can take off the stack");
}
