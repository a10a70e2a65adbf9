//! What holds with tail calls: all of the above; tail calls leave no frames; and functions go that
//! nothing keeps any more, lanes and all, at the latest when the engine does.

/// With plain counts and a heavy fence, and calls by the slot.
mod plain {
    hold! { TAIL:
        a_call_moves_on_and_lets_the_old_version_go:
            tail_caller_replaced, 4,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred, Bailed];

        a_call_moves_on_to_the_current_version:
            tail_callee_replaced, 3,
            [FreedByRetirer, FreedByLeaver, Transferred, TransferBailed, RanCurrent, RanOld];

        calls_move_to_and_fro:
            mutual_tail_calls, 2,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred, TransferBailed];

        /// From a lane to itself, or to the next.
        a_call_moves_on_within_a_function:
            tail_recursion, 2,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred, TransferBailed];

        one_of_two_last_to_move_on_frees:
            two_tail_callers, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred];

        /// It does not wait for the call to return.
        a_version_is_freed_by_a_call_that_goes_on:
            replaced_before_a_tail_call, 3, [FreedByTransfer, Transferred, RanCurrent];

        calls_and_tail_calls_mix:
            calls_and_tail_calls, 2,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred, TransferBailed];

        a_gate_that_is_only_called_is_as_good:
            recursion, 2, [FreedByRetirer, FreedByLeaver, Bailed, RanCurrent, RanOld];

        a_call_that_finds_a_function_removed_returns:
            tail_callee_removed, 5,
            [FreedByRetirer, FreedByLeaver, Transferred, TransferBailed, FoundRemoved];

        a_call_lets_go_of_the_function_that_it_moves_on_to:
            dropped_before_a_tail_call, 0, [FreedByTransfer, FreedByLeaver, DroppedInside];

        a_function_goes_while_its_version_runs:
            tail_callee_dropped, 4,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, DroppedInside];

        one_of_two_last_leavers_of_what_has_no_function_frees:
            tail_callee_dropped_by_two, 2,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, DroppedInside];

        a_function_goes_before_its_retired_version:
            removed_tail_callee_dropped, 3,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, DroppedInside, FoundRemoved];

        a_function_goes_with_its_retired_version:
            removed_tail_recursion_dropped, 3,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, DroppedByItself, FoundRemoved];

        a_late_leaver_frees_what_another_function_has_left:
            lane_given_away, 3, [LaneChangedHands, LateLeaver, FreedForAnother];

        a_late_leaver_does_not_free_what_another_function_runs:
            lane_given_away_and_entered, 3, [LaneChangedHands, LateLeaver];

        lanes_stay_while_a_call_is_in_progress:
            torn_down, 4, [FreedByRetirer, FreedByTransfer, FreedByLeaver, FoundRemoved];
    }
}

/// With atomic counts, where there is no heavy fence, and calls by the slot.
mod atomic {
    hold! { ATOMIC_TAIL:
        a_call_moves_on_and_lets_the_old_version_go:
            tail_caller_replaced, 4,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred, Bailed];

        a_call_moves_on_to_the_current_version:
            tail_callee_replaced, 4,
            [FreedByRetirer, FreedByLeaver, Transferred, TransferBailed, RanCurrent, RanOld];

        calls_move_to_and_fro:
            mutual_tail_calls, 2,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred, TransferBailed];

        one_of_two_last_to_move_on_frees:
            two_tail_callers, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred];

        a_version_is_freed_by_a_call_that_goes_on:
            replaced_before_a_tail_call, 3, [FreedByTransfer, Transferred, RanCurrent];

        a_function_goes_while_its_version_runs:
            tail_callee_dropped, 3,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, DroppedInside];

        a_function_goes_with_its_retired_version:
            removed_tail_recursion_dropped, 3,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, DroppedByItself, FoundRemoved];

        a_late_leaver_frees_what_another_function_has_left:
            lane_given_away, 3, [LaneChangedHands, LateLeaver, FreedForAnother];

        a_late_leaver_does_not_free_what_another_function_runs:
            lane_given_away_and_entered, 2, [LaneChangedHands, LateLeaver];
    }
}

/// With plain counts and a heavy fence, and calls by sites.
mod sites {
    hold! { TAIL_SITES:
        a_call_moves_on_and_lets_the_old_version_go:
            tail_caller_replaced, 4,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred, Bailed];

        a_call_moves_on_to_the_current_version:
            tail_callee_replaced, 4,
            [FreedByRetirer, FreedByLeaver, Transferred, TransferBailed, RanCurrent, RanOld];

        calls_move_to_and_fro:
            mutual_tail_calls, 2,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred, TransferBailed];

        one_of_two_last_to_move_on_frees:
            two_tail_callers, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred];

        calls_and_tail_calls_mix:
            calls_and_tail_calls, 2,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred, TransferBailed];

        a_function_goes_while_its_version_runs:
            tail_callee_dropped, 4,
            [FreedByRetirer, FreedByTransfer, FreedByLeaver, DroppedInside];

        a_late_leaver_does_not_free_what_another_function_runs:
            lane_given_away_and_entered, 2, [LaneChangedHands, LateLeaver];
    }
}
