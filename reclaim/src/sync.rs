//! The words that threads share: `std`'s in a build, loom's under this crate's own tests.
//!
//! Besides the models, this is the only file that knows loom exists. The rest of the crate is the
//! same code in a program and in the models, except where a model asks for a [mutant](mutated).

#[cfg(test)]
pub(crate) use self::modelled::*;
#[cfg(not(test))]
pub(crate) use self::real::*;

/// A mistake that a model plants in the slow path, to see itself fail.
///
/// Each was made, or nearly made, while the protocol was designed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// `retire` publishes `Retired` before the heavy fence instead of after it.
    EarlyRetired,
    /// `leave` has no full fence.
    LeaveWithoutFence,
    /// The generation stays what it was when a lane is freed.
    NoGeneration,
    /// A caller that waits in a hold counts as inside.
    WaitersInside,
    /// A caller that is inside waits in a hold like others.
    RecursionWaits,
    /// Callers pass that are not inside.
    NobodyWaits,
    /// A caller that need not wait in a hold does not wait for the decision either.
    PassDecision,
    /// `wait` has no full fence.
    WaitWithoutFence,
    /// A caller that finds the next hold begun does not find what has ended the last.
    BeginWithoutRelease,
}

#[cfg(not(test))]
mod real {
    use std::alloc::{Layout, alloc_zeroed};
    pub(crate) use std::sync::atomic::{
        AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };

    use super::Mutant;

    /// How many cells are the header of a ledger: as many as there are in a line.
    pub(crate) const HEADER: u32 = LINE as u32;

    const LINE: usize = 16;

    /// `std`'s cell with the interface of loom's.
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    /// A cache line's worth of counters. What else is put into the header of a ledger needs this
    /// alignment; and with a greater one allocators would not give zeroed memory as they have it
    /// from the system.
    #[repr(C, align(16))]
    struct Line([AtomicU32; LINE]);

    /// The cells of a ledger.
    pub(crate) struct Cells(Box<[Line]>);

    impl Cells {
        /// So many counters that are zero, or `None` if there is no memory for them.
        ///
        /// The allocator is asked for zeroed memory, so that a large table costs only the pages of
        /// it that are ever counted in.
        pub(crate) fn zeroed(count: usize) -> Option<Self> {
            let lines = count.div_ceil(LINE);
            let layout = Layout::array::<Line>(lines).ok()?;
            if layout.size() == 0 {
                return Some(Self(Box::new([])));
            }
            // SAFETY: the layout is not of size zero.
            let start = unsafe { alloc_zeroed(layout) };
            if start.is_null() {
                return None;
            }
            let lines = std::ptr::slice_from_raw_parts_mut(start.cast::<Line>(), lines);
            // SAFETY: the memory comes from the global allocator with the layout of this very
            // slice, and lines of all zero bits are valid ones.
            Some(Self(unsafe { Box::from_raw(lines) }))
        }

        pub(crate) fn first(&self) -> *const AtomicU32 {
            self.0.as_ptr().cast()
        }

        pub(crate) fn get(&self, index: u32) -> &AtomicU32 {
            let index = index as usize;
            &self.0[index / LINE].0[index % LINE]
        }
    }

    /// Outside the models nothing is ever wrong on purpose.
    pub(crate) const fn mutated(_: Mutant) -> bool {
        false
    }
}

#[cfg(test)]
mod modelled {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{
        AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };

    use super::Mutant;

    /// What is in headers is none of the protocol's.
    pub(crate) const HEADER: u32 = 0;

    pub(crate) struct Cells(Box<[AtomicU32]>);

    impl Cells {
        pub(crate) fn zeroed(count: usize) -> Option<Self> {
            Some(Self((0..count).map(|_| AtomicU32::new(0)).collect()))
        }

        pub(crate) fn first(&self) -> *const AtomicU32 {
            self.0.as_ptr()
        }

        pub(crate) fn get(&self, index: u32) -> &AtomicU32 {
            &self.0[index as usize]
        }
    }

    std::thread_local! {
        // loom runs all threads of a model on the thread that runs the test.
        static MUTANT: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
    }

    /// Whether the model that runs has asked for this mistake.
    pub(crate) fn mutated(mutant: Mutant) -> bool {
        MUTANT.get() == Some(mutant)
    }

    /// Plants `mutant` in the models that this thread runs from now on.
    pub(crate) fn plant(mutant: Option<Mutant>) {
        MUTANT.set(mutant);
    }
}
