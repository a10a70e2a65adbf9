//! Forked processes that tell how they fared, and what they agree by.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// After how long a test has failed that waits for another process.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_micros(200);

/// Which of the two processes after a fork this is.
pub(crate) enum Forked {
    Parent(Child),
    Child,
}

/// Forks.
pub(crate) fn split() -> Forked {
    // SAFETY: the child goes on with what of this program is made to be gone on with: the engine,
    // and the C library's allocator.
    match unsafe { libc::fork() } {
        -1 => panic!("cannot fork: {}", std::io::Error::last_os_error()),
        0 => {
            report_panics();
            Forked::Child
        }
        process => Forked::Parent(Child { process, joined: false }),
    }
}

/// Forks, with `role` being all that the child does.
pub(crate) fn fork(role: impl FnOnce()) -> Child {
    match split() {
        Forked::Parent(child) => child,
        Forked::Child => end(role),
    }
}

impl Forked {
    /// Runs `role` in both processes, telling each whether it is the child. Only the parent
    /// returns, after the child has done well.
    pub(crate) fn both(self, role: impl FnOnce(bool)) {
        match self {
            Self::Parent(child) => {
                role(false);
                child.join();
            }
            Self::Child => end(|| role(true)),
        }
    }
}

/// Ends the child. It must not return into the test harness, whose other threads it lacks.
fn end(role: impl FnOnce()) -> ! {
    let failed: Result<(), Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(role));
    // SAFETY: nothing of this process is to be flushed or destroyed.
    unsafe { libc::_exit(i32::from(failed.is_err())) }
}

/// Has panics written to the terminal: what the harness captures is lost with this process.
fn report_panics() {
    set_hook(Box::new(|info| {
        let message = format!("in a forked process: {info}\n");
        // SAFETY: the message is this long. Unlike those of `eprintln`, the call takes no lock.
        unsafe { libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len()) };
    }));
}

/// Runs `role` on another thread of a forked process. Threads of the standard library take locks
/// of its own, which a fork may have found held.
pub(crate) fn on_another_thread(mut role: impl FnMut() + Send) {
    type Role<'a> = &'a mut (dyn FnMut() + Send);

    extern "C" fn start(role: *mut c_void) -> *mut c_void {
        // SAFETY: it is the role of the function below, which waits for this one to return.
        unsafe { (*role.cast::<Role<'_>>())() };
        null_mut()
    }

    let mut role: Role<'_> = &mut role;
    let mut thread = 0;
    // SAFETY: what the thread is given stays until it has been joined, and may be sent to it.
    unsafe {
        assert_eq!(libc::pthread_create(&mut thread, null(), start, (&raw mut role).cast()), 0);
        assert_eq!(libc::pthread_join(thread, null_mut()), 0);
    }
}

/// A child, killed when dropped.
pub(crate) struct Child {
    process: libc::pid_t,
    joined: bool,
}

impl Child {
    /// Waits for the child to end, and fails if it did.
    #[track_caller]
    pub(crate) fn join(mut self) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            let mut status = 0;
            // SAFETY: it is a child that nobody has waited for, and the status is a local.
            match unsafe { libc::waitpid(self.process, &mut status, libc::WNOHANG) } {
                0 => assert!(Instant::now() < deadline, "a forked process does not end"),
                -1 => panic!("cannot wait: {}", std::io::Error::last_os_error()),
                _ => break status,
            }
            thread::sleep(PAUSE);
        };
        self.joined = true;
        assert!(!libc::WIFSIGNALED(status), "a forked process met signal {}", status & 0x7f);
        assert_eq!(libc::WEXITSTATUS(status), 0, "a forked process has failed");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.joined {
            // SAFETY: it is a child that nobody has waited for, so its number is still its own.
            unsafe {
                libc::kill(self.process, libc::SIGKILL);
                libc::waitpid(self.process, null_mut(), 0);
            }
        }
    }
}

/// How far two processes have come: a number that both see.
#[derive(Clone, Copy)]
pub(crate) struct Stage(&'static AtomicU32);

impl Stage {
    /// At 0.
    pub(crate) fn new() -> Self {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let len = size_of::<AtomicU32>();
        // SAFETY: a new mapping at an address of the system's choice disturbs nothing.
        let shared = unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) };
        assert_ne!(shared, libc::MAP_FAILED);
        // SAFETY: it is mapped for as long as the process lives, starts out as zero, and is only
        // used as an atomic.
        Self(unsafe { &*shared.cast::<AtomicU32>() })
    }

    pub(crate) fn reach(self, number: u32) {
        self.0.store(number, Ordering::SeqCst);
    }

    pub(crate) fn reached(self, number: u32) -> bool {
        self.0.load(Ordering::SeqCst) >= number
    }

    /// Waits for the other process.
    #[track_caller]
    pub(crate) fn wait_for(self, number: u32) {
        let deadline = Instant::now() + PATIENCE;
        while !self.reached(number) {
            assert!(Instant::now() < deadline, "the other process does not come to {number}");
            thread::sleep(PAUSE);
        }
    }
}
