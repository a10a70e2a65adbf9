//! The protocol.

mod context;
mod domain;
mod gate;
mod lane;
mod membarrier;
mod state;
mod sync;

#[cfg(test)]
mod models;

pub use context::Context;
pub use domain::{Domain, Frames};
pub use gate::{Counting, Step};
pub use lane::Lane;
pub use membarrier::{membarrier, register_membarrier};
pub use state::{State, StateWord};

/// What can go wrong here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The domain has as many lanes as it was made for.
    TooManyLanes,
    /// There is no memory for another context's ledger.
    TooManyContexts,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooManyLanes => "the domain has as many lanes as it was made for",
            Self::TooManyContexts => "no memory for another context's ledger",
        })
    }
}

impl std::error::Error for Error {}
