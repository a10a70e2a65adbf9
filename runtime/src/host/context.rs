//! The calling thread's context, found in a nanosecond and given up when the thread ends.
//!
//! # What belongs to whom
//!
//! A call belongs to the context that it is counted in, and that is the thread's own, or a
//! [`Fiber`](crate::Fiber)'s, with which a call may begin on one thread and end on another. So what
//! is to be known of the calls in progress stands in the header of the context's ledger, which
//! [`enter`] keeps across the call. Whatever it finds by the thread it asks for anew: compilers
//! take the address of a thread-local to be the same for as long as a function runs.
//!
//! # A call that fails
//!
//! Generated code that meets a removed function goes on with zeros, and the call from the host that
//! it happened in is to return an error. [`fail`] puts that into the header. Of several the first
//! counts. A call from the host inside of another has an error of its own; for its time the outer
//! one's is on its stack.
//!
//! Entering looks at one word, the thread's `ledger`, and after the call at one more, `failed` in
//! the header. Everything else that can be the matter has `ledger` be null:
//!
//! ```text
//!   context   ledger    failed
//!   null      null                the thread has no context yet
//!   a         a's       0         as a rule
//!   a         null      2         the call in progress has failed
//!   a         null      any       one of these is about to become another
//! ```
//!
//! # Signals
//!
//! A handler may call functions whatever the thread was doing, even in here. If it finds `ledger`
//! null, it takes what is in the header for an outer call's, whole or half written, and puts it
//! back as it was; and if it does not, nothing has failed. So whoever changes the header has
//! `ledger` be null meanwhile. Compiler fences keep that order; it is all one thread.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering, compiler_fence};
use std::sync::{Arc, OnceLock};

use lastout_reclaim::{Context, HEADER_BYTES};

use crate::CallError;
use crate::host::fork::Pass;
use crate::host::threads::{domain, id};

/// What the fast path of a call looks at, in one place and without a destructor.
struct Thread {
    /// The ledger of the context, or null if there is more to know than that.
    ledger: AtomicPtr<u32>,
    /// The context that calls are counted in; null until there is one.
    context: AtomicPtr<Context>,
}

thread_local! {
    static THREAD: Thread = const {
        Thread {
            ledger: AtomicPtr::new(ptr::null_mut()),
            context: AtomicPtr::new(ptr::null_mut()),
        }
    };
}

/// What is at the start of a ledger. Only used by who runs with the context.
#[repr(C)]
struct Header {
    /// Whether the innermost call in progress has failed: 0, or 1 while it is being noted how, or
    /// 2.
    failed: AtomicU32,
    /// If so, how.
    failure: UnsafeCell<MaybeUninit<CallError>>,
}

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES && align_of::<Header>() <= 16);

impl Header {
    /// The header of a ledger.
    ///
    /// # Safety
    ///
    /// It is the ledger of a context, and the calling thread is running with that.
    #[inline]
    unsafe fn of<'a>(ledger: *const u32) -> &'a Self {
        // SAFETY: there is room for one at the start of a ledger, suitably aligned, and contexts
        // live as long as the process. All zeros are a valid one.
        unsafe { &*ledger.cast::<Self>() }
    }

    #[inline]
    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed) != 0
    }

    /// Has the call in progress have failed, unless it has already. The ledger is out of sight.
    fn put(&self, failure: CallError) {
        // What a signal handler comes to tell meanwhile is not the first.
        if self.failed.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            compiler_fence(Ordering::SeqCst);
            // SAFETY: nobody else runs with this context, and no reference to the error is ever
            // given out. A signal handler leaves it as it was.
            unsafe { (*self.failure.get()).write(failure) };
            compiler_fence(Ordering::SeqCst);
            self.failed.store(2, Ordering::Relaxed);
        }
    }

    /// How the call in progress has failed, which it then has not any more. The ledger is out of
    /// sight.
    fn take(&self) -> CallError {
        debug_assert!(self.has_failed());
        self.failed.store(0, Ordering::Relaxed);
        // SAFETY: there is an error where the call has failed, and now it is the caller's alone.
        unsafe { (*self.failure.get()).assume_init_read() }
    }
}

/// Runs `call` with the ledger of the current context. If the call [fails](fail), that is the
/// error.
///
/// All that can happen besides a call is told by one word before and one after it, both of which
/// are only read here: a store, to be loaded again by the next call, would take longer than the
/// rest.
#[inline]
pub(crate) fn enter<R>(call: impl FnOnce(*const u32) -> R) -> Result<R, CallError> {
    let ledger = ledger();
    if ledger.is_null() {
        return enter_inner(call);
    }
    let unwinding = Unwinding { ledger };
    let result = call(ledger);
    std::mem::forget(unwinding);
    // SAFETY: the ledger is that of the context that this thread runs with: maybe another thread
    // than before, but the same context.
    if unsafe { Header::of(ledger) }.has_failed() {
        return Err(leave(ledger));
    }
    Ok(result)
}

#[inline]
fn ledger() -> *const u32 {
    THREAD.with(|thread| thread.ledger.load(Ordering::Relaxed))
}

/// Forgets how a call has failed that is left by a panic.
struct Unwinding {
    ledger: *const u32,
}

impl Drop for Unwinding {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: as in `enter`.
        if unsafe { Header::of(self.ledger) }.has_failed() {
            leave(self.ledger);
        }
    }
}

/// The end of a call that has failed, and was not inside of one that had.
#[cold]
#[inline(never)]
fn leave(ledger: *const u32) -> CallError {
    // SAFETY: this is the end of a call with that ledger.
    let failure = unsafe { Header::of(ledger) }.take();
    compiler_fence(Ordering::SeqCst);
    show(ledger);
    failure
}

/// Runs `call` where the thread has no context yet, or is in a call that has failed.
#[cold]
#[inline(never)]
fn enter_inner<R>(call: impl FnOnce(*const u32) -> R) -> Result<R, CallError> {
    let inner = Inner::begin()?;
    let result = call(inner.ledger);
    inner.end().map(|()| result)
}

/// A call that does not find the ledger where calls do.
struct Inner {
    ledger: *const u32,
    /// What was in the header, if the call is inside of another.
    outer: Option<(u32, MaybeUninit<CallError>)>,
}

impl Inner {
    fn begin() -> Result<Self, CallError> {
        let context = THREAD.with(|thread| thread.context.load(Ordering::Relaxed));
        if context.is_null() {
            return Ok(Self { ledger: register()?, outer: None });
        }
        // SAFETY: it is the context of this thread, and contexts live as long as the process.
        let ledger = unsafe { &*context }.ledger();
        // SAFETY: as above.
        let header = unsafe { Header::of(ledger) };
        // SAFETY: nobody else runs with this context. Whatever the bytes are, they are bytes.
        let outer = (header.failed.load(Ordering::Relaxed), unsafe { header.failure.get().read() });
        header.failed.store(0, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        show(ledger);
        Ok(Self { ledger, outer: Some(outer) })
    }

    /// Has everything be as it was before, and says whether the call has failed.
    fn end(self) -> Result<(), CallError> {
        ManuallyDrop::new(self).restore()
    }

    fn restore(&mut self) -> Result<(), CallError> {
        // SAFETY: as in `enter`.
        let header = unsafe { Header::of(self.ledger) };
        hide();
        let result = if header.has_failed() { Err(header.take()) } else { Ok(()) };
        match self.outer.take() {
            Some((failed, failure)) => {
                // SAFETY: nobody else runs with this context, and nothing is lost: an error that
                // was there has been taken.
                unsafe { header.failure.get().write(failure) };
                compiler_fence(Ordering::SeqCst);
                header.failed.store(failed, Ordering::Relaxed);
            }
            None => show(self.ledger),
        }
        result
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The call is left by a panic: nobody is told.
        let _ = self.restore();
    }
}

// These three ask for the thread anew, whoever calls them: see the module documentation.

/// Has calls find the ledger.
#[inline(never)]
fn show(ledger: *const u32) {
    THREAD.with(|thread| thread.ledger.store(ledger.cast_mut(), Ordering::Relaxed));
}

/// Has calls find that there is more to know.
#[inline(never)]
fn hide() {
    THREAD.with(|thread| thread.ledger.store(ptr::null_mut(), Ordering::Relaxed));
    compiler_fence(Ordering::SeqCst);
}

/// The context that calls are counted in, if there is one.
#[inline(never)]
fn current() -> Option<&'static Context> {
    let context = THREAD.with(|thread| thread.context.load(Ordering::Relaxed));
    // SAFETY: contexts live as long as the process.
    unsafe { context.as_ref() }
}

/// Whether this is the ledger that the calling thread counts in.
pub(crate) fn counts_in(ledger: *const u32) -> bool {
    current().is_some_and(|context| context.ledger() == ledger)
}

/// Has the call from the host that is in progress return an error. Of several in one call, the
/// first counts. Where there is no such call, since C code has called a stable entry, there is
/// nobody to be told.
///
/// May be called by a signal handler.
pub(crate) fn fail(error: CallError) {
    let Some(context) = current() else { return };
    let ledger = context.ledger();
    // SAFETY: it is the context of this thread.
    let header = unsafe { Header::of(ledger) };
    hide();
    header.put(error);
}

/// Has the call in progress fail because the function of this name was called and has no version.
pub(crate) fn met_removed(name: &Arc<str>) {
    fail(CallError::Removed((&**name).into()));
}

/// The ledger of the current context, for the stable entries.
///
/// A caller from C has no way to be told of an error, so where there is no memory for a ledger
/// the process ends with a message, as it does wherever Rust finds no memory.
pub(crate) extern "C" fn current_ledger() -> *const u32 {
    if let Some(context) = current() {
        return context.ledger();
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
    let context = domain().register(id())?;
    // SAFETY: it is this thread's from now on.
    unsafe { context.set_runner(id()) };
    release_at_exit(context);
    switch(Some(context));
    Ok(context.ledger())
}

/// Has calls be counted in `context`, and returns what they were counted in before.
#[inline(never)]
pub(crate) fn switch(context: Option<&'static Context>) -> Option<&'static Context> {
    let before = current();
    hide();
    THREAD.with(|thread| {
        thread
            .context
            .store(context.map_or(ptr::null(), ptr::from_ref).cast_mut(), Ordering::Relaxed);
    });
    compiler_fence(Ordering::SeqCst);
    if let Some(context) = context {
        let ledger = context.ledger();
        // SAFETY: it is the context of this thread now.
        if !unsafe { Header::of(ledger) }.has_failed() {
            show(ledger);
        }
    }
    before
}

/// Gives a context up that the calling thread has run with last, for others to take, unless
/// something is inside of a function with it: a coroutine that is suspended there may be resumed,
/// or unwound. Then it stays as it is, for good.
///
/// # Safety
///
/// The caller owns the context, no thread runs with it, and nobody enters anything with it again.
pub(crate) unsafe fn give_up(context: &'static Context) {
    let _pass = Pass::new();
    // SAFETY: as the caller says.
    let header = unsafe { Header::of(context.ledger()) };
    if header.has_failed() {
        // Nobody was there to be told.
        drop(header.take());
    }
    if domain().is_idle(context) {
        // SAFETY: as the caller says, and it is inside of nothing. What is left in the header are
        // bytes that nobody looks at, unless a call fails anew.
        unsafe { context.release() };
    } else {
        // SAFETY: as the caller says.
        unsafe { context.set_runner(0) };
    }
}

/// Has `context` given up after the thread's last destructor that may call into generated code.
///
/// A pthread key, not a `thread_local` with a destructor: those cannot be set again once they are
/// destroyed, and another's destructor may call a function after that. Keys can, and the system
/// then runs their destructors once more.
fn release_at_exit(context: &'static Context) {
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();

    extern "C" fn release(context: *mut c_void) {
        switch(None);
        // SAFETY: this is the context that `register` set the key to; it lives as long as the
        // process. The thread ends, and having forgotten the context it enters nothing with it
        // again.
        unsafe { give_up(&*context.cast::<Context>()) };
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
