//! What is printed.

use crate::calls::{CASES, Calls};
use crate::crossover::Crossover;
use crate::figures::{Quartiles, Table, columns, digits};
use crate::inside::Freed;
use crate::replace::{Batches, BySites};
use crate::storm::{self, Rates};
use crate::subject::WAYS;

/// The head of a table whose first column is so wide.
fn ways(first: usize) {
    let [slot, patched] = WAYS.map(|(way, _)| way);
    println!("{:first$}{slot:>9} {:21}{patched:>9}", "", "");
}

pub(crate) fn by_sites(replace: &BySites) {
    table("us to replace a function, by the number of its call sites", &replace.us);
    if let Some((sites, by_jump)) = replace.by_jump.last() {
        println!(
            "{by_jump} of {sites} call sites call a jump of their unit's, which is patched for all of them"
        );
    }
}

pub(crate) fn table(title: &str, table: &Table) {
    println!("\n{title}");
    ways(10);
    for (key, both) in table {
        println!("{key:10}{}", columns(*both).trim_end());
    }
}

pub(crate) fn batches(batches: &Batches) {
    println!("for each of the functions");
    for (functions, both) in &batches.us {
        let each = |of: Quartiles| digits(of.median / *functions as f64);
        let [slot, patched] = both.map(each);
        println!("{functions:10}{slot:>9} {:21}{patched:>9}", "");
    }
    let [slot, patched] = batches.most_fences;
    println!("heavy fences of an install, however many functions: {slot} and {patched}");
}

pub(crate) fn freed(freed: &[(usize, Freed)]) {
    println!(
        "\nus from the return of the install until the old version is freed, by threads inside"
    );
    ways(10);
    for (threads, freed) in freed {
        println!("{threads:10}{}", columns(freed.after_install).trim_end());
        if let Some(after_leaving) = freed.after_leaving {
            println!("{:>10}{}", "leaving", columns(after_leaving).trim_end());
        }
        let [slot, patched] = freed.within_install.map(|(within, of)| format!("{within} of {of}"));
        if *threads == 0 {
            println!("{:10} before it has returned: {slot} and {patched} times", "");
        }
    }
    println!("leaving: since the last thread inside has seen that it may go");
}

pub(crate) fn rates(rates: &Rates) {
    println!("\nper second, of a function that {} threads call without pause", storm::THREADS);
    ways(24);
    let rows = [
        ("1000 replacements", 1e-3, rates.replacements),
        ("million calls meanwhile", 1e-6, rates.calls_meanwhile),
        ("million calls otherwise", 1e-6, rates.calls_before),
    ];
    for (what, factor, both) in rows {
        println!("{what:24}{}", columns(both.map(|of| of.times(factor))).trim_end());
    }
}

pub(crate) fn calls(calls: &[Calls]) {
    println!("\nns a call from generated code, over several places where that may lie");
    ways(18);
    for ((_, case), calls) in CASES.iter().zip(calls) {
        println!("{case:18}{}", columns(calls.ns()).trim_end());
        let saved = calls.difference();
        let [median, lower, upper] = [saved.median, saved.lower, saved.upper].map(digits);
        println!("    patched saves {median} ({lower} to {upper})");
    }
}

pub(crate) fn crossover(crossover: &Crossover) {
    println!("\ncalls of a function between two replacements from which on patched sites pay, by");
    println!("the number of its call sites");
    print!("{:10}", "");
    for (_, case) in CASES {
        print!("{case:>19}");
    }
    println!();
    for (sites, calls) in crossover {
        print!("{sites:10}");
        for calls in calls {
            let text = calls.map_or("never measurably".to_owned(), |calls| format!("{calls:.0}"));
            print!("{text:>19}");
        }
        println!();
    }
}
