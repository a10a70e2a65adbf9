//! The functions of a program as CLIF.

mod calls;
mod points;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, AbiParam, InstBuilder, TrapCode, Value, types};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, Variable};
use cranelift_module::{self as module, FuncId, Module};

use self::calls::Tables;
pub(super) use self::points::CARRIED;
use self::points::{Marks, Target};
use super::units::defines;
use super::{
    Condition, Convention, FloatOp, IntOp, Kind, Linkage, Operand, Program, Replacement, Signature,
    Statement, Visit, name,
};
use crate::emit::Emitter;

/// Defines functions, and the local ones that they need. Each tells the host the number that it is
/// given.
pub(super) fn define(
    module: &mut impl Target,
    program: &Program,
    exports: &Replacement,
    number: u64,
) {
    let defined = defines(program, exports);
    for &function in &defined {
        let linkage = match program.functions[function].linkage {
            Linkage::Export => module::Linkage::Export,
            Linkage::Preemptible => module::Linkage::Preemptible,
            Linkage::Local => module::Linkage::Local,
        };
        declare(module, program, function, linkage);
    }
    let mut tables = Tables::default();
    let mut emitter = Emitter::default();
    for &function in &defined {
        let id = declare(module, program, function, module::Linkage::Import);
        let emit = |builder: &mut FunctionBuilder<'_>, module: &mut _, params: &[Value]| {
            let frame = Frame::new(builder, program, function, params);
            let marks = program.can_move(function).then(|| Marks::new(builder, exports.points));
            let marks = marks.flatten();
            let tables = &mut tables;
            let mut body = Body { builder, module, program, tables, number, frame, marks };
            if body.statements(&program.functions[function].body) {
                body.return_();
            }
            body.marks
        };
        let define = |module: &mut _, context: &mut _, marks: Option<Marks>| match marks {
            Some(marks) => Target::define_resumable(module, id, context, &marks.points),
            None => Module::define_function(module, id, context),
        };
        emitter.define_by(module, id, emit, define).unwrap();
    }
}

/// The signature of a function.
pub(super) fn signature(signature: &Signature) -> ir::Signature {
    let mut lowered = ir::Signature::new(match signature.convention {
        Convention::SystemV => CallConv::SystemV,
        Convention::Fast => CallConv::Fast,
        Convention::Tail => CallConv::Tail,
    });
    lowered.params.push(AbiParam::new(types::I64));
    lowered.params.extend(signature.params.iter().map(|kind| AbiParam::new(kind.type_())));
    lowered.returns.push(AbiParam::new(types::I64));
    lowered.returns.extend(signature.float.then(|| AbiParam::new(types::F64)));
    lowered
}

impl Kind {
    fn type_(self) -> ir::Type {
        match self {
            Self::Int => types::I64,
            Self::Float => types::F64,
        }
    }
}

fn declare(
    module: &mut impl Module,
    program: &Program,
    function: usize,
    linkage: module::Linkage,
) -> FuncId {
    let signature = signature(program.signature(function));
    module.declare_function(&name(function), linkage, &signature).unwrap()
}

/// The variables of a function.
struct Frame {
    fuel: Variable,
    ints: Vec<Variable>,
    floats: Vec<Variable>,
}

impl Frame {
    fn new(
        builder: &mut FunctionBuilder<'_>,
        program: &Program,
        function: usize,
        params: &[Value],
    ) -> Self {
        let fuel = builder.declare_var(types::I64);
        builder.def_var(fuel, params[0]);
        let mut variables = |kind: Kind| -> Vec<Variable> {
            let kinds = program.signature(function).params.iter();
            let given = kinds.zip(&params[1..]).filter(|&(&param, _)| param == kind);
            let mut given = given.map(|(_, &value)| value);
            let count = program.variables(function, kind);
            let variables = (0..count).map(|_| {
                let value = given.next().unwrap_or_else(|| match kind {
                    Kind::Int => builder.ins().iconst(types::I64, 0),
                    Kind::Float => builder.ins().f64const(0.0),
                });
                let variable = builder.declare_var(kind.type_());
                builder.def_var(variable, value);
                variable
            });
            variables.collect()
        };
        let (ints, floats) = (variables(Kind::Int), variables(Kind::Float));
        Self { fuel, ints, floats }
    }
}

/// A function in the making.
struct Body<'a, 'b, M> {
    builder: &'a mut FunctionBuilder<'b>,
    module: &'a mut M,
    program: &'a Program,
    tables: &'a mut Tables,
    number: u64,
    frame: Frame,
    /// If it has points.
    marks: Option<Marks>,
}

impl<M: Module> Body<'_, '_, M> {
    /// Whether it goes on behind them.
    fn statements(&mut self, statements: &[Statement]) -> bool {
        statements.iter().all(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Statement) -> bool {
        match *statement {
            Statement::Int(to, op, left, right) => {
                let left = self.int(left);
                let right = match right {
                    Operand::Var(var) => self.int(var),
                    Operand::Const(constant) => self.builder.ins().iconst(types::I64, constant),
                };
                let ins = self.builder.ins();
                let result = match op {
                    IntOp::Iadd => ins.iadd(left, right),
                    IntOp::Isub => ins.isub(left, right),
                    IntOp::Imul => ins.imul(left, right),
                    IntOp::Bxor => ins.bxor(left, right),
                    IntOp::Band => ins.band(left, right),
                    IntOp::Ishl => ins.ishl(left, right),
                    IntOp::Ushr => ins.ushr(left, right),
                    IntOp::Sshr => ins.sshr(left, right),
                    IntOp::Rotl => ins.rotl(left, right),
                };
                self.set_int(to, result);
            }
            Statement::Float(to, op, left, right) => {
                let (left, right) = (self.float(left), self.float(right));
                let ins = self.builder.ins();
                let result = match op {
                    FloatOp::Fadd => ins.fadd(left, right),
                    FloatOp::Fsub => ins.fsub(left, right),
                    FloatOp::Fmul => ins.fmul(left, right),
                    FloatOp::Fdiv => ins.fdiv(left, right),
                };
                self.set_float(to, result);
            }
            Statement::ToFloat(to, from) => {
                let from = self.int(from);
                let result = self.builder.ins().fcvt_from_sint(types::F64, from);
                self.set_float(to, result);
            }
            Statement::ToInt(to, from) => {
                let from = self.float(from);
                let result = self.builder.ins().fcvt_to_sint_sat(types::I64, from);
                self.set_int(to, result);
            }
            Statement::If(condition, ref then, ref otherwise) => {
                let condition = self.condition(condition);
                return self.either(
                    condition,
                    |body| body.statements(then),
                    |body| body.statements(otherwise),
                );
            }
            Statement::Repeat(site, times, ref statements) => {
                return self.repeat(site, times, statements);
            }
            Statement::Call(ref call) => self.if_fuel(|body| body.call(call)),
            Statement::Visit(visit) => self.if_fuel(|body| body.visit(visit)),
            Statement::Trap(condition, code) => {
                let condition = self.condition(condition);
                // In one of two ways.
                if code % 2 == 0 {
                    let never = self.builder.ins().icmp_imm_s(IntCC::Equal, condition, 0);
                    self.builder.ins().trapz(never, TrapCode::unwrap_user(code));
                } else {
                    self.builder.ins().trapnz(condition, TrapCode::unwrap_user(code));
                }
            }
            Statement::Divide(to, left, right) => {
                let (left, right) = (self.int(left), self.int(right));
                let result = self.builder.ins().sdiv(left, right);
                self.set_int(to, result);
            }
            Statement::Return => {
                self.return_();
                return false;
            }
            Statement::Tail(ref call) => {
                let fuel = self.is_fuel();
                return self.either(
                    fuel,
                    |body| body.tail(call),
                    |body| {
                        body.return_();
                        false
                    },
                );
            }
        }
        true
    }

    fn int(&mut self, var: usize) -> Value {
        self.builder.use_var(self.frame.ints[var])
    }

    fn set_int(&mut self, var: usize, value: Value) {
        self.builder.def_var(self.frame.ints[var], value);
    }

    fn float(&mut self, var: usize) -> Value {
        self.builder.use_var(self.frame.floats[var])
    }

    fn set_float(&mut self, var: usize, value: Value) {
        self.builder.def_var(self.frame.floats[var], value);
    }

    fn condition(&mut self, condition: Condition) -> Value {
        match condition {
            Condition::Less(left, right) => {
                let (left, right) = (self.int(left), self.int(right));
                self.builder.ins().icmp(IntCC::SignedLessThan, left, right)
            }
            Condition::NoneSet(var, mask) => {
                let var = self.int(var);
                let masked = self.builder.ins().band_imm_s(var, mask);
                self.builder.ins().icmp_imm_s(IntCC::Equal, masked, 0)
            }
        }
    }

    /// Emits both sides of a branch; whether it goes on behind it.
    fn either(
        &mut self,
        condition: Value,
        then: impl FnOnce(&mut Self) -> bool,
        otherwise: impl FnOnce(&mut Self) -> bool,
    ) -> bool {
        let [yes, no, behind] = std::array::from_fn(|_| self.builder.create_block());
        self.builder.ins().brif(condition, yes, &[], no, &[]);
        self.builder.switch_to_block(yes);
        let then = then(self);
        if then {
            self.builder.ins().jump(behind, &[]);
        }
        self.builder.switch_to_block(no);
        let otherwise = otherwise(self);
        if otherwise {
            self.builder.ins().jump(behind, &[]);
        }
        if then || otherwise {
            self.builder.switch_to_block(behind);
        }
        then || otherwise
    }

    fn is_fuel(&mut self) -> Value {
        let fuel = self.builder.use_var(self.frame.fuel);
        self.builder.ins().icmp_imm_s(IntCC::SignedGreaterThan, fuel, 0)
    }

    fn if_fuel(&mut self, then: impl FnOnce(&mut Self)) {
        let fuel = self.is_fuel();
        let then = |body: &mut Self| {
            then(body);
            true
        };
        self.either(fuel, then, |_| true);
    }

    /// Emits a loop; whether it goes on behind it.
    fn repeat(&mut self, site: u32, times: u8, statements: &[Statement]) -> bool {
        let left = self.builder.declare_var(types::I64);
        let start = self.builder.ins().iconst(types::I64, i64::from(times));
        self.builder.def_var(left, start);
        let body = self.builder.create_block();
        self.builder.ins().jump(body, &[]);
        self.builder.switch_to_block(body);
        self.mark_block(site, body);
        let goes_on = self.statements(statements);
        if goes_on {
            let behind = self.builder.create_block();
            let before = self.builder.use_var(left);
            let after = self.builder.ins().iadd_imm_s(before, -1);
            self.builder.def_var(left, after);
            self.builder.ins().brif(after, body, &[], behind, &[]);
            self.builder.switch_to_block(behind);
        }
        goes_on
    }

    fn visit(&mut self, visit: Visit) {
        let fuel = self.builder.use_var(self.frame.fuel);
        let fuel = self.builder.ins().iadd_imm_s(fuel, -1);
        self.builder.def_var(self.frame.fuel, fuel);
        let mut signature = self.module.make_signature();
        signature.params.extend([AbiParam::new(types::I64); 3]);
        signature.returns.push(AbiParam::new(types::I64));
        let id = self.module.declare_function("visit", module::Linkage::Import, &signature);
        let host = self.module.declare_func_in_func(id.unwrap(), self.builder.func);
        let site = self.builder.ins().iconst(types::I64, i64::from(visit.site));
        let number = self.builder.ins().iconst(types::I64, self.number as i64);
        let value = self.int(visit.value);
        let call = self.builder.ins().call(host, &[site, number, value]);
        self.mark_call(visit.site, call);
        let result = self.builder.inst_results(call)[0];
        self.set_int(visit.to, result);
    }

    /// Returns what the variables come to.
    fn return_(&mut self) {
        self.check_carried();
        let mut float = self.builder.ins().f64const(0.0);
        for var in 0..self.frame.floats.len() {
            let value = self.float(var);
            float = self.builder.ins().fadd(float, value);
        }
        let mut int = self.builder.ins().iconst(types::I64, 0);
        for var in 0..self.frame.ints.len() {
            let value = self.int(var);
            let scaled = self.builder.ins().imul_imm_s(int, 31);
            int = self.builder.ins().iadd(scaled, value);
        }
        let truncated = self.builder.ins().fcvt_to_sint_sat(types::I64, float);
        let int = self.builder.ins().iadd(int, truncated);
        let results = [int, float];
        let count = self.builder.func.signature.returns.len();
        self.builder.ins().return_(&results[..count]);
    }
}
