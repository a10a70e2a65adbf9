//! Signals that are no traps of generated code: the handler that would have got them does.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;

use lastout::Engine;
use lastout::cranelift_codegen::ir::TrapCode;
use lastout_tests::child::{Ended, child};
use lastout_tests::support::{calls, install};
use lastout_tests::{builder, call};

use super::{SEVEN, trap_in, trapping_at_seven};

/// Has something be done on a signal.
fn set_action(signal: i32, handler: usize, flags: i32) {
    // SAFETY: zeros are an action.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the handler is a function of the type that the flags say, or one of the constants.
    assert_eq!(unsafe { libc::sigaction(signal, &action, null_mut()) }, 0);
}

/// Has a process that hangs die.
fn in_ten_seconds() {
    // SAFETY: the signal's action is the default.
    unsafe { libc::alarm(10) };
}

/// An engine that catches traps, and has caught one.
fn catching() -> Engine {
    let engine = builder!().traps(true).build().unwrap();
    install(&engine, &trapping_at_seven("f"));
    traps(&engine);
    engine
}

fn traps(engine: &Engine) {
    assert_eq!(trap_in(call!(calls(engine, "f"), 0, 7), "f"), Some(SEVEN));
}

fn ends_well(ended: Option<Ended>) {
    if let Some(ended) = ended {
        assert!(ended.well(), "{ended:?}");
    }
}

/// The page that the handlers below make writable.
static PAGE: AtomicUsize = AtomicUsize::new(0);
/// How often they were called, and with which signal.
static CALLED: AtomicUsize = AtomicUsize::new(0);
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// As garbage collectors do it.
extern "C" fn make_writable(signal: i32) {
    CALLED.fetch_add(1, Ordering::Relaxed);
    SIGNAL.store(signal, Ordering::Relaxed);
    let page = std::ptr::with_exposed_provenance_mut(PAGE.load(Ordering::Relaxed));
    // SAFETY: the page is the test's.
    unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE) };
}

extern "C" fn make_faulting_writable(
    signal: i32,
    info: *mut libc::siginfo_t,
    context: *mut libc::ucontext_t,
) {
    // SAFETY: the system passes these, and a handler that is called by another has them from it.
    let (address, pc) = unsafe {
        ((*info).si_addr() as usize, (*context).uc_mcontext.gregs[libc::REG_RIP as usize])
    };
    assert_eq!(address & !4095, PAGE.load(Ordering::Relaxed));
    assert_ne!(pc, 0);
    make_writable(signal);
}

#[test]
fn a_handler_that_was_there_before_gets_faults_of_the_host() {
    let with_info = make_faulting_writable as *const () as usize;
    let without = make_writable as *const () as usize;
    for (name, handler, flags) in [("info", with_info, libc::SA_SIGINFO), ("plain", without, 0)] {
        ends_well(child(name, || {
            in_ten_seconds();
            set_action(libc::SIGSEGV, handler, flags | libc::SA_ONSTACK);
            let (protection, kind) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a new mapping at an address of the system's choice.
            let page = unsafe { libc::mmap(null_mut(), 4096, protection, kind, -1, 0) };
            assert_ne!(page, libc::MAP_FAILED);
            PAGE.store(page.expose_provenance(), Ordering::Relaxed);
            let engine = catching();
            assert_eq!(CALLED.load(Ordering::Relaxed), 0);
            // SAFETY: the page is there, and can be written to once the handler has been called.
            unsafe { black_box(page.cast::<u8>()).write_volatile(3) };
            assert_eq!(CALLED.load(Ordering::Relaxed), 1);
            assert_eq!(SIGNAL.load(Ordering::Relaxed), libc::SIGSEGV);
            traps(&engine);
            // Those of generated code that does not trap there are the program's, too.
            // SAFETY: as above.
            unsafe { libc::mprotect(page, 4096, libc::PROT_READ) };
            install(
                &engine,
                "function %writing(i64, i64) -> i64 system_v {
                 block0(v0: i64, v1: i64):
                    store notrap v1, v0
                    return v1
                 }",
            );
            assert_eq!(call!(calls(&engine, "writing"), page.expose_provenance(), 9), Ok(9));
            assert_eq!(CALLED.load(Ordering::Relaxed), 2);
            traps(&engine);
        }));
    }
}

#[test]
fn a_signal_that_was_ignored_still_is_if_it_was_sent() {
    ends_well(child("sent", || {
        in_ten_seconds();
        set_action(libc::SIGSEGV, libc::SIG_IGN, 0);
        set_action(libc::SIGTRAP, libc::SIG_IGN, 0);
        let engine = catching();
        for signal in [libc::SIGSEGV, libc::SIGTRAP] {
            // SAFETY: sending this process a signal.
            assert_eq!(unsafe { libc::raise(signal) }, 0);
            traps(&engine);
        }
    }));
    let ended = child("fault", || {
        in_ten_seconds();
        set_action(libc::SIGSEGV, libc::SIG_IGN, 0);
        let _engine = catching();
        // SAFETY: none; it is to fail.
        unsafe { std::ptr::without_provenance_mut::<u8>(black_box(8)).write_volatile(1) };
    });
    if let Some(ended) = ended {
        assert_eq!(ended.signal(), Some(libc::SIGSEGV), "{ended:?}");
    }
}

#[test]
fn a_signal_that_is_sent_is_no_trap_wherever_the_thread_is() {
    for signal in [libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
        let ended = child(&signal.to_string(), || {
            in_ten_seconds();
            let engine = catching();
            // A loop of nothing but instructions that may trap.
            install(
                &engine,
                "function %endless(i64, i64) -> i64 system_v {
                 block0(v0: i64, v1: i64):
                    jump block1
                 block1:
                    v2 = load.i64 v0
                    v3 = load.i64 v0+8
                    v4 = load.i64 v0+16
                    v5 = load.i64 v0+24
                    store v2, v0
                    store v3, v0+8
                    store v4, v0+16
                    store v5, v0+24
                    jump block1
                 }",
            );
            let endless = calls(&engine, "endless");
            let mut words = [0_u64; 4];
            let address = (&raw mut words).expose_provenance();
            // SAFETY: this thread is there.
            let thread = unsafe { libc::pthread_self() };
            thread::spawn(move || {
                thread::sleep(std::time::Duration::from_millis(100));
                // SAFETY: the thread is in the function for as long as the process is there.
                unsafe { libc::pthread_kill(thread, signal) };
            });
            let _ = call!(endless, address, 7);
        });
        if let Some(ended) = ended {
            assert_eq!(ended.signal(), Some(signal), "{ended:?}");
        }
    }
}

#[test]
fn rust_takes_no_notice_of_one_that_is_sent_and_dies_of_the_next() {
    // Its handler is for overflows of the stack. For what is none it takes itself off, so that the
    // next is not its business any more.
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        let ended = child(&signal.to_string(), || {
            let engine = catching();
            install(&engine, LOADING);
            let outside = |_| {
                let result = call!(calls(&engine, "loading"), 0, 7);
                assert_eq!(trap_in(result, "loading"), Some(OUTSIDE));
            };
            // SAFETY: sending this process a signal.
            unsafe { libc::raise(signal) };
            (0..3).for_each(outside);
            eprintln!("still here");
            // SAFETY: as above.
            unsafe { libc::raise(signal) };
        });
        if let Some(ended) = ended {
            assert_eq!(ended.signal(), Some(signal), "{ended:?}");
            assert!(ended.errors.contains("still here"), "{ended:?}");
        }
    }
}

const OUTSIDE: TrapCode = TrapCode::HEAP_OUT_OF_BOUNDS;

const LOADING: &str = "function %loading(i64, i64) -> i64 system_v {
 block0(v0: i64, v1: i64):
    v2 = load.i64 v0
    return v2
 }";

#[test]
fn a_file_that_has_become_too_short_traps() {
    let engine = builder!().traps(true).build().unwrap();
    install(&engine, LOADING);
    // SAFETY: an empty file, a mapping of more than there is in it, and the name is a string.
    let page = unsafe {
        let file = libc::memfd_create(c"short".as_ptr(), 0);
        libc::mmap(null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file, 0)
    };
    assert_ne!(page, libc::MAP_FAILED);
    assert_ne!(page.cast_const(), null());
    let result = call!(calls(&engine, "loading"), page.expose_provenance(), 7);
    assert_eq!(trap_in(result, "loading"), Some(OUTSIDE));
}
