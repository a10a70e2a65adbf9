//! Programs, whose functions call each other in one way or the other.

use std::fmt::Write;

use lastout::{Dispatch, Engine, Handle, Stats};
use serde_json::Value;

use crate::jit_module::{self, Word};
use crate::measure::{Rounds, check_results};
use crate::subject::install;
use crate::text::Call;
use crate::{Error, Loop, Way};

mod texts;

use texts::{Arithmetic, Fib, ManyFunctions, Program, name};

const ROUNDS: usize = 101;

/// The ways in which they call each other, in the order of the table.
const WAYS: [(&str, &str); 6] = [
    ("slot", "through pointers in memory, in a module of cranelift-jit"),
    ("direct", "directly, in such a module"),
    ("within_unit", "directly, within a unit of lastout"),
    ("gate", "each in a unit of its own, through slot and gate"),
    ("gate_patched", "the same, by patched calls of gates"),
    ("shared_atomic", "as `slot`; every function counts in a shared word of its own"),
];

/// A program that was run, and what it took.
pub(crate) struct Measured {
    name: &'static str,
    what: String,
    /// What ratios are to.
    base: &'static str,
    rounds: Rounds,
}

/// All programs.
pub(crate) fn measure() -> Result<Vec<Measured>, Error> {
    Ok(vec![calling(&Fib(24))?, calling(&ManyFunctions::new())?, call_free(&Arithmetic(500_000))?])
}

fn calling<P: Program>(program: &P) -> Result<Measured, Error> {
    eprintln!("program {}", P::NAME);
    let (patched, stats) = by_gates(program, Dispatch::PatchedSites)?;
    let ways = vec![
        ("slot", by_slots(program, false)?),
        ("direct", direct(program)?),
        ("within_unit", within_unit(program)?),
        ("gate", by_gates(program, Dispatch::Slot)?.0),
        ("gate_patched", patched),
        ("shared_atomic", by_slots(program, true)?),
    ];
    let (sites, jumps) = (stats.patched_calls, stats.patched_calls_by_jump);
    let what = format!(
        "{}; functions: {}, calls: {}, call sites: {}, of which {jumps} are patched by way of a jump",
        P::WHAT,
        program.functions(),
        program.calls(),
        sites + jumps,
    );
    Ok(run(program, what, "slot", ways))
}

fn call_free<P: Program>(program: &P) -> Result<Measured, Error> {
    eprintln!("program {}", P::NAME);
    let ways = vec![("direct", direct(program)?), ("within_unit", within_unit(program)?)];
    Ok(run(program, P::WHAT.to_owned(), "direct", ways))
}

fn run<P: Program>(program: &P, what: String, base: &'static str, ways: Vec<Way>) -> Measured {
    let layouts = [ways];
    check_results(&layouts, program.argument());
    let rounds = Rounds::run(ROUNDS, &layouts, program.argument(), program.calls());
    Measured { name: P::NAME, what, base, rounds }
}

/// In a module of `cranelift-jit`, by direct calls.
fn direct<P: Program>(program: &P) -> Result<Loop, Error> {
    in_jit_module(&direct_text(program), &[])
}

/// In a module of `cranelift-jit`, through slots; the functions count, if that is asked for.
fn by_slots<P: Program>(program: &P, counting: bool) -> Result<Loop, Error> {
    let words = || (0..program.functions()).map(|_| Word::new()).collect::<Vec<_>>();
    let (slots, counters) = (words(), words());
    let call = |index: usize| Call::Slot(slots[index].address());
    let text = (0..program.functions()).map(|index| {
        let counter = counting.then(|| counters[index].address());
        program.text(index, call, counter)
    });
    in_jit_module(&text.collect::<String>(), &slots)
}

fn in_jit_module(text: &str, slots: &[&Word]) -> Result<Loop, Error> {
    let compiled = jit_module::compile(text)?;
    for (slot, &code) in slots.iter().zip(&compiled) {
        slot.set(code);
    }
    // SAFETY: all functions of programs have this signature, and modules stay.
    let first = unsafe { std::mem::transmute::<*const u8, extern "C" fn(i64) -> i64>(compiled[0]) };
    Ok(Box::new(move |argument| first(argument)))
}

/// All in one unit of lastout, by direct calls.
fn within_unit<P: Program>(program: &P) -> Result<Loop, Error> {
    let engine = Engine::new()?;
    install(&engine, &direct_text(program))?;
    first_of(engine)
}

/// Each in a unit of its own, by calls that reach the current version.
fn by_gates<P: Program>(program: &P, dispatch: Dispatch) -> Result<(Loop, Stats), Error> {
    let engine = Engine::builder().dispatch(dispatch).build()?;
    let names: Vec<_> = (0..program.functions()).map(name).collect();
    // Functions call later ones, or themselves, which makes them preemptible.
    for index in (0..program.functions()).rev() {
        install(&engine, &program.text(index, |callee| Call::Name(&names[callee]), None))?;
    }
    let stats = engine.stats();
    Ok((first_of(engine)?, stats))
}

fn direct_text<P: Program>(program: &P) -> String {
    let names: Vec<_> =
        (0..program.functions()).map(|index| format!("colocated {}", name(index))).collect();
    let text = |index| program.text(index, |callee| Call::Name(&names[callee]), None);
    (0..program.functions()).map(text).collect()
}

fn first_of(engine: Engine) -> Result<Loop, Error> {
    let first: Handle<fn(i64) -> i64> = engine.function("f0")?;
    // Dropping it would remove the functions.
    std::mem::forget(engine);
    // SAFETY: programs are sound for all arguments.
    Ok(Box::new(move |argument| unsafe { first.call(argument) }.expect("nothing is removed")))
}

/// The table.
pub(crate) fn print(programs: &[Measured]) {
    println!(
        "programs: ns per call, the same in the fastest round, and in brackets the ratio to the first\n"
    );
    for Measured { name, what, base, rounds } in programs {
        println!("{name}: {what}");
        for (way, how) in WAYS.iter().filter(|(way, _)| rounds.has(way)) {
            let mut line = format!("  {way:14}");
            let (ns, least, ratio) = (rounds.ns(way), rounds.least(way), rounds.ratio(way, base));
            write!(line, "{ns:8.2} {least:8.2}  ({ratio:5.2}x)  {how}")
                .expect("strings can be written to");
            println!("{line}");
        }
        println!();
    }
}

/// The same as JSON, added to `report`.
pub(crate) fn report(programs: &[Measured], report: &mut Value) {
    let of = |figure: fn(&Measured) -> Value| -> Value {
        programs.iter().map(|program| (program.name.to_owned(), figure(program))).collect()
    };
    report["programs"] = of(|Measured { rounds, .. }| rounds.report(|way| rounds.ns(way)));
    report["programs_ns_min"] =
        of(|Measured { rounds, .. }| rounds.report(|way| rounds.least(way)));
    for base in ["slot", "direct"] {
        let ratios = programs.iter().filter(|program| program.base == base).map(|program| {
            let Measured { name, rounds, .. } = program;
            (name.to_string(), rounds.report(|way| rounds.ratio(way, base)))
        });
        report[format!("programs_ratio_to_{base}")] = ratios.collect();
    }
}
