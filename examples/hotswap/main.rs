//! Replaces a function as fast as it can be compiled, while threads call it without pause.
//!
//! ```text
//! cargo run --release --example hotswap -- [--seconds N] [--threads N] [--json]
//!                                          [--watch FILE | FILE.clif...]
//! ```
//!
//! Each file is CLIF text with a function of type `(i64) -> i64`, the same name in all of them;
//! without files there are two of our own. Every result is checked against an oracle: the same
//! text, compiled by `cranelift-jit`.

mod args;
mod clif;
mod oracle;
mod program;
mod report;
mod workers;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use lastout::Engine;

use args::Args;
use program::Program;
use report::Report;
use workers::Shared;

fn main() -> ExitCode {
    let args = match Args::parse() {
        Ok(Some(args)) => args,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hotswap: {error}");
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(report) => {
            report.print(args.json);
            if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("hotswap: {error}");
            ExitCode::FAILURE
        }
    }
}

type Error = Box<dyn std::error::Error>;

fn run(args: &Args) -> Result<Report, Error> {
    let engine = Engine::new()?;
    let mut programs = Program::load_all(args)?;
    let name = programs[0].name.clone();
    programs[0].install(&engine)?;
    let function = engine.function::<fn(i64) -> i64>(&name)?;
    let mut report = Report::new(&engine);
    let shared = Shared::new(programs.iter().map(|program| program.expected.clone()));

    thread::scope(|scope| {
        for number in 0..args.threads {
            let (function, shared) = (function.clone(), &shared);
            thread::Builder::new()
                .name(format!("caller {number}"))
                .spawn_scoped(scope, move || workers::call(&function, shared))
                .expect("the system has room for another thread");
        }
        let replaced = match &args.watch {
            Some(_) => reload_on_save(args, &engine, &mut programs, &shared, &mut report),
            None => replace_without_pause(args, &engine, &programs, &shared, &mut report),
        };
        shared.stop();
        replaced
    })?;
    report.finish(&engine, &shared);
    Ok(report)
}

/// Compiles and installs one program after the other until the time is up.
fn replace_without_pause(
    args: &Args,
    engine: &Engine,
    programs: &[Program],
    shared: &Shared,
    report: &mut Report,
) -> Result<(), Error> {
    for program in programs.iter().cycle().skip(1) {
        if args.is_over(report.started.elapsed()) {
            break;
        }
        shared.begin_install();
        program.install(engine)?;
        shared.end_install();
        report.observe(engine, shared);
    }
    Ok(())
}

/// Installs the watched file whenever it has been written, until the time is up.
fn reload_on_save(
    args: &Args,
    engine: &Engine,
    programs: &mut Vec<Program>,
    shared: &Shared,
    report: &mut Report,
) -> Result<(), Error> {
    const PAUSE: Duration = Duration::from_millis(100);
    let path = &programs[0].path.clone();
    let modified = || std::fs::metadata(path).and_then(|data| data.modified()).ok();
    let mut seen: Option<SystemTime> = modified();
    while !args.is_over(report.started.elapsed()) {
        thread::sleep(PAUSE);
        report.observe(engine, shared);
        let now = modified();
        if now == seen || now.is_none() {
            continue;
        }
        seen = now;
        let began = Instant::now();
        let program = match Program::load(path) {
            Ok(program) if program.name == programs[0].name => program,
            Ok(program) => {
                eprintln!("\n{path}: defines {}, not {}", program.name, programs[0].name);
                continue;
            }
            Err(error) => {
                eprintln!("\n{error}");
                continue;
            }
        };
        shared.begin_install_of(program.expected.clone());
        program.install(engine)?;
        shared.end_install();
        eprintln!("\n{path}: installed after {:.1?}", began.elapsed());
        programs.push(program);
    }
    Ok(())
}
