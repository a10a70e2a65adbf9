//! A file's functions in an engine, each in a unit of its own.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cranelift_codegen::Context;
use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::{Function, GlobalValueData, Signature};
use cranelift_module::{Linkage, Module, ModuleError};
use lastout::{CallError, Engine, Error, Handle, Unit, Version};

use super::file::{Test, TestFunction};
use super::refusal::Trouble;
use super::trampoline::{self, Trampoline};
use crate::clif;
use crate::moving::{can_have_points, points};

/// How the functions of a file are defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As the file has them.
    AsTheyAre,
    /// So that their frames move, where they can: with [all points](points), and of the convention
    /// for tail calls.
    Moving,
}

/// The functions of a file that an engine takes, installed.
pub(super) struct Program<'a> {
    pub(super) engine: Engine,
    pub(super) functions: Vec<Installed<'a>>,
    /// The functions that are not there, and those that refer to them.
    pub(super) troubles: Vec<(&'a TestFunction, Trouble)>,
    form: Form,
    signatures: Signatures<'a>,
    /// How many replacements were made at the same address.
    pub(super) in_place: AtomicU64,
}

type Signatures<'a> = HashMap<&'a str, &'a Signature>;

pub(super) struct Installed<'a> {
    pub(super) test: &'a TestFunction,
    /// How it is called, if it has run lines.
    pub(super) trampoline: Option<Handle<Trampoline>>,
    /// How many points its frames move at.
    pub(super) points: usize,
    /// All that there were, the current one last.
    versions: Mutex<Vec<Version>>,
}

impl<'a> Program<'a> {
    pub(super) fn new(engine: Engine, test: &'a Test, form: Form) -> Self {
        let signatures = |function: &'a TestFunction| {
            (function.name.as_str(), &function.in_form(form).signature)
        };
        let signatures = test.functions.iter().map(signatures).collect();
        let (functions, troubles) = (Vec::new(), Vec::new());
        let in_place = AtomicU64::new(0);
        let mut program = Self { engine, functions, troubles, form, signatures, in_place };
        let mut names = HashSet::new();
        let mut there = Vec::new();
        for function in &test.functions {
            let unit = if names.insert(&function.name) {
                program.declare(function)
            } else {
                Err(Trouble::Failed("there are two functions of this name".to_owned()))
            };
            program.keep(&mut there, function, unit);
        }
        program.leave_out_dependents(&mut there);
        let mut installed = Vec::new();
        for (function, (unit, points)) in there {
            let version = program.install(function, unit);
            program.keep(&mut installed, function, version.map(|version| (version, points)));
        }
        program.leave_out_dependents(&mut installed);
        for (test, (version, points)) in installed {
            let trampoline = (!test.lines.is_empty()).then(|| program.trampoline(test));
            match trampoline.transpose() {
                Ok(trampoline) => {
                    let versions = Mutex::new(vec![version]);
                    program.functions.push(Installed { test, trampoline, points, versions });
                }
                Err(trouble) => program.troubles.push((test, trouble)),
            }
        }
        program
    }

    fn keep<T>(
        &mut self,
        there: &mut Vec<(&'a TestFunction, T)>,
        function: &'a TestFunction,
        result: Result<T, Trouble>,
    ) {
        match result {
            Ok(value) => there.push((function, value)),
            Err(trouble) => self.troubles.push((function, trouble)),
        }
    }

    /// What refers to a function that is not there is not there, either.
    fn leave_out_dependents<T>(&mut self, there: &mut Vec<(&'a TestFunction, T)>) {
        let mut looked_at = 0;
        while let Some((missing, trouble)) = self.troubles.get(looked_at).cloned() {
            looked_at += 1;
            let why = match trouble {
                Trouble::Refused(why) if why.starts_with(DEPENDENT) => why,
                Trouble::Refused(why) => format!("{DEPENDENT}: {why}"),
                Trouble::Failed(_) => format!("{DEPENDENT}: it failed"),
            };
            let dependents = there.extract_if(.., |(function, _)| {
                references(function.in_form(self.form)).any(|name| name == missing.name)
            });
            let left_out =
                dependents.map(|(function, _)| (function, Trouble::Refused(why.clone())));
            self.troubles.extend(left_out);
        }
    }

    /// Compiles a function that others may refer to from now on, and says how many points it has.
    fn declare(&self, function: &TestFunction) -> Result<(Unit, usize), Trouble> {
        self.engine.declare(&function.name, &function.in_form(self.form).signature)?;
        Ok(self.compile(function)?)
    }

    fn compile(&self, function: &TestFunction) -> Result<(Unit, usize), ModuleError> {
        let mut unit = self.engine.unit();
        let mut body = function.in_form(self.form).clone();
        // Its own calls of itself are to find the current version, as those of others do.
        let id = unit.declare_function(&function.name, Linkage::Preemptible, &body.signature)?;
        for symbol in symbols(&body) {
            if let Some(signature) = self.signatures.get(symbol.as_str()) {
                unit.declare_function(&symbol, Linkage::Import, signature)?;
            }
        }
        clif::resolve_callees(&mut unit, &mut body)?;
        if self.form == Form::Moving && can_have_points(&body, unit.isa()) {
            // Whatever the file says of its callees, they are of other units.
            let points = points(&body, |_| true);
            let context = &mut Context::for_function(body);
            let points = unit.define_resumable_function(id, context, &points)?;
            return Ok((unit, points.len()));
        }
        unit.define_function(id, &mut Context::for_function(body))?;
        Ok((unit, 0))
    }

    fn install(&self, function: &TestFunction, unit: Unit) -> Result<Version, Trouble> {
        let installed = self.engine.install(unit)?;
        let version = installed.version(&function.name).cloned();
        version.ok_or_else(|| Trouble::Failed("installed without a version".to_owned()))
    }

    fn trampoline(&self, function: &TestFunction) -> Result<Handle<Trampoline>, Trouble> {
        let mut unit = self.engine.unit();
        let name = trampoline_name(function);
        let signature = &function.in_form(self.form).signature;
        trampoline::define(&mut unit, &name, &function.name, signature)?;
        self.engine.install(unit)?;
        Ok(self.engine.function(&name)?)
    }

    /// Compiles a function anew, and replaces what is current by it: at the same address, if that is
    /// asked for and can be.
    pub(super) fn replace(&self, installed: &Installed<'a>, in_place: bool) -> Result<(), Trouble> {
        /// How long callers may be held. Frames with points do not leave by themselves.
        const LIMIT: Duration = Duration::from_millis(20);

        if in_place {
            let (unit, _) = self.compile(installed.test)?;
            match self.engine.replace_in_place(unit, LIMIT) {
                Ok(replaced) => {
                    installed.lock().extend(replaced.versions().iter().cloned());
                    self.in_place.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err(
                    Error::StillInside { .. } | Error::NotInPlace { .. } | Error::DoesNotFit { .. },
                ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (unit, _) = self.compile(installed.test)?;
        let version = self.install(installed.test, unit)?;
        installed.lock().push(version);
        Ok(())
    }

    /// What is there of versions that were replaced, and of frames, though nobody is inside any
    /// more. Versions have `patience` to be freed in.
    pub(super) fn left_over(&self, patience: Duration) -> Leftovers {
        let mut left = Leftovers::default();
        let deadline = Instant::now() + patience;
        for installed in &self.functions {
            let mut versions = installed.lock().clone();
            versions.pop();
            left.replacements += versions.len() as u64;
            for version in versions {
                if !version.wait_freed(deadline.saturating_duration_since(Instant::now())) {
                    left.unfreed += 1;
                    left.what.push(format!("{version:?} was replaced"));
                }
            }
        }
        for name in self.names() {
            for info in self.engine.versions(&name).unwrap_or_default() {
                left.frames += info.frames();
                left.what.extend(info.threads.iter().map(|thread| {
                    let (version, frames) = (&info.version, thread.frames);
                    format!("{version:?} still counts {frames} frames of a thread")
                }));
            }
            for thread in self.engine.waiting(&name).unwrap_or_default() {
                left.frames += u64::from(thread.frames);
                left.what.push(format!("{} frames of a thread wait for `{name}`", thread.frames));
            }
        }
        left
    }

    /// Removes everything, and says how many versions are alive after that.
    pub(super) fn remove(&self) -> u64 {
        for name in self.names() {
            // It may be unknown: then nothing of it is left.
            let _ = self.engine.remove(&name);
        }
        self.engine.stats().alive()
    }

    /// The names of all functions that may have a version.
    fn names(&self) -> Vec<String> {
        let installed = self.functions.iter().map(|installed| installed.test);
        let functions = installed.chain(self.troubles.iter().map(|(function, _)| *function));
        functions.flat_map(|test| [test.name.clone(), trampoline_name(test)]).collect()
    }
}

/// What should not be there when nobody is inside of anything, but for the replacements.
#[derive(Default)]
pub(super) struct Leftovers {
    pub(super) replacements: u64,
    /// Frames that are counted.
    pub(super) frames: u64,
    /// Versions that are alive.
    pub(super) unfreed: u64,
    /// Each of these in words.
    pub(super) what: Vec<String>,
}

impl Installed<'_> {
    /// Calls the function, which must have run lines.
    pub(super) fn call(&self, arguments: &[DataValue]) -> Result<Vec<DataValue>, CallError> {
        let Some(trampoline) = &self.trampoline else { return Ok(Vec::new()) };
        trampoline::call(trampoline, self.test.signature(), arguments)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Version>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the reasons of functions start that are left out because of others.
const DEPENDENT: &str = "it refers to a function that is left out";

fn trampoline_name(function: &TestFunction) -> String {
    format!("call {}", function.name)
}

/// The names of what a function calls, or has as symbols.
fn references(function: &Function) -> impl Iterator<Item = String> {
    let callees = function.dfg.ext_funcs.values();
    let callees = callees.filter_map(|callee| clif::callee_name(function, &callee.name));
    callees.chain(symbols(function))
}

fn symbols(function: &Function) -> impl Iterator<Item = String> {
    function.global_values.values().filter_map(|global| match global {
        GlobalValueData::Symbol { name, .. } => clif::callee_name(function, name),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::{Door, builder};

    #[test]
    fn who_is_inside_is_left_over() {
        let text = "test run
            function %inner(i64, i64) -> i64 system_v {
                fn0 = %call_back(i64, i64) -> i64 system_v
            block0(v0: i64, v1: i64):
                v2 = call fn0(v0, v1)
                return v2
            }
            ; print: %inner(0, 0)
            function %outer(i64, i64) -> i64 system_v {
                fn0 = %inner(i64, i64) -> i64 system_v
            block0(v0: i64, v1: i64):
                v2 = call fn0(v0, v1)
                return v2
            }
            ; print: %outer(0, 0)";
        let test = Test::parse(text).unwrap();
        let program = Program::new(builder().build().unwrap(), &test, Form::AsTheyAre);
        assert_eq!(program.functions.len(), 2);
        let door = Door::default();
        let callback = door.callback();
        let address = callback.address() as i64;
        let arguments = [DataValue::I64(address), DataValue::I64(5)];
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| program.functions[1].call(&arguments));
            door.arrived();
            for function in &program.functions {
                program.replace(function, false).unwrap();
            }
            let left = program.left_over(Duration::ZERO);
            // Both functions, and the trampoline, which was not replaced.
            let counts = (left.replacements, left.frames, left.unfreed);
            assert_eq!(counts, (2, 3, 2), "{:?}", left.what);
            assert_eq!(left.what.len(), 5, "{:?}", left.what);
            assert_eq!(program.remove(), 3);
            door.open();
            assert_eq!(inside.join().unwrap(), Ok(vec![DataValue::I64(5)]));
        });
        let left = program.left_over(Duration::ZERO);
        assert_eq!((left.frames, left.unfreed), (0, 0), "{:?}", left.what);
        assert_eq!(program.remove(), 0);
    }
}
