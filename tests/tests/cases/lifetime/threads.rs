//! Threads that end, in whichever way: their contexts are used again, and hold nothing.
//!
//! What a context holds shows in the versions that it is counted in; that it is used again, by the
//! addresses that another one would take.

use std::ffi::c_void;
use std::fs;
use std::panic::panic_any;
use std::ptr::{null, null_mut};
use std::thread;
use std::time::Duration;

use corosensei::{Coroutine, CoroutineResult, Yielder};
use lastout::{CallError, Fiber};
use lastout_tests::child::child;
use lastout_tests::support::{
    COUNTINGS, Callback, Door, Drops, OnDrop, calling_back, calls, constant, install,
    install_counted,
};
use lastout_tests::{builder, call, engine};

/// Bytes of addresses that a context takes, and more than anything else that there is in a test.
const LEDGER: usize = 16 << 20;

/// Bytes of addresses that the process has mapped.
fn mapped() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_ascii_whitespace().next().unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

/// Runs `again` in a process of its own, first a few times and then often, and checks that this
/// takes no more contexts.
fn takes_no_more_contexts(mut again: impl FnMut()) {
    let ended = child("again", || {
        (0..5).for_each(|_| again());
        let before = mapped();
        (0..100).for_each(|_| again());
        let more = mapped().saturating_sub(before);
        // The allocator has areas for threads, of up to 64 MiB each, and as many as it likes.
        assert!(more < 30 * LEDGER, "{more} bytes more");
    });
    if let Some(ended) = ended {
        assert!(ended.well(), "{}", ended.errors);
    }
}

/// How a thread ends that is inside of a function.
#[derive(Clone, Copy, Debug)]
enum End {
    Return,
    Panic,
    Exit,
}

const ENDS: [End; 3] = [End::Return, End::Panic, End::Exit];

impl End {
    fn end(self) {
        unsafe extern "C-unwind" {
            fn pthread_exit(value: *mut c_void) -> !;
        }

        match self {
            Self::Return => {}
            Self::Panic => panic_any(()),
            // SAFETY: everything on the stack of the thread can be unwound.
            Self::Exit => unsafe { pthread_exit(null_mut()) },
        }
    }
}

/// Runs `role` on a thread, which may end in any way but for a panic, for which it would have to be
/// caught: that would end the process if it was `pthread_exit`.
fn on_a_thread_that_may_exit<F: FnOnce() + Send>(role: F) {
    type Start = extern "C" fn(*mut c_void) -> *mut c_void;

    extern "C-unwind" fn start<F: FnOnce()>(role: *mut c_void) -> *mut c_void {
        // SAFETY: it is what the function below has, which waits for this thread to end.
        let role = unsafe { &mut *role.cast::<Option<F>>() }.take().unwrap();
        role();
        null_mut()
    }

    let mut role = Some(role);
    let start = start::<F> as extern "C-unwind" fn(*mut c_void) -> *mut c_void;
    let mut thread = 0;
    // SAFETY: only how it may be left differs, and the C library's threads may be left so. What
    // the thread is given stays until it has been joined, and can be sent to it.
    unsafe {
        let start: Start = std::mem::transmute(start);
        let role = (&raw mut role).cast();
        assert_eq!(libc::pthread_create(&mut thread, null(), start, role), 0);
        assert_eq!(libc::pthread_join(thread, null_mut()), 0);
    }
}

impl End {
    /// Runs `role` on a thread that may end in this way.
    fn run(self, role: impl FnOnce() + Send) {
        match self {
            Self::Exit => on_a_thread_that_may_exit(role),
            Self::Return | Self::Panic => thread::scope(|scope| {
                let panicked = scope.spawn(role).join().is_err();
                assert_eq!(panicked, matches!(self, Self::Panic));
            }),
        }
    }
}

#[test]
fn it_holds_nothing_and_frees_what_it_was_the_last_in() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let drops = Drops::new();
        install_counted(&engine, &calling_back("f", 0), &drops);
        let f = calls(&engine, "f");
        for (number, end) in (1..).zip(ENDS.repeat(3)) {
            let innermost = Callback::new(|x| {
                install_counted(&engine, &calling_back("f", 0), &drops);
                assert_eq!(drops.count(), number - 1);
                end.end();
                x
            });
            // Two frames of the thread's own, and one with a fiber.
            let inner = Callback::new(|x| call!(f, innermost.address(), x).unwrap());
            let outer = Callback::new(|x| {
                Fiber::new().unwrap().run(|| call!(f, inner.address(), x).unwrap())
            });
            end.run(|| assert_eq!(call!(f, outer.address(), 1), Ok(1)));
            assert_eq!(drops.count(), number, "{end:?}");
            let versions = engine.versions("f").unwrap();
            assert_eq!((versions.len(), versions[0].frames()), (1, 0), "{end:?}");
        }
    }
}

#[test]
fn its_context_is_used_again() {
    takes_no_more_contexts(|| {
        let engine = engine!();
        install(&engine, &(calling_back("f", 0) + &constant("gone", 1)));
        let f = calls(&engine, "f");
        let gone = engine.function::<fn() -> i64>("gone").unwrap();
        // SAFETY: it is a function of this type, and the handle keeps it.
        let entry: extern "C" fn() -> i64 =
            unsafe { std::mem::transmute(gone.c_address().unwrap()) };
        engine.remove("gone").unwrap();
        for end in ENDS {
            let ending = Callback::new(|x| {
                end.end();
                x
            });
            end.run(|| {
                // Nobody is told that this fails, nor is the next thread that has the context.
                assert_eq!(entry(), 0);
                assert_eq!(call!(f, ending.address(), 1), Ok(1));
            });
        }
    });
}

#[test]
fn a_context_of_a_fiber_is_used_again() {
    takes_no_more_contexts(|| {
        let engine = engine!();
        install(&engine, &calling_back("f", 0));
        let f = calls(&engine, "f");
        let mut fiber = Fiber::new().unwrap();
        let same = Callback::new(|x| x);
        assert_eq!(fiber.run(|| call!(f, same.address(), 1)), Ok(1));
        drop(fiber);
    });
}

/// A destructor that a thread runs when it ends may call functions, also when others have ended it.
/// What a thread does last.
type Last = OnDrop<Box<dyn FnMut()>>;

#[test]
fn what_a_thread_calls_in_its_last_destructors_is_counted() {
    thread_local! {
        static LAST: std::cell::RefCell<Option<Last>> =
            const { std::cell::RefCell::new(None) };
    }

    let engine = Box::leak(Box::new(engine!()));
    let drops = Drops::new();
    install_counted(engine, &calling_back("f", 0), &drops);
    let f = calls(engine, "f");
    let (engine, replaced) = (&*engine, drops.clone());
    let last = move || {
        let replacing = Callback::new(|x| {
            install_counted(engine, &calling_back("f", 0), &replaced);
            assert_eq!(replaced.count(), 0);
            x
        });
        assert_eq!(call!(f, replacing.address(), 1), Ok(1));
        assert_eq!(replaced.count(), 1);
    };
    thread::spawn(move || LAST.set(Some(OnDrop(Box::new(last))))).join().unwrap();
    assert_eq!(drops.count(), 1);
    assert_eq!(engine.versions("f").unwrap()[0].frames(), 0);
}

/// A coroutine needs no fiber if it stays on its thread. If that ends, nobody knows whether the
/// coroutine will be unwound.
#[test]
fn what_a_coroutine_is_inside_of_that_has_lost_its_thread_is_never_freed() {
    let engine = engine!();
    let drops = Drops::new();
    install_counted(&engine, &calling_back("f", 0), &drops);
    let f = calls(&engine, "f");
    let lost = thread::scope(|scope| {
        let suspending = scope.spawn(|| {
            let f = f.clone();
            let mut coroutine = Coroutine::new(move |yielder: &Yielder<(), ()>, ()| {
                let yielder = std::ptr::from_ref(yielder).expose_provenance();
                let suspending = Callback::new(|x| {
                    let yielder = std::ptr::with_exposed_provenance::<Yielder<(), ()>>(yielder);
                    // SAFETY: it is that of the coroutine, which this is called by.
                    unsafe { &*yielder }.suspend(());
                    x
                });
                call!(f, suspending.address(), 1)
            });
            assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
            // Neither resumed nor unwound.
            std::mem::forget(coroutine);
            engine.versions("f").unwrap()[0].threads[0].thread_id
        });
        suspending.join().unwrap()
    });
    let replaced = engine.versions("f").unwrap().remove(0).version;
    install(&engine, &calling_back("f", 0));
    for _ in 0..5 {
        thread::scope(|scope| {
            let calling = || {
                let same = Callback::new(|x| x);
                assert_eq!(call!(f, same.address(), 2), Ok(2));
            };
            scope.spawn(calling).join().unwrap();
        });
        let inside = &engine.versions("f").unwrap()[0].threads;
        assert_eq!((inside.len(), inside[0].thread_id, inside[0].frames), (1, lost, 1));
        assert_eq!((&inside[0].name, inside[0].fiber), (&None, None));
    }
    assert!(!replaced.wait_freed(Duration::ZERO));
    assert_eq!(drops.count(), 0);
}

/// Threads that are inside when others end.
#[test]
fn others_are_not_disturbed() {
    let engine = engine!();
    let drops = Drops::new();
    install_counted(&engine, &calling_back("f", 10), &drops);
    let f = calls(&engine, "f");
    let door = Door::default();
    let wait = door.callback();
    thread::scope(|scope| {
        let staying = scope.spawn(|| -> Result<i64, CallError> { call!(f, wait.address(), 1) });
        door.arrived();
        for end in ENDS.repeat(2) {
            let ending = Callback::new(|x| {
                end.end();
                x
            });
            end.run(|| drop(call!(f, ending.address(), 1)));
        }
        install(&engine, &calling_back("f", 20));
        assert_eq!(engine.versions("f").unwrap()[0].frames(), 1);
        assert_eq!(drops.count(), 0);
        door.open();
        assert_eq!(staying.join().unwrap(), Ok(11));
        assert_eq!(drops.count(), 1);
    });
}
