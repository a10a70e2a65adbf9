//! The functions, in versions that answer by different rules.

use std::fmt;

use cranelift_codegen::Context;
use lastout::{Engine, Installed, ResumePoints};
use lastout_tests::{clif, moving};

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
/// the last rule it returns how many that were.
pub(crate) fn install_serve(engine: &Engine, rule: Rule) -> Result<Installed, Error> {
    let Rule { factor, plus } = rule;
    let goes_on = i64::from(rule != Rule::LAST);
    install(
        engine,
        &format!(
            "function %serve() -> i64 tail {{
                fn0 = %question() -> i64 system_v
                fn1 = %answer(i64, i64) system_v
             block0:
                v0 = iconst.i64 0
                v1 = iconst.i64 {factor}
                v2 = iconst.i64 {plus}
                v3 = iconst.i64 1
                jump block1(v0)
             block1(v4: i64):
                v5 = call fn0()
                v6 = imul v5, v1
                v7 = iadd v6, v2
                call fn1(v5, v7)
                v8 = iadd v4, v3
                v9 = iconst.i64 {goes_on}
                brif v9, block1(v8), block2
             block2:
                return v8
             }}"
        ),
    )
}

/// `ask(i64) -> i64`: makes a call, and answers with what comes back and its argument.
pub(crate) fn install_ask(engine: &Engine, rule: Rule) -> Result<Installed, Error> {
    let Rule { factor, plus } = rule;
    install(
        engine,
        &format!(
            "function %ask(i64) -> i64 tail {{
                fn0 = %endless() -> i64 system_v
             block0(v0: i64):
                v1 = call fn0()
                v2 = iadd v0, v1
                v3 = iconst.i64 {factor}
                v4 = imul v2, v3
                v5 = iconst.i64 {plus}
                v6 = iadd v4, v5
                return v6
             }}"
        ),
    )
}

/// Installs a function that moves at its loop, if it has one, and else at its call.
fn install(engine: &Engine, text: &str) -> Result<Installed, Error> {
    let mut unit = engine.unit();
    clif::define_by(&mut unit, text, |unit, id, func| {
        let mut points = ResumePoints::new();
        match moving::loop_headers(&func).first() {
            Some(&header) => points.block(1, header),
            None => points.call(1, moving::calls(&func)[0]),
        };
        unit.define_resumable_function(id, &mut Context::for_function(func), &points).map(drop)
    })?;
    Ok(engine.install(unit)?)
}
