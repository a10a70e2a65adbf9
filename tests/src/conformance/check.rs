//! One file is run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cranelift_codegen::data_value::{DataValue, DisplayDataValues};
use cranelift_reader::{Comparison, RunCommand};
use lastout::{Dispatch, Engine};

use super::file::{Test, TestFunction, count_run_lines};
use super::program::{Form, Installed, Program};
use super::refusal::Trouble;
use super::report::FileReport;
use super::target::Target;
use super::{Options, host, replacing};

/// Runs a file in this process, which a file that does what it should not can end.
pub fn run_file(path: &Path, options: &Options) -> FileReport {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return FileReport::failure(path, &format!("cannot be read: {error}")),
    };
    match Test::parse(&text) {
        Ok(test) => Run::new(path, options, &test).finish(),
        Err(Trouble::Failed(error)) => FileReport::failure(path, &error),
        Err(Trouble::Refused(why)) => FileReport::skip(why, count_run_lines(&text)),
    }
}

/// How long to wait for versions to be freed that everyone has left.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that is done with a file.
struct Run<'a> {
    path: &'a Path,
    options: &'a Options,
    test: &'a Test,
    /// What came of each run line, by its number in the file.
    outcomes: BTreeMap<usize, Outcome>,
    report: FileReport,
}

/// What came of a run line.
#[derive(Default)]
struct Outcome {
    passed: bool,
    /// What went wrong, by the way in which it was run.
    failures: BTreeMap<String, String>,
    /// Why it was not run in some way.
    skips: BTreeSet<String>,
    printed: bool,
}

impl<'a> Run<'a> {
    fn new(path: &'a Path, options: &'a Options, test: &'a Test) -> Self {
        let outcomes = test.lines().map(|line| (line.number, Outcome::default())).collect();
        let report = FileReport { functions: test.functions.len(), ..FileReport::default() };
        Self { path, options, test, outcomes, report }
    }

    fn finish(mut self) -> FileReport {
        match &self.test.targets {
            Ok(targets) => {
                self.look_at_lines();
                for target in targets {
                    self.run(target);
                }
            }
            Err(why) => self.skip(&self.test.functions, why),
        }
        let Self { path, outcomes, mut report, .. } = self;
        report.runs = outcomes.len();
        for (line, outcome) in outcomes {
            if !outcome.failures.is_empty() {
                report.failed += 1;
                let failures = outcome.failures.into_iter();
                let located = |(way, what)| format!("{}:{line}: {way}: {what}", path.display());
                report.failures.extend(failures.map(located));
                continue;
            }
            if outcome.passed {
                report.passed += 1;
                for why in outcome.skips {
                    *report.notes.entry(why).or_default() += 1;
                }
            } else {
                report.skipped += 1;
                let why = outcome.skips.into_iter().collect::<Vec<_>>().join("; ");
                *report.skips.entry(why).or_default() += 1;
            }
        }
        report
    }

    /// What can be said of lines before any is run.
    fn look_at_lines(&mut self) {
        for line in self.test.lines() {
            if let Err(error) = &line.command {
                self.fail(line.number, "read", error.clone());
            }
            if line.is_misnamed {
                let note = "the line names another function than the one that it follows and means";
                *self.report.notes.entry(note.to_owned()).or_default() += 1;
            }
        }
    }

    /// Runs the file as one of its target lines has it.
    fn run(&mut self, target: &Target) {
        let flags = match &target.flags {
            Ok(flags) => flags,
            Err(Trouble::Refused(why)) => return self.skip(&self.test.functions, why),
            Err(Trouble::Failed(error)) => return self.fail_file(&target.label, error),
        };
        for (dispatch, name) in [(Dispatch::Slot, "slot"), (Dispatch::PatchedSites, "patched")] {
            let way = format!("{name}, {}", target.label);
            self.run_as(Form::AsTheyAre, dispatch, flags, &way);
            self.run_as(Form::Moving, dispatch, flags, &format!("{way}, moving"));
        }
    }

    fn run_as(&mut self, form: Form, dispatch: Dispatch, flags: &[(String, String)], way: &str) {
        match self.engine(dispatch, flags) {
            Ok(engine) => self.run_in(engine, form, way),
            Err(error) => self.fail_file(way, &error.to_string()),
        }
    }

    fn engine(
        &mut self,
        dispatch: Dispatch,
        flags: &[(String, String)],
    ) -> Result<Engine, lastout::Error> {
        // As in all tools of Cranelift, where nothing is said.
        let builder = Engine::builder().dispatch(dispatch).flag("opt_level", "none");
        let mut builder = host::provide(builder);
        for (name, value) in self.options.flags.iter().chain(flags) {
            builder = builder.flag(name, value);
        }
        let engine = builder.build()?;
        let has = engine.isa().flags().iter().chain(engine.isa().isa_flags());
        let has: BTreeMap<_, _> = has.map(|flag| (flag.name, flag.value_string())).collect();
        let asked: BTreeMap<_, _> = flags.iter().map(|(name, value)| (&**name, value)).collect();
        for (name, value) in asked {
            if has.get(name).is_some_and(|has| has != value) {
                let note = format!("`{name}={value}` is not for the file to set");
                self.report.notes.insert(note, self.outcomes.len());
            }
        }
        Ok(engine)
    }

    fn run_in(&mut self, engine: Engine, form: Form, way: &str) {
        let program = Program::new(engine, self.test, form);
        let points = program.functions.iter().map(|function| function.points);
        let points: Vec<_> = points.filter(|points| *points > 0).collect();
        let failed = program.troubles.iter().any(|(_, it)| matches!(it, Trouble::Failed(_)));
        if form == Form::Moving && points.is_empty() && !failed {
            return;
        }
        self.report.with_points = self.report.with_points.max(points.len());
        self.report.points = self.report.points.max(points.iter().sum());
        for (function, trouble) in &program.troubles {
            match trouble {
                Trouble::Refused(why) => self.skip([*function], why),
                Trouble::Failed(error) => {
                    let error = format!("function `{}`: {error}", function.name);
                    self.fail_file(way, &error);
                    self.skip([*function], "the function failed");
                }
            }
        }
        // Frames move when there is something to move to.
        if form == Form::AsTheyAre {
            self.check_lines(&program, way);
        }
        let replacing = format!("{way}, while replaced");
        // To replace a function takes several times as long if there are copies of it for points.
        let rounds = self.options.rounds / if form == Form::Moving { 3 } else { 1 };
        let replaced =
            replacing::run(&program, &Options { rounds, ..self.options.clone() }, || {
                self.check_lines(&program, &replacing);
            });
        if let Err(error) = replaced {
            self.fail_file(&replacing, &error);
        }
        let mut left = program.left_over(PATIENCE);
        let alive = program.remove();
        if alive > left.unfreed {
            left.unfreed = alive;
            left.what.push(format!("{alive} versions are alive though all were removed"));
        }
        self.report.replacements += left.replacements;
        self.report.in_place += program.in_place.load(Ordering::Relaxed);
        self.report.left_in_ledger += left.frames;
        self.report.unfreed += left.unfreed;
        let located = |what| format!("{}: {way}: {what}", self.path.display());
        self.report.failures.extend(left.what.into_iter().map(located));
    }

    fn check_lines(&mut self, program: &Program<'_>, way: &str) {
        for function in &program.functions {
            for line in &function.test.lines {
                let Ok(command) = &line.command else { continue };
                match check(command, function) {
                    Ok(printed) => self.pass(line.number, printed),
                    Err(what) => self.fail(line.number, way, what),
                }
            }
        }
    }

    fn pass(&mut self, line: usize, printed: Option<String>) {
        let outcome = self.outcomes.entry(line).or_default();
        outcome.passed = true;
        if let Some(printed) = printed
            && !std::mem::replace(&mut outcome.printed, true)
        {
            self.report.printed.push(format!("{}:{line}: {printed}", self.path.display()));
        }
    }

    fn fail(&mut self, line: usize, way: &str, what: String) {
        let outcome = self.outcomes.entry(line).or_default();
        outcome.failures.entry(way.to_owned()).or_insert(what);
    }

    fn skip<'f>(&mut self, functions: impl IntoIterator<Item = &'f TestFunction>, why: &str) {
        for line in functions.into_iter().flat_map(|function| &function.lines) {
            self.outcomes.entry(line.number).or_default().skips.insert(why.to_owned());
        }
    }

    fn fail_file(&mut self, way: &str, what: &str) {
        self.report.failed += 1;
        self.report.failures.push(format!("{}: {way}: {what}", self.path.display()));
    }
}

/// Does what a run line says. What it prints is returned, or what is wrong.
fn check(command: &RunCommand, function: &Installed<'_>) -> Result<Option<String>, String> {
    let (RunCommand::Print(invocation) | RunCommand::Run(invocation, ..)) = command;
    let results = function.call(&invocation.args).map_err(|error| error.to_string())?;
    let shown = DisplayDataValues(&results);
    match command {
        RunCommand::Print(invocation) => Ok(Some(format!("{invocation} -> {shown}"))),
        RunCommand::Run(_, comparison, expected) if holds(comparison, &results, expected) => {
            Ok(None)
        }
        RunCommand::Run(..) => Err(format!("`{command}` does not hold: {shown}")),
    }
}

/// Bit for bit, so that it matters which NaN it is.
fn holds(comparison: &Comparison, results: &[DataValue], expected: &[DataValue]) -> bool {
    let pairs = results.iter().zip(expected);
    let equal = results.len() == expected.len() && pairs.into_iter().all(|(a, b)| a.bitwise_eq(b));
    match comparison {
        Comparison::Equals => equal,
        Comparison::NotEquals => !equal,
    }
}
