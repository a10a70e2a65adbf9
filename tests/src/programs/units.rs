//! Which functions are in a unit.

use std::collections::BTreeSet;

use super::{Linkage, Program, Replacement, Statement, Way};

/// The units that there are at first.
pub(super) fn first_units(program: &Program) -> Vec<Replacement> {
    let units = program.named().map(|function| program.functions[function].unit).max();
    let unit = |unit| {
        let functions = program.named().filter(move |&f| program.functions[f].unit == unit);
        Replacement { functions: functions.collect(), points: program.first, in_place: false }
    };
    let units = (0..=units.unwrap_or(0)).map(unit);
    units.filter(|unit| !unit.functions.is_empty()).collect()
}

/// The functions that a unit defines: those that it exports, and the local ones that it needs.
pub(super) fn defines(program: &Program, exports: &Replacement) -> BTreeSet<usize> {
    let mut defined = BTreeSet::new();
    let mut wanted = exports.functions.clone();
    while let Some(function) = wanted.pop() {
        if defined.insert(function) {
            let local = |&callee: &usize| program.functions[callee].linkage == Linkage::Local;
            let callees = callees(program, &program.functions[function].body);
            wanted.extend(callees.into_iter().filter(local));
        }
    }
    defined
}

/// What statements refer to.
fn callees(program: &Program, statements: &[Statement]) -> Vec<usize> {
    let of = |statement: &Statement| match statement {
        Statement::Call(call) | Statement::Tail(call) => match call.way {
            Way::Name | Way::Address => vec![call.callee],
            Way::Table(_) => program.table(program.functions[call.callee].signature),
        },
        Statement::If(_, then, otherwise) => {
            [callees(program, then), callees(program, otherwise)].concat()
        }
        Statement::Repeat(_, _, body) => callees(program, body),
        _ => Vec::new(),
    };
    statements.iter().flat_map(of).collect()
}
