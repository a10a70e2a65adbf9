//! One frame that moves again and again.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use lastout::{Engine, Stats};
use lastout_tests::measure::resident;
use lastout_tests::moving;
use serde_json::json;

use crate::{Error, Figures, rounded};

/// Which version was running last, and how deep the stack was.
static VERSION: AtomicI64 = AtomicI64::new(0);
static DEPTH: AtomicUsize = AtomicUsize::new(0);

extern "C" fn tick(version: i64) -> i64 {
    let here = 0_u8;
    DEPTH.store((&raw const here).addr(), Ordering::Relaxed);
    VERSION.store(version, Ordering::Release);
    i64::from(version < 0)
}

/// Moves one frame so many times; says what that took, of the stack and of memory too.
pub(crate) fn measure(moves: i64) -> Result<Figures, Error> {
    let engine =
        Engine::builder().host_function("tick", tick as extern "C" fn(i64) -> i64).build()?;
    let install = |version: i64| -> Result<(), Error> {
        let text = format!(
            "function %spin(i64) -> i64 tail {{
                fn0 = %tick(i64) -> i64 system_v
             block0(v0: i64):
                jump block1
             block1:
                v1 = iconst.i64 {version}
                v2 = call fn0(v1)
                brif v2, block2, block1
             block2:
                return v2
             }}"
        );
        let mut unit = engine.unit();
        moving::define(&mut unit, &text, |func| {
            let mut points = lastout::ResumePoints::new();
            points.block(1, moving::loop_headers(func)[0]);
            points
        })?;
        engine.install(unit)?;
        while VERSION.load(Ordering::Acquire) != version {
            std::hint::spin_loop();
        }
        Ok(())
    };
    let now = || (DEPTH.load(Ordering::Relaxed), resident(), engine.stats());
    let mut unit = engine.unit();
    let first = "function %spin(i64) -> i64 tail { block0(v0: i64): return v0 }";
    moving::define(&mut unit, first, |_| lastout::ResumePoints::new())?;
    engine.install(unit)?;
    let (before, after, seconds) = thread::scope(|scope| -> Result<_, Error> {
        let spin = engine.function::<fn(i64) -> i64>("spin")?;
        let text_of_first = 1;
        let spinning = thread::Builder::new().spawn_scoped(scope, {
            let spin = spin.clone();
            move || {
                // Until it finds a version that tells.
                while VERSION.load(Ordering::Acquire) == 0 {
                    // SAFETY: the function is sound for every argument.
                    let _ = unsafe { spin.call(0) };
                }
            }
        })?;
        let moved = (|| {
            // The allocator has what it needs by then.
            for version in text_of_first..=1000 {
                install(version)?;
            }
            let (before, began) = (now(), Instant::now());
            for version in 1001..=1000 + moves {
                install(version)?;
            }
            Ok((before, now(), began.elapsed().as_secs_f64()))
        })();
        let ended = install_last(&engine);
        spinning.join().expect("it returns");
        ended?;
        moved
    })?;
    let (depth, resident_before, Stats { code_bytes, data_bytes, .. }) = before;
    let (depth_after, resident_after, stats) = after;
    let grown = |before: usize, after: usize| after as i64 - before as i64;
    let stack = grown(depth_after, depth);
    let resident = grown(resident_before, resident_after);
    let code = grown(code_bytes + data_bytes, stats.code_bytes + stats.data_bytes);
    println!("\n{moves} moves of one frame, each to a version compiled for it: {seconds:.1} s");
    println!(
        "  bytes more: stack {stack}, code and data {code}, resident {resident}; alive: {} versions",
        stats.alive()
    );
    let mut figures = Figures::new();
    figures.insert("moves".to_owned(), moves.into());
    figures.insert("seconds".to_owned(), rounded(seconds));
    figures.insert(
        "grown_bytes".to_owned(),
        json!({ "stack": stack, "code_and_data": code, "resident": resident }),
    );
    Ok(figures)
}

/// Has the loop end: its version tells a number that says so.
fn install_last(engine: &Engine) -> Result<(), Error> {
    let text = "function %spin(i64) -> i64 tail {
            fn0 = %tick(i64) -> i64 system_v
         block0(v0: i64):
            jump block1
         block1:
            v1 = iconst.i64 -1
            v2 = call fn0(v1)
            brif v2, block2, block1
         block2:
            return v2
         }";
    let mut unit = engine.unit();
    moving::define(&mut unit, text, |func| {
        let mut points = lastout::ResumePoints::new();
        points.block(1, moving::loop_headers(func)[0]);
        points
    })?;
    engine.install(unit)?;
    Ok(())
}
