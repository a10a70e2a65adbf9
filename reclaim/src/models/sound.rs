//! What holds: no thread runs code that is freed or returns to it, every version is freed once,
//! all counts are zero in the end, no call that begins after a replacement is over runs the version
//! before, a caller that bails starts again at most once for each replacement, and no thread goes
//! back to an older version, but where that is said. [`world`](super::world) asserts that in every
//! execution of every scenario.
//!
//! Each line below is a test: a scenario, how many preemptions loom explores, and what must have
//! happened in some execution. The longest takes some fifteen seconds, most take less than one.

macro_rules! hold {
    ($machine:ident: $(
        $(#[$doc:meta])*
        $test:ident: $scenario:ident, $preemptions:literal, [$($event:ident),*];
    )*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $test() {
                use $crate::models::{events::Event, machine::Machine, scenarios};
                Machine::$machine.explore(
                    $preemptions,
                    scenarios::$scenario,
                    &[$(Event::$event),*],
                );
            }
        )*
    };
}

mod in_place;
mod moving;
mod tail;

/// With plain counts and a heavy fence, and calls by the slot.
mod plain {
    hold! { PLAIN:
        a_replaced_version_is_freed_after_its_last_frame:
            one_caller, 4, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        one_of_two_last_leavers_frees:
            two_callers, 2, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_recursive_version_is_freed_after_its_outermost_frame:
            recursion, 3, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        /// Also if it has come late to a lane that the next version has just moved into, or early
        /// to one that is still empty. And its next call reaches no older version.
        a_bailing_caller_reaches_the_current_version:
            two_calls, 2, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        /// Nobody waits anywhere: a wait for this frame would be for ever.
        a_retirer_does_not_wait_for_a_frame_of_its_own:
            replaced_from_inside, 4, [FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_lane_is_reused_and_late_leavers_do_no_harm:
            lane_reuse, 3, [FreedByRetirer, FreedByLeaver, Bailed, ReusedLane];

        retirers_of_different_functions_keep_apart:
            two_functions, 3, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        retirers_of_one_function_follow_each_other:
            two_retirers, 4, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_context_registered_during_a_replacement_counts:
            new_context, 3, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_context_changes_hands_during_a_replacement:
            passing_contexts, 2, [FreedByRetirer, FreedByLeaver, Bailed, RanOld, ReusedContext];

        a_removed_function_drains_and_says_so:
            removal, 5, [FreedByRetirer, FreedByLeaver, Bailed, RanOld, FoundRemoved];

        a_removed_function_may_come_back:
            removal_and_return, 4, [FreedByRetirer, FreedByLeaver, RanCurrent, FoundRemoved];
    }
}

/// With atomic counts, where there is no heavy fence, and calls by the slot.
mod atomic {
    hold! { ATOMIC:
        a_replaced_version_is_freed_after_its_last_frame:
            one_caller, 4, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        one_of_two_last_leavers_frees:
            two_callers, 2, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_recursive_version_is_freed_after_its_outermost_frame:
            recursion, 3, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_bailing_caller_reaches_the_current_version:
            two_calls, 2, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_retirer_does_not_wait_for_a_frame_of_its_own:
            replaced_from_inside, 4, [FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_lane_is_reused_and_late_leavers_do_no_harm:
            lane_reuse, 3, [FreedByRetirer, FreedByLeaver, Bailed, ReusedLane];

        a_context_changes_hands_during_a_replacement:
            passing_contexts, 2, [FreedByRetirer, FreedByLeaver, Bailed, RanOld, ReusedContext];

        a_removed_function_drains_and_says_so:
            removal, 5, [FreedByRetirer, FreedByLeaver, Bailed, RanOld, FoundRemoved];
    }
}

/// With plain counts and a heavy fence, and calls by sites. A thread that finds a new site learns
/// nothing from that, so of two calls by different sites the second may run the older version, if
/// it begins before the replacement is over.
mod sites {
    hold! { SITES:
        a_replaced_version_is_freed_after_its_last_frame:
            one_caller, 5, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        one_of_two_last_leavers_frees:
            two_callers, 2, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_recursive_version_is_freed_after_its_outermost_frame:
            recursion, 4, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_bailing_caller_reaches_the_current_version:
            two_calls, 3,
            [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld, RanEarly, WentBack];

        a_retirer_does_not_wait_for_a_frame_of_its_own:
            replaced_from_inside, 5, [FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_lane_is_reused_and_late_leavers_do_no_harm:
            lane_reuse, 3, [FreedByRetirer, FreedByLeaver, Bailed, ReusedLane, RanEarly];

        retirers_of_different_functions_keep_apart:
            two_functions, 3, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        retirers_of_one_function_follow_each_other:
            two_retirers, 4, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_context_registered_during_a_replacement_counts:
            new_context, 4, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_context_changes_hands_during_a_replacement:
            passing_contexts, 2, [FreedByRetirer, FreedByLeaver, Bailed, RanOld, ReusedContext];

        a_removed_function_drains_and_says_so:
            removal, 5, [FreedByRetirer, FreedByLeaver, Bailed, RanOld, FoundRemoved];

        a_removed_function_may_come_back:
            removal_and_return, 4, [FreedByRetirer, FreedByLeaver, RanCurrent, FoundRemoved];
    }
}

/// Where a caller that finds a new site also finds the old lane closed.
mod sites_in_order {
    hold! { SITES_IN_ORDER:
        /// A thread goes back only if it was late: it came for a version that was replaced before
        /// the last one was.
        only_a_late_caller_goes_back:
            two_calls, 3,
            [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld, RanEarly, WentBack];

        /// With one replacement nobody is late.
        a_version_does_not_call_the_one_before:
            recursion, 4, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];
    }
}

/// With a site that is never patched: it is a way to the first lane for ever, whatever sits there.
mod stale_site {
    hold! { STALE_SITE:
        a_replaced_version_is_freed_after_its_last_frame:
            one_caller, 5, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        one_of_two_last_leavers_frees:
            two_callers, 2, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_bailing_caller_reaches_the_current_version:
            two_calls, 3,
            [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld, RanEarly, WentBack];

        a_lane_is_reused_and_late_leavers_do_no_harm:
            lane_reuse, 3, [FreedByRetirer, FreedByLeaver, Bailed, ReusedLane, RanEarly];

        retirers_of_one_function_follow_each_other:
            two_retirers, 4, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_removed_function_may_come_back:
            removal_and_return, 4, [FreedByRetirer, FreedByLeaver, RanCurrent, FoundRemoved];
    }
}

/// With atomic counts and calls by sites.
mod atomic_sites {
    hold! { ATOMIC_SITES:
        one_of_two_last_leavers_frees:
            two_callers, 2, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_bailing_caller_reaches_the_current_version:
            two_calls, 3,
            [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld, RanEarly, WentBack];

        a_retirer_does_not_wait_for_a_frame_of_its_own:
            replaced_from_inside, 5, [FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_lane_is_reused_and_late_leavers_do_no_harm:
            lane_reuse, 3, [FreedByRetirer, FreedByLeaver, Bailed, ReusedLane, RanEarly];
    }
}
