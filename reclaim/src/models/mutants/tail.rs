//! Mistakes with tail calls.

use crate::Step::{
    CheckTaken, CountIn, CountOutTaken, JumpBody, LightFence, LoadBody, Restart, SwapLane,
};
use crate::models::explore::Fault;
use crate::models::machine::{Callees, Dropped, Gates, Lanes, Machine, Transfer};
use crate::models::scenarios;
use crate::sync::{Mutant, Ordering};

/// Mistakes are to be seen in a thread that uses what is gone.
const TAIL: Machine = Machine { causal: false, ..Machine::TAIL };

/// What a transfer does that has put its lane into the frame before it bails: the call is counted
/// where the frame says.
const BAIL_LATE: &[crate::Step] = &[Restart];

/// A call that is counted nowhere has nothing to go on with: the caller's version goes, and takes
/// the callee with it.
#[test]
fn counting_out_before_counting_in() {
    let steps =
        &[SwapLane, CountOutTaken, LightFence, CheckTaken, CountIn, LightFence, LoadBody, JumpBody];
    Machine { transfer_steps: [steps, BAIL_LATE], ..TAIL }.refute(
        0,
        scenarios::dropped_before_a_tail_call,
        Fault::UseAfterFree,
    );
}

/// A call that is counted in a lane that turns out to be closed has to ask the function where to go
/// on, and keeps it no longer.
#[test]
fn counting_out_before_the_body_is_known() {
    let steps =
        &[CountIn, LightFence, SwapLane, CountOutTaken, LightFence, CheckTaken, LoadBody, JumpBody];
    Machine { transfer_steps: [steps, BAIL_LATE], ..TAIL }.refute(
        0,
        scenarios::dropped_before_a_tail_call,
        Fault::UseAfterFree,
    );
}

/// The body that was there before the call was counted in is gone by the jump.
#[test]
fn loading_the_body_before_counting_in() {
    let steps =
        &[LoadBody, CountIn, LightFence, SwapLane, CountOutTaken, LightFence, CheckTaken, JumpBody];
    Machine { transfer_steps: [steps, BAIL_LATE], ..TAIL }.refute(
        2,
        scenarios::tail_callee_replaced,
        Fault::UseAfterFree,
    );
}

/// The last to move on does not look whether the version that it has left is retired.
#[test]
fn moving_on_without_a_look() {
    let steps = &[CountIn, LightFence, LoadBody, SwapLane, CountOutTaken, JumpBody];
    Machine { transfer_steps: [steps, TAIL.transfer_steps[1]], ..TAIL }.refute(
        0,
        scenarios::dropped_before_a_tail_call,
        Fault::Leak,
    );
}

/// The thread that frees the version that a call has moved out of does not know that its body is
/// over.
#[test]
fn moving_on_without_release() {
    Machine { count_out: Ordering::Relaxed, ..Machine::TAIL }.refute(
        3,
        scenarios::replaced_before_a_tail_call,
        Fault::Race,
    );
}

/// A gate does not see that it was tail-called, and returns to the frame of another.
#[test]
fn a_frame_for_each_tail_call() {
    Machine { transfer: Transfer::Never, ..TAIL }.refute(
        0,
        scenarios::mutual_tail_calls,
        Fault::Growth,
    );
}

/// A gate that bails calls the one that is current, where it has to tail-call it.
#[test]
fn a_frame_for_each_bail() {
    Machine { transfer: Transfer::OfFirstTries, ..TAIL }.refute(
        2,
        scenarios::tail_callee_replaced,
        Fault::Growth,
    );
}

/// A gate that was called takes its caller for one that has tail-called it, counts it out, and
/// returns to it.
#[test]
fn a_transfer_out_of_a_caller() {
    Machine { transfer: Transfer::OfAllCalls, ..TAIL }.refute(
        2,
        scenarios::recursion,
        Fault::UseAfterFree,
    );
}

/// A version tail-calls its own function, which went with the version that the call came from.
#[test]
fn versions_that_do_not_keep_their_own_function() {
    Machine { callees: Callees::KeptButItself, ..TAIL }.refute(
        2,
        scenarios::removed_tail_recursion_dropped,
        Fault::UseAfterFree,
    );
}

/// If every caller kept the function until its call returned, no frame could be inside when the
/// function went, and this would be right.
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

/// No call can come any more, and the counts of the frames inside are visible to the last owner to
/// let go of the function. But a leaver may not find the lane closed, and not be seen to be gone.
#[test]
fn no_heavy_fence_when_a_function_goes() {
    Machine { dropped: Dropped::Retires { fence: false }, ..TAIL }.refute(
        3,
        scenarios::tail_callee_dropped,
        Fault::Leak,
    );
}

/// A call is counted in a lane that is gone.
#[test]
fn lanes_that_go_with_the_function() {
    Machine { lanes: Lanes::GoWithFunction, ..TAIL }.refute(
        0,
        scenarios::dropped_before_a_tail_call,
        Fault::UseAfterFree,
    );
}

/// A leaver has counted out and not looked at the body yet. The version and the lane go.
#[test]
fn lanes_that_go_when_they_are_free() {
    Machine { lanes: Lanes::GoWhenFree, ..TAIL }.refute(
        3,
        scenarios::tail_callee_dropped,
        Fault::UseAfterFree,
    );
}

/// A function is gone, and its version is not.
#[test]
fn lanes_that_are_given_away_before_they_are_free() {
    Machine { lanes: Lanes::PooledAtOnce, ..TAIL }.refute(
        1,
        scenarios::lane_given_away,
        Fault::Occupied,
    );
}

/// A leaver of the function that is gone has read the state and added up 0 frames when it falls
/// asleep. By the time it goes on, the lane is another function's, retired too, and a frame is in
/// it. If the generations began again with each function, the exchange would take one for the
/// other.
#[test]
fn lanes_that_forget_their_generation() {
    Machine { mutant: Some(Mutant::NoGeneration), ..TAIL }.refute(
        3,
        scenarios::lane_given_away_and_entered,
        Fault::UseAfterFree,
    );
}

/// A call has moved on, and what it has left takes the gate's function with it while the gate has
/// steps to go.
#[test]
fn gates_that_go_with_the_function() {
    Machine { gates: Gates::GoWithFunction, ..TAIL }.refute(
        0,
        scenarios::dropped_before_a_tail_call,
        Fault::UseAfterFree,
    );
}

/// A body lets go of the handle that it was called by, which alone keeps the engine. The lane goes
/// that the call is counted in, and the gate that it is to return to.
#[test]
fn a_handle_that_is_dropped_from_inside() {
    Machine { host_keeps: false, ..TAIL }.refute(2, scenarios::torn_down, Fault::UseAfterFree);
}
