//! What is in a file.

use std::sync::LazyLock;

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::Function;
use cranelift_codegen::settings::Value;
use cranelift_reader::{Comment, Comparison, ParseOptions, RunCommand};
use target_lexicon::Triple;

use super::refusal::Trouble;
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
    pub(super) function: Function,
    pub(super) lines: Vec<RunLine>,
}

/// What a function must return for some arguments.
pub(super) struct RunLine {
    /// Counted from 1.
    pub(super) number: usize,
    /// The line, or what is wrong with it.
    pub(super) command: Result<RunCommand, String>,
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
        let functions = parsed.functions.iter().map(|(function, details)| TestFunction {
            name: clif::function_name(&function.name),
            function: function.clone(),
            lines: run_lines(rest, function, &details.comments),
        });
        Ok(Self { functions: functions.collect(), targets })
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &RunLine> {
        self.functions.iter().flat_map(|function| &function.lines)
    }
}

/// Whether text with this error must be meant for a newer version of Cranelift: it is like CLIF but
/// for a name that is unknown here.
fn is_newer(message: &str) -> bool {
    message.starts_with("unknown opcode")
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
        let command = command
            .map(|command| with_types(command, function))
            .map_err(|error| format!("`{}` cannot be read: {error}", comment.text));
        Some(RunLine { number, command })
    });
    lines.collect()
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
