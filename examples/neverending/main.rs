//! Replaces functions that never return: an event loop, and one that is stuck in a call.
//!
//! ```text
//! cargo run --release --example neverending -- [--seconds N] [--json]
//! ```
//!
//! Every answer of the loop is checked, against the versions that there were.

mod host;
mod program;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use lastout::{Installed, VersionState};
use lexopt::prelude::*;
use serde_json::json;

use program::Rule;

const HELP: &str = "\
usage: neverending [--seconds N] [--json]

  --seconds N   replace for N seconds (3)
  --json        end with one JSON object";

/// How long an old version may take to be freed before the example gives up on it.
const PATIENCE: Duration = Duration::from_secs(10);

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match parse().and_then(|args| args.map_or(Ok(true), |args| run(&args))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("neverending: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Args {
    seconds: f64,
    json: bool,
}

/// The arguments, or `None` if they asked for help, which was printed.
fn parse() -> Result<Option<Args>, Error> {
    let mut args = Args { seconds: 3.0, json: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("seconds") => args.seconds = parser.value()?.parse()?,
            Long("json") => args.json = true,
            Long("help") | Short('h') => {
                println!("{HELP}");
                return Ok(None);
            }
            _ => return Err(arg.unexpected().into()),
        }
    }
    Ok(Some(args))
}

/// What has been replaced so far.
#[derive(Default)]
struct Tally {
    replacements: u64,
    /// Of these, those whose old version was freed while the thread that had begun in it went on.
    freed_while_running: u64,
    wrong_results: u64,
}

fn run(args: &Args) -> Result<bool, Error> {
    let engine = host::engine()?;
    let mut tally = Tally::default();
    let mut rules = Rule::all();
    let mut next_rule = || rules.next().expect("there is always another");

    let first = next_rule();
    host::allow(first);
    let mut serving = program::install_serve(&engine, first)?;
    let mut waiting = program::install_ask(&engine, first)?;
    let serve = engine.function::<fn() -> i64>("serve")?;
    let ask = engine.function::<fn(i64) -> i64>("ask")?;

    thread::scope(|scope| -> Result<(), Error> {
        // SAFETY: the functions are sound, and so is every argument.
        let server = thread::Builder::new()
            .name("server".to_owned())
            .spawn_scoped(scope, move || unsafe { serve.call() })?;
        // SAFETY: as above.
        let asker = thread::Builder::new()
            .name("asker".to_owned())
            .spawn_scoped(scope, move || unsafe { ask.call(5) })?;
        let mut last = first;
        let replaced = (|| -> Result<(), Error> {
            host::wait_for_answers(1000);
            while engine.waiting("ask")?.is_empty() {
                thread::yield_now();
            }
            println!("`serve` loops for ever on thread `server`: {first}");
            println!("`ask` is in a call that does not return, on thread `asker`\n");
            let began = Instant::now();
            let mut shown = 0;
            while began.elapsed().as_secs_f64() < args.seconds {
                let rule = next_rule();
                host::allow(rule);
                let started = Instant::now();
                let served = program::install_serve(&engine, rule)?;
                let seen = host::wait_for_answer_of(rule, started, PATIENCE);
                let asked = program::install_ask(&engine, rule)?;
                let freed = [
                    tally.count(&serving, "serve", !server.is_finished()),
                    tally.count(&waiting, "ask", !asker.is_finished()),
                ];
                if shown < 3 {
                    shown += 1;
                    println!("`serve` replaced: {rule}");
                    println!("  the loop goes on in it {}", after(seen));
                    println!("  the old code is {}", freed_or_not(freed[0]));
                    println!("`ask` replaced; its call has not returned");
                    println!("  the old code is {}", freed_or_not(freed[1]));
                }
                (serving, waiting, last) = (served, asked, rule);
            }
            Ok(())
        })();
        // Whatever has happened, both return now: the loop because its last version ends it.
        host::end_call();
        let ended = program::install_serve(&engine, Rule::LAST);
        replaced?;
        ended?;
        let answered = asker.join().expect("it does not panic")?;
        let expected = last.answer(5 + host::CALLED);
        if answered != expected {
            tally.wrong_results += 1;
        }
        println!("\nthe call of `ask` has returned: {last}, {answered}");
        let rounds = server.join().expect("it does not panic")?;
        println!("`serve` has returned, as its last version does, after {rounds} answers");
        Ok(())
    })?;

    tally.wrong_results += host::wrong_answers();
    let Tally { replacements, freed_while_running, wrong_results } = tally;
    println!(
        "{replacements} replacements, {freed_while_running} freed while their threads went on, \
         {wrong_results} wrong results"
    );
    let alive = engine.stats().alive();
    println!("{alive} versions alive");
    if args.json {
        let report = json!({
            "replacements": replacements,
            "freed_while_running": freed_while_running,
            "wrong_results": wrong_results,
            "answers": host::answers(),
            "alive": alive,
        });
        println!("{report}");
    }
    Ok(wrong_results == 0 && freed_while_running == replacements && alive == 2)
}

impl Tally {
    /// Counts the replacement of a version, on whose thread the function `running` still is; whether
    /// it has been freed.
    fn count(&mut self, old: &Installed, name: &str, running: bool) -> bool {
        let version = old.version(name).expect("the unit exports it");
        let freed = version.wait_freed(PATIENCE);
        debug_assert_eq!(freed, version.state() == VersionState::Freed);
        self.replacements += 1;
        self.freed_while_running += u64::from(freed && running);
        freed
    }
}

fn after(seen: Option<Duration>) -> String {
    match seen {
        Some(time) => format!("{:.0} us after its compilation began", time.as_secs_f64() * 1e6),
        None => "not at all".to_owned(),
    }
}

fn freed_or_not(freed: bool) -> &'static str {
    if freed { "freed" } else { "NOT freed" }
}
