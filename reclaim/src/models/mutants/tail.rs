//! Mistakes with tail calls.

use crate::Step::{
    CheckTaken, CountIn, CountOutTaken, JumpBody, LightFence, LoadBody, Restart, SwapLane,
};
use crate::models::explore::Fault;
use crate::models::machine::{Callees, Dropped, Gates, Machine, Seats, Transfer};
use crate::models::scenarios;
use crate::sync::{Mutant, Ordering};

/// A mistake that is to be seen as a thread in what is gone.
const TAIL: Machine = Machine { causal: false, ..Machine::TAIL };

/// Who has counted out of the caller and not in at the callee keeps neither: the caller's version
/// goes, and the callee with it.
#[test]
fn counting_out_before_counting_in() {
    let steps =
        &[SwapLane, CountOutTaken, LightFence, CheckTaken, CountIn, LightFence, LoadBody, JumpBody];
    // Who bails is counted where the frame says.
    Machine { transfer_steps: [steps, &[Restart]], ..TAIL }.refute(
        0,
        scenarios::dropped_before_a_tail_call,
        Fault::UseAfterFree,
    );
}

/// Who has counted out and then finds the body gone has to go on from a function that may be gone.
#[test]
fn counting_out_before_the_body_is_known() {
    let steps =
        &[CountIn, LightFence, SwapLane, CountOutTaken, LightFence, CheckTaken, LoadBody, JumpBody];
    Machine { transfer_steps: [steps, &[Restart]], ..TAIL }.refute(
        0,
        scenarios::dropped_before_a_tail_call,
        Fault::UseAfterFree,
    );
}

#[test]
fn loading_the_body_before_counting_in() {
    let steps =
        &[LoadBody, CountIn, LightFence, SwapLane, CountOutTaken, LightFence, CheckTaken, JumpBody];
    Machine { transfer_steps: [steps, &[Restart]], ..TAIL }.refute(
        2,
        scenarios::tail_callee_replaced,
        Fault::UseAfterFree,
    );
}

#[test]
fn leaving_without_a_look() {
    let steps = &[CountIn, LightFence, LoadBody, SwapLane, CountOutTaken, JumpBody];
    Machine { transfer_steps: [steps, Machine::TAIL.transfer_steps[1]], ..TAIL }.refute(
        0,
        scenarios::dropped_before_a_tail_call,
        Fault::Leak,
    );
}

#[test]
fn a_frame_that_stays() {
    Machine { transfer: Transfer::Never, ..TAIL }.refute(
        0,
        scenarios::mutual_tail_calls,
        Fault::Growth,
    );
}

#[test]
fn a_frame_that_stays_where_a_gate_bails() {
    Machine { transfer: Transfer::OfFirstTries, ..TAIL }.refute(
        2,
        scenarios::tail_callee_replaced,
        Fault::Growth,
    );
}

#[test]
fn a_frame_that_is_taken_from_a_caller() {
    Machine { transfer: Transfer::OfAllCalls, ..TAIL }.refute(
        2,
        scenarios::recursion,
        Fault::UseAfterFree,
    );
}

#[test]
fn versions_that_do_not_keep_their_own_function() {
    Machine { callees: Callees::KeptButItself, ..TAIL }.refute(
        2,
        scenarios::removed_tail_recursion_dropped,
        Fault::UseAfterFree,
    );
}

#[test]
fn payloads_that_go_with_the_function() {
    for scenario in [scenarios::dropped_before_a_tail_call, scenarios::removed_tail_callee_dropped]
    {
        Machine { dropped: Dropped::DropsPayloads, ..TAIL }.refute(
            2,
            scenario,
            Fault::UseAfterFree,
        );
    }
}

#[test]
fn no_heavy_fence_when_a_function_goes() {
    Machine { dropped: Dropped::Retires { fence: false }, ..TAIL }.refute(
        3,
        scenarios::tail_callee_dropped,
        Fault::Leak,
    );
}

#[test]
fn seats_that_go_with_the_function() {
    Machine { seats: Seats::GoWithFunction, ..TAIL }.refute(
        0,
        scenarios::dropped_before_a_tail_call,
        Fault::UseAfterFree,
    );
}

#[test]
fn seats_that_go_when_they_are_free() {
    Machine { seats: Seats::GoWhenFree, ..TAIL }.refute(
        3,
        scenarios::tail_callee_dropped,
        Fault::UseAfterFree,
    );
}

#[test]
fn seats_that_are_given_away_before_they_are_free() {
    Machine { seats: Seats::PooledAtOnce, ..TAIL }.refute(
        1,
        scenarios::seat_given_away,
        Fault::Occupied,
    );
}

#[test]
fn gates_that_go_with_the_function() {
    Machine { gates: Gates::GoWithFunction, ..TAIL }.refute(
        0,
        scenarios::dropped_before_a_tail_call,
        Fault::UseAfterFree,
    );
}

#[test]
fn a_handle_that_is_dropped_too_early() {
    Machine { host_keeps: false, ..TAIL }.refute(0, scenarios::torn_down, Fault::UseAfterFree);
}

#[test]
fn a_seat_that_starts_anew() {
    Machine { mutant: Some(Mutant::NoGeneration), ..TAIL }.refute(
        3,
        scenarios::seat_given_away_and_entered,
        Fault::UseAfterFree,
    );
}

#[test]
fn z_relaxed_count_out() {
    Machine { count_out: Ordering::Relaxed, ..Machine::TAIL }.refute(
        3,
        scenarios::replaced_before_a_tail_call,
        Fault::Race,
    );
}
