//! An engine of one way of dispatch, with functions to replace and compiled callers of them.

use std::ops::Range;
use std::sync::mpsc::Sender;
use std::time::Instant;

use cranelift_codegen::Context;
use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::TargetIsa;
use cranelift_module::{Linkage, Module};
use lastout::{Dispatch, Engine, Handle, Unit};
use lastout_tests::clif;
use lastout_tests::measure::idle_thread;

use crate::Result;

/// The two ways, by their names in the tables. Figures of both are in this order.
pub(crate) const WAYS: [(&str, Dispatch); 2] =
    [("slot", Dispatch::Slot), ("patched", Dispatch::PatchedSites)];

/// How many calls there are in a unit of callers, at most.
const CALLS_PER_UNIT: usize = 100;

/// An engine that dispatches like this.
pub(crate) fn engine(dispatch: Dispatch) -> Result<Engine> {
    Ok(Engine::builder().dispatch(dispatch).build()?)
}

/// What all functions of a [`Subject`] are called as.
pub(crate) type Callable = Handle<fn(i64) -> i64>;

/// Functions `f0`, `f1` and so on, each of them called from so many places.
pub(crate) struct Subject {
    pub(crate) engine: Engine,
    code: Code,
    /// How many units of callers there are.
    callers: usize,
}

impl Subject {
    pub(crate) fn new(dispatch: Dispatch, functions: usize, sites_each: usize) -> Result<Self> {
        let engine = engine(dispatch)?;
        let code = Code::new(engine.isa(), CALLEE)?;
        let callers = (functions * sites_each).div_ceil(CALLS_PER_UNIT);
        let subject = Self { engine, code, callers };
        // Twice, since it is the second version of a function that makes it a second gate. From
        // then on its versions use these two in turn.
        for _ in 0..2 {
            for first in (0..functions).step_by(1000) {
                let unit = subject.unit(first..functions.min(first + 1000))?;
                subject.engine.install(unit)?;
            }
        }
        subject.install_callers(functions, sites_each)?;
        Ok(subject)
    }

    /// The subjects of both ways.
    pub(crate) fn both(functions: usize, sites_each: usize) -> Result<[Self; 2]> {
        let [slot, patched] = WAYS.map(|(_, dispatch)| Self::new(dispatch, functions, sites_each));
        Ok([slot?, patched?])
    }

    fn install_callers(&self, functions: usize, sites_each: usize) -> Result<()> {
        let called = (0..functions).flat_map(|function| vec![function; sites_each]);
        let called: Vec<usize> = called.collect();
        for (number, called) in called.chunks(CALLS_PER_UNIT).enumerate() {
            let mut unit = self.engine.unit();
            clif::define(&mut unit, &caller(number, called))?;
            self.engine.install(unit)?;
            // SAFETY: the caller is sound for every argument, and so is what it calls.
            let result = unsafe { self.caller(number)?.call(4) }?;
            // Its calls reach what they should.
            if result != called.iter().fold(4, |value, _| (value + 1) ^ 4) {
                return Err(format!("caller{number} has returned {result}").into());
            }
        }
        Ok(())
    }

    fn caller(&self, number: usize) -> Result<Callable> {
        Ok(self.engine.function(&format!("caller{number}"))?)
    }

    /// All callers, which together make every call once.
    pub(crate) fn callers(&self) -> Result<Vec<Callable>> {
        (0..self.callers).map(|number| self.caller(number)).collect()
    }

    /// A unit of new versions of these functions, which are compiled already.
    pub(crate) fn unit(&self, functions: Range<usize>) -> Result<Unit> {
        let mut unit = self.engine.unit();
        for function in functions {
            self.code.define(&mut unit, &format!("f{function}"))?;
        }
        Ok(unit)
    }

    /// Microseconds that it takes to install new versions of these functions. So what they replace
    /// is freed in that time, as no thread is inside.
    pub(crate) fn replace(&self, functions: Range<usize>) -> Result<f64> {
        let unit = self.unit(functions)?;
        let began = Instant::now();
        let installed = self.engine.install(unit)?;
        let took = began.elapsed();
        drop(installed);
        Ok(took.as_secs_f64() * 1e6)
    }
}

/// A function that adds one: next to nothing.
pub(crate) const CALLEE: &str = "function %f(i64) -> i64 system_v {
    block0(v0: i64):
        v1 = iconst.i64 1
        v2 = iadd v0, v1
        return v2
    }";

/// Calls each of these functions, one after the other, with what the one before has returned.
///
/// There are eleven bytes from one call to the next. So their distances lie in all ways within
/// eight bytes, as they do in code that does something, and some calls can be patched in place and
/// others cannot.
fn caller(number: usize, called: &[usize]) -> String {
    let mut text = format!("function %caller{number}(i64) -> i64 system_v {{\n");
    let mut distinct = called.to_vec();
    distinct.dedup();
    for (index, function) in distinct.iter().enumerate() {
        text += &format!("fn{index} = %f{function}(i64) -> i64 system_v\n");
    }
    text += "block0(v0: i64):\n";
    for call in 0..called.len() {
        let [callee, argument] = [call % distinct.len(), 2 * call];
        let [result, next] = [argument + 1, argument + 2];
        text += &format!("v{result} = call fn{callee}(v{argument})\n");
        text += &format!("v{next} = bxor v{result}, v0\n");
    }
    text + &format!("return v{}\n}}\n", 2 * called.len())
}

/// Machine code that needs nothing but itself, compiled once, so that a unit of it is made in no
/// time.
pub(crate) struct Code {
    bytes: Vec<u8>,
    signature: Signature,
}

impl Code {
    pub(crate) fn new(isa: &dyn TargetIsa, text: &str) -> Result<Self> {
        let function = cranelift_reader::parse_functions(text)?.remove(0);
        let signature = function.signature.clone();
        let mut context = Context::for_function(function);
        let compiled = context.compile(isa, &mut Default::default());
        let bytes = compiled.map_err(|error| error.inner)?.code_buffer().to_vec();
        Ok(Self { bytes, signature })
    }

    pub(crate) fn define(&self, unit: &mut Unit, name: &str) -> Result<()> {
        let id = unit.declare_function(name, Linkage::Export, &self.signature)?;
        Ok(unit.define_function_bytes(id, 1, &self.bytes, &[])?)
    }
}

/// A thread that has called a function and waits.
pub(crate) fn idle_caller() -> Result<Sender<()>> {
    let subject = Subject::new(Dispatch::Slot, 1, 1)?;
    let handle: Callable = subject.engine.function("f0")?;
    Ok(idle_thread(move || {
        // SAFETY: the function is sound for every argument.
        let called = unsafe { handle.call(1) }.is_ok();
        (subject, called)
    })?)
}
