//! What can go wrong.

use std::fmt;

/// What can go wrong here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The domain has as many lanes as it was made for.
    TooManyLanes,
    /// There is no memory for another context's ledger.
    TooManyContexts,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyLanes => "the domain has as many lanes as it was made for",
            Self::TooManyContexts => "no memory for another context's ledger",
        })
    }
}

impl std::error::Error for Error {}
