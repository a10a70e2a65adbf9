//! The checker accepts what the passes emit, and nothing that is almost that.

mod entries;
mod forwards;
mod gates;
mod mutant;
