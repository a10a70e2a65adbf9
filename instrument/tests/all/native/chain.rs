//! Functions that tail-call each other, with arguments that the last of them can be checked by.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{
    AbiParam, ExtFuncData, ExternalName, Function, InstBuilder, MemFlagsData, Signature, Type,
    UserExternalName, UserFuncName, Value, types::*,
};
use cranelift_codegen::isa::CallConv;
use lastout_instrument::{Callee, Dispatch, MachineCode, route_calls};

use super::link;
use crate::support;

/// The signature of a function of a chain: how often to go on, a hash of all arguments so far, and
/// then others.
pub(crate) fn signature(others: &[Type], returns: &[Type]) -> Signature {
    let plain = |ty: &Type| AbiParam::new(*ty);
    Signature {
        params: [I64, I64].iter().chain(others).map(plain).collect(),
        returns: returns.iter().map(plain).collect(),
        call_conv: CallConv::Tail,
    }
}

/// Function `number`: adds its arguments to the hash, calls `observe` with its number and its stack
/// pointer, and then tail-calls function `next`, if it is to go on, with arguments made of the
/// hash. Else it returns results that are.
pub(crate) fn function(
    number: u64,
    own: &Signature,
    next: (u32, &Signature),
    observe: extern "C" fn(u64, u64),
    dispatch: Dispatch,
) -> MachineCode {
    let mut func = Function::with_name_signature(UserFuncName::default(), own.clone());
    let entry = func.dfg.make_block();
    let params: Vec<_> = own
        .params
        .iter()
        .map(|param| func.dfg.append_block_param(entry, param.value_type))
        .collect();
    let (on, over) = (func.dfg.make_block(), func.dfg.make_block());
    let name = func.declare_imported_user_function(UserExternalName::new(0, next.0));
    let next_signature = func.import_signature(next.1.clone());
    let callee = func.import_function(ExtFuncData {
        name: ExternalName::user(name),
        signature: next_signature,
        colocated: false,
        patchable: false,
    });
    let mut observing = Signature::new(CallConv::SystemV);
    observing.params = vec![AbiParam::new(I64); 2];
    let observing = func.import_signature(observing);

    let mut pos = FuncCursor::new(&mut func);
    pos.insert_block(entry);
    let mut hash = params[1];
    for (param, &value) in own.params.iter().zip(&params).skip(2) {
        let value = to_integer(&mut pos, param.value_type, value);
        hash = pos.ins().imul_imm_s(hash, 31);
        hash = pos.ins().iadd(hash, value);
    }
    let observe = pos.ins().iconst(I64, observe as *const () as i64);
    let number = pos.ins().iconst(I64, number as i64);
    let top = pos.ins().get_stack_pointer(I64);
    pos.ins().call_indirect(observing, observe, &[number, top]);
    pos.ins().brif(params[0], on, &[], over, &[]);

    pos.insert_block(on);
    let left = pos.ins().iadd_imm_s(params[0], -1);
    let mut arguments = vec![left, hash];
    for (number, param) in (0..).zip(&next.1.params[2..]) {
        let seed = pos.ins().iadd_imm_s(hash, number);
        arguments.push(from_integer(&mut pos, param.value_type, seed));
    }
    pos.ins().return_call(callee, &arguments);

    pos.insert_block(over);
    let mut results = Vec::new();
    for (number, result) in (0..).zip(&own.returns) {
        let seed = pos.ins().iadd_imm_s(hash, number);
        results.push(from_integer(&mut pos, result.value_type, seed));
    }
    pos.ins().return_(&results);

    let isa = support::isa("x86_64");
    route_calls(&mut func, &*isa, dispatch, |_| Some(Callee::Replaceable)).expect("it can be");
    link::compile(func)
}

fn from_integer(pos: &mut FuncCursor<'_>, ty: Type, seed: Value) -> Value {
    match ty {
        I64 => seed,
        F64 => pos.ins().bitcast(F64, MemFlagsData::new(), seed),
        I128 => {
            let high = pos.ins().iadd_imm_s(seed, 1);
            pos.ins().iconcat(seed, high)
        }
        I64X2 => {
            let high = pos.ins().iadd_imm_s(seed, 1);
            let both = pos.ins().splat(I64X2, seed);
            pos.ins().insertlane(both, high, 1)
        }
        other => unreachable!("chains have no {other}"),
    }
}

fn to_integer(pos: &mut FuncCursor<'_>, ty: Type, value: Value) -> Value {
    let (low, high) = match ty {
        I64 => return value,
        F64 => return pos.ins().bitcast(I64, MemFlagsData::new(), value),
        I128 => pos.ins().isplit(value),
        I64X2 => (pos.ins().extractlane(value, 0), pos.ins().extractlane(value, 1)),
        other => unreachable!("chains have no {other}"),
    };
    let low = pos.ins().imul_imm_s(low, 3);
    pos.ins().iadd(low, high)
}

/// The bytes of what is made of a seed.
pub(crate) fn bytes_from(ty: Type, seed: u64) -> Vec<u8> {
    let high = seed.wrapping_add(1);
    match ty {
        I64 | F64 => seed.to_le_bytes().to_vec(),
        _ => [seed.to_le_bytes(), high.to_le_bytes()].concat(),
    }
}

/// The hash after the arguments that are made of it have been added.
pub(crate) fn next_hash(hash: u64, others: &[Type]) -> u64 {
    let arguments = (0..).zip(others).map(|(number, &ty)| {
        let seed = hash.wrapping_add(number);
        match ty {
            I64 | F64 => seed,
            _ => seed.wrapping_mul(3).wrapping_add(seed.wrapping_add(1)),
        }
    });
    arguments.fold(hash, |hash, argument| hash.wrapping_mul(31).wrapping_add(argument))
}
