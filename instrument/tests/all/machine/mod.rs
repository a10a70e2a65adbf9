//! The gate in machine code is one, the entry is one, almost the same code is none, and both are
//! made only for signatures that they can forward.

mod calls;
mod edit;
mod entry_mutants;
mod entry_signatures;
mod every;
mod kind;
pub(crate) mod listing;
mod memory;
mod mutants;
mod path;
mod processor;
mod prove;
mod registers;
mod tail_mutants;
mod tail_stack_mutants;
mod word;

use lastout_instrument::LaneLayout;
use lastout_reclaim::Counting;

use self::edit::{Edit, LAYOUT};
use self::kind::{GATE, Kind};
use self::listing::decode;

#[test]
fn accepts_the_gate() {
    accepts(Kind::Gate, LAYOUT);
}

#[test]
fn accepts_the_entry() {
    for integers in 0..=4 {
        accepts(Kind::Entry { integers }, LAYOUT);
    }
}

#[test]
fn accepts_the_gate_that_can_be_tail_called() {
    for counting in [Counting::Plain, Counting::Atomic] {
        for interleave in [false, true] {
            accepts(Kind::Tail { counting, interleave }, LAYOUT);
        }
    }
}

/// The distances are filled in when tails and entries are made, not by a linker.
#[test]
fn accepts_any_layout() {
    let tail = Kind::Tail { counting: Counting::Plain, interleave: false };
    for kind in [Kind::Gate, Kind::Entry { integers: 2 }, tail] {
        let (max, min) = (i32::MAX, i32::MIN);
        for [function, cell_offset, current, lane, no_version] in
            [[max, min, min, max, 0], [min, max, max, min, 8], [-8, 8, 0, -8, min]]
        {
            accepts(kind, LaneLayout { function, cell_offset, current, lane, no_version });
        }
    }
}

fn accepts(kind: Kind, layout: LaneLayout) {
    let whole = Edit::whole(kind, layout);
    let paths = whole.check().unwrap_or_else(|refusal| panic!("{refusal}\n\n{whole}"));
    // The body is there, or not; after counting out it is there, or not; and where it was not at
    // first, there is a current gate, or not.
    assert_eq!(paths, kind.starts().len() * (2 + 2 * 2), "{whole}");
}

/// What every call runs is in one cache line, for gates that start at one, and the rest does not
/// take a whole line more.
#[test]
fn is_small() {
    let gate = Edit::gate();
    let code = gate.part(GATE);
    let lines = decode(code);
    let first_return = lines.iter().find(|line| line.text() == "ret").expect("a gate returns");
    assert!(first_return.range().end <= 64, "{gate}");
    assert!(code.bytes.len() <= 96, "{gate}");
}
