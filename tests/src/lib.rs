//! What the tests, the fuzz targets and the examples of lastout share.

pub mod clif;
