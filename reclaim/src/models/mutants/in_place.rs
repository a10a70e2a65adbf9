//! Mistakes in replacing a version where it is.

use crate::models::events::Event;
use crate::models::explore::Fault;
use crate::models::machine::{HeavyFence, Machine};
use crate::models::scenarios;
use crate::sync::Mutant;

const IN_PLACE: Machine = Machine::IN_PLACE;

/// A caller has found the body itself, and its count is not visible yet.
#[test]
fn no_heavy_fence_after_the_detour_is_set() {
    for heavy_fence in [HeavyFence::Missing, HeavyFence::Own] {
        Machine { heavy_fence, ..IN_PLACE }.refute(1, scenarios::in_place_one_caller, Fault::Race);
    }
}

/// A caller that comes while the code is written is in it.
#[test]
fn a_context_is_let_through_that_is_not_inside() {
    Machine { mutant: Some(Mutant::NobodyWaits), ..IN_PLACE }.refute(
        1,
        scenarios::in_place_one_caller,
        Fault::Race,
    );
}

/// No version is replaced that a caller waits for.
#[test]
#[should_panic(expected = "did not happen: [ReplacedUnderWaiter]")]
fn waiters_count_as_inside() {
    Machine { mutant: Some(Mutant::WaitersInside), ..IN_PLACE }.explore(
        4,
        scenarios::in_place_one_caller,
        &[Event::ReplacedInPlace, Event::ReplacedUnderWaiter, Event::GaveUp],
    );
}

/// The replacer waits for the outer call, which waits for the inner one, which waits for the
/// replacer.
#[test]
fn a_caller_that_is_inside_waits() {
    Machine { mutant: Some(Mutant::RecursionWaits), ..IN_PLACE }.refute(
        1,
        scenarios::in_place_recursion,
        Fault::Wait,
    );
}

/// A frame that is counted in and was interrupted makes the handler's call look as if it was made
/// from inside; but the count was not there when the replacer has looked.
#[test]
fn a_caller_that_is_let_through_does_not_wait_for_the_decision() {
    Machine { mutant: Some(Mutant::PassDecision), ..IN_PLACE }.refute(
        1,
        scenarios::in_place_interrupted,
        Fault::Race,
    );
}

/// A caller that has waited and goes on is taken for one that waits, by the next holder.
#[test]
fn going_on_without_a_fence() {
    Machine { mutant: Some(Mutant::WaitWithoutFence), causal: false, ..IN_PLACE }.refute(
        2,
        scenarios::in_place_twice,
        Fault::UseAfterFree,
    );
}

/// A caller that has waited for one replacement finds the next begun, and runs what the first has
/// written without knowing that it is written.
#[test]
fn going_on_from_one_hold_in_the_next_without_an_order() {
    Machine { mutant: Some(Mutant::BeginWithoutRelease), ..IN_PLACE }.refute(
        3,
        scenarios::in_place_twice,
        Fault::Race,
    );
}
