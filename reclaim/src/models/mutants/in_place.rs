//! Mistakes in replacing a version where it is.

use crate::models::explore::Fault;
use crate::models::events::Event;
use crate::models::machine::{HeavyFence, Machine};
use crate::models::scenarios;
use crate::sync::Mutant;

const IN_PLACE: Machine = Machine::IN_PLACE;

/// A caller has found the body itself, and its count is not visible yet.
#[test]
fn no_heavy_fence_after_the_valet_is_set() {
    Machine { heavy_fence: HeavyFence::Missing, ..IN_PLACE }.refute(
        1,
        scenarios::in_place_one_caller,
        Fault::UseAfterFree,
    );
    Machine { heavy_fence: HeavyFence::Own, ..IN_PLACE }.refute(
        1,
        scenarios::in_place_one_caller,
        Fault::UseAfterFree,
    );
}

/// Who comes while the code is written is in it.
#[test]
fn a_context_is_let_through_that_is_not_inside() {
    Machine { mutant: Some(Mutant::NobodyWaits), ..IN_PLACE }.refute(
        1,
        scenarios::in_place_one_caller,
        Fault::UseAfterFree,
    );
}

/// Nobody replaces what somebody waits for.
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
fn who_is_inside_waits() {
    Machine { mutant: Some(Mutant::RecursionWaits), ..IN_PLACE }.refute(
        1,
        scenarios::in_place_recursion,
        Fault::Wait,
    );
}

/// A frame that is counted in and was interrupted makes the handler's call look as if it was made
/// from inside; but the count was not there when the replacer has looked.
#[test]
fn who_is_let_through_does_not_wait_for_the_decision() {
    Machine { mutant: Some(Mutant::PassDecision), ..IN_PLACE }.refute(
        2,
        scenarios::in_place_interrupted,
        Fault::UseAfterFree,
    );
}

/// Who has waited and goes on is taken for one that waits, by the next who holds callers.
#[test]
fn going_on_without_a_fence() {
    Machine { mutant: Some(Mutant::WaitWithoutFence), ..IN_PLACE }.refute(
        2,
        scenarios::in_place_twice,
        Fault::UseAfterFree,
    );
}
