//! What calls cost, by the way in which they are made: one callee in a loop, and whole programs.
//!
//! ```text
//! cargo bench --bench calls [-- --json]
//! ```
//!
//! Ratios are to bare slot calls, which leak what is replaced. Every way is timed in every round,
//! one after the other, so that a machine whose speed drifts treats all alike; the figures are
//! medians over the rounds, and the ratios medians of the ratios within a round.

use lastout_tests::measure::machine;

mod calls;
mod jit_module;
mod measure;
mod programs;
mod rivals;
mod subject;
mod text;
mod threads;

use calls::Calls;

pub(crate) type Error = Box<dyn std::error::Error>;

/// Calls in some way; as often as the argument says, or whatever a program does with it.
pub(crate) type Loop = Box<dyn Fn(i64) -> i64 + Send + Sync>;

/// A way of calling, with its name.
pub(crate) type Way = (&'static str, Loop);

fn main() -> Result<(), Error> {
    let json = std::env::args().any(|arg| arg == "--json");
    println!("{}", machine());
    let calls = Calls::measure()?;
    calls.print();
    let programs = programs::measure()?;
    programs::print(&programs);
    if json {
        let mut report = calls.report();
        report["machine"] = machine().into();
        programs::report(&programs, &mut report);
        println!("{report}");
    }
    Ok(())
}
