//! Single-stepping by the processor's trap flag.

use std::arch::asm;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is done after an instruction, with its number.
type At<'a> = &'a dyn Fn(usize);

thread_local! {
    static STEP: Cell<usize> = const { Cell::new(0) };
    static AT: Cell<Option<At<'static>>> = const { Cell::new(None) };
}

/// Runs `role` with a signal after each instruction of this thread, whose handler does `at`.
/// Returns how many there were.
#[inline(never)]
pub(crate) fn stepping<R>(at: At<'_>, role: impl FnOnce() -> R) -> (usize, R) {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(handle_traps);

    // SAFETY: it is forgotten before this returns, also if `role` panics.
    let at = unsafe { std::mem::transmute::<At<'_>, At<'static>>(at) };
    AT.set(Some(at));
    STEP.set(0);
    let stop = Stop;
    // SAFETY: it changes the stack only below its end, and flags.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    let result = role();
    drop(stop);
    (STEP.get(), result)
}

struct Stop;

impl Drop for Stop {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
        AT.set(None);
    }
}

extern "C" fn trapped(_: libc::c_int) {
    if let Some(at) = AT.get() {
        let step = STEP.get();
        STEP.set(step + 1);
        at(step);
    }
}

fn handle_traps() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let handler: extern "C" fn(libc::c_int) = trapped;
    // SAFETY: all zeros are a valid one, without flags; the handler is a function of this program.
    unsafe {
        (*action.as_mut_ptr()).sa_sigaction = handler as usize;
        assert_eq!(libc::sigaction(libc::SIGTRAP, action.as_ptr(), ptr::null_mut()), 0);
    }
}

/// Counts what is wrong, where nobody can panic.
#[derive(Default)]
pub(crate) struct Wrong(AtomicUsize);

impl Wrong {
    pub(crate) fn unless(&self, right: bool) {
        self.0.fetch_add(usize::from(!right), Ordering::SeqCst);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
