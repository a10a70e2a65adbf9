//! The guide: how this library is meant to be used, what it costs, and where it ends.
//!
//! The protocol, its races and its models are described in [`lastout_reclaim`], and what is made of
//! a function's code in [`lastout_instrument`].

#[doc = include_str!("../docs/calls.md")]
pub mod calls {}

#[doc = include_str!("../docs/code-memory.md")]
pub mod code_memory {}

#[doc = include_str!("../docs/contract.md")]
pub mod contract {}

#[doc = include_str!("../docs/frames-that-move.md")]
pub mod frames_that_move {}

#[doc = include_str!("../docs/limits.md")]
pub mod limits {}

#[doc = include_str!("../docs/glossary.md")]
pub mod glossary {}
