//! The calling thread's context, found in a nanosecond and given up when the thread ends.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, OnceLock};

use lastout_reclaim::{Context, Domain};

use crate::CallError;
use crate::fork::Pass;

/// How many lanes there can be in the process at a time. A thread's ledger reserves four bytes of
/// address space for each, and uses memory for those it counts in.
const LANES: u32 = 1 << 22;

// Gates in machine code have the offset of a cell as a signed number of 32 bits.
const _: () = assert!(LANES as u64 * 4 <= i32::MAX as u64);

/// What the fast path of a call looks at, in one place and without a destructor.
pub(crate) struct Thread {
    /// The ledger of the thread's context; null until it has one, and while `aside` has it.
    ledger: Cell<*const u32>,
    /// The ledger, from when generated code meets a removed function until the call that it
    /// happened in is over; else null. If C code has called a stable entry, outside of any call
    /// through a handle, nobody is there to be told: then it stays here, and calls take a little
    /// longer.
    aside: Cell<*const u32>,
}

thread_local! {
    static THREAD: Thread =
        const { Thread { ledger: Cell::new(ptr::null()), aside: Cell::new(ptr::null()) } };

    /// The removed functions that were met: one for each call in progress that has met any,
    /// outermost first.
    static REMOVED: RefCell<Vec<CallError>> = const { RefCell::new(Vec::new()) };
}

/// The one domain of the process: a thread registers once, whichever engines it calls into.
pub(crate) fn domain() -> &'static Arc<Domain> {
    static DOMAIN: OnceLock<Arc<Domain>> = OnceLock::new();
    DOMAIN.get_or_init(|| Domain::new(LANES))
}

/// Runs `call` with the thread's ledger. If generated code met a removed function meanwhile, that
/// is the error.
///
/// All that can happen besides a call is told by one word, which is only read here: a store, to be
/// loaded again by the next call, would take longer than the rest.
#[inline]
pub(crate) fn enter<R>(call: impl FnOnce(*const u32) -> R) -> Result<R, CallError> {
    THREAD.with(|thread| {
        let mut ledger = thread.ledger.get();
        let mut inner = false;
        if ledger.is_null() {
            (ledger, inner) = thread.find_ledger()?;
        }
        let result = call(ledger);
        let met_removed = thread.ledger.get().is_null();
        if met_removed || inner {
            thread.leave(met_removed, inner)?;
        }
        Ok(result)
    })
}

impl Thread {
    /// The ledger of a thread that has no context yet, or is in a call that has met a removed
    /// function: in which case what follows is an inner call.
    #[cold]
    #[inline(never)]
    fn find_ledger(&self) -> Result<(*const u32, bool), CallError> {
        let aside = self.aside.replace(ptr::null());
        if aside.is_null() {
            return Ok((register()?, false));
        }
        self.ledger.set(aside);
        Ok((aside, true))
    }

    /// Ends a call that has met a removed function, or is inside of one that has. What an inner
    /// call meets is told to the inner caller only, and what the outer one has met to the outer
    /// one.
    #[cold]
    #[inline(never)]
    fn leave(&self, met_removed: bool, inner: bool) -> Result<(), CallError> {
        let mut result = Ok(());
        if met_removed {
            self.ledger.set(self.aside.replace(ptr::null()));
            let name = REMOVED.try_with(|removed| removed.borrow_mut().pop()).ok().flatten();
            result = Err(name.unwrap_or_else(|| CallError::Removed("?".into())));
        }
        if inner {
            self.put_aside();
        }
        result
    }

    /// Says that the call in progress has met a removed function.
    fn put_aside(&self) {
        self.aside.set(self.ledger.replace(ptr::null()));
    }
}

/// Notes for [`enter`] that the function of this name was called and has no version. Of several
/// that one call meets, the first is noted.
pub(crate) fn met_removed(name: &Arc<str>) {
    fail(CallError::Removed((&**name).into()));
}

/// Notes for [`enter`] that the call in progress has failed.
pub(crate) fn fail(error: CallError) {
    THREAD.with(|thread| {
        if !thread.ledger.get().is_null() {
            thread.put_aside();
            // Without its name if the thread is past the point where it has such things.
            let _ = REMOVED.try_with(|removed| removed.borrow_mut().push(error));
        }
    });
}

/// The ledger of the calling thread, for the stable entries.
///
/// A caller from C has no way to be told of an error, so where there is no memory for a ledger
/// the process ends with a message, as it does wherever Rust finds no memory.
pub(crate) extern "C" fn current_ledger() -> *const u32 {
    let (ledger, aside) = THREAD.with(|thread| (thread.ledger.get(), thread.aside.get()));
    if !ledger.is_null() {
        return ledger;
    }
    if !aside.is_null() {
        return aside;
    }
    match register() {
        Ok(ledger) => ledger,
        Err(error) => {
            eprintln!("lastout: a thread cannot enter a function: {error}");
            std::process::abort()
        }
    }
}

/// Gets the thread a context, to be released when the thread ends.
#[cold]
fn register() -> Result<*const u32, CallError> {
    // Some of what follows must not be found half done by a fork.
    let _pass = Pass::new();
    // SAFETY: gettid has no preconditions.
    let thread_id = unsafe { libc::gettid() };
    let context: &'static Context = domain().register(u64::from(thread_id.unsigned_abs()))?;
    release_at_exit(context);
    THREAD.with(|thread| thread.ledger.set(context.ledger()));
    Ok(context.ledger())
}

/// Has `context` released after the thread's last destructor that may call into generated code.
///
/// A pthread key, not a `thread_local` with a destructor: those cannot be set again once they are
/// destroyed, and another's destructor may call a function after that. Keys can, and the system
/// then runs their destructors once more.
fn release_at_exit(context: &'static Context) {
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();

    extern "C" fn release(context: *mut c_void) {
        THREAD.with(|thread| thread.ledger.set(ptr::null()));
        // SAFETY: this is the context that `register` set the key to; it lives as long as the
        // process. The thread ends, so it is inside no gate, and having forgotten the ledger it
        // enters none with it again.
        unsafe { (*context.cast::<Context>()).release() };
    }

    let key = KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: the key is written to a local, and the destructor takes what it is set to.
        let result = unsafe { libc::pthread_key_create(&mut key, Some(release)) };
        (result == 0).then_some(key)
    });
    // Without a key the context stays with the thread for good: a table of counters is lost with
    // every thread, which is not worth refusing calls for.
    if let Some(key) = key {
        // SAFETY: the key exists, and the destructor may use the context from any thread.
        unsafe { libc::pthread_setspecific(*key, ptr::from_ref(context).cast()) };
    }
}

/// What the system calls a thread; `None` if it has ended.
pub(crate) fn name(thread_id: u64) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/self/task/{thread_id}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}
