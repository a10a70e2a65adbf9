//! One frame that moves again and again.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use lastout::{Engine, Stats};
use lastout_tests::measure::resident;
use lastout_tests::moving;
use serde_json::json;

use crate::{Error, Figures, at_loops, looping, rounded};

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
    let install = |version| -> Result<(), Error> {
        install_text(&engine, &looping(version))?;
        while VERSION.load(Ordering::Acquire) != version {
            std::hint::spin_loop();
        }
        Ok(())
    };
    let now = || (DEPTH.load(Ordering::Relaxed), resident(), engine.stats());
    // Until there is one that tells.
    let first = "function %work(i64) -> i64 tail { block0(v0: i64): return v0 }";
    install_text(&engine, first)?;
    let (before, after, seconds) = thread::scope(|scope| -> Result<_, Error> {
        let work = engine.function::<fn(i64) -> i64>("work")?;
        let working = thread::Builder::new().spawn_scoped(scope, move || {
            while VERSION.load(Ordering::Acquire) == 0 {
                // SAFETY: the function is sound for every argument.
                let _ = unsafe { work.call(0) };
            }
        })?;
        let moved = (|| {
            // The allocator has what it needs by then.
            for version in 1..=1000 {
                install(version)?;
            }
            let (before, began) = (now(), Instant::now());
            for version in 1001..=1000 + moves {
                install(version)?;
                if version % 1000 == 0 && stderr().is_terminal() {
                    eprint!("\r{} of {moves} moves ", version - 1000);
                }
            }
            Ok((before, now(), began.elapsed().as_secs_f64()))
        })();
        // Whose number says that the loop is to end.
        let ended = install_text(&engine, &looping(-1));
        working.join().expect("it returns");
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

fn install_text(engine: &Engine, text: &str) -> Result<(), Error> {
    let mut unit = engine.unit();
    moving::define(&mut unit, text, at_loops)?;
    engine.install(unit)?;
    Ok(())
}
