//! Where generated code finds the words of a lane and of its function.
//!
//! Code that is made for one lane has symbols instead. The runtime measures the distances in its
//! own types, and this crate does not know these.

/// Where a lane and its function have the words that entries and the code that gates share read, as
/// distances in bytes.
#[derive(Clone, Copy, Debug)]
pub struct LaneLayout {
    /// From a lane to a word that holds the address of its function.
    pub function: i32,
    /// From a lane to a word that holds what [`Symbol::CellOffset`](crate::Symbol::CellOffset) is.
    pub cell_offset: i32,
    /// From a function to the word that [`Symbol::Current`](crate::Symbol::Current) is.
    pub current: i32,
    /// From a function to a word that holds the address of the lane whose gate is in the slot.
    pub lane: i32,
    /// From a function that can be tail-called to a word that holds the address of what a call goes
    /// to if there is no version: [`zeros`](crate::zeros()), or of a resume entry and a parked call
    /// [what calls the fallback](crate::resume::call_fallback).
    pub no_version: i32,
}
