//! The calling thread's context: calls find it in a nanosecond, and it is given up with the thread.
//!
//! # What belongs to a call
//!
//! A call belongs to the context in which it is counted. That is the thread's own, or a
//! [`Fiber`](crate::Fiber)'s, with which a call may begin on one thread and end on another. So what
//! must be known of the calls in progress is in the header of the context's ledger, which [`enter`]
//! keeps across the call. [`enter`] asks anew for everything that it finds by the thread: compilers
//! take the address of a thread-local to be the same for as long as a function runs.
//!
//! # A call that fails
//!
//! Generated code that meets a removed function goes on with zeros, and the call from the host in
//! progress is to return an error. [`fail`] puts that into the header. If there are several errors,
//! the first counts. A call from the host inside of another has an error of its own; meanwhile the
//! outer call's error is on the inner call's stack.
//!
//! A call looks at one word before it starts, the thread's `ledger`, and at one after it has ended,
//! `failed` in the header. In every other case `ledger` is null:
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
//! back as it was. If `ledger` is not null, no call has failed. So code that changes the header
//! keeps `ledger` null meanwhile. Compiler fences keep that order; it is all one thread.

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

/// The words that the fast path of a call reads, in one place and without a destructor.
struct Thread {
    /// The ledger of the context, or null if a call must look further: see the table above.
    ledger: AtomicPtr<u32>,
    /// The context in which calls are counted; null until there is one.
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

/// The start of a ledger. Only the thread that runs with the context uses it.
#[repr(C)]
struct Header {
    /// Whether the innermost call in progress has failed: 0; or 1 while `failure` is being written;
    /// or 2.
    failed: AtomicU32,
    /// The error, if the call has failed.
    failure: UnsafeCell<MaybeUninit<CallError>>,
}

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES && align_of::<Header>() <= 16);

impl Header {
    /// The header of a ledger.
    ///
    /// # Safety
    ///
    /// The ledger is that of a context, and the calling thread runs with that context.
    #[inline]
    unsafe fn of<'a>(ledger: *const u32) -> &'a Self {
        // SAFETY: there is space for a header at the start of a ledger, suitably aligned, and
        // contexts live as long as the process. All zeros are a valid header.
        unsafe { &*ledger.cast::<Self>() }
    }

    #[inline]
    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed) != 0
    }

    /// Makes the call in progress fail, unless it has already. The thread's `ledger` is null.
    fn put(&self, failure: CallError) {
        // An error that a signal handler puts here meanwhile is not the first.
        if self.failed.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            compiler_fence(Ordering::SeqCst);
            // SAFETY: no other thread runs with this context, and no reference to the error is ever
            // given out. A signal handler leaves the error as it was.
            unsafe { (*self.failure.get()).write(failure) };
            compiler_fence(Ordering::SeqCst);
            self.failed.store(2, Ordering::Relaxed);
        }
    }

    /// Takes the error of the call in progress, after which the call has not failed any more. The
    /// thread's `ledger` is null.
    fn take(&self) -> CallError {
        debug_assert!(self.has_failed());
        self.failed.store(0, Ordering::Relaxed);
        // SAFETY: a call that has failed has left an error there, and now it is the caller's alone.
        unsafe { (*self.failure.get()).assume_init_read() }
    }
}

/// Runs `call` with the ledger of the current context. If the call [fails](fail), its error is
/// returned.
///
/// One word before a call and one after it tell of everything else that can happen. Both are only
/// read here: a store, which the next call would have to load again, would take longer than the
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
    // SAFETY: the ledger is that of the context with which this thread runs. The thread may be
    // another than before, but the context is the same.
    if unsafe { Header::of(ledger) }.has_failed() {
        return Err(leave(ledger));
    }
    Ok(result)
}

#[inline]
fn ledger() -> *const u32 {
    THREAD.with(|thread| thread.ledger.load(Ordering::Relaxed))
}

/// Forgets the error of a call that is left by a panic.
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

/// Ends a call that has failed, and was not inside of another that had.
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

/// A call for which the thread's `ledger` was null.
struct Inner {
    ledger: *const u32,
    /// The outer call's header, if the call is inside of another.
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
        // SAFETY: no other thread runs with this context. Any bytes can be read as bytes.
        let outer = (header.failed.load(Ordering::Relaxed), unsafe { header.failure.get().read() });
        header.failed.store(0, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        show(ledger);
        Ok(Self { ledger, outer: Some(outer) })
    }

    /// Restores what was there before the call, and returns the call's error if it has failed.
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
                // SAFETY: no other thread runs with this context, and nothing is lost: an error
                // that was there has been taken.
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
        // The call is left by a panic, so no caller takes the error.
        let _ = self.restore();
    }
}

// These three ask for the thread anew, whatever calls them: see the module documentation.

/// Makes calls find the ledger.
#[inline(never)]
fn show(ledger: *const u32) {
    THREAD.with(|thread| thread.ledger.store(ledger.cast_mut(), Ordering::Relaxed));
}

/// Makes calls take the slow path.
#[inline(never)]
fn hide() {
    THREAD.with(|thread| thread.ledger.store(ptr::null_mut(), Ordering::Relaxed));
    compiler_fence(Ordering::SeqCst);
}

/// The context in which calls are counted, if there is one.
#[inline(never)]
fn current() -> Option<&'static Context> {
    let context = THREAD.with(|thread| thread.context.load(Ordering::Relaxed));
    // SAFETY: contexts live as long as the process.
    unsafe { context.as_ref() }
}

/// Whether the calling thread counts in this ledger.
pub(crate) fn counts_in(ledger: *const u32) -> bool {
    current().is_some_and(|context| context.ledger() == ledger)
}

/// Makes the call from the host that is in progress return an error. Of several errors in one call,
/// the first counts. If there is no such call, since C code has called a stable entry, the error is
/// forgotten.
///
/// A signal handler may call this.
pub(crate) fn fail(error: CallError) {
    let Some(context) = current() else { return };
    let ledger = context.ledger();
    // SAFETY: the context is that of this thread.
    let header = unsafe { Header::of(ledger) };
    hide();
    header.put(error);
}

/// Makes the call in progress fail, because it has called a function that has no version.
pub(crate) fn met_removed(name: &Arc<str>) {
    fail(CallError::Removed((&**name).into()));
}

/// The ledger of the current context, for stable entries.
///
/// A caller from C cannot be told of an error. So if there is no memory for a ledger, the process
/// ends with a message, as it does wherever Rust finds no memory.
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

/// Gives the thread a context, to be released when the thread ends.
#[cold]
fn register() -> Result<*const u32, CallError> {
    // A fork must not find some of what follows half done.
    let _pass = Pass::new();
    let context = domain().register(id())?;
    // SAFETY: the context is this thread's from now on.
    unsafe { context.set_runner(id()) };
    release_at_exit(context);
    switch(Some(context));
    Ok(context.ledger())
}

/// Makes calls be counted in `context`, and returns the context in which they were counted before.
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
        // SAFETY: the context is that of this thread now.
        if !unsafe { Header::of(ledger) }.has_failed() {
            show(ledger);
        }
    }
    before
}

/// Gives a context up for other threads to take, after the calling thread has run with it last. If
/// a frame is inside of a function with it, that belongs to a coroutine that is suspended there and
/// may be resumed, or unwound. Then the context stays as it is, for good.
///
/// # Safety
///
/// The caller owns the context, no thread runs with it, and no further call is made with it.
pub(crate) unsafe fn give_up(context: &'static Context) {
    let _pass = Pass::new();
    // SAFETY: as the caller says.
    let header = unsafe { Header::of(context.ledger()) };
    if header.has_failed() {
        // No call has returned this error.
        drop(header.take());
    }
    if domain().is_idle(context) {
        // SAFETY: as the caller says, and no frame counts in the context. What is left in the
        // header are bytes that nothing reads, unless a call fails anew.
        unsafe { context.release() };
    } else {
        // SAFETY: as the caller says.
        unsafe { context.set_runner(0) };
    }
}

/// Makes `context` be given up after the thread's last destructor that may call generated code.
///
/// This is a pthread key, not a `thread_local` with a destructor: a destroyed `thread_local` cannot
/// be set again, and the destructor of another may call a function later. A key can be set again,
/// and the system then runs its destructor once more.
fn release_at_exit(context: &'static Context) {
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();

    extern "C" fn release(context: *mut c_void) {
        switch(None);
        // SAFETY: `register` has set the key to this context, which lives as long as the process.
        // The thread ends, has forgotten the context, and so enters nothing with it again.
        unsafe { give_up(&*context.cast::<Context>()) };
    }

    let key = KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: the key is written to a local, and the destructor takes what it is set to.
        let result = unsafe { libc::pthread_key_create(&mut key, Some(release)) };
        (result == 0).then_some(key)
    });
    // Without a key the context stays with the thread for good: a ledger is lost with every thread,
    // which is not worth refusing calls for.
    if let Some(key) = key {
        // SAFETY: the key exists, and the destructor may use the context from any thread.
        unsafe { libc::pthread_setspecific(*key, ptr::from_ref(context).cast()) };
    }
}
