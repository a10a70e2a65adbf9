//! The state word of a lane.

use std::fmt;

/// Where a lane is in its cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum State {
    /// There is no version in it.
    Free = 0,
    /// There is a version in it, which can be entered.
    Live = 1,
    /// It can no longer be entered; not every thread can see yet which frames are inside.
    Closing = 2,
    /// It can no longer be entered; a thread that finds it empty may free it.
    Retired = 3,
    /// A thread has won the right to free it and is doing so.
    Freeing = 4,
}

/// A [`State`] and the generation of its lane, in one word.
///
/// ```text
///   63                                  3 2     0
///  +-------------------------------------+-------+
///  | generation: advances on every free  | state |
///  +-------------------------------------+-------+
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StateWord(u64);

impl StateWord {
    /// The state of a lane that has had no version yet.
    pub(crate) const NEW: Self = Self(State::Free as u64);

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// The state.
    pub const fn state(self) -> State {
        match self.0 & 7 {
            0 => State::Free,
            1 => State::Live,
            2 => State::Closing,
            3 => State::Retired,
            _ => State::Freeing,
        }
    }

    /// How many versions have been freed from this lane.
    pub const fn generation(self) -> u64 {
        self.0 >> 3
    }

    /// The same generation in another state.
    pub(crate) const fn with(self, state: State) -> Self {
        Self(self.0 & !7 | state as u64)
    }

    /// The next generation, free.
    pub(crate) const fn freed(self) -> Self {
        Self((self.generation() + 1) << 3).with(State::Free)
    }
}

impl fmt::Debug for StateWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}", self.state(), self.generation())
    }
}
