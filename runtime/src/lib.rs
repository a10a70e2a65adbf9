//! Functions that can be replaced and dropped while threads run them: the last thread to leave an
//! old version frees its memory.
//!
//! An [`Engine`] knows functions by name. A [`Unit`], which is a [`cranelift_module::Module`], is
//! functions and data that are compiled and [installed](Engine::install) together. An install gives
//! each function that the unit exports a new *version*, and a [`Handle`] calls whichever version is
//! current, from any thread. A version that is replaced is freed as soon as the last frame has left
//! it. The [glossary](docs::glossary) has all terms.
//!
//! # Guarantees
//!
//! - No thread runs freed code, or returns into it. [`lastout_reclaim`] describes the protocol, and
//!   what is proved about it.
//! - A version is freed exactly once: by the last thread to leave it, or by the thread that
//!   replaces it if no other is inside. No thread waits for another, with one exception that is
//!   asked for: [`Engine::replace_in_place`] makes callers wait.
//! - Install is all or nothing. When it has returned, no call that begins later runs a version that
//!   it has replaced.
//! - Errors are values. After an error, what was current still is.
//!
//! Running generated code is `unsafe`; [`Handle`]'s `call` says what the caller owes.
//!
//! # Where to go on
//!
//! - [Calls and their cost](docs::calls): how calls find the current version, and are patched
//! - [Code memory](docs::code_memory): where code lies, how it is written, and after a fork
//! - [Ways in and ways out](docs::contract): panics, exceptions, traps, signals, coroutines
//! - [Frames that move](docs::frames_that_move): versions that a thread would never leave
//! - [Limits](docs::limits): when not to use it, platforms, and what is reserved

pub mod docs;

// The layers, lowest first. Imports go down only, which a test of the workspace checks.
mod arch;
mod error;
mod types;
mod version;

mod host;

mod unwind;

mod code;

mod gates;

mod function;

mod unit;

mod engine;

pub use docs::contract;
pub use engine::builder::EngineBuilder;
pub use engine::install::Installed;
pub use engine::{Engine, Stats};
pub use error::{CallError, Error, FunctionName, Result};
pub use function::handle::Handle;
pub use host::fiber::Fiber;
pub use types::{FunctionType, HostFunction, Returned, Value};
pub use unit::Unit;
pub use unit::adopted::Adopted;
pub use unit::resumable::ResumePoints;
pub use unwind::throw;
pub use version::location::{Exception, Location, Part, Trap, TrapCause, Uncaught};
pub use version::payload::DropPolicy;
pub use version::{ThreadFrames, Version, VersionInfo, VersionState};

pub use cranelift_codegen;
pub use cranelift_module;
pub use lastout_instrument::Dispatch;
pub use lastout_instrument::resume::{Live, PointPosition, ResumePoint};
pub use lastout_reclaim::Counting;
