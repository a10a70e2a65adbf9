//! A loop of generated code that does nothing but call a function, and its callee.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crossbeam_utils::Backoff;
use lastout::{Dispatch, Engine, Handle};
use lastout_tests::{clif, timed};

use crate::Result;
use crate::subject::engine;

/// How many calls are timed.
const CALLS: i64 = 100_000;

/// A callee of so many steps, and a loop around a call of it.
pub(crate) struct Looping {
    /// Keeps the callee: handles keep no versions.
    _engine: Engine,
    run: Handle<fn(i64, i64) -> i64>,
}

impl Looping {
    pub(crate) fn new(dispatch: Dispatch, steps: usize, place: usize) -> Result<Self> {
        let engine = engine(dispatch)?;
        let callee = timed::callee("%callee", steps, ["", ""]);
        let mut texts = vec![callee.clone(), text("%loop", "%callee", place)];
        if place / 8 % 2 == 1 {
            // Its versions use two gates in turn.
            texts.push(callee);
        }
        for text in texts {
            let mut unit = engine.unit();
            clif::define(&mut unit, &text)?;
            engine.install(unit)?;
        }
        Ok(Self { run: engine.function("loop")?, _engine: engine })
    }

    /// Nanoseconds a call.
    pub(crate) fn time(&self) -> Result<f64> {
        self.time_of(CALLS)
    }

    /// The same, of so many calls.
    pub(crate) fn time_of(&self, calls: i64) -> Result<f64> {
        let began = Instant::now();
        self.call(calls)?;
        Ok(began.elapsed().as_nanos() as f64 / calls as f64)
    }

    /// The same, while another thread makes the same calls. Where two processors are one core,
    /// each of them has half of it.
    pub(crate) fn time_beside_another(&self) -> Result<f64> {
        let [started, stop] = [const { AtomicBool::new(false) }; 2];
        thread::scope(|scope| {
            let another = scope.spawn(|| -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    self.call(CALLS / 100)?;
                    started.store(true, Ordering::Relaxed);
                }
                Ok(())
            });
            let backoff = Backoff::new();
            while !started.load(Ordering::Relaxed) && !another.is_finished() {
                backoff.snooze();
            }
            let time = self.time();
            // In any case, or the other thread would not end.
            stop.store(true, Ordering::Relaxed);
            another.join().map_err(|_| "a thread has panicked")??;
            time
        })
    }

    fn call(&self, calls: i64) -> Result<()> {
        // SAFETY: the loop is sound for all numbers of calls but 0, and so is what it calls.
        unsafe { self.run.call(calls, 1) }?;
        Ok(())
    }
}

/// A loop `name` that calls `callee` as often as the first argument says, each time with what it
/// returned last. It starts so many instructions further.
pub(crate) fn text(name: &str, callee: &str, place: usize) -> String {
    let mut text = format!(
        "function {name}(i64, i64) -> i64 system_v {{
            fn0 = {callee}(i64) -> i64 system_v
        block0(v0: i64, v10: i64):
        "
    );
    for number in 10..10 + place {
        // Turn and turn about, or they would be folded into one.
        let operation = if number % 2 == 0 { "bxor" } else { "iadd" };
        text += &format!("v{} = {operation} v{number}, v0\n", number + 1);
    }
    text + &format!(
        "   jump block1(v0, v{})
        block1(v2: i64, v3: i64):
            v4 = call fn0(v3)
            v5 = iconst.i64 -1
            v6 = iadd v2, v5
            brif v6, block1(v6, v4), block2
        block2:
            return v4
        }}
        ",
        10 + place
    )
}
