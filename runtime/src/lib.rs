//! Functions that can be replaced and dropped while threads run them: the last thread to leave an
//! old version frees its memory.
//!
//! An [`Engine`] knows functions by name. A [`Unit`], which is a
//! [`cranelift_module::Module`], is functions and data that are compiled and
//! [installed](Engine::install) together: every function that it exports gets a new *version*, and
//! the versions that these replace are freed as soon as the last frame has left them. A
//! [`Handle`] calls whichever version is current, from any thread.
//!
//! # When not to use it
//!
//! If code lives as long as the process, or if you can stop all threads before you free it,
//! `cranelift-jit` is simpler and calls are a nanosecond cheaper. A version that a thread never
//! leaves is never freed.
//!
//! # What is what
//!
//! - **Function**: a name and a signature. It stays while its versions come and go, and goes when
//!   nobody can call it any more: no handle, no unit that imports it, no name in the engine.
//! - **Version**: one definition of a function, installed by a unit. [`Version`] asks about it.
//! - **Payload**: what a version owns: the unit's code and data, and what you
//!   [attach](Unit::attach). The versions that one unit has installed share it, and it is dropped
//!   with the last of them; so what is to be freed by itself is put in a unit by itself.
//! - **Gate**: the code through which calls from outside of a unit go, and which counts them.
//! - **Entry**: a stable address of a function ([`Handle::c_address`]), for callers that know
//!   nothing of all this.
//!
//! # Calls
//!
//! [`Linkage`](cranelift_module::Linkage) says what a call means; the table is at [`Unit`]. In
//! short: within a unit calls are direct and cost nothing, unless the callee is `Preemptible`;
//! between units they always reach the current version.
//!
//! # Guarantees
//!
//! - No thread runs or returns into freed code. The protocol behind that, and what is proved about
//!   it, is described in [`lastout_reclaim`].
//! - A version is freed once, by the last thread to leave it or by the one that replaced it, and
//!   nobody waits: not callers, not leavers, not installers for callers.
//! - Install is all or nothing. When it has returned, no call that begins later runs a replaced
//!   version, and no thread ever goes back to an older version of a function. While it runs, calls
//!   may find some of the unit's functions new and others old.
//! - Errors are values; after one, what was current still is.
//!
//! # What the caller owes
//!
//! Running generated code is `unsafe`, and what that asks for is written at [`Handle`]'s `call`.
//! Generated code must not use the pinned register (it is refused), must not be unwound through or
//! jumped out of, and must return on the thread that called it. Panics end the process at the
//! boundary of `extern "C"` host functions. Tail calls and exception-catching calls of replaceable
//! functions are refused when they are defined.
//!
//! # Threads
//!
//! A thread's first call registers it; it has a table of counters until it ends, for which 16 MiB
//! of address space are reserved and a page or two used. Contexts are the process's: a thread
//! registers once for all engines.
//!
//! # Departures from the first design
//!
//! - A removed function is met as zeros by generated code, and as [`Error::Removed`] by the host
//!   call that it happened in.
//! - The slot of a function is never empty: after removal it keeps the last gate, whose lane is
//!   closed, and the gate finds in a second word that there is nothing to go on with.
//! - The slow path is called through stubs that keep every register. Called as C functions, they
//!   would make every pass through a gate save what it is about to return.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

mod adopted;
mod builder;
mod engine;
mod error;
mod fork;
mod function;
mod handle;
mod install;
mod link;
mod memory;
mod names;
mod payload;
mod relocation;
mod shared;
mod sys;
mod template;
mod thread;
mod types;
mod unit;
mod version;

pub use adopted::Adopted;
pub use builder::EngineBuilder;
pub use engine::{Engine, Stats};
pub use error::{Error, Result};
pub use handle::Handle;
pub use install::Installed;
pub use payload::DropPolicy;
pub use types::{FunctionType, HostFunction, Returned, Value};
pub use unit::Unit;
pub use version::{ThreadFrames, Version, VersionInfo, VersionState};

pub use cranelift_codegen;
pub use cranelift_module;
pub use lastout_reclaim::Counting;
