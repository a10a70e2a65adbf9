//! Entries, and gates that can be tail-called, run, with functions that are made up, and do what
//! they are made for.
//!
//! Others prove of each kind of entry that it is right as it is written; this is about what both
//! assume: what Cranelift makes of CLIF, and where it has arguments and results.

mod caller;
mod chain;
mod link;
mod registers;
mod tail_calls;
mod tail_world;
mod world;
mod zeros;

use cranelift_codegen::ir::{AbiParam, Signature, types::*};
use cranelift_codegen::isa::CallConv;
use lastout_instrument::{
    GateFrame, GateOptions, MachineCode, Symbol, c_entry, host_entry, machine_entry,
};
use lastout_reclaim::Counting;

use self::link::{Linker, Target};
use self::registers::Registers;
use self::world::{BODY, CURRENT, Happened, LAYOUT, Scenario};
use crate::support;

const PLAIN: GateOptions = GateOptions { counting: Counting::Plain, interleave: false };
const ATOMIC: GateOptions = GateOptions { counting: Counting::Atomic, interleave: false };
const INTERLEAVED: GateOptions = GateOptions { counting: Counting::Plain, interleave: true };

/// A function with as many integers as an entry in machine code may have, and vectors between.
fn signature(integers: usize) -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    let vectors = [F64X2, F32X4, I16X8, I8X16, F32X4, I64X2, F64X2, I32X4];
    for (number, vector) in vectors.into_iter().enumerate() {
        signature.params.push(AbiParam::new(vector));
        if number < integers {
            signature.params.push(AbiParam::new(I64));
        }
    }
    signature.returns = [I64, F32X4, I64, F64X2].map(AbiParam::new).to_vec();
    signature
}

/// An entry to be tried: how many of the first integers are for itself, and how many it passes on.
struct Entry {
    name: String,
    code: MachineCode,
    own: usize,
    integers: usize,
    interleave: bool,
    /// Whether it calls what is in the slot.
    forwards: bool,
}

fn entries() -> Vec<Entry> {
    let isa = support::isa("x86_64");
    let mut entries = Vec::new();
    for integers in 0..=4 {
        let signature = signature(integers);
        let mut add = |name: &str, options: GateOptions, own, code| {
            let name = format!("{name} of {integers}, {options:?}");
            let (interleave, forwards) = (options.interleave, name.contains("forward"));
            entries.push(Entry { name, code, own, integers, interleave, forwards });
        };
        let machine = machine_entry(&signature, &signature, LAYOUT, PLAIN, &*isa).unwrap();
        add("machine entry", PLAIN, 2, machine);
        for options in [PLAIN, ATOMIC, INTERLEAVED] {
            let host = host_entry(&signature, &signature, LAYOUT, options, &*isa).unwrap();
            add("host entry", options, 2, link::compile(host));
            let stable = c_entry(&signature, LAYOUT, options, &*isa).unwrap();
            add("stable entry", options, 0, link::compile(stable));
        }
        let tail = Signature { call_conv: CallConv::Tail, ..signature.clone() };
        let host = host_entry(&signature, &tail, LAYOUT, PLAIN, &*isa).unwrap();
        add("host entry that forwards", PLAIN, 2, link::compile(host));
        let stable = c_entry(&tail, LAYOUT, PLAIN, &*isa).unwrap();
        add("stable entry that forwards", PLAIN, 0, link::compile(stable));
    }
    entries
}

/// What happens in `scenario`, in order, and whose results are returned.
fn expected(scenario: Scenario) -> (Vec<Happened>, Option<u64>) {
    use Happened::{Called, Leave, Removed};
    let body = Called { by: BODY, count: 1 };
    let current = Called { by: CURRENT, count: 0 };
    let leave = Leave { count: 0 };
    match scenario {
        Scenario::Open => (vec![body], Some(BODY)),
        Scenario::ClosedInside => (vec![body, leave], Some(BODY)),
        Scenario::Closed => (vec![leave, current], Some(CURRENT)),
        Scenario::Reopened => (vec![current], Some(CURRENT)),
        Scenario::Removed => (vec![leave, Removed { count: 0 }], None),
        Scenario::Forwarded | Scenario::ForwardedFromInside => (vec![current], Some(CURRENT)),
    }
}

#[test]
fn every_entry_in_every_scenario() {
    for entry in entries() {
        let mut linker = Linker::default();
        let [leave, removed, interleave] = world::stubs(&mut linker, world::HOST);
        let start = linker.put(&entry.code, |symbol| match symbol {
            Symbol::Leave => Target::Piece(leave),
            Symbol::Removed => Target::Piece(removed),
            Symbol::Interleave => Target::Piece(interleave),
            Symbol::OwnSlot => Target::Address(world::function()),
            Symbol::CurrentLedger => Target::Address(world::current_ledger as *const () as u64),
            other => panic!("entries do not refer to {other:?}"),
        });
        let image = linker.link();
        let scenarios: &[_] = match (entry.forwards, entry.own) {
            (false, _) => &Scenario::OF_GATES,
            (true, 0) => &[Scenario::Forwarded, Scenario::ForwardedFromInside],
            (true, _) => &[Scenario::Forwarded],
        };
        for &scenario in scenarios {
            if scenario == Scenario::Reopened && !entry.interleave {
                continue;
            }
            let what = format!("{} in {scenario:?}", entry.name);
            let inside = scenario == Scenario::ForwardedFromInside;
            // Then it leaves no frame.
            let frame = if inside { GateFrame::default() } else { entry.code.frame };
            world::prepare(scenario, frame);
            let mut before = Registers::for_call(entry.own);
            if inside {
                before.set_pinned(world::ledger());
            }
            let mut after = before;
            // SAFETY: it is an entry of functions with arguments and results in these registers.
            unsafe { registers::call(image.at(start), &mut after) };

            let (happened, whose) = expected(scenario);
            assert_eq!(world::take_happened(), happened, "{what}");
            assert_eq!(world::counts(), [0; 4], "{what}");
            assert_eq!(after.kept, before.kept, "{what}");
            let results = whose.map(Registers::results_of).unwrap_or_default();
            assert_eq!(after.results(), results, "{what}");
            for call in world::take_calls() {
                let (called, registers) = (call.by, call.registers);
                let integers = registers.integers[..entry.integers].to_vec();
                let passed = before.integers[entry.own..][..entry.integers].to_vec();
                assert_eq!(integers, passed, "{what}: to {called}");
                assert_eq!(registers.vectors, before.vectors, "{what}: to {called}");
                assert_eq!(registers.pinned(), world::ledger(), "{what}: to {called}");
                // What an unwinder needs is where it looks.
                let body_return = entry.code.frame.body_return;
                let is_body = body_return
                    .is_some_and(|at| image.at(start) + at as usize == registers.returned as usize);
                assert_eq!(is_body, called == BODY, "{what}: to {called}");
                if inside {
                    assert_eq!(registers.frame_pointer(), before.frame_pointer(), "{what}");
                    continue;
                }
                assert_eq!(call.outer, Some(before.pinned()), "{what}: to {called}");
                if called == BODY {
                    let lane = call.lane.unwrap_or(registers.rbx());
                    assert_eq!(lane, world::lane(), "{what}");
                }
            }
        }
    }
}
