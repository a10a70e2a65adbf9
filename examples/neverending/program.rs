//! The functions, in versions that answer by different rules.

use std::fmt;

use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use lastout::cranelift_codegen::ir::{AbiParam, InstBuilder, Signature, types};
use lastout::cranelift_codegen::isa::CallConv;
use lastout::cranelift_module::{Linkage, Module, ModuleResult};
use lastout::{Engine, Installed, ResumePoints, Unit};

use crate::Error;

/// How a version answers: with so many times what it is asked, and so much more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    factor: i64,
    plus: i64,
}

impl Rule {
    /// What ends the loop.
    pub(crate) const LAST: Self = Self { factor: 0, plus: 0 };

    /// One after the other, no two of which ever give the same answer.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (1..).map(|number| Self { factor: 1 << 40, plus: number })
    }

    pub(crate) fn answer(self, question: i64) -> i64 {
        question.wrapping_mul(self.factor).wrapping_add(self.plus)
    }

    /// The rule by which this was answered.
    pub(crate) fn of_answer(question: i64, answer: i64) -> Self {
        let factor = 1 << 40;
        Self { factor, plus: answer.wrapping_sub(question.wrapping_mul(factor)) }
    }

    /// Which one it is.
    pub(crate) fn number(self) -> i64 {
        self.plus
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}", self.plus)
    }
}

/// `serve() -> i64`: takes one question after the other, and counts those that it has answered. With
/// the last rule it returns how many that were. Its frames move at the head of the loop.
pub(crate) fn install_serve(engine: &Engine, rule: Rule) -> Result<Installed, Error> {
    let mut unit = engine.unit();
    let question = unit.declare_function("question", Linkage::Import, &signature(&unit, 0, 1))?;
    let answer = unit.declare_function("answer", Linkage::Import, &signature(&unit, 2, 0))?;
    define(&mut unit, "serve", 0, |unit, builder, points| {
        let question = unit.declare_func_in_func(question, builder.func);
        let answer = unit.declare_func_in_func(answer, builder.func);
        let [entry, head, end] = [(); 3].map(|()| builder.create_block());

        builder.switch_to_block(entry);
        let none = builder.ins().iconst(types::I64, 0);
        builder.ins().jump(head, &[none.into()]);

        let answered = builder.append_block_param(head, types::I64);
        builder.switch_to_block(head);
        let asked = builder.ins().call(question, &[]);
        let asked = builder.inst_results(asked)[0];
        let product = builder.ins().imul_imm_s(asked, rule.factor);
        let sum = builder.ins().iadd_imm_s(product, rule.plus);
        builder.ins().call(answer, &[asked, sum]);
        let answered = builder.ins().iadd_imm_s(answered, 1);
        let goes_on = builder.ins().iconst(types::I64, i64::from(rule != Rule::LAST));
        builder.ins().brif(goes_on, head, &[answered.into()], end, &[]);

        builder.switch_to_block(end);
        builder.ins().return_(&[answered]);
        points.block(1, head);
    })?;
    Ok(engine.install(unit)?)
}

/// `ask(i64) -> i64`: makes a call, and answers what comes back and its argument. Its frames move
/// while the call is in progress.
pub(crate) fn install_ask(engine: &Engine, rule: Rule) -> Result<Installed, Error> {
    let mut unit = engine.unit();
    let endless = unit.declare_function("endless", Linkage::Import, &signature(&unit, 0, 1))?;
    define(&mut unit, "ask", 1, |unit, builder, points| {
        let endless = unit.declare_func_in_func(endless, builder.func);
        let entry = builder.create_block();
        builder.append_block_params_for_function_params(entry);

        builder.switch_to_block(entry);
        let argument = builder.block_params(entry)[0];
        let call = builder.ins().call(endless, &[]);
        let returned = builder.inst_results(call)[0];
        let question = builder.ins().iadd(argument, returned);
        let product = builder.ins().imul_imm_s(question, rule.factor);
        let sum = builder.ins().iadd_imm_s(product, rule.plus);
        builder.ins().return_(&[sum]);
        points.call(1, call);
    })?;
    Ok(engine.install(unit)?)
}

/// So many parameters and results, all of them `i64`, of a host function.
fn signature(unit: &Unit, parameters: usize, results: usize) -> Signature {
    let mut signature = unit.make_signature();
    signature.params = vec![AbiParam::new(types::I64); parameters];
    signature.returns = vec![AbiParam::new(types::I64); results];
    signature
}

/// Defines a function with so many parameters and one result. `build` builds its body and marks its
/// points.
fn define(
    unit: &mut Unit,
    name: &str,
    parameters: usize,
    build: impl FnOnce(&mut Unit, &mut FunctionBuilder<'_>, &mut ResumePoints),
) -> ModuleResult<()> {
    // Frames move by tail calls.
    let signature = Signature { call_conv: CallConv::Tail, ..signature(unit, parameters, 1) };
    let id = unit.declare_function(name, Linkage::Export, &signature)?;
    let mut context = unit.make_context();
    context.func.signature = signature;
    let mut buffers = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut buffers);
    let mut points = ResumePoints::new();
    build(unit, &mut builder, &mut points);
    builder.seal_all_blocks();
    builder.finalize(unit.isa().frontend_config());
    unit.define_resumable_function(id, &mut context, &points)?;
    Ok(())
}
