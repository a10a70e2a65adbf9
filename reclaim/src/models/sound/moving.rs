//! What holds with points: all of the above; a frame that has left a version for a parked call
//! finds a version to go on in; and nothing is left of a point that is not offered.

/// With plain counts and a heavy fence, and calls by the slot.
mod plain {
    hold! { MOVING:
        a_loop_moves_and_lets_the_old_version_go:
            looping, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred, RanCurrent];

        the_last_of_two_loops_to_move_frees:
            two_looping, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred];

        a_loop_goes_on_in_its_fallback_if_there_is_no_resume_entry:
            looping_withdrawn, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, FellBack];

        a_call_goes_on_in_the_current_version:
            parked, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred, RanCurrent];

        a_parked_call_keeps_no_version:
            replaced_while_parked, 0, [FreedByRetirer, Transferred];

        a_parked_call_keeps_the_resume_entry:
            withdrawn_while_parked, 0, [FreedByRetirer, FreedByTransfer, FreedByLeaver];

        a_point_is_offered_again_while_a_call_is_parked:
            offered_again_while_parked, 0, [FreedByRetirer, ReusedLease];

        a_call_that_comes_late_is_made_in_its_version:
            parked_withdrawn, 3, [FreedByRetirer, FreedByTransfer, FreedByLeaver, FellBack];

        the_last_of_two_calls_to_return_takes_the_resume_entry_away:
            two_parked_withdrawn, 3, [FreedByRetirer, FreedByTransfer, FreedByLeaver, FellBack];

        a_parked_call_keeps_the_resume_entry_from_version_to_version:
            parked_offered_and_withdrawn, 2, [FreedByRetirer, FreedByTransfer, FellBack];

        a_lease_is_used_again:
            parked_withdrawn_and_offered, 2,
            [FreedByRetirer, FreedByTransfer, FellBack, ReusedLease];

        a_lease_that_ends_leaves_the_resume_entry_to_the_next:
            withdrawn_while_parked_and_offered, 2,
            [FreedByRetirer, FreedByTransfer, ReusedLease, KeptByNewLease];
    }
}

/// With atomic counts, where there is no heavy fence, and calls by the slot.
mod atomic {
    hold! { ATOMIC_MOVING:
        the_last_of_two_loops_to_move_frees:
            two_looping, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred];

        a_loop_goes_on_in_its_fallback_if_there_is_no_resume_entry:
            looping_withdrawn, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, FellBack];

        a_call_goes_on_in_the_current_version:
            parked, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred, RanCurrent];

        a_call_that_comes_late_is_made_in_its_version:
            parked_withdrawn, 3, [FreedByRetirer, FreedByTransfer, FreedByLeaver, FellBack];

        the_last_of_two_calls_to_return_takes_the_resume_entry_away:
            two_parked_withdrawn, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, FellBack];

        a_lease_that_ends_leaves_the_resume_entry_to_the_next:
            withdrawn_while_parked_and_offered, 2,
            [FreedByRetirer, FreedByTransfer, ReusedLease, KeptByNewLease];
    }
}

/// With plain counts and a heavy fence, and calls by sites.
mod sites {
    hold! { MOVING_SITES:
        the_last_of_two_loops_to_move_frees:
            two_looping, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred];

        a_loop_goes_on_in_its_fallback_if_there_is_no_resume_entry:
            looping_withdrawn, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, FellBack];

        a_call_goes_on_in_the_current_version:
            parked, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, Transferred, RanCurrent];

        a_call_that_comes_late_is_made_in_its_version:
            parked_withdrawn, 3, [FreedByRetirer, FreedByTransfer, FreedByLeaver, FellBack];

        the_last_of_two_calls_to_return_takes_the_resume_entry_away:
            two_parked_withdrawn, 2, [FreedByRetirer, FreedByTransfer, FreedByLeaver, FellBack];

        a_lease_is_used_again:
            parked_withdrawn_and_offered, 2,
            [FreedByRetirer, FreedByTransfer, FellBack, ReusedLease];
    }
}
