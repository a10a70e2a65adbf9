//! The cases, with calls that go [by way of slots](lastout::Dispatch::Slot).

#[path = "../cases/mod.rs"]
mod cases;
