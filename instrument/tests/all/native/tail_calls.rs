//! Chains of tail calls through gates.

use std::rc::Rc;

use cranelift_codegen::ir::Signature;
use cranelift_codegen::ir::{Type, types::*};
use cranelift_codegen::isa::CallConv;
use lastout_instrument::{Dispatch, GateOptions, Symbol, host_entry};
use lastout_reclaim::Counting;

use super::link::{self, Linker, Target};
use super::registers::{self, Registers};
use super::tail_world::{Happened, Plan, World};
use super::world::LAYOUT;
use crate::support;

const OPTIONS: [GateOptions; 4] = [
    GateOptions { counting: Counting::Plain, interleave: false },
    GateOptions { counting: Counting::Atomic, interleave: false },
    GateOptions { counting: Counting::Plain, interleave: true },
    GateOptions { counting: Counting::Atomic, interleave: true },
];

const DISPATCHES: [Dispatch; 2] = [Dispatch::Slot, Dispatch::PatchedSites];

/// A world in which each function tail-calls the next one, and the last the first; tried with all
/// options.
fn each_ring(functions: &[&[Type]], returns: &[Type], test: impl Fn(&Rc<World>)) {
    rings(&OPTIONS, functions, returns, test);
}

fn rings(all: &[GateOptions], functions: &[&[Type]], returns: &[Type], test: impl Fn(&Rc<World>)) {
    let count = functions.len();
    let lanes: Vec<_> = (0..count).map(|number| (number, (number + 1) % count)).collect();
    for &options in all {
        for dispatch in DISPATCHES {
            let world = World::new(&Plan { options, dispatch, returns, functions, lanes: &lanes });
            test(&world);
            assert_eq!(world.counted(), [0; 0]);
        }
    }
}

/// Goes through a ring, so often, and checks what comes out.
fn go_round(world: &World, functions: usize, times: u64) {
    let run = (0..=times).map(|number| number as usize % functions);
    let hash = 0x0123_4567_89ab_cdef + times;
    assert_eq!(world.call(times, hash), world.expected(hash, run), "after {times} tail calls");
}

/// With none, 16, 48 and 160 bytes of arguments on the stack, each after each.
#[test]
fn arguments_on_the_stack_grow_and_shrink() {
    let sizes: [&[Type]; 4] = [&[I64; 4], &[I64; 6], &[I64; 10], &[I64; 24]];
    let order = [0, 0, 1, 0, 2, 0, 3, 1, 1, 2, 1, 3, 2, 2, 3, 3];
    let functions = order.map(|size: usize| sizes[size]);
    each_ring(&functions, &[I64], |world| {
        for times in 0..=functions.len() as u64 + 1 {
            go_round(world, functions.len(), times);
        }
    });
}

#[test]
fn arguments_of_every_kind() {
    let functions: [&[Type]; 6] = [
        &[],
        &[F64; 12],
        &[I64X2; 11],
        &[I128; 5],
        &[F64, I64, I128, I64X2, I64, F64, I64, I64, I128, I64, F64],
        &[I64, I128, I64, I128, I64, I128, F64, F64, F64, F64, F64, F64, F64, I64X2, F64, I64X2],
    ];
    each_ring(&functions, &[I64, F64], |world| {
        for times in 0..2 * functions.len() as u64 {
            go_round(world, functions.len(), times);
        }
    });
}

/// In all the registers that there are for results, and in memory.
#[test]
fn results_of_every_kind() {
    let in_registers =
        [I64, F64, I64, I64X2, I64, F64, I64, I64X2, I64, F64, I64, F64, I64, I64X2, I64, I64X2];
    let returns: [&[Type]; 5] = [
        &[],
        &in_registers,
        &[I128, I64X2, I128, F64, I128, I128],
        &[I64; 12],
        &[F64, I64X2, F64, F64, F64, F64, F64, F64, F64, I64X2, I128],
    ];
    let functions: [&[Type]; 3] = [&[I64; 5], &[F64; 9], &[I128, I64]];
    for returns in returns {
        each_ring(&functions, returns, |world| {
            for times in 0..=functions.len() as u64 {
                go_round(world, functions.len(), times);
            }
        });
    }
}

/// The same where the last is told to leave, which is done with the results in their registers.
#[test]
fn results_pass_a_leaver() {
    let returns = [I64, F64, I64, I64X2, I64, F64, I64, I64X2, I64, F64, I64, F64, I64, I64X2, I64];
    let functions: [&[Type]; 2] = [&[I64; 5], &[F64; 9]];
    each_ring(&functions, &returns, |world| {
        world.inside(|world, lane| {
            if lane == 1 {
                world.close(1);
            }
        });
        go_round(world, functions.len(), 1);
        assert_eq!(world.take_happened(), [Happened::Leave(1, vec![])]);
    });
}

/// Three functions, one after the other, of which two have a second lane; with all options.
fn each_with_second_lanes(returns: &[Type], test: impl Fn(&Rc<World>)) {
    let functions: [&[Type]; 3] = [&[I64; 6], &[F64, I128, I64, I64, I64, I64], &[I64; 2]];
    let lanes = [(0, 1), (1, 2), (2, 0), (0, 1), (1, 2)];
    for options in OPTIONS {
        let world = World::new(&Plan {
            options,
            dispatch: Dispatch::Slot,
            returns,
            functions: &functions,
            lanes: &lanes,
        });
        test(&world);
        assert_eq!(world.counted(), [0; 0]);
    }
}

fn note_bodies(world: &World) {
    world.inside(|world, lane| world.note(Happened::Body(lane, world.counted())));
}

/// What is tail-called, or called, goes on with what is current, and nothing is taken over yet.
#[test]
fn a_closed_lane_is_left_for_the_current_one() {
    use Happened::{Body, Leave};
    each_with_second_lanes(&[I64, F64], |world| {
        note_bodies(world);
        for (function, second) in [(0, 3), (1, 4)] {
            world.close(function);
            world.set_current(function, Some(second));
        }
        assert_eq!(world.call(2, 5), world.expected(5, [0, 1, 2]));
        let happened = [
            Leave(0, vec![]),
            Body(3, vec![3]),
            Leave(1, vec![3]),
            Body(4, vec![4]),
            Body(2, vec![2]),
        ];
        assert_eq!(world.take_happened(), happened);
    });
}

/// The next one is counted in by then, and the last one is left by whom it returns to.
#[test]
fn who_tail_calls_leaves_a_closed_lane() {
    use Happened::{Body, Leave};
    each_with_second_lanes(&[I64, F64], |world| {
        world.inside(|world, lane| {
            world.close(lane);
            world.note(Happened::Body(lane, world.counted()));
        });
        assert_eq!(world.call(2, 5), world.expected(5, [0, 1, 2]));
        let happened = [
            Body(0, vec![0]),
            Leave(0, vec![1]),
            Body(1, vec![1]),
            Leave(1, vec![2]),
            Body(2, vec![2]),
            Leave(2, vec![]),
        ];
        assert_eq!(world.take_happened(), happened);
    });
}

#[test]
fn a_removed_function_returns_zeros() {
    use Happened::{Body, Leave, Removed};
    let returns = [I64, F64, I128, I64X2];
    let zeros = [8, 8, 16, 16].map(|size| vec![0; size]);
    each_with_second_lanes(&returns, |world| {
        note_bodies(world);
        world.close(1);
        world.set_current(1, None);
        assert_eq!(world.call(2, 5), zeros);
        assert_eq!(
            world.take_happened(),
            [Body(0, vec![0]), Leave(1, vec![0]), Removed(1, vec![0])]
        );
        world.close(0);
        world.set_current(0, None);
        assert_eq!(world.call(2, 5), zeros);
        assert_eq!(world.take_happened(), [Leave(0, vec![]), Removed(0, vec![])]);
    });
}

#[test]
fn the_stack_does_not_grow() {
    let functions: [&[Type]; 4] = [&[], &[I64; 10], &[I64; 2], &[I64; 24]];
    // A hook would take its time, and does the same each time.
    rings(&OPTIONS[..2], &functions, &[I64], |world| {
        go_round(world, functions.len(), 1_000_000);
        assert!(world.stack_range() < 1024, "{} bytes", world.stack_range());
    });
}

/// For a caller of C, by way of an entry.
#[test]
fn registers_are_kept() {
    let functions: [&[Type]; 3] = [&[I64; 2], &[I64; 10], &[F64; 10]];
    each_ring(&functions, &[I64], |world| {
        let inner = world.signature(0);
        let outer = Signature { call_conv: CallConv::SystemV, ..inner.clone() };
        let isa = support::isa("x86_64");
        let entry = host_entry(&outer, inner, LAYOUT, OPTIONS[0], &*isa).expect("it can be had");
        let mut linker = Linker::default();
        let nothing = |symbol: Symbol| -> Target { panic!("it does not refer to {symbol:?}") };
        let start = linker.put(&link::compile(entry), nothing);
        let image = linker.link();
        for times in 0..5 {
            let hash = 77;
            let arguments = [world.ledger(), world.function(0), times, hash, hash, hash + 1];
            let mut before = Registers::for_call(0);
            before.integers = arguments;
            let mut after = before;
            // SAFETY: it is an entry that takes six integers, and may do what it does.
            unsafe { registers::call(image.at(start), &mut after) };
            assert_eq!(after.kept, before.kept);
            let run = (0..=times).map(|number| number as usize % functions.len());
            assert_eq!([after.result().to_le_bytes().to_vec()], *world.expected(hash, run));
        }
    });
}
