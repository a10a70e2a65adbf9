//! Coroutines that call functions, with and without fibers.

#![expect(clippy::missing_panics_doc, reason = "whatever fails here fails the test")]

use corosensei::{Coroutine, CoroutineResult, Yielder};
use lastout::Fiber;

use crate::support::Callback;

type Suspend = Yielder<(), ()>;

/// Where a coroutine can be suspended from: by [`Callback`]s too, which a version calls.
#[derive(Clone, Copy)]
pub struct Pause(*const Suspend);

// SAFETY: only what the coroutine itself runs uses it, on whichever thread that is.
unsafe impl Sync for Pause {}
// SAFETY: as above.
unsafe impl Send for Pause {}

impl Pause {
    /// Suspends the coroutine, until it is resumed.
    pub fn pause(self) {
        // SAFETY: the coroutine that this is of is running, since this is called by it.
        unsafe { &*self.0 }.suspend(());
    }

    /// A callback that pauses, and returns its argument.
    pub fn callback(self) -> Callback<'static> {
        Callback::new(move |argument| {
            self.pause();
            argument
        })
    }
}

/// A coroutine.
pub struct Routine<R>(Coroutine<(), (), R>);

// SAFETY: what the coroutines of tests have on their stacks when they are suspended can be sent.
unsafe impl<R: Send> Send for Routine<R> {}

impl<R: 'static> Routine<R> {
    /// A coroutine that does this when it is first resumed.
    pub fn new(role: impl FnOnce(Pause) -> R + Send + 'static) -> Self {
        Self(Coroutine::new(move |yielder: &Suspend, ()| role(Pause(yielder))))
    }

    /// Runs it until it pauses or returns.
    pub fn resume(&mut self) -> Option<R> {
        match self.0.resume(()) {
            CoroutineResult::Yield(()) => None,
            CoroutineResult::Return(result) => Some(result),
        }
    }
}

/// A coroutine that runs in a fiber of its own.
pub struct Task<R> {
    /// The fiber.
    pub fiber: Fiber,
    /// What runs there.
    pub routine: Routine<R>,
}

impl<R: 'static> Task<R> {
    /// As [`Routine::new`].
    pub fn new(role: impl FnOnce(Pause) -> R + Send + 'static) -> Self {
        Self { fiber: Fiber::new().unwrap(), routine: Routine::new(role) }
    }

    /// Runs it until it pauses or returns.
    pub fn resume(&mut self) -> Option<R> {
        let Self { fiber, routine } = self;
        fiber.run(|| routine.resume())
    }
}
