//! The functions of a file in the convention for tail calls, as far as that makes no difference to
//! what they do: it takes that for frames to move.

use std::collections::BTreeSet;

use cranelift_codegen::ir::{
    ExtFuncData, Function, GlobalValueData, InstructionData, Opcode, Signature,
};
use cranelift_codegen::isa::CallConv;

use crate::clif::{callee_name, function_name};
use crate::moving::is_plain;

/// All functions, those of them in the convention for tail calls that are only called directly, and
/// by callers that can be changed along.
pub(super) fn in_tail_convention(functions: &[&Function]) -> Vec<Function> {
    let held: BTreeSet<_> = functions.iter().flat_map(|func| held(func, functions)).collect();
    let converted: BTreeSet<_> = functions
        .iter()
        .filter(|func| is_convertible(&func.signature))
        .map(|func| function_name(&func.name))
        .filter(|name| !held.contains(name))
        .collect();
    functions.iter().map(|func| convert(func, &converted)).collect()
}

fn is_convertible(signature: &Signature) -> bool {
    matches!(signature.call_conv, CallConv::Fast | CallConv::SystemV) && is_plain(signature)
}

/// The functions that `func` does anything else with than to call them as what they are.
fn held(func: &Function, functions: &[&Function]) -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    for inst in func.layout.blocks().flat_map(|block| func.layout.block_insts(block)) {
        let callee = match func.dfg.insts[inst] {
            InstructionData::Call { opcode: Opcode::Call, .. } => None,
            InstructionData::Call { func_ref, .. }
            | InstructionData::TryCall { func_ref, .. }
            | InstructionData::FuncAddr { func_ref, .. } => Some(func_ref),
            _ => None,
        };
        held.extend(callee.and_then(|it| callee_name(func, &func.dfg.ext_funcs[it].name)));
    }
    for callee in func.dfg.ext_funcs.values() {
        let Some(name) = callee_name(func, &callee.name) else { continue };
        let called_as = &func.dfg.signatures[callee.signature];
        let mut called = functions.iter().filter(|func| function_name(&func.name) == name);
        if called.any(|called| called.signature != *called_as) {
            held.insert(name);
        }
    }
    let symbols = func.global_values.values().filter_map(|global| match global {
        GlobalValueData::Symbol { name, .. } => callee_name(func, name),
        _ => None,
    });
    held.extend(symbols);
    held
}

fn convert(func: &Function, converted: &BTreeSet<String>) -> Function {
    let mut func = func.clone();
    if converted.contains(&function_name(&func.name)) {
        func.signature.call_conv = CallConv::Tail;
    }
    for callee in func.dfg.ext_funcs.keys().collect::<Vec<_>>() {
        let ExtFuncData { name, signature, .. } = &func.dfg.ext_funcs[callee];
        if callee_name(&func, name).is_some_and(|name| converted.contains(&name)) {
            // Others may be called as the same.
            let mut signature = func.dfg.signatures[*signature].clone();
            signature.call_conv = CallConv::Tail;
            let signature = func.import_signature(signature);
            func.dfg.ext_funcs[callee].signature = signature;
        }
    }
    func
}
