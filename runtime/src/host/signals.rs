//! Signals: handlers for faults that keep earlier handlers, and a guard against other signals.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{
    SA_ONSTACK, SA_SIGINFO, SIG_DFL, SIG_IGN, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP, sigaction,
    siginfo_t, ucontext_t,
};

/// The signals that report faults, breakpoints among them: freed code is full of these.
const SIGNALS: [c_int; 5] = [SIGILL, SIGFPE, SIGSEGV, SIGBUS, SIGTRAP];

/// The action on each signal before these handlers were installed.
static BEFORE: OnceLock<[sigaction; SIGNALS.len()]> = OnceLock::new();

/// The earlier handlers that have taken themselves off since.
static GONE: [AtomicBool; SIGNALS.len()] = [const { AtomicBool::new(false) }; SIGNALS.len()];

/// May handle a signal that a fault of the thread has caused; returns whether it has.
type Catch = unsafe fn(c_int, &siginfo_t, &mut ucontext_t) -> bool;

/// Called before the earlier handlers.
static CATCH: OnceLock<Catch> = OnceLock::new();

/// Makes handlers call `catch` for these signals from now on, in this process. The first call
/// installs the handlers. They pass signals that `catch` does not handle on to the earlier ones.
///
/// # Errors
///
/// The system's error if it refuses the handlers.
pub(crate) fn catch_faults(catch: Catch) -> io::Result<()> {
    CATCH.get_or_init(|| catch);
    static INSTALLED: OnceLock<std::result::Result<(), c_int>> = OnceLock::new();
    let install_all = || {
        let current = |signal| action(signal, None);
        let mut before = [MaybeUninit::<sigaction>::zeroed(); SIGNALS.len()];
        for (before, signal) in before.iter_mut().zip(SIGNALS) {
            before.write(current(signal)?);
        }
        // SAFETY: all of them were written.
        let _ = BEFORE.set(before.map(|before| unsafe { before.assume_init() }));
        SIGNALS.into_iter().try_for_each(|signal| action(signal, Some(&own_action())).map(drop))
    };
    let installed = INSTALLED.get_or_init(install_all);
    installed.map_err(io::Error::from_raw_os_error)
}

/// The action that calls the handler below.
fn own_action() -> sigaction {
    // SAFETY: zeros are an action without flags or a mask.
    let mut own: sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    own.sa_sigaction = handle as *const () as usize;
    own.sa_flags = SA_SIGINFO | SA_ONSTACK;
    own
}

/// Returns the present action on a signal, and sets another if one is given.
fn action(signal: c_int, new: Option<&sigaction>) -> std::result::Result<sigaction, c_int> {
    let mut old = MaybeUninit::<sigaction>::zeroed();
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: both are actions, or null where there is none.
    match unsafe { libc::sigaction(signal, new, old.as_mut_ptr()) } {
        // SAFETY: the call has written it, and zeros are an action, too.
        0 => Ok(unsafe { old.assume_init() }),
        _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)),
    }
}

unsafe extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let caught = CATCH.get().is_some_and(|catch| {
        // SAFETY: the system passes these.
        unsafe { catch(signal, &*info, &mut *context.cast::<ucontext_t>()) }
    });
    if !caught {
        // SAFETY: as above.
        unsafe { as_before(signal, info, context) };
    }
}

/// Does what would have been done without these handlers.
unsafe fn as_before(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(number) = SIGNALS.iter().position(|&it| it == signal) else { return };
    let before = BEFORE.get().map(|before| &before[number]);
    let before = before.filter(|_| !GONE[number].load(Ordering::Relaxed));
    match before {
        // A signal that an instruction has caused cannot be ignored: it would be caused again.
        // SAFETY: the system passes it.
        Some(before) if before.sa_sigaction == SIG_IGN && unsafe { (*info).si_code } <= 0 => {}
        Some(before) if ![SIG_DFL, SIG_IGN].contains(&before.sa_sigaction) => {
            // SAFETY: the system passes these.
            unsafe { call(before, signal, info, context) };
            // For a fault that is none of its own, Rust's handler takes this one off for itself.
            let now = action(signal, None);
            if now.is_ok_and(|now| now.sa_sigaction == SIG_DFL) {
                GONE[number].store(true, Ordering::Relaxed);
                let _ = action(signal, Some(&own_action()));
            }
        }
        _ => {
            // SAFETY: zeros are the default action.
            let default: sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
            let _ = action(signal, Some(&default));
            // A signal that was sent does not come again by itself, as one of an instruction does
            // that is executed again.
            // SAFETY: the call sends the thread a signal, which it gets once this handler is over.
            unsafe { libc::raise(signal) };
        }
    }
}

/// Calls the handler of an action that has one.
unsafe fn call(action: &sigaction, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    type WithInfo = unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
    type Plain = unsafe extern "C" fn(c_int);

    // SAFETY: the flag says which of the two types the function has, and the system has passed the
    // arguments.
    unsafe {
        if action.sa_flags & SA_SIGINFO != 0 {
            let handler: WithInfo = std::mem::transmute(action.sa_sigaction);
            handler(signal, info, context);
        } else {
            let handler: Plain = std::mem::transmute(action.sa_sigaction);
            handler(signal);
        }
    }
}

/// While this exists, the thread takes no signals except those of its own faults.
pub(crate) struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    pub(crate) fn new() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: the sets are written before they are read, and the signals exist.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            SIGNALS.iter().for_each(|&signal| {
                libc::sigdelset(all.as_mut_ptr(), signal);
            });
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Self { before: before.assume_init() }
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set is the one that the thread had before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
    }
}
