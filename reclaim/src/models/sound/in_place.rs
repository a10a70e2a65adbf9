//! What holds where versions are replaced in their place: nobody is in code that is written over,
//! callers go on in what was written, and a caller that is inside goes on without waiting for
//! itself.

/// With plain counts and a heavy fence.
mod plain {
    hold! { IN_PLACE:
        a_caller_runs_one_or_the_other:
            in_place_one_caller, 4, [ReplacedInPlace, ReplacedUnderWaiter, GaveUp, RanCurrent];

        several_callers_wait:
            in_place_two_callers, 2, [ReplacedInPlace, ReplacedUnderWaiter, GaveUp];

        a_second_hold_does_not_take_a_caller_that_goes_on_for_one_that_waits:
            in_place_twice, 3, [ReplacedInPlace, ReplacedUnderWaiter, GaveUp];

        a_caller_that_is_inside_is_let_through:
            in_place_recursion, 4, [ReplacedInPlace, ReplacedUnderWaiter, GaveUp, LetThrough];

        a_thread_does_not_replace_what_it_is_inside_of:
            in_place_from_inside, 3, [GaveUp];

        the_version_may_be_replaced_elsewhere_meanwhile:
            in_place_and_elsewhere, 2, [ReplacedInPlace, LostPlace, FreedByLeaver, Bailed];

        a_handler_calls_before_the_body_is_loaded:
            in_place_interrupted, 3, [ReplacedInPlace, GaveUp];

        a_handler_calls_while_its_thread_waits:
            in_place_interrupted_waiting, 3, [ReplacedInPlace, ReplacedUnderWaiter, GaveUp];
    }
}

/// With atomic counts.
mod atomic {
    hold! { ATOMIC_IN_PLACE:
        a_caller_runs_one_or_the_other:
            in_place_one_caller, 4, [ReplacedInPlace, ReplacedUnderWaiter, GaveUp, RanCurrent];

        a_second_hold_does_not_take_a_caller_that_goes_on_for_one_that_waits:
            in_place_twice, 3, [ReplacedInPlace, ReplacedUnderWaiter, GaveUp];

        a_caller_that_is_inside_is_let_through:
            in_place_recursion, 4, [ReplacedInPlace, ReplacedUnderWaiter, GaveUp, LetThrough];

        a_handler_calls_before_the_body_is_loaded:
            in_place_interrupted, 3, [ReplacedInPlace, GaveUp];
    }
}

/// With functions that can be tail-called.
mod tail {
    hold! { TAIL_IN_PLACE:
        a_tail_call_is_a_call_like_another:
            in_place_tail_call, 3, [ReplacedInPlace, ReplacedUnderWaiter, GaveUp, Transferred];

        a_caller_that_is_inside_is_let_through:
            in_place_recursion, 3, [ReplacedInPlace, ReplacedUnderWaiter, GaveUp, LetThrough];
    }
}
