//! Runs Cranelift's test files through gates: see [`lastout_tests::conformance`].

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use lastout_tests::conformance::{
    FileReport, Options, Summary, find_files, report_to_parent, run_file, run_in_child,
};
use lexopt::prelude::*;

const HELP: &str = "\
usage: clif-conformance [--json] [--flag NAME=VALUE] [--rounds N] [--ms N] PATH...

Runs the `; run:` lines of Cranelift's test files, and of all .clif files in
directories, with every function replaceable and in a unit of its own: first
as they are, then while another thread replaces each function by itself, every
third time at the same address, and then so while their frames move: with
points at all loops and calls, where functions can have them, and of the
convention for tail calls.

Every file is run for each of its target lines that is the host's, and with
both ways of dispatch. A run line counts once: it has passed if it held each
time, failed if it did not some time, and is skipped if it was never checked.
What else goes wrong counts as failed, too, once each: a function that cannot
be compiled, a file that cannot be read or parsed or ends its process.
Files are taken to be of a newer Cranelift, and skipped, if they have an
instruction or a flag that this one does not know.

  --json             end with one JSON object
  --flag NAME=VALUE  a flag of Cranelift's for files that do not set it
                     (opt_level is none, if nobody sets it)
  --rounds N         replace each function N times, if there is time (24), and
                     a third as often where frames move
  --ms N             replace for N ms at least, each target and dispatch (50)

Ends with 0 if nothing failed, nothing is left in a ledger, and every version
was freed that was replaced; else with 1, and with 2 for wrong arguments.";

struct Args {
    options: Options,
    json: bool,
    /// This is the process of one file.
    child: bool,
    paths: Vec<PathBuf>,
}

impl Args {
    /// The arguments, or `None` if they were a cry for help, which was answered.
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        let mut args =
            Self { options: Options::default(), json: false, child: false, paths: Vec::new() };
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("json") => args.json = true,
                Long("flag") => {
                    let flag = parser.value()?.string()?;
                    let (name, value) = flag.split_once('=').unwrap_or((&flag, "true"));
                    args.options.flags.push((name.to_owned(), value.to_owned()));
                }
                Long("rounds") => args.options.rounds = parser.value()?.parse()?,
                Long("ms") => {
                    args.options.at_least = Duration::from_millis(parser.value()?.parse()?);
                }
                Long("child") => args.child = true,
                Long("help") | Short('h') => {
                    println!("{HELP}");
                    return Ok(None);
                }
                Value(path) => args.paths.push(path.into()),
                _ => return Err(arg.unexpected()),
            }
        }
        if args.paths.is_empty() {
            return Err("there is nothing to run".into());
        }
        Ok(Some(args))
    }

    /// The command that runs a file as these arguments say, and reports to this process.
    fn child(&self, file: &Path) -> std::io::Result<Command> {
        let Options { flags, rounds, at_least, .. } = &self.options;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--child", &format!("--rounds={rounds}")]);
        command.arg(format!("--ms={}", at_least.as_millis()));
        for (name, value) in flags {
            command.arg(format!("--flag={name}={value}"));
        }
        command.arg("--").arg(file);
        Ok(command)
    }
}

fn main() -> ExitCode {
    match Args::parse() {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(args)) if args.child => {
            let reports = args.paths.iter().map(|path| run_file(path, &args.options));
            let reported = reports.map(|report| report_to_parent(&report));
            if reported.into_iter().all(|reported| reported.is_ok()) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Ok(Some(args)) => run(&args),
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> ExitCode {
    let start = Instant::now();
    let mut summary = Summary::default();
    for path in &args.paths {
        match find_files(path) {
            Ok(files) if files.is_empty() => {
                summary.add(&FileReport::failure(path, "there is no .clif file in it"));
            }
            Ok(files) => {
                for file in files {
                    let report = run_in_child(args.child(&file), &file);
                    let FileReport { passed, failed, skipped, replacements, .. } = report;
                    eprintln!(
                        "{}: {passed} passed, {failed} failed, {skipped} skipped, \
                         {replacements} replacements",
                        file.display()
                    );
                    summary.add(&report);
                }
            }
            Err(error) => {
                summary.add(&FileReport::failure(path, &format!("cannot be read: {error}")));
            }
        }
    }
    println!("{summary}");
    println!("{:.1} s", start.elapsed().as_secs_f64());
    if args.json {
        println!("{}", summary.json());
    }
    if summary.total.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
