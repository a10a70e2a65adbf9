//! What is alive at a point, by its definition: a value is if on some path from there it is used
//! before it is defined, and its computation depends on more than constants.

use std::collections::BTreeSet;

use cranelift_codegen::ir::{Block, Function, Inst, Opcode, Type, Value, ValueDef};
use lastout_instrument::resume::{Mark, PointPosition, Resumable};
use proptest::prelude::*;

use super::program::{asks, programs};
use crate::support;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn what_is_alive_is_what_is_used_before_it_is_defined(program in programs()) {
        let isa = support::isa("x86_64");
        let func = program.function(0, &*isa);
        support::verify(&func, &*isa);
        let labels: Vec<_> = values(&func).map(|value| (value.as_u32(), value)).collect();
        let mut marks = marks(&func);
        let plain = Resumable::new(&func, &marks, &*isa).unwrap();
        marks.iter_mut().for_each(|mark| mark.labels.clone_from(&labels));
        let labelled = Resumable::new(&func, &marks, &*isa).unwrap();
        for (point, plain) in labelled.points().iter().zip(plain.points()) {
            let expected = alive(&func, point.position);
            let found: BTreeSet<_> = point.live.iter().map(|live| live.label).collect();
            let numbers = expected.iter().map(|value| Some(value.as_u32())).collect();
            prop_assert_eq!(&found, &numbers, "{:?} of {}", point.position, func);
            prop_assert_eq!(point.live.len(), expected.len(), "some come twice");
            let types: Vec<Type> = plain.live.iter().map(|live| live.ty).collect();
            let in_order: Vec<_> =
                expected.iter().map(|value| func.dfg.value_type(*value)).collect();
            prop_assert_eq!(types, in_order, "{:?} of {}", point.position, func);
        }
    }
}

/// A point at each block, and at each call that has a result.
pub(crate) fn marks(func: &Function) -> Vec<Mark> {
    let blocks = func.layout.blocks().map(PointPosition::Block);
    let positions = blocks.chain(asks(func).into_iter().map(PointPosition::Call));
    let mark = |(id, position)| Mark { id, position, labels: Vec::new() };
    (0..).zip(positions).map(mark).collect()
}

/// All values, in the order of their definitions.
fn values(func: &Function) -> impl Iterator<Item = Value> {
    func.layout.blocks().flat_map(|block| {
        let results = func.layout.block_insts(block).flat_map(|inst| func.dfg.inst_results(inst));
        func.dfg.block_params(block).iter().chain(results).copied()
    })
}

/// What is alive at a position: the parameters of the block, and then the others in the order of
/// their definitions. Nothing of what the call returns.
fn alive(func: &Function, position: PointPosition) -> Vec<Value> {
    let (block, first) = match position {
        PointPosition::Block(block) => (block, 0),
        PointPosition::Call(call) => {
            let block = func.layout.inst_block(call).unwrap();
            (block, 1 + func.layout.block_insts(block).position(|inst| inst == call).unwrap())
        }
    };
    let entered_with = match position {
        PointPosition::Block(block) => func.dfg.block_params(block),
        PointPosition::Call(call) => func.dfg.inst_results(call),
    };
    let others = values(func).filter(|value| !entered_with.contains(value));
    let others = others.filter(|value| depends_on_more(func, *value, &mut Vec::new()));
    let others = others.filter(|value| is_used(func, *value, block, first));
    match position {
        PointPosition::Block(_) => entered_with.iter().copied().chain(others).collect(),
        PointPosition::Call(_) => others.collect(),
    }
}

/// Whether there is anything in the computation of a value but constants, and instructions that do
/// nothing besides.
fn depends_on_more(func: &Function, value: Value, seen: &mut Vec<Inst>) -> bool {
    let ValueDef::Result(inst, _) = func.dfg.value_def(func.dfg.resolve_aliases(value)) else {
        return true;
    };
    match func.dfg.insts[inst].opcode() {
        Opcode::Call | Opcode::Load => true,
        // What depends on itself, in blocks that nothing leads to, depends on more.
        _ if seen.contains(&inst) => true,
        _ => {
            seen.push(inst);
            let mut arguments = func.dfg.inst_args(inst).iter();
            let depends = arguments.any(|argument| depends_on_more(func, *argument, seen));
            seen.pop();
            depends
        }
    }
}

/// Whether on some path that begins with the instruction of this number in a block, `value` is used
/// before it is defined.
fn is_used(func: &Function, value: Value, block: Block, first: usize) -> bool {
    let dfg = &func.dfg;
    let mut entered = BTreeSet::new();
    let mut pending = vec![(block, first)];
    'paths: while let Some((block, first)) = pending.pop() {
        for inst in func.layout.block_insts(block).skip(first) {
            if dfg.inst_values(inst).any(|used| dfg.resolve_aliases(used) == value) {
                return true;
            }
            if dfg.inst_results(inst).contains(&value) {
                continue 'paths;
            }
            for target in
                dfg.insts[inst].branch_destination(&dfg.jump_tables, &dfg.exception_tables)
            {
                let target = target.block(&dfg.value_lists);
                if !dfg.block_params(target).contains(&value) && entered.insert(target) {
                    pending.push((target, 0));
                }
            }
        }
    }
    false
}
