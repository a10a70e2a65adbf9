//! What is in a file.

use std::sync::LazyLock;

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::{Function, Signature, UserFuncName};
use cranelift_codegen::settings::Value;
use cranelift_reader::{Comment, Comparison, ParseOptions, RunCommand};
use target_lexicon::Triple;

use super::program::Form;
use super::refusal::Trouble;
use super::tail::in_tail_convention;
use super::target::{Preamble, Target};
use crate::clif;

/// A file with run lines.
pub(super) struct Test {
    pub(super) functions: Vec<TestFunction>,
    /// How it is to be run, or why it is not.
    pub(super) targets: Result<Vec<Target>, String>,
}

/// A function, and what it must do.
pub(super) struct TestFunction {
    pub(super) name: String,
    function: Function,
    /// The same of the convention for tail calls, if it can be.
    moving: Function,
    pub(super) lines: Vec<RunLine>,
}

/// What a function must return for some arguments.
pub(super) struct RunLine {
    /// Counted from 1.
    pub(super) number: usize,
    /// The line, or what is wrong with it.
    pub(super) command: Result<RunCommand, String>,
    /// Whether the line has another name than that of its function, which is the one before it.
    pub(super) is_misnamed: bool,
}

impl Test {
    /// Reads a file.
    ///
    /// If that is not possible there are no run lines yet: what is returned stands for all of them.
    pub(super) fn parse(text: &str) -> Result<Self, Trouble> {
        let preamble = Preamble::split(text);
        let rest = preamble.rest.as_str();
        let parsed =
            cranelift_reader::parse_test(rest, ParseOptions::default()).map_err(|error| {
                let message = format!("line {}: {}", error.location.line_number, error.message);
                if is_newer(&error.message) {
                    Trouble::Refused(format!("of a newer Cranelift: {}", error.message))
                } else {
                    Trouble::Failed(message)
                }
            })?;
        let comments = parsed.functions.iter().flat_map(|(_, details)| &details.comments);
        let mut comments = comments.chain(&parsed.preamble_comments);
        let targets = if !parsed.commands.iter().any(|command| command.command == "run") {
            Err("there is no `test run` line".to_owned())
        } else if !parsed.features.is_empty() {
            Err("it asks for features of Cranelift's build".to_owned())
        } else if comments.any(|comment| directive(comment.text).starts_with("heap:")) {
            Err("it asks for a heap, which newer versions of Cranelift do not make".to_owned())
        } else {
            HOST.as_ref().map_err(Clone::clone).and_then(|host| {
                let targets = preamble.targets(&host.triple, &host.features);
                let others = || "there are targets, and none is this host's".to_owned();
                if targets.is_empty() { Err(others()) } else { Ok(targets) }
            })
        };
        let functions: Vec<_> = parsed.functions.iter().map(|(function, _)| function).collect();
        let moving = in_tail_convention(&functions);
        let functions = parsed.functions.iter().zip(moving);
        let functions = functions.map(|((function, details), moving)| TestFunction {
            name: clif::function_name(&function.name),
            function: function.clone(),
            moving,
            lines: run_lines(rest, function, &details.comments),
        });
        Ok(Self { functions: functions.collect(), targets })
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &RunLine> {
        self.functions.iter().flat_map(|function| &function.lines)
    }
}

impl TestFunction {
    /// In the form that the file has.
    pub(super) fn signature(&self) -> &Signature {
        &self.function.signature
    }

    /// What is compiled: of the same types in all forms.
    pub(super) fn in_form(&self, form: Form) -> &Function {
        match form {
            Form::AsTheyAre => &self.function,
            Form::Moving => &self.moving,
        }
    }
}

/// Whether text with this error must be meant for a newer version of Cranelift: it is like CLIF but
/// for an instruction that is unknown here.
fn is_newer(message: &str) -> bool {
    message.starts_with("Unknown opcode")
}

/// How many run lines there seem to be in a file that cannot be parsed.
pub(super) fn count_run_lines(text: &str) -> usize {
    let comments = text.lines().filter_map(|line| Some(&line[line.find(';')?..]));
    let is_command = |comment: &&str| {
        matches!(directive(comment).split([':', ' ']).next(), Some("run" | "print"))
    };
    comments.filter(is_command).count()
}

/// What there is to compare target lines with.
struct Host {
    triple: Triple,
    features: Vec<Value>,
}

static HOST: LazyLock<Result<Host, String>> = LazyLock::new(|| {
    let engine = lastout::Engine::new().map_err(|error| error.to_string())?;
    let isa = engine.isa();
    Ok(Host { triple: isa.triple().clone(), features: isa.isa_flags() })
});

fn directive(comment: &str) -> &str {
    comment.trim_start_matches([';', ' '])
}

fn run_lines(text: &str, function: &Function, comments: &[Comment<'_>]) -> Vec<RunLine> {
    let lines = comments.iter().filter_map(|comment| {
        let parsed = cranelift_reader::parse_run_command(comment.text, &function.signature);
        let command = parsed.map_err(|error| error.message).transpose()?;
        let before = &text[..comment.text.as_ptr().addr() - text.as_ptr().addr()];
        let number = before.matches('\n').count() + 1;
        let is_misnamed = command.as_ref().is_ok_and(|command| is_misnamed(command, function));
        let command = command
            .map(|command| with_types(command, function))
            .map_err(|error| format!("`{}` cannot be read: {error}", comment.text));
        Some(RunLine { number, command, is_misnamed })
    });
    lines.collect()
}

fn is_misnamed(command: &RunCommand, function: &Function) -> bool {
    let (RunCommand::Print(invocation) | RunCommand::Run(invocation, ..)) = command;
    // The reader calls what has no name `default`, and lines cannot have names such as `u0:1`.
    invocation.func != "default"
        && matches!(function.name, UserFuncName::Testcase(_))
        && invocation.func != clif::function_name(&function.name)
}

/// `; run` alone means that the result is not 0. The reader has an `i8` there whatever the type of
/// the result is, and nothing of another type equals that.
fn with_types(command: RunCommand, function: &Function) -> RunCommand {
    match (command, &*function.signature.returns) {
        (RunCommand::Run(invocation, Comparison::NotEquals, expected), [result])
            if expected == [DataValue::I8(0)] =>
        {
            let zero = DataValue::from_integer(0, result.value_type);
            let expected = zero.map_or(expected, |zero| vec![zero]);
            RunCommand::Run(invocation, Comparison::NotEquals, expected)
        }
        (command, _) => command,
    }
}
