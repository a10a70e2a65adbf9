//! CLIF text as units whose frames move: with points at every loop, and at every call that can be
//! left.

use std::collections::BTreeSet;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{Block, Function, Inst, InstructionData, Opcode, Type};
use cranelift_codegen::isa::CallConv;
use cranelift_module::{FuncId, Module};
use lastout::{Engine, Installed, ResumePoints, Unit};

use crate::clif::{self, Error};
use crate::support::Drops;

/// What is added to the number of a call among the calls of its function, to make its point's.
pub const CALLS: u32 = 1000;

/// The integer type of this name.
///
/// # Panics
///
/// If there is none.
pub fn ty(name: &str) -> Type {
    let bits = name.strip_prefix('i').and_then(|bits| bits.parse().ok());
    bits.and_then(Type::int).expect("it is the name of an integer type")
}

/// The blocks of a function that a block after them, or they themselves, jump back to.
pub fn loop_headers(func: &Function) -> Vec<Block> {
    let mut seen = BTreeSet::new();
    let mut headers = BTreeSet::new();
    for block in func.layout.blocks() {
        seen.insert(block);
        let last = func.layout.last_inst(block).into_iter();
        let dfg = &func.dfg;
        let targets = last.flat_map(|inst| {
            dfg.insts[inst].branch_destination(&dfg.jump_tables, &dfg.exception_tables)
        });
        let targets = targets.map(|target| target.block(&dfg.value_lists));
        headers.extend(targets.filter(|target| seen.contains(target)));
    }
    headers.into_iter().collect()
}

/// The calls of a function in the order of its code, of functions that are not colocated.
pub fn calls(func: &Function) -> Vec<Inst> {
    let insts = func.layout.blocks().flat_map(|block| func.layout.block_insts(block));
    let calls = insts.filter(|&inst| match func.dfg.insts[inst] {
        InstructionData::Call { opcode: Opcode::Call, func_ref, .. } => {
            !func.dfg.ext_funcs[func_ref].colocated
        }
        _ => false,
    });
    calls.collect()
}

/// All points that a function can have: at its loops, with the numbers of their headers, and at its
/// calls of functions that are not colocated, from [`CALLS`] on.
pub fn all_points(func: &Function) -> ResumePoints {
    let mut points = ResumePoints::new();
    for header in loop_headers(func) {
        points.block(header.as_u32(), header);
    }
    for (number, call) in (CALLS..).zip(calls(func)) {
        points.call(number, call);
    }
    points
}

/// Defines all functions of a text, those of the convention for tail calls with the points that
/// `points` says.
///
/// # Errors
///
/// As [`clif::define`].
pub fn define(
    unit: &mut Unit,
    text: &str,
    points: impl Fn(&Function) -> ResumePoints,
) -> Result<Vec<FuncId>, Error> {
    clif::define_by(unit, text, |unit, id, function| {
        if function.signature.call_conv != CallConv::Tail {
            return unit.define_function(id, &mut Context::for_function(function));
        }
        let points = points(&function);
        unit.define_resumable_function(id, &mut Context::for_function(function), &points)?;
        Ok(())
    })
}

/// Installs the functions of a text with [all their points](all_points).
///
/// # Panics
///
/// If the text is none that can be installed.
pub fn install(engine: &Engine, text: &str) -> Installed {
    let mut unit = engine.unit();
    define(&mut unit, text, all_points).unwrap();
    engine.install(unit).unwrap()
}

/// The same, with something attached that counts its drops.
///
/// # Panics
///
/// As [`install`].
pub fn install_counted(engine: &Engine, text: &str, drops: &Drops) -> Installed {
    let mut unit = engine.unit();
    define(&mut unit, text, all_points).unwrap();
    unit.attach(drops.value());
    engine.install(unit).unwrap()
}
