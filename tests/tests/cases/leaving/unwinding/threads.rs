//! Panics on many threads, and threads that end inside.

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use lastout::Handle;
use lastout_tests::layers::{KINDS, engines, frames};
use lastout_tests::registers::keeps;
use lastout_tests::support::{Callback, Drops, calls, wait_until};
use lastout_tests::{builder, call};

use super::panics::{left, raise};

#[test]
fn threads_panic_out_of_what_others_replace() {
    const THREADS: u64 = 3;
    const INSTALLS: usize = 80;

    for (name, engine) in engines(|| builder!()) {
        let drops = Drops::new();
        let kinds = ["plain", "structs", "windows", "tail_stack"];
        let kinds = kinds.map(|name| KINDS.into_iter().find(|kind| kind.name == name).unwrap());
        let mut below = "call_back";
        for kind in &kinds {
            kind.install(&engine, kind.name, below, 8, &drops);
            below = kind.name;
        }
        let mut installed = 2 * kinds.len();
        let (over, caught) = (AtomicBool::new(false), AtomicU64::new(0));
        let callback =
            Callback::new(|argument| if argument % 3 == 0 { raise(argument) } else { 0 });
        thread::scope(|scope| {
            let panicking = || {
                let top = calls(&engine, below);
                for number in 1.. {
                    let result = left(|| call!(top, callback.address(), number).unwrap());
                    match number % 3 {
                        0 => assert_eq!(result, Err(number)),
                        _ => assert_eq!(result, Ok(kinds.len() as i64)),
                    }
                    caught.fetch_add(1, Ordering::Relaxed);
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(panicking)).collect();
            wait_until(|| caught.load(Ordering::Relaxed) >= THREADS);
            for round in 0..INSTALLS {
                let below = if round % kinds.len() == 0 {
                    "call_back"
                } else {
                    kinds[round % kinds.len() - 1].name
                };
                let kind = &kinds[round % kinds.len()];
                kind.install(&engine, kind.name, below, 8 * (round % 2), &drops);
                installed += 2;
            }
            over.store(true, Ordering::Relaxed);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        let names: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
        assert_eq!(frames(&engine, &names), 0, "{name}");
        assert_eq!(drops.count(), installed - 2 * kinds.len(), "{name}");
        drop(engine);
        assert_eq!(drops.count(), installed);
    }
}

/// What a thread of the C library calls.
struct Exiting<'a> {
    top: &'a Handle<fn(usize, i64) -> i64>,
    callback: usize,
    drops: &'a Drops,
    came_back: AtomicBool,
}

extern "C-unwind" fn exit_inside(exiting: *mut c_void) -> *mut c_void {
    // SAFETY: it outlives the thread.
    let exiting = unsafe { &*exiting.cast::<Exiting<'_>>() };
    let _dropped = exiting.drops.value();
    let _ = keeps(|| call!(exiting.top, exiting.callback, 1));
    exiting.came_back.store(true, Ordering::Relaxed);
    null_mut()
}

fn join_a_thread_that_exits(exiting: &Exiting<'_>) {
    type Start = extern "C" fn(*mut c_void) -> *mut c_void;

    let start = exit_inside as extern "C-unwind" fn(*mut c_void) -> *mut c_void;
    // SAFETY: only how it may be left differs, and the C library's threads may be left so.
    let start: Start = unsafe { std::mem::transmute(start) };
    let argument = std::ptr::from_ref(exiting).cast_mut().cast();
    let mut thread = 0;
    // SAFETY: the argument outlives the thread, which is waited for.
    unsafe {
        assert_eq!(libc::pthread_create(&mut thread, null(), start, argument), 0);
        assert_eq!(libc::pthread_join(thread, null_mut()), 0);
    }
}

#[test]
fn a_thread_that_exits_inside_is_counted_out_and_frees_what_it_was_the_last_in() {
    unsafe extern "C-unwind" {
        fn pthread_exit(value: *mut c_void) -> !;
    }

    for (name, engine) in engines(|| builder!()) {
        let mut below = "call_back";
        let drops = Drops::new();
        for kind in &KINDS {
            kind.install(&engine, kind.name, below, 8, &drops);
            below = kind.name;
        }
        let top = calls(&engine, below);
        let callback = Callback::new(|_| {
            let threads = engine.versions("plain").unwrap()[0].threads.clone();
            assert_eq!(threads.len(), 1);
            let mut below = "call_back";
            for kind in &KINDS {
                kind.install(&engine, kind.name, below, 8, &drops);
                below = kind.name;
            }
            // SAFETY: what is between here and the start of the thread can be unwound.
            unsafe { pthread_exit(null_mut()) }
        });
        let left_behind = Drops::new();
        let came_back = AtomicBool::new(false);
        let exiting =
            Exiting { top: &top, callback: callback.address(), drops: &left_behind, came_back };
        for round in 1..=5 {
            join_a_thread_that_exits(&exiting);
            assert!(!exiting.came_back.load(Ordering::Relaxed));
            assert_eq!(left_behind.count(), round, "the frames in Rust have been left, too");
            assert_eq!(drops.count(), round * 2 * KINDS.len(), "{name}");
            let functions: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            assert_eq!(frames(&engine, &functions), 0);
        }
    }
}
