//! Mistakes, each of which loom has to find.
//!
//! Each scenario passes in [`sound`](super::sound), explored as far or further, so it is the
//! mistake alone that makes the difference.

mod in_place;
mod moving;
mod tail;

use super::explore::Fault;
use super::machine::{Change, Gates, HeavyFence, LightFence, Machine, Restart};
use super::scenarios;
use crate::sync::{Mutant, Ordering};

/// A mistake of the protocol is one with either dispatch.
const BOTH: [Machine; 2] = [Machine::PLAIN, Machine::SITES];

/// A caller whose count is not visible yet is in the version as it is freed.
#[test]
fn no_heavy_fence() {
    for machine in BOTH {
        Machine { heavy_fence: HeavyFence::Missing, ..machine }.refute(
            0,
            scenarios::one_caller,
            Fault::UseAfterFree,
        );
    }
}

/// No fence that the retirer executes makes up for those that callers do not.
#[test]
fn only_a_fence_of_its_own() {
    Machine { heavy_fence: HeavyFence::Own, ..Machine::PLAIN }.refute(
        0,
        scenarios::one_caller,
        Fault::UseAfterFree,
    );
}

/// Atomic counts are visible all the same. But the last callers of the old version may come at
/// any time after its replacement.
#[test]
fn no_fence_after_closing_where_counts_are_atomic() {
    Machine { heavy_fence: HeavyFence::Missing, ..Machine::ATOMIC }.refute(
        1,
        scenarios::two_callers,
        Fault::StaleCall,
    );
}

const EARLY_RETIRED: Machine =
    Machine { mutant: Some(Mutant::EarlyRetired), causal: false, ..Machine::PLAIN };

/// Of two callers one finds the lane closed, adds up the other's count as 0, which the heavy fence
/// has not made visible yet, and frees the code under it.
#[test]
fn retired_before_the_heavy_fence() {
    for Machine { dispatch, order, .. } in BOTH {
        let machine = Machine { dispatch, order, ..EARLY_RETIRED };
        machine.refute(2, scenarios::two_callers, Fault::UseAfterFree);
    }
}

/// The usual model of such a protocol has both fences as `fence(SeqCst)`. It finds nothing wrong
/// with [the same mistake](retired_before_the_heavy_fence), however far it looks: a full fence in
/// the gate makes every count visible at once. It must not take the place of the model here.
#[test]
fn a_symmetric_model_is_blind() {
    Machine { light_fence: LightFence::Full, heavy_fence: HeavyFence::Own, ..EARLY_RETIRED }
        .explore(2, scenarios::two_callers, &[]);
}

/// The retirer is inside, so it is for the last leaver to free. Of two leavers each sees the
/// other's count, or one does not see the state.
#[test]
fn leaving_without_a_fence() {
    for machine in BOTH {
        Machine { mutant: Some(Mutant::LeaveWithoutFence), ..machine }.refute(
            1,
            scenarios::replaced_from_inside,
            Fault::Leak,
        );
    }
}

/// A leaver of version 0 has read the state and added up 0 frames when it falls asleep. By the
/// time it goes on, version 2 is in that lane, retired too, and a frame is in it.
#[test]
fn no_generation_in_the_state() {
    for machine in BOTH {
        Machine { mutant: Some(Mutant::NoGeneration), ..machine }.refute(
            2,
            scenarios::lane_reuse,
            Fault::UseAfterFree,
        );
    }
}

/// A thread that adds up 0 does not know that the frame is over.
#[test]
fn counting_out_without_release() {
    Machine { count_out: Ordering::Relaxed, ..Machine::PLAIN }.refute(
        3,
        scenarios::replaced_from_inside,
        Fault::Race,
    );
}

/// A caller that finds a body does not know that its code is written.
#[test]
fn loading_the_body_without_acquire() {
    Machine { load_body: Ordering::Relaxed, ..Machine::PLAIN }.refute(
        1,
        scenarios::one_caller,
        Fault::Race,
    );
}

/// A thread that has run the new version by a site that is patched runs the old one by a site that
/// is not.
#[test]
fn patching_sites_before_the_old_lane_is_closed() {
    use Change::{Calls, Close, Current, Occupy};
    Machine { order: &[Occupy, Current, Calls, Close], ..Machine::SITES_IN_ORDER }.refute(
        1,
        scenarios::two_calls,
        Fault::WentBack,
    );
}

/// A thread that comes late to a lane runs the version which has just moved in, and by the slot the
/// one that it replaces.
#[test]
fn setting_the_slot_after_the_lane_is_occupied() {
    use Change::{Calls, Close, Current, Occupy};
    Machine { order: &[Occupy, Calls, Current, Close], ..Machine::PLAIN }.refute(
        2,
        scenarios::two_calls,
        Fault::WentBack,
    );
}

/// A caller that bails is sent back to the gate that it comes from, until the installer goes on.
#[test]
fn closing_a_lane_before_another_is_current() {
    use Change::{Calls, Close, Current, Occupy};
    Machine { order: &[Calls, Occupy, Close, Current], ..Machine::PLAIN }.refute(
        1,
        scenarios::one_caller,
        Fault::Wait,
    );
    Machine { order: &[Occupy, Close, Current, Calls], ..Machine::SITES }.refute(
        1,
        scenarios::one_caller,
        Fault::Wait,
    );
}

/// A call that has bailed starts again as the call that it was: it waits for the site to be
/// patched, and for ever if that one never is.
#[test]
fn starting_again_from_the_site() {
    for machine in [Machine::SITES, Machine::STALE_SITE] {
        Machine { restart: Restart::Call, ..machine }.refute(1, scenarios::one_caller, Fault::Wait);
    }
}

/// A caller has found a gate and not counted in, and so nobody knows of it.
#[test]
fn gates_that_go_with_their_version() {
    for machine in BOTH {
        Machine { gates: Gates::GoWithVersion, ..machine }.refute(
            0,
            scenarios::one_caller,
            Fault::UseAfterFree,
        );
    }
}
