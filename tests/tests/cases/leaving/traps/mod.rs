//! Traps of generated code that are errors of the calls that they happen in.

mod codes;
mod counted;
mod fatal;
mod signals;

use lastout::cranelift_codegen::ir::TrapCode;
use lastout::{CallError, Part, TrapCause};

/// A function `(callback, i64) -> i64` that traps with `user7` if it is called with 7, and else
/// returns what it is called with.
fn trapping_at_seven(name: &str) -> String {
    format!(
        "function %{name}(i64, i64) -> i64 system_v {{
         block0(v0: i64, v1: i64):
            v2 = iconst.i64 7
            v3 = icmp eq v1, v2
            trapnz v3, user7
            return v1
         }}\n"
    )
}

const SEVEN: TrapCode = TrapCode::unwrap_user(7);

/// The code of a trap, and the function and version that it was in.
fn trap_of<T>(result: Result<T, CallError>) -> Option<(TrapCode, String, u64)> {
    let Err(CallError::Trap(trap)) = result else { return None };
    match (trap.cause, trap.location.part) {
        (TrapCause::Code(code), Part::Body { function, version }) => {
            Some((code, function.to_string(), version))
        }
        other => panic!("{other:?}"),
    }
}

/// As [`trap_of`], of the first version of a function.
fn trap_in<T>(result: Result<T, CallError>, function: &str) -> Option<TrapCode> {
    let (code, name, _) = trap_of(result)?;
    assert_eq!(name, function);
    Some(code)
}
