//! The gate in machine code is one, almost the same code is none, and it is made only for
//! signatures that it can forward.

mod edit;
mod every;
mod listing;
mod mutants;
mod path;
mod prove;
mod registers;
#[path = "../support/mod.rs"]
mod support;
mod word;

use lastout_instrument::LaneLayout;

use self::edit::{Edit, LAYOUT};
use self::listing::decode;
use self::prove::GATE;

#[test]
fn accepts_the_gate() {
    accepts(LAYOUT);
}

/// The distances are filled in when the tails are made, not by a linker.
#[test]
fn accepts_the_gate_for_any_layout() {
    accepts(LaneLayout { function: i32::MAX, current: i32::MIN });
    accepts(LaneLayout { function: -8, current: 0 });
}

fn accepts(layout: LaneLayout) {
    let gate = Edit::with_layout(layout);
    let paths = gate.check().unwrap_or_else(|refusal| panic!("{refusal}\n\n{gate}"));
    // The body is there, or not; after counting out it is there, or not; and where it was not at
    // first, there is a current gate, or not.
    assert_eq!(paths, 2 + 2 * 2, "{gate}");
}

/// What every call runs is in one cache line, for gates that start at one, and the rest does not
/// take a whole line more.
#[test]
fn is_small() {
    let gate = Edit::whole();
    let code = gate.part(GATE);
    let lines = decode(code);
    let first_return = lines.iter().find(|line| line.text() == "ret").expect("a gate returns");
    assert!(first_return.range().end <= 64, "{gate}");
    assert!(code.bytes.len() <= 96, "{gate}");
}
