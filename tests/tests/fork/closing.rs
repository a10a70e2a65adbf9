//! Forks between the closing of a version and its retirement. The child lacks the thread that would
//! retire it, so it must not come to that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lastout::{Adopted, Engine, FunctionType};
use lastout_tests::builder;
use lastout_tests::support::{OnDrop, turn};

use super::process::fork;

extern "C" fn one() -> i64 {
    1
}

const FUNCTIONS: usize = 400;

/// New versions of many functions, which takes no time to compile.
fn adopt(engine: &Engine) {
    let mut adopted = Adopted::new(|| {});
    let signature = <fn() -> i64>::signature(engine.isa());
    for function in 0..FUNCTIONS {
        // SAFETY: the function is of this signature, and stays.
        unsafe { adopted.export(&format!("f{function}"), &signature, one as *const u8) };
    }
    engine.adopt(adopted).unwrap();
}

#[test]
fn what_another_thread_was_about_to_let_go_is_freed() {
    const FORKS: usize = 100;
    let _turn = turn();
    let engine = builder!().build().unwrap();
    adopt(&engine);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                adopt(&engine);
            }
        });
        for _ in 0..FORKS {
            let child = fork(|| {
                engine.collect();
                // But for the one that it was just dropping.
                let alive = engine.stats().alive();
                assert!(alive <= FUNCTIONS as u64 + 1, "{alive} versions");
            });
            child.join();
        }
    });
    assert_eq!(engine.stats().alive(), FUNCTIONS as u64);
}
