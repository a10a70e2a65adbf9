//! The units of a scenario, compiled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Signature, Value, types};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::{DataDescription, FuncId, Linkage, Module};
use lastout::{Engine, FunctionType, Unit};

use super::{Body, Callee, Mistake, Name, Place, UnitPlan};
use crate::emit::Emitter;

/// A function of one parameter, the depth.
pub(super) type Narrow = fn(i64) -> i64;
/// A function of two, the depth and a number that it adds.
pub(super) type Wide = fn(i64, i64) -> i64;

/// The signature of a function.
pub(super) fn signature(engine: &Engine, wide: bool) -> Signature {
    if wide { Wide::signature(engine.isa()) } else { Narrow::signature(engine.isa()) }
}

/// A unit as planned, and the function that it exposes.
pub(super) fn build(
    engine: &Engine,
    plan: &UnitPlan,
    dropped: &Arc<AtomicUsize>,
) -> (Unit, Option<FuncId>) {
    let mut unit = engine.unit();
    for _ in 0..plan.attached {
        unit.attach(Attached(Arc::clone(dropped)));
    }
    if plan.roomy {
        unit.reserve(4096, 256);
    }
    let narrow = signature(engine, false);
    match plan.mistake {
        Some(Mistake::Undefined) => {
            unit.declare_function("ghost", Linkage::Export, &narrow).unwrap();
        }
        Some(Mistake::HostName) => {
            let id = unit.declare_function("visit", Linkage::Export, &narrow).unwrap();
            let same = |builder: &mut FunctionBuilder<'_>, _: &mut Unit, params: &[Value]| {
                builder.ins().return_(params);
            };
            Emitter::default().define(&mut unit, id, same).unwrap();
            return (unit, None);
        }
        None => {}
    }
    let mut ids = Vec::new();
    for export in &plan.exports {
        let linkage = if export.preemptible { Linkage::Preemptible } else { Linkage::Export };
        let signature = signature(engine, plan.wide.contains(&export.name));
        ids.push(unit.declare_function(export.name.as_str(), linkage, &signature).unwrap());
    }
    let helper = plan
        .helper
        .as_ref()
        .map(|_| unit.declare_function("helper", Linkage::Local, &narrow).unwrap());
    ids.extend(helper);
    let exposed = plan.exposed.as_ref().map(|_| unit.declare_anonymous_function(&narrow).unwrap());
    ids.extend(exposed);
    let mut emitter = Emitter::default();
    for (&id, body) in ids.iter().zip(plan.bodies()) {
        let emit = |builder: &mut FunctionBuilder<'_>, unit: &mut Unit, params: &[Value]| {
            let wide = |name| plan.wide.contains(&name);
            emit(builder, unit, params, body, helper, &|name| signature(engine, wide(name)));
        };
        emitter.define(&mut unit, id, emit).unwrap();
    }
    if let Some(exposed) = exposed {
        unit.expose(exposed);
    }
    (unit, exposed)
}

/// The code of a body. What it computes is said at [`Body`].
fn emit(
    builder: &mut FunctionBuilder<'_>,
    unit: &mut Unit,
    params: &[Value],
    body: &Body,
    helper: Option<FuncId>,
    signature: &dyn Fn(Name) -> Signature,
) {
    let depth = params[0];
    let constant = constant(builder, unit, body);
    let mut result = match params.get(1) {
        Some(&number) => builder.ins().iadd(constant, number),
        None => constant,
    };
    let shallow = builder.create_block();
    let deep = builder.create_block();
    let some_left = builder.ins().icmp_imm_s(IntCC::SignedGreaterThan, depth, 0);
    builder.ins().brif(some_left, deep, &[], shallow, &[]);
    builder.switch_to_block(shallow);
    builder.ins().return_(&[result]);
    builder.switch_to_block(deep);

    let mut visiting = unit.make_signature();
    visiting.params.push(cranelift_codegen::ir::AbiParam::new(types::I64));
    let visit = unit.declare_function("visit", Linkage::Import, &visiting).unwrap();
    let visit = unit.declare_func_in_func(visit, builder.func);
    builder.ins().call(visit, &[constant]);

    let depth = builder.ins().iadd_imm_s(depth, -1);
    for call in &body.calls {
        let id = match (call.callee, helper) {
            (Callee::Helper, None) => continue,
            (Callee::Helper, Some(helper)) => helper,
            (Callee::Named(name), _) => {
                let signature = signature(name);
                unit.declare_function(name.as_str(), Linkage::Import, &signature).unwrap()
            }
        };
        let callee = unit.declare_func_in_func(id, builder.func);
        let signature = builder.func.dfg.ext_funcs[callee].signature;
        let arguments = [depth, result];
        let arguments = &arguments[..builder.func.dfg.signatures[signature].params.len()];
        let call = if call.by_address {
            let address = builder.ins().func_addr(types::I64, callee);
            builder.ins().call_indirect(signature, address, arguments)
        } else {
            builder.ins().call(callee, arguments)
        };
        let returned = builder.inst_results(call)[0];
        let scaled = builder.ins().imul_imm_s(result, 31);
        result = builder.ins().iadd(scaled, returned);
    }
    builder.ins().return_(&[result]);
}

fn constant(builder: &mut FunctionBuilder<'_>, unit: &mut Unit, body: &Body) -> Value {
    let constant = i64::from(body.constant);
    if body.place == Place::Code {
        return builder.ins().iconst(types::I64, constant);
    }
    let data = unit.declare_anonymous_data(body.place == Place::Writable, false).unwrap();
    let mut description = DataDescription::new();
    description.define(Box::new(constant.to_ne_bytes()));
    unit.define_data(data, &description).unwrap();
    let data = unit.declare_data_in_func(data, builder.func);
    let address = builder.ins().symbol_value(types::I64, data);
    builder.ins().load(types::I64, MemFlagsData::trusted(), address, 0)
}

/// A unit that takes `bytes` of code memory and a little more.
pub(super) fn ballast(engine: &Engine, bytes: usize) -> Unit {
    let mut unit = engine.unit();
    let signature = signature(engine, false);
    let id = unit.declare_function("ballast", Linkage::Export, &signature).unwrap();
    // Nobody calls it.
    unit.define_function_bytes(id, 16, &vec![0; bytes], &[]).unwrap();
    unit
}

/// Counts itself when it is dropped.
struct Attached(Arc<AtomicUsize>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
