//! Functions are replaced while they are called.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use crossbeam_utils::Backoff;

use super::Options;
use super::program::Program;
use super::refusal::Trouble;

/// Calls `pass` again and again while another thread replaces each function of the program by
/// itself. At least one pass begins and ends meanwhile.
///
/// # Errors
///
/// If a function cannot be replaced.
pub(super) fn run(
    program: &Program<'_>,
    options: &Options,
    mut pass: impl FnMut(),
) -> Result<(), String> {
    if program.functions.is_empty() {
        return Ok(());
    }
    let (begun, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let passes = AtomicU32::new(0);
    thread::scope(|scope| {
        let replacer = scope.spawn(|| {
            let _over = Finally(&over);
            let _begun = Finally(&begun);
            let start = Instant::now();
            let is_over = |rounds| {
                let long = start.elapsed() >= options.at_most.max(options.at_least);
                let enough = rounds >= options.rounds && start.elapsed() >= options.at_least;
                (long || enough) && passes.load(Ordering::Relaxed) > 0
            };
            for rounds in 0.. {
                for installed in &program.functions {
                    if is_over(rounds) {
                        return Ok(());
                    }
                    // Every third time, at the same address.
                    program.replace(installed, rounds % 3 == 2).map_err(|trouble| {
                        let (Trouble::Refused(why) | Trouble::Failed(why)) = trouble;
                        format!("`{}` cannot be replaced: {why}", installed.test.name)
                    })?;
                    begun.store(true, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        let backoff = Backoff::new();
        while !begun.load(Ordering::Relaxed) {
            backoff.snooze();
        }
        while !over.load(Ordering::Relaxed) {
            pass();
            passes.fetch_add(1, Ordering::Relaxed);
        }
        replacer.join().unwrap_or_else(|_| Err("the replacing thread panicked".to_owned()))
    })
}

/// Becomes true in the end, also if the thread panics.
struct Finally<'a>(&'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
