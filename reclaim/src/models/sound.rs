//! What holds: no thread runs code that is freed or returns to it, every version is freed once,
//! all counts are zero in the end, and no call that begins after a replacement is over runs the
//! version before. [`world`](super::world) asserts that in every execution of every scenario.
//!
//! Each line below is a test: a scenario, how many preemptions loom explores, and what must have
//! happened in some execution. The longest takes about a minute (164 thousand executions), most
//! take less than a second.

macro_rules! hold {
    ($machine:ident: $(
        $(#[$doc:meta])*
        $test:ident: $scenario:ident, $preemptions:literal, [$($event:ident),*];
    )*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $test() {
                use $crate::models::{machine::Machine, scenarios, world::Event};
                Machine::$machine.explore(
                    $preemptions,
                    scenarios::$scenario,
                    &[$(Event::$event),*],
                );
            }
        )*
    };
}

/// With plain counts and a heavy fence.
mod plain {
    hold! { PLAIN:
        a_replaced_version_is_freed_after_its_last_frame:
            one_caller, 5, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        one_of_two_last_leavers_frees:
            two_callers, 3, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_recursive_version_is_freed_after_its_outermost_frame:
            recursion, 4, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        /// Also in a call that comes so late to a lane that it finds a version which the slot will
        /// only have next. So of two calls of a thread the second may run the older version, if it
        /// begins before the replacement is over.
        a_bailing_caller_reaches_the_current_version:
            two_calls, 3, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld, RanEarly];

        /// Nobody waits anywhere: a wait for this frame would be for ever.
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

/// With atomic counts, where there is no heavy fence.
mod atomic {
    hold! { ATOMIC:
        a_replaced_version_is_freed_after_its_last_frame:
            one_caller, 5, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        one_of_two_last_leavers_frees:
            two_callers, 3, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_recursive_version_is_freed_after_its_outermost_frame:
            recursion, 4, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_bailing_caller_reaches_the_current_version:
            two_calls, 3, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld, RanEarly];

        a_retirer_does_not_wait_for_a_frame_of_its_own:
            replaced_from_inside, 5, [FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_lane_is_reused_and_late_leavers_do_no_harm:
            lane_reuse, 3, [FreedByRetirer, FreedByLeaver, Bailed, ReusedLane, RanEarly];

        a_context_changes_hands_during_a_replacement:
            passing_contexts, 2, [FreedByRetirer, FreedByLeaver, Bailed, RanOld, ReusedContext];

        a_removed_function_drains_and_says_so:
            removal, 5, [FreedByRetirer, FreedByLeaver, Bailed, RanOld, FoundRemoved];
    }
}
