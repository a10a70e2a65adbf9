//! A program that threads run while another one replaces its functions.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::host::{self, Place};
use super::model::expected;
use super::run::{Gated, compare};
use super::{DISPATCHES, Program};
use crate::support::OnDrop;

/// How often each of the replacements is made.
const ROUNDS: usize = 3;

/// Threads that are inside come out soon, unless it is the thread itself that replaces.
const PATIENCE: Duration = Duration::from_millis(2);

/// Runs a program on two threads, again and again, while a third replaces its functions. Nobody
/// knows then which version a call reaches, but all of them do the same, so what there is to see
/// is the same in every order of events.
///
/// # Panics
///
/// If it is not, or if something is left.
pub fn check_shared(program: &Program) {
    let program = Arc::new(program.clone());
    let expected = expected(&program, false);
    if expected.dies {
        return;
    }
    for dispatch in DISPATCHES {
        let gated = Arc::new(Gated::new(&program, dispatch, PATIENCE, |builder| {
            if program.interleave { builder.interleave(give_way) } else { builder }
        }));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let observed = host::run(&program, gated.clone(), false);
                        compare(&observed, &expected.observed, &format!("shared, {dispatch:?}"));
                    }
                });
            }
            let _done = OnDrop(|| done.store(true, Ordering::Relaxed));
            for _ in 0..ROUNDS {
                for replacement in &program.replacements {
                    gated.replace(replacement);
                    thread::yield_now();
                }
            }
        });
        gated.end();
    }
}

thread_local! {
    static STEPS: Cell<u32> = const { Cell::new(0) };
}

/// What gates call between steps: lets other threads run, now and then.
extern "C" fn give_way() {
    STEPS.set(STEPS.get() + 1);
    if STEPS.get().is_multiple_of(7) {
        thread::yield_now();
    }
}
