//! A version of the program: its text, and what its function must return.

use std::sync::Arc;

use lastout::Engine;

use crate::args::Args;
use crate::{Error, clif, oracle};

/// What the oracle says the function returns for each of the inputs that the workers use.
pub(crate) type Expected = Arc<[i64]>;

pub(crate) struct Program {
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) expected: Expected,
    text: String,
}

const BUNDLED: [(&str, &str); 2] =
    [("first.clif", include_str!("first.clif")), ("second.clif", include_str!("second.clif"))];

impl Program {
    /// All programs that the arguments name, or our own; those that are not fit are reported and
    /// left out.
    pub(crate) fn load_all(args: &Args) -> Result<Vec<Self>, String> {
        let files: Vec<&String> = args.watch.iter().chain(&args.files).collect();
        let loaded: Vec<Result<Self, String>> = if files.is_empty() {
            BUNDLED.map(|(path, text)| Self::new(path, text.to_owned())).into()
        } else {
            files.into_iter().map(|path| Self::load(path)).collect()
        };
        let mut programs: Vec<Self> = Vec::new();
        for program in loaded {
            match program {
                Ok(program) if programs.iter().all(|first| first.name == program.name) => {
                    programs.push(program);
                }
                Ok(Self { path, name, .. }) => {
                    eprintln!("{path}: defines {name}, not {}", programs[0].name);
                }
                Err(error) => eprintln!("{error}"),
            }
        }
        if programs.is_empty() {
            Err("there is no program to run".to_owned())
        } else {
            Ok(programs)
        }
    }

    /// The program in a file. Errors name the file and the line.
    pub(crate) fn load(path: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        Self::new(path, text)
    }

    fn new(path: &str, text: String) -> Result<Self, String> {
        let (name, expected) = oracle::run(&text).map_err(|error| format!("{path}:{error}"))?;
        Ok(Self { path: path.to_owned(), name, expected: expected.into(), text })
    }

    /// Compiles the program, and makes it the one that runs.
    pub(crate) fn install(&self, engine: &Engine) -> Result<(), Error> {
        let mut unit = engine.unit();
        clif::define(&mut unit, &self.text)?;
        engine.install(unit)?;
        Ok(())
    }
}
