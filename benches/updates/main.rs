//! What it takes to replace functions, with either way of dispatch: calls that load the gate from
//! a slot, and call sites that are patched.
//!
//! ```text
//! cargo bench --bench updates [-- [--json] [--chart docs/updates.svg]]
//! ```
//!
//! A relative path of the chart is one in the workspace. Both ways are measured in every round, in
//! turn; figures are medians, and in brackets the quartiles: half of all samples are between them.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use lastout_tests::measure::machine;
use lexopt::prelude::*;
use serde_json::{Value as Json, json};

mod calls;
mod chart;
mod crossover;
mod figures;
mod inside;
mod looping;
mod replace;
mod storm;
mod subject;
mod tables;

use calls::CASES;
use crossover::crossover;
use figures::{Quartiles, by_way, keyed, medians};
use inside::Freed;
use subject::idle_caller;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let mut json = false;
    let mut chart = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("json") => json = true,
            Long("chart") => chart = Some(in_workspace(parser.value()?.into())?),
            // Cargo says so to every bench.
            Long("bench") => {}
            _ => return Err(arg.unexpected().into()),
        }
    }
    let report = report(chart.as_deref())?;
    if json {
        println!("{report}");
    }
    Ok(())
}

/// A path of a file in the workspace, if it is relative: a bench runs in the folder of its package,
/// and the caller is in that of the workspace. A folder that cannot be made fails now, before
/// minutes of measuring.
fn in_workspace(path: PathBuf) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(path)
}

/// Measures everything, prints it as it comes, and draws it.
fn report(chart: Option<&Path>) -> Result<Json> {
    let _idle = idle_caller()?;
    println!("{}; medians, and in brackets the quartiles", machine());

    let by_sites = replace::by_sites()?;
    tables::by_sites(&by_sites);
    let by_functions = replace::by_functions()?;
    tables::table(
        "us to replace a function with one call site, by how many functions there are",
        &by_functions,
    );
    let batches = replace::batches()?;
    tables::table("us to replace several functions at once", &batches.us);
    tables::batches(&batches);
    let freed = inside::freed()?;
    tables::freed(&freed);
    let rates = storm::rates()?;
    tables::rates(&rates);
    let calls = calls::calls()?;
    tables::calls(&calls);
    let crossover = crossover(&by_sites, &calls);
    tables::crossover(&crossover);

    if let Some(path) = chart {
        chart::draw(path, &machine(), &by_sites.us, &crossover)?;
    }
    Ok(json!({
        "machine": machine(),
        "replace_us": medians(&by_sites.us),
        "sites_by_jump": keyed(by_sites.by_jump.iter().map(|(sites, jumps)| (sites, json!(jumps)))),
        "replace_us_by_functions": medians(&by_functions),
        "batch_us": medians(&batches.us),
        "batch_heavy_fences": by_way(|way| json!(batches.most_fences[way])),
        "freed_after_us": freed_json(&freed, |freed, way| Some(freed.after_install[way])),
        "freed_after_leaving_us": freed_json(&freed, |freed, way| Some(freed.after_leaving?[way])),
        "replacements_per_second": by_way(|way| json!(rates.replacements[way].median)),
        "calls_per_second_meanwhile": by_way(|way| json!(rates.calls_meanwhile[way].median)),
        "calls_per_second_before": by_way(|way| json!(rates.calls_before[way].median)),
        "call_ns": by_case(|case| {
            let calls = &calls[case];
            let [slot, patched] = calls.ns();
            let Quartiles { lower, median, upper } = calls.difference();
            json!({
                "slot": slot.median,
                "patched": patched.median,
                "saved": median,
                "saved_quartiles": [lower, upper],
            })
        }),
        "crossover_calls": by_case(|case| {
            keyed(crossover.iter().map(|(sites, calls)| (sites, json!(calls[case]))))
        }),
    }))
}

fn freed_json(freed: &[(usize, Freed)], of: impl Fn(&Freed, usize) -> Option<Quartiles>) -> Json {
    by_way(|way| {
        let figures = |(threads, freed)| Some((threads, json!(of(freed, way)?.median)));
        keyed(freed.iter().map(|(threads, freed)| (threads, freed)).filter_map(figures))
    })
}

/// Something for each of [`CASES`].
fn by_case(of: impl Fn(usize) -> Json) -> Json {
    keyed(CASES.iter().enumerate().map(|(case, (name, _))| (name, of(case))))
}

/// Says how far a part has come, on a terminal, and nothing more when it is done.
pub(crate) fn progress(what: &str, done: usize, of: usize) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let text =
            if done < of { format!("{:3} % {what}", 100 * done / of) } else { String::new() };
        // Nothing is lost if it cannot be said.
        let _ = write!(stderr, "\r{text:40}\r");
        let _ = stderr.flush();
    }
}
