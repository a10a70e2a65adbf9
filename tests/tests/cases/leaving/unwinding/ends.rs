//! The ways in which a call ends otherwise than by returning, one as good as the other.

use lastout::{CallError, TrapCause};
use lastout_tests::registers::keeps;
use lastout_tests::support::Callback;

use super::panics::{left, raise};

/// What a callback does with a number.
pub(crate) const PANIC: i64 = 1;
pub(crate) const THROW: i64 = 2;
/// Zero is what the innermost function traps with.
pub(crate) const TRAP: i64 = 0;

/// A callback that does something, and then panics, throws, or returns its argument.
pub(crate) fn ending<'a>(meanwhile: impl Fn() + Sync + 'a) -> Callback<'a> {
    Callback::new(move |number| {
        meanwhile();
        match number {
            PANIC => raise(number),
            THROW => {
                // SAFETY: there is nothing to drop.
                let uncaught = unsafe { lastout::throw(5, [number as u64, 0]) };
                panic!("{uncaught}");
            }
            number => number,
        }
    })
}

/// Sees that a call ends as the number says.
pub(crate) fn ends(number: i64, call: impl FnOnce() -> Result<i64, CallError>) {
    match (number, left(|| keeps(call))) {
        (PANIC, Err(PANIC)) => {}
        (THROW, Ok(Err(CallError::Exception(exception)))) => assert_eq!(exception.tag, 5),
        (TRAP, Ok(Err(CallError::Trap(trap)))) => {
            assert!(matches!(trap.cause, TrapCause::Code(_)), "{trap}");
        }
        (number, result) => panic!("{number}: {result:?}"),
    }
}

/// A function `(callback, i64) -> i64` that calls back, and traps if that returns zero.
pub(crate) fn trapping_at_zero(name: &str) -> String {
    format!(
        "function %{name}(i64, i64) -> i64 system_v {{
            fn0 = %call_back(i64, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            v2 = call fn0(v0, v1)
            trapz v2, user2
            return v2
         }}\n"
    )
}
