//! Functions that are told how to go on, compiled.

use cranelift_codegen::ir::{
    self, AbiParam, BlockArg, BlockCall, ExceptionTableData, ExceptionTableItem, ExceptionTag,
    InstBuilder, JumpTableData, Signature, TrapCode, Value, types,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::FunctionBuilder;
use cranelift_module::{FuncId, Linkage, Module};
use lastout::{Engine, Unit};

use super::super::name;
use super::{By, CAUGHT, Function, Move, UnitPlan};
use crate::emit::Emitter;

/// What a trap is told by.
pub(super) const TRAP: TrapCode = TrapCode::unwrap_user(7);

/// What a function returns.
pub(super) fn result(function: Function, number: u64) -> i64 {
    number as i64 * 16 + function as i64
}

/// What a function tells the host first, by what it is called with.
pub(super) fn told(arguments: impl Iterator<Item = i64>) -> i64 {
    arguments.zip(1..).map(|(argument, factor)| argument * factor).sum()
}

/// What a function of an install calls another with.
pub(super) fn arguments(number: u64, callee: Function) -> impl Iterator<Item = i64> {
    (0..callee.params()).map(move |index| number as i64 + index)
}

/// How a function can go on by itself. What the host returns in a visit is the number of one.
const WAYS: usize = 2 + Function::ALL.len() * WAYS_TO_CALL;

/// Four ways to call a function, and two to end with a call of it.
const WAYS_TO_CALL: usize = 6;

const BY: [By; 4] = [By::Name, By::Address, By::NameCatchingOne, By::AddressCatchingAll];

/// What the host returns for the function to go on like this, if it is the function that does.
pub(super) fn way(move_: &Move) -> Option<i64> {
    let call = |callee: Function, way| 2 + callee as i64 * WAYS_TO_CALL as i64 + way;
    Some(match *move_ {
        Move::Return => 0,
        Move::Trap => 1,
        Move::Call(callee, by) => call(callee, by as i64),
        Move::TailCall(callee, by_address) => call(callee, 4 + i64::from(by_address)),
        Move::Enter(..) | Move::Throw(_) | Move::Panic | Move::Install(_) | Move::End => {
            return None;
        }
    })
}

/// The signature of a function.
pub(super) fn signature(function: Function) -> Signature {
    let tail = function.is_tail();
    let mut signature = Signature::new(if tail { CallConv::Tail } else { CallConv::SystemV });
    signature.params.extend((0..function.params()).map(|_| AbiParam::new(types::I64)));
    signature.returns.push(AbiParam::new(types::I64));
    signature
}

/// A unit as planned, whose functions say that they have a number.
pub(super) fn build(engine: &Engine, plan: &UnitPlan, number: u64) -> Unit {
    let mut unit = engine.unit();
    for export in &plan.0 {
        let linkage = if export.preemptible { Linkage::Preemptible } else { Linkage::Export };
        declare(&mut unit, export.function, linkage);
    }
    let mut emitter = Emitter::default();
    for export in &plan.0 {
        let function = export.function;
        let id = declare(&mut unit, function, Linkage::Import);
        let emit = |builder: &mut FunctionBuilder<'_>, unit: &mut Unit, params: &[Value]| {
            Body { builder, unit, function, number }.emit(params);
        };
        emitter.define(&mut unit, id, emit).unwrap();
    }
    unit
}

fn declare(unit: &mut Unit, function: Function, linkage: Linkage) -> FuncId {
    unit.declare_function(&name(function as usize), linkage, &signature(function)).unwrap()
}

/// A function in the making.
struct Body<'a, 'b> {
    builder: &'a mut FunctionBuilder<'b>,
    unit: &'a mut Unit,
    function: Function,
    number: u64,
}

impl Body<'_, '_> {
    fn emit(&mut self, params: &[Value]) {
        let visit = self.builder.create_block();
        let mut told = self.number_value(0);
        for (&param, factor) in params.iter().zip(1..) {
            let scaled = self.builder.ins().imul_imm_s(param, factor);
            told = self.builder.ins().iadd(told, scaled);
        }
        self.builder.ins().jump(visit, &[told.into()]);
        let told = self.builder.append_block_param(visit, types::I64);
        self.builder.switch_to_block(visit);
        let way = self.visit(told);
        let ways: Vec<_> = (0..WAYS).map(|_| self.builder.create_block()).collect();
        let pool = &mut self.builder.func.dfg.value_lists;
        let mut calls = ways.iter().map(|&way| BlockCall::new(way, [], pool));
        let first = calls.next().expect("there are some");
        let calls: Vec<_> = [first].into_iter().chain(calls).collect();
        let table = self.builder.create_jump_table(JumpTableData::new(calls[0], &calls));
        let way = self.builder.ins().ireduce(types::I32, way);
        self.builder.ins().br_table(way, table);

        self.builder.switch_to_block(ways[0]);
        let result = self.number_value(result(self.function, self.number));
        self.builder.ins().return_(&[result]);
        self.builder.switch_to_block(ways[1]);
        self.builder.ins().trap(TRAP);
        for (callee, ways) in Function::ALL.into_iter().zip(ways[2..].chunks(WAYS_TO_CALL)) {
            for (by, &way) in BY.into_iter().zip(ways) {
                self.builder.switch_to_block(way);
                self.call(callee, by, visit);
            }
            for (by_address, &way) in [false, true].into_iter().zip(&ways[BY.len()..]) {
                self.builder.switch_to_block(way);
                self.tail_call(callee, by_address);
            }
        }
    }

    fn number_value(&mut self, number: i64) -> Value {
        self.builder.ins().iconst(types::I64, number)
    }

    /// Tells the host something, and asks how to go on.
    fn visit(&mut self, told: Value) -> Value {
        let mut signature = self.unit.make_signature();
        signature.params.extend([AbiParam::new(types::I64); 4]);
        signature.returns.push(AbiParam::new(types::I64));
        let visit = self.unit.declare_function("visit", Linkage::Import, &signature).unwrap();
        let visit = self.unit.declare_func_in_func(visit, self.builder.func);
        let frame = self.builder.ins().get_frame_pointer(types::I64);
        let function = self.number_value(self.function as i64);
        let number = self.number_value(self.number as i64);
        let call = self.builder.ins().call(visit, &[frame, function, number, told]);
        self.builder.inst_results(call)[0]
    }

    /// What is called, and with what.
    fn callee(&mut self, callee: Function) -> (ir::FuncRef, ir::SigRef, Vec<Value>) {
        let id = declare(self.unit, callee, Linkage::Import);
        let func_ref = self.unit.declare_func_in_func(id, self.builder.func);
        let signature = self.builder.func.dfg.ext_funcs[func_ref].signature;
        let values = arguments(self.number, callee).map(|argument| self.number_value(argument));
        let values = values.collect();
        (func_ref, signature, values)
    }

    /// Calls a function, and visits the host again with the result, or with what was caught.
    fn call(&mut self, callee: Function, by: By, visit: ir::Block) {
        let (func_ref, signature, arguments) = self.callee(callee);
        let pool = &mut self.builder.func.dfg.value_lists;
        let returned = BlockCall::new(visit, [BlockArg::TryCallRet(0)], pool);
        let caught = BlockCall::new(visit, [BlockArg::TryCallExn(0)], pool);
        let one = ExceptionTableItem::Tag(ExceptionTag::from_u32(CAUGHT), caught);
        let mut table = |item| {
            let table = ExceptionTableData::new(signature, returned, [item]);
            self.builder.func.dfg.exception_tables.push(table)
        };
        let call = match by {
            By::Name => self.builder.ins().call(func_ref, &arguments),
            By::Address => {
                let address = self.builder.ins().func_addr(types::I64, func_ref);
                self.builder.ins().call_indirect(signature, address, &arguments)
            }
            By::NameCatchingOne => {
                let table = table(one);
                self.builder.ins().try_call(func_ref, &arguments, table);
                return;
            }
            By::AddressCatchingAll => {
                let table = table(ExceptionTableItem::Default(caught));
                let address = self.builder.ins().func_addr(types::I64, func_ref);
                self.builder.ins().try_call_indirect(address, &arguments, table);
                return;
            }
        };
        let result = self.builder.inst_results(call)[0];
        self.builder.ins().jump(visit, &[result.into()]);
    }

    fn tail_call(&mut self, callee: Function, by_address: bool) {
        if !self.function.is_tail() || !callee.is_tail() {
            // Nobody comes here.
            self.builder.ins().trap(TRAP);
            return;
        }
        let (func_ref, signature, arguments) = self.callee(callee);
        if by_address {
            let address = self.builder.ins().func_addr(types::I64, func_ref);
            self.builder.ins().return_call_indirect(signature, address, &arguments);
        } else {
            self.builder.ins().return_call(func_ref, &arguments);
        }
    }
}
