//! Handlers that call a function while its callers are held: by the thread that they have
//! interrupted, or with that thread waiting.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lastout_tests::support::{COUNTINGS, Nullary, OnDrop, constant, install, turn, unit};
use lastout_tests::{builder, call};

/// What the handler calls.
static FUNCTION: AtomicPtr<Nullary> = AtomicPtr::new(std::ptr::null_mut());
static CALLS: AtomicUsize = AtomicUsize::new(0);
/// Its smallest and its largest result.
static LEAST: AtomicI64 = AtomicI64::new(0);
static MOST: AtomicI64 = AtomicI64::new(0);

extern "C" fn handle(_: libc::c_int) {
    // SAFETY: the test sets it before it sends signals, and stops sending before it goes.
    if let Some(function) = unsafe { FUNCTION.load(Ordering::SeqCst).as_ref() } {
        let result = call!(function).unwrap_or(-1);
        LEAST.fetch_min(result, Ordering::SeqCst);
        MOST.fetch_max(result, Ordering::SeqCst);
        CALLS.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_handler_calls_a_function_whose_callers_are_held() {
    let _turn = turn();
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        install(&engine, &constant("f", 0));
        let f: Nullary = engine.function("f").unwrap();
        FUNCTION.store((&raw const f).cast_mut(), Ordering::SeqCst);
        CALLS.store(0, Ordering::SeqCst);
        LEAST.store(i64::MAX, Ordering::SeqCst);
        MOST.store(0, Ordering::SeqCst);
        let handler = handle as extern "C" fn(libc::c_int);
        // SAFETY: the handler is one.
        let before = unsafe { libc::signal(libc::SIGUSR2, handler as libc::sighandler_t) };
        let over = AtomicBool::new(false);
        let last = thread::scope(|scope| {
            let _stop = OnDrop(|| over.store(true, Ordering::Relaxed));
            let (send, threads) = std::sync::mpsc::channel();
            let ready = |send: std::sync::mpsc::Sender<_>| {
                // Registering is not for handlers.
                call!(f).unwrap();
                // SAFETY: pthread_self has no preconditions.
                send.send(unsafe { libc::pthread_self() }).unwrap();
            };
            for _ in 0..2 {
                let (send, over, f) = (send.clone(), &over, &f);
                scope.spawn(move || {
                    ready(send);
                    while !over.load(Ordering::Relaxed) {
                        assert!(call!(f).unwrap() >= 0);
                    }
                });
            }
            let (replaced, is_over) = (send, &over);
            let engine = &engine;
            let replacing = scope.spawn(move || {
                ready(replaced);
                let mut number = 0;
                while !is_over.load(Ordering::Relaxed) {
                    number += 1;
                    let unit = unit(engine, &constant("f", number));
                    engine.replace_in_place(unit, Duration::from_secs(60)).unwrap();
                }
                number
            });
            let threads: Vec<_> = threads.iter().take(3).collect();
            let end = Instant::now() + Duration::from_secs(2);
            while Instant::now() < end {
                for &thread in &threads {
                    // SAFETY: the threads are there until the scope ends.
                    unsafe { libc::pthread_kill(thread, libc::SIGUSR2) };
                }
                thread::sleep(Duration::from_micros(50));
            }
            over.store(true, Ordering::Relaxed);
            replacing.join().unwrap()
        });
        // SAFETY: it is what was there.
        unsafe { libc::signal(libc::SIGUSR2, before) };
        FUNCTION.store(std::ptr::null_mut(), Ordering::SeqCst);
        assert!(last > 5 && CALLS.load(Ordering::SeqCst) > 100);
        assert!(LEAST.load(Ordering::SeqCst) >= 0 && MOST.load(Ordering::SeqCst) <= last);
        assert_eq!(engine.versions("f").unwrap()[0].frames(), 0);
        assert_eq!(call!(f).unwrap(), last);
    }
}
