//! The chapters of this crate: what the protocol is, why it is right, and how that is checked.

#[doc = include_str!("../docs/protocol.md")]
pub mod protocol {}

#[doc = include_str!("../docs/races.md")]
pub mod races {}

#[doc = include_str!("../docs/models.md")]
pub mod models {}
