//! What functions take in memory, what it takes to install and free them, and what it does to
//! calls where they lie.
//!
//! ```text
//! cargo bench --bench memory [-- [--json] [--cycles N]]
//! ```
//!
//! Every part runs in a process of its own, so that no part finds memory that another has left.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};

use lastout_tests::measure::machine;
use lexopt::prelude::*;
use serde_json::{Value as Json, json};

mod code;
mod parts;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

struct Args {
    json: bool,
    /// How many functions are compiled, called and dropped.
    cycles: usize,
    /// In a process that measures: what.
    part: Vec<String>,
}

fn main() -> Result<()> {
    let mut args = Args { json: false, cycles: 1_000_000, part: Vec::new() };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("json") => args.json = true,
            Long("cycles") => args.cycles = parser.value()?.parse()?,
            Long("part") => args.part.push(parser.value()?.string()?),
            // Cargo says so to every bench.
            Long("bench") => {}
            _ => return Err(arg.unexpected().into()),
        }
    }
    if !args.part.is_empty() {
        println!("{}", parts::run(&args.part)?);
        return Ok(());
    }
    let report = report(args.cycles)?;
    if args.json {
        println!("{report}");
    }
    Ok(())
}

/// Measures everything, and prints it as it comes.
fn report(cycles: usize) -> Result<Json> {
    println!("{}", machine());
    println!("\nresident bytes for each of {} live functions", parts::LIVE);
    println!("{:>12} {:>12} {:>12} {:>20}", "code", "lastout", "JITModule", "1.5 x code + 256");
    let mut bytes = BTreeMap::new();
    for size in parts::SIZES {
        let size_text = size.to_string();
        let lastout = measure(&["bytes", "lastout", &size_text])?;
        let module = measure(&["bytes", "module", &size_text])?;
        let code = figure(&lastout, "code");
        let [lastout, module] = [lastout, module].map(|of| figure(&of, "bytes_per_function"));
        println!("{code:12.0} {lastout:12.0} {module:12.0} {:20.0}", 1.5 * code + 256.0);
        bytes.insert(size_text, json!({ "code": code, "lastout": lastout, "jit_module": module }));
    }

    let times = measure(&["times"])?;
    println!("\nmicroseconds, 200 bytes of code that are compiled already, another thread idle");
    println!("{:12} {:>12} {:>12}", "", "lastout", "JITModule");
    for (what, ours, theirs) in [
        ("install", "install_us", Some("module_install_us")),
        ("replace", "replace_us", None),
        ("free", "free_us", Some("module_free_us")),
    ] {
        print!("{what:12} {:12.2}", figure(&times, ours));
        match theirs {
            Some(theirs) => println!(" {:12.2}", figure(&times, theirs)),
            None => println!(" {:>12}", "-"),
        }
    }

    let alive = measure(&["alive"])?;
    println!("\nmicroseconds to install one more function, by how many there are");
    for functions in ["1000", "100000", "1000000"] {
        println!("{functions:>12} {:12.2}", figure(&alive["install_us"], functions));
    }

    println!("\nns a call of functions in turn, from Rust, packed and with a page each");
    println!("{:>12} {:>28} {:>28} {:>12}", "", "bare calls", "through gates", "JITModules");
    let mut round_robin = BTreeMap::new();
    for functions in ["1024", "8192"] {
        let measured = measure(&["round_robin", functions])?;
        print!("{functions:>12}");
        for way in ["bare", "gated"] {
            let [packed, paged] = ["packed", "page_each"].map(|at| figure(&measured[way], at));
            print!(" {packed:9.1} {paged:9.1} ({:5.1}x)", paged / packed);
        }
        println!(" {:12.1}", figure(&measured["bare"], "module_each"));
        round_robin.insert(functions, measured);
    }

    let growth = measure(&["growth", &cycles.to_string()])?;
    println!(
        "\n{cycles} functions compiled, called, dropped: {} bytes more resident, {:.0} us each",
        growth["grown_bytes"],
        figure(&growth, "cycle_us"),
    );

    let churn = measure(&["churn"])?;
    println!(
        "\nafter churn: {} functions, {} bytes of {} committed are alive, {:.1} % dead",
        churn["functions"],
        churn["live_bytes"],
        churn["committed_bytes"],
        100.0 * figure(&churn, "dead_share"),
    );
    Ok(json!({
        "machine": machine(),
        "bytes_per_function": bytes,
        "install_us": times["install_us"],
        "replace_us": times["replace_us"],
        "free_us": times["free_us"],
        "jit_module_install_us": times["module_install_us"],
        "jit_module_free_us": times["module_free_us"],
        "install_us_alive": alive["install_us"],
        "round_robin_ns": round_robin,
        "growth": growth,
        "churn": churn,
    }))
}

fn figure(of: &Json, name: &str) -> f64 {
    of[name].as_f64().unwrap_or(f64::NAN)
}

/// Runs a part in a process of its own, and returns what it prints.
fn measure(part: &[&str]) -> Result<Json> {
    let mut command = Command::new(std::env::current_exe()?);
    for word in part {
        command.args(["--part", word]);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{part:?}: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Says how far a part has come, on a terminal.
pub(crate) fn progress(what: &str, done: usize, of: usize) {
    let step = (of / 100).max(1);
    if !done.is_multiple_of(step) || !std::io::stderr().is_terminal() {
        return;
    }
    let mut stderr = std::io::stderr();
    // Nothing is lost if it cannot be said.
    let _ = write!(stderr, "\r{:3} % {what}   \r", 100 * done / of);
    let _ = stderr.flush();
}
