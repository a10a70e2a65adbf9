//! Coroutines with fibers.

use corosensei::{Coroutine, CoroutineResult, Yielder};
use lastout::Fiber;
use lastout_tests::support::Callback;

type Suspend = Yielder<(), ()>;

/// Where a coroutine can be suspended from: by [`Callback`]s too, which a version calls.
#[derive(Clone, Copy)]
pub(crate) struct Pause(*const Suspend);

// SAFETY: only what the coroutine itself runs uses it, on whichever thread that is.
unsafe impl Sync for Pause {}
// SAFETY: as above.
unsafe impl Send for Pause {}

impl Pause {
    /// Suspends the coroutine, until it is resumed.
    pub(crate) fn pause(self) {
        // SAFETY: the coroutine that this is of is running, since this is called by it.
        unsafe { &*self.0 }.suspend(());
    }

    /// A callback that pauses, and returns its argument.
    pub(crate) fn callback(self) -> Callback<'static> {
        Callback::new(move |argument| {
            self.pause();
            argument
        })
    }
}

/// A coroutine.
pub(crate) struct Routine<R>(Coroutine<(), (), R>);

// SAFETY: what the coroutines of tests have on their stacks when they are suspended can be sent.
unsafe impl<R: Send> Send for Routine<R> {}

impl<R: 'static> Routine<R> {
    pub(crate) fn new(role: impl FnOnce(Pause) -> R + Send + 'static) -> Self {
        Self(Coroutine::new(move |yielder: &Suspend, ()| role(Pause(yielder))))
    }

    /// Runs it until it pauses or returns.
    pub(crate) fn resume(&mut self) -> Option<R> {
        match self.0.resume(()) {
            CoroutineResult::Yield(()) => None,
            CoroutineResult::Return(result) => Some(result),
        }
    }
}

/// A coroutine that runs in a fiber of its own.
pub(crate) struct Task<R> {
    pub(crate) fiber: Fiber,
    pub(crate) routine: Routine<R>,
}

impl<R: 'static> Task<R> {
    pub(crate) fn new(role: impl FnOnce(Pause) -> R + Send + 'static) -> Self {
        Self { fiber: Fiber::new().unwrap(), routine: Routine::new(role) }
    }

    /// Runs it until it pauses or returns.
    pub(crate) fn resume(&mut self) -> Option<R> {
        let Self { fiber, routine } = self;
        fiber.run(|| routine.resume())
    }
}
