//! Calls of functions of any signature, with values that are in memory.

use cranelift_codegen::Context;
use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Signature};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{Linkage, Module, ModuleError};
use lastout::{CallError, Handle};

/// Takes the address of the arguments, and puts the results there.
pub(super) type Trampoline = fn(*mut u128);

/// How far values are apart: the largest, a vector, takes all of it.
const STRIDE: i32 = size_of::<u128>() as i32;

/// Defines and exports a function `name` of the type [`Trampoline`] that calls `callee`, which is
/// imported.
pub(super) fn define(
    unit: &mut impl Module,
    name: &str,
    callee: &str,
    signature: &Signature,
) -> Result<(), ModuleError> {
    let mut context = unit.make_context();
    let pointer = unit.isa().pointer_type();
    context.func.signature.params.push(AbiParam::new(pointer));
    let id = unit.declare_function(name, Linkage::Export, &context.func.signature)?;
    let callee = unit.declare_function(callee, Linkage::Import, signature)?;
    build(unit, &mut context, callee, signature);
    unit.define_function(id, &mut context)
}

fn build(
    unit: &mut impl Module,
    context: &mut Context,
    callee: cranelift_module::FuncId,
    signature: &Signature,
) {
    let callee = unit.declare_func_in_func(callee, &mut context.func);
    let mut buffers = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut buffers);
    let block = builder.create_block();
    builder.append_block_params_for_function_params(block);
    builder.switch_to_block(block);
    builder.seal_all_blocks();
    let values = builder.block_params(block)[0];
    let flags = MemFlagsData::trusted();
    let offsets = || (0..).step_by(STRIDE as usize);
    let params = signature.params.iter().zip(offsets());
    let arguments: Vec<_> = params
        .map(|(param, offset)| builder.ins().load(param.value_type, flags, values, offset))
        .collect();
    let call = builder.ins().call(callee, &arguments);
    let results = builder.inst_results(call).to_vec();
    for (result, offset) in results.into_iter().zip(offsets()) {
        builder.ins().store(flags, result, values, offset);
    }
    builder.ins().return_(&[]);
    builder.finalize(unit.isa().frontend_config());
}

/// Calls the function of this signature that `trampoline` calls.
pub(super) fn call(
    trampoline: &Handle<Trampoline>,
    signature: &Signature,
    arguments: &[DataValue],
) -> Result<Vec<DataValue>, CallError> {
    let mut values = vec![0_u128; signature.params.len().max(signature.returns.len())];
    for (value, argument) in values.iter_mut().zip(arguments) {
        let mut bytes = [0; size_of::<u128>()];
        argument.write_to_slice_ne(&mut bytes);
        *value = u128::from_ne_bytes(bytes);
    }
    // SAFETY: the trampoline reads and writes as many values as the signature has. What the
    // function does with its arguments the file answers for.
    unsafe { trampoline.call(values.as_mut_ptr()) }?;
    let results = values.iter().zip(&signature.returns);
    Ok(results
        .map(|(value, result)| {
            DataValue::read_from_slice_ne(&value.to_ne_bytes(), result.value_type)
        })
        .collect())
}
