//! As in `patched`, the tests of replacements in place, which have many threads of their own.

#[path = "in_place.rs"]
mod in_place;
