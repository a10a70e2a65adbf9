//! What stands between callers and functions that are replaced while threads run them, made in
//! Cranelift IR and in machine code.
//!
//! A replaceable function is called through a *gate*. The gate counts the caller in, calls the
//! *body*, which is the code of the current version, and counts the caller out; a caller that was
//! the last one in a retired version tells the runtime, which frees that version. A gate belongs to
//! one *lane* of the function, and reaches the counts of its thread by the *ledger*, whose address
//! is in the pinned register. What the counts mean is described in [`lastout_reclaim`].
//!
//! What this crate does not do:
//! - It does not link, and it does not own memory. It makes and rewrites functions, and
//!   says what the [symbols](Symbol) in them mean; the runtime compiles and links them.
//! - It adds no counting to the bodies of functions. A pass changes only calls of replaceable
//!   functions, addresses taken of them, and what is marked as a point.
//! - It does not unwind. Gates and entries have frames that can be unwound by their frame pointers,
//!   and [`GateFrame`] says where an unwinder finds the lane to be counted out of, and the pinned
//!   register. If an unwinder ignores it, the count stays one too high, and the version is never
//!   freed.
//! - It has no gates that can be tail-called for other architectures than x86-64. There, tail calls
//!   and `try_call`s of replaceable functions are refused.
//! - It does not save the pinned register for code that does not know of it, except in entries.
//!   Code that calls gates is compiled with `enable_pinned_reg`, uses that register for nothing
//!   else, and is compiled with `preserve_frame_pointers`, without which an unwinder does not find
//!   frames.
//!
//! # The passes
//!
//! - [`gate()`] makes the gate of a lane in CLIF. It lowers the steps of
//!   [`lastout_reclaim::Counting::gate`], which the models of the protocol interpret, too.
//!   [`machine_gate`] lowers the same steps to machine code, and [`tail_gate`] makes the gate of
//!   functions that can be tail-called.
//! - [`route_calls`] rewrites a function so that its calls of replaceable functions reach the
//!   current version, and an address that it takes of one is the function's *stable entry*.
//! - [`host_entry`], [`c_entry`] and [`machine_entry`] make the entries for code that does not have
//!   the ledger in the pinned register.
//! - [`machine_detour`] makes what gates call instead of the body while callers are held,
//!   [`preserving_stub`] what they call the runtime through, and [`zeros()`] what a tail call goes
//!   to if the function was removed.
//! - [`resume`] makes of a function with marked points the functions by which its frames go on in
//!   another version.
//! - [`check_gate`] and [`check_entry`] prove of CLIF that it is a gate or an entry, without
//!   knowing how it was made. What is machine code is proved by this crate's tests.

// What all the others know.
mod error;
mod frame;
mod gate_options;
mod lane_layout;
mod machine_code;
mod signature;
mod symbol;

// What is made for each signature.
mod clif;
mod machine;
mod x86_64;

// What is done to functions, and proved of gates.
mod checker;
mod dispatch;
pub mod resume;

pub use checker::{Rule, Violation, check_entry, check_gate};
pub use clif::entry::{c_entry, host_entry};
pub use clif::gate::gate;
pub use clif::stub::preserving_stub;
pub use clif::zero::zeros;
pub use dispatch::{Callee, Dispatch, route_calls};
pub use error::Error;
pub use frame::GateFrame;
pub use gate_options::GateOptions;
pub use lane_layout::LaneLayout;
pub use machine::{
    can_be_tail_called, machine_detour, machine_entry, machine_gate, machine_tails, stack_bytes,
    tail_gate, tail_gate_head,
};
pub use machine_code::{Fixup, MachineCode, MachineGate};
pub use signature::check_signature;
pub use symbol::{Symbol, symbol_name};
pub use x86_64::MACHINE_GATE;
