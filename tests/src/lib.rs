//! What the tests, the fuzz targets and the examples of lastout share.

pub mod architecture;
pub mod child;
pub mod clif;
pub mod conformance;
pub mod coroutine;
#[cfg(test)]
mod documents;
pub mod emit;
pub mod layers;
pub mod measure;
pub mod moving;
pub mod ops;
pub mod programs;
pub mod random;
pub mod registers;
pub mod signature;
pub mod support;
pub mod timed;

/// The example in the README compiles and runs. It is tested here, as the packages that are published
/// have no workspace around them.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
