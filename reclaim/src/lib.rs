//! The protocol by which the last thread to leave a retired function frees it: at once, exactly
//! once, and with nobody waiting for anybody.
//!
//! Code that is generated at run time and replaced while threads run it must not be freed under
//! them. Counting the threads inside is the obvious thing to do, and doing it *in* the function is
//! wrong twice: a caller may have loaded the address and not counted in yet, and a leaver may have
//! counted out and still have to return, through memory that is about to go. So the counting is
//! done by a *gate*, code that outlives what it guards; and it is done with plain loads and stores
//! in memory that only one thread writes, because a shared counter costs more than the call.
//!
//! This crate knows nothing of machine code. It has the words that threads share, the gate as a
//! list of [`Step`]s, and the slow path as Rust. `lastout-instrument` makes machine code from the
//! list; the models in this crate's tests interpret the same list and run the same slow path in
//! every order that the memory model allows.
//!
//! # When not to use it
//!
//! It manages versions of things that are entered and left like functions, in their thousands,
//! entered often and replaced seldom. For nodes of a data structure use `crossbeam-epoch` or
//! `seize`: a lane costs four bytes in every thread's ledger, and retiring costs a system call.
//!
//! # Terms
//!
//! - **Version**: what is freed; here only its *payload*, a value that is dropped exactly once.
//! - **[`Lane`]**: what one version after another occupies, each until its payload is dropped.
//! - **Gate**: a lane's [steps](Counting::gate): count in, check, call, count out, check.
//! - **Frame**: what a gate [that can be tail-called](Counting::tail_gate) leaves on the stack, the
//!   lane in it. A **transfer** is how a tail call [takes that frame over](Counting::transfer).
//! - **[`Context`]**: a thread, or whatever else calls. It has a **ledger**: a counter, or *cell*,
//!   for each lane of the **[`Domain`]**.
//! - **Slot**, **sites**: where callers find the gate of the lane that is current: a word, or calls
//!   that are patched. Nothing in this crate depends on which thread sees them change when.
//! - **Install, close, retire, drain, free**: a version is published; no caller can enter it any
//!   more; after a heavy fence its last frame may free it; its last frame leaves; its payload is
//!   dropped.
//! - **[`Hold`]**, **detour**: while a version is replaced in its place, callers are held, in code
//!   that gates call instead of the body.
//! - **Light fence, heavy fence**: an asymmetric pair. The light one keeps a thread's accesses in
//!   order in the program and costs nothing. The heavy one makes every running thread execute a
//!   full fence, wherever it is: [`membarrier`](membarrier()).
//!
//! The glossary of the repository, `runtime/docs/glossary.md`, has the terms of all its crates.
//!
//! # Where to go on
//!
//! The [protocol](docs::protocol) is seventeen rules. The chapter on the [races](docs::races) says
//! how each ends under these rules, and the one on the [models](docs::models) what is proved of
//! them, and how.

mod context;
pub mod docs;
mod domain;
mod error;
mod gate;
mod hold;
mod lane;
mod membarrier;
mod state;
mod sync;

#[cfg(test)]
mod models;

pub use context::{Context, HEADER_BYTES};
pub use domain::{Domain, Frames, Frozen};
pub use error::Error;
pub use gate::{Counting, Step};
pub use hold::Hold;
pub use lane::Lane;
pub use membarrier::{membarrier, register_membarrier};
pub use state::{State, StateWord};
