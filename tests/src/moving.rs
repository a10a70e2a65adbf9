//! CLIF text as units whose frames move: with points at every loop, and at every call that can be
//! left.

use std::collections::BTreeSet;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{
    ArgumentPurpose, Block, ExternalName, FuncRef, Function, Inst, InstructionData, Opcode,
    Signature, Type,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_module::{FuncId, Module};
use lastout::{Engine, Installed, ResumePoints, Unit};
use target_lexicon::Architecture;

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

/// The calls of a function in the order of its code, of functions that are known by name.
fn named_calls(func: &Function) -> impl Iterator<Item = (Inst, FuncRef)> {
    let insts = func.layout.blocks().flat_map(|block| func.layout.block_insts(block));
    insts.filter_map(|inst| match func.dfg.insts[inst] {
        InstructionData::Call { opcode: Opcode::Call, func_ref, .. } => {
            let callee = &func.dfg.ext_funcs[func_ref];
            let named = !matches!(callee.name, ExternalName::LibCall(_));
            (named && is_plain(&func.dfg.signatures[callee.signature])).then_some((inst, func_ref))
        }
        _ => None,
    })
}

/// Those of them that are not colocated.
pub fn calls(func: &Function) -> Vec<Inst> {
    let calls = named_calls(func).filter(|(_, callee)| !func.dfg.ext_funcs[*callee].colocated);
    calls.map(|(call, _)| call).collect()
}

/// Whether all parameters and results are just that.
pub fn is_plain(signature: &Signature) -> bool {
    let params = signature.params.iter().chain(&signature.returns);
    params.into_iter().all(|param| param.purpose == ArgumentPurpose::Normal)
}

/// The points at the loops of a function, with the numbers of their headers, and at those of its
/// calls that go to functions which can be left alone, numbered from [`CALLS`] on.
pub fn points(func: &Function, can_be_left: impl Fn(FuncRef) -> bool) -> ResumePoints {
    let mut points = ResumePoints::new();
    for header in loop_headers(func) {
        points.block(header.as_u32(), header);
    }
    let calls = named_calls(func).filter(|&(_, callee)| can_be_left(callee));
    for (number, (call, _)) in (CALLS..).zip(calls) {
        points.call(number, call);
    }
    points
}

/// Whether a function can have points: frames move by tail calls, with nothing but values.
pub fn can_have_points(func: &Function, isa: &dyn TargetIsa) -> bool {
    let insts = func.layout.blocks().flat_map(|block| func.layout.block_insts(block));
    let mut opcodes = insts.map(|inst| func.dfg.insts[inst].opcode());
    let looks_at_frame = opcodes.any(|opcode| {
        matches!(
            opcode,
            Opcode::GetFramePointer | Opcode::GetStackPointer | Opcode::GetReturnAddress
        )
    });
    matches!(isa.triple().architecture, Architecture::X86_64)
        && func.signature.call_conv == CallConv::Tail
        && is_plain(&func.signature)
        && func.sized_stack_slots.is_empty()
        && func.dynamic_stack_slots.is_empty()
        && !looks_at_frame
}

/// All points that a function can have, in a unit where it does not belong together with functions
/// other than those that are colocated.
pub fn all_points(func: &Function) -> ResumePoints {
    points(func, |callee| !func.dfg.ext_funcs[callee].colocated)
}

/// Defines all functions of a text, those that can have points with the points that `points` says.
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
        if !can_have_points(&function, unit.isa()) {
            return unit.define_function(id, &mut Context::for_function(function));
        }
        let points = points(&function);
        unit.define_resumable_function(id, &mut Context::for_function(function), &points)?;
        Ok(())
    })
}

/// A function `ask`, `(callback, i64) -> i64`: calls back, and adds a number and the argument to the
/// result.
pub fn asking(plus: i64) -> String {
    format!(
        "function %ask(i64, i64) -> i64 tail {{
            fn0 = %call_back(i64, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            v2 = call fn0(v0, v1)
            v3 = iconst.i64 {plus}
            v4 = iadd v2, v3
            v5 = iadd v4, v1
            return v5
         }}\n"
    )
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
