//! Mistakes with points.

use crate::Step::{
    CheckTaken, CountIn, CountOutTaken, JumpBody, LightFence, LoadBody, Restart, SwapLane,
};
use crate::models::explore::Fault;
use crate::models::machine::{Machine, Moving};
use crate::models::scenarios;

/// Mistakes are to be seen in a thread that uses what is gone.
const MOVING: Machine = Machine { causal: false, ..Machine::MOVING };

/// The install that withdraws the point takes the last lease from under a frame that is parked.
#[test]
fn parked_calls_that_have_no_lease() {
    Machine { moving: Moving::ParkedCallsWithoutLease, ..MOVING }.refute(
        0,
        scenarios::withdrawn_while_parked,
        Fault::Lost,
    );
}

/// A frame that was in a parked call comes too late.
#[test]
fn a_resume_entry_that_goes_when_its_point_is_withdrawn() {
    Machine { moving: Moving::ResumeEntryGoesAtOnce, ..MOVING }.refute(
        0,
        scenarios::withdrawn_while_parked,
        Fault::Lost,
    );
}

/// The parked call keeps the resume entry, and with it a version that was replaced, for calls that
/// could go on where they are.
#[test]
fn a_parked_call_that_stays_open() {
    Machine { moving: Moving::ParkedCallsStayOpen, ..MOVING }.refute(
        0,
        scenarios::withdrawn_while_parked,
        Fault::Leak,
    );
}

/// A call of the new version is in the parked call, and over, before there is a resume entry.
#[test]
fn a_parked_call_that_opens_before_the_resume_entry() {
    Machine { moving: Moving::ResumeEntryLast, ..MOVING }.refute(
        2,
        scenarios::parked_withdrawn_and_offered,
        Fault::Lost,
    );
}

/// The parked call has the lease of a version before. When the point is withdrawn, the new lease
/// ends, and knows of no other.
#[test]
fn a_new_lease_while_the_old_one_is_held() {
    Machine { moving: Moving::LeasesNotReused, ..MOVING }.refute(
        2,
        scenarios::parked_offered_and_withdrawn,
        Fault::Lost,
    );
}

/// Nothing has the old lease any more as the point is offered again, so there is a new one. Only
/// then the last to have had the old one gets round to taking the resume entry away: the new one.
#[test]
fn a_lease_that_ends_whatever_was_made_since() {
    Machine { moving: Moving::LeasesTakeAway, ..MOVING }.refute(
        2,
        scenarios::withdrawn_while_parked_and_offered,
        Fault::Lost,
    );
}

/// A call that is counted nowhere has no fallback: the version goes, and then it turns out that
/// there is no resume entry.
#[test]
fn counting_out_of_the_fallback_before_the_resume_entry_is_known() {
    let steps =
        &[CountIn, LightFence, SwapLane, CountOutTaken, LightFence, CheckTaken, LoadBody, JumpBody];
    Machine { transfer_steps: [steps, &[Restart]], ..MOVING }.refute(
        2,
        scenarios::looping_withdrawn,
        Fault::UseAfterFree,
    );
}
