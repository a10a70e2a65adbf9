//! Cranelift IR for functions that can be replaced.
//!
//! What this crate does not do:
//! - It does not link, and compiles nothing but the gates and entries that it has in machine code:
//!   it makes and rewrites CLIF, and says what the symbols in it mean. The runtime compiles, links,
//!   and owns the memory.
//! - It changes nothing in a function but calls, and addresses taken, of replaceable functions, and
//!   what is marked as a point. It adds no counting to their bodies; that is done around them.
//! - It does not unwind. Gates and entries have frames that can be unwound by their frame pointers,
//!   and [`GateFrame`] says what is where in them: so whoever unwinds can count out, and put back
//!   the pinned register. If nobody does, the count stays one too high, and the version is never
//!   freed.
//! - Tail calls go through gates on x86-64 only. Elsewhere they are refused, and so is `try_call` of
//!   a replaceable function.
//! - It does not save the pinned register for code that does not know of it, apart from the
//!   entries. Whoever compiles the functions sets `enable_pinned_reg` and uses that register for
//!   nothing else, and sets `preserve_frame_pointers`, without which frames are not found.
//!
//! # The passes
//!
//! - [`gate()`] emits what every call of a replaceable function passes: it counts the caller in,
//!   calls the *body*, the current code, counts out, and tells the runtime if it was the last to
//!   leave a retired version. It lowers the steps in [`lastout_reclaim::Counting::gate`], which
//!   the models of the protocol interpret too.
//! - [`machine_gate`] lowers the same steps to machine code, on x86-64 and where all arguments are
//!   in registers: a gate of 74 bytes, where that of Cranelift takes 245.
//! - [`tail_gate`] lowers those of functions with Cranelift's calling convention for tail calls. When
//!   a body tail-calls another function, its gate hands the frame on, so that the stack does not
//!   grow, and counts that body out. All such functions share the gate; each of their lanes has a
//!   [head](tail_gate_head) of it.
//! - [`route_calls`] rewrites a function so that its calls of replaceable functions, of whichever
//!   kind, load the gate from their *slot*, or are direct calls of the gate that are to be patched
//!   ([`Dispatch`]), and so that an address it takes of one is the *stable entry*.
//! - [`host_entry`] and [`c_entry`] emit the ways in for code that does not have the *ledger*, the
//!   thread's table of counts, in the pinned register: gates themselves, for whichever lane is
//!   current, or calls of that lane's gate where it can be tail-called. [`machine_entry`] does the
//!   first of these in machine code.
//! - [`machine_detour`] makes what gates call instead of the body while callers are held.
//! - [`preserving_stub`] emits what a gate's rare calls of the runtime go through, and [`zeros()`]
//!   what a call comes to that can be a tail call, if the function was removed.
//! - [`resume`] makes of a function with marked points the functions by which its frames go on in
//!   another version.
//! - [`check_gate`] and [`check_entry`] prove of CLIF, without knowing where it is from, that it is
//!   a gate or an entry. What is machine code is proved by this crate's tests.
//!
//! # Symbols
//!
//! A gate belongs to one *lane* of one function, but its instructions depend on the signature
//! only. So whatever differs between lanes is a [`Symbol`], a name that the linker resolves: a
//! gate is compiled once for a signature, and its bytes are copied and relocated for each lane.
//! The same goes for entries. Names have the form `u<namespace>:<index>`; `cranelift_module` uses
//! the first two namespaces, for functions and for data, and [`symbol_name`] the ones after.
//! [`Symbol::CellOffset`] is a number, not an address: relocations do not mind.
//!
//! # Example
//!
//! The gate of every function that takes and returns an `i64`:
//!
//! ```
//! use cranelift_codegen::ir::{AbiParam, Signature, types};
//! use cranelift_codegen::isa::CallConv;
//! use cranelift_codegen::settings::{self, Configurable};
//! use lastout_instrument::{GateOptions, check_gate, gate};
//! use lastout_reclaim::Counting;
//!
//! let mut flags = settings::builder();
//! flags.set("enable_pinned_reg", "true")?;
//! flags.set("preserve_frame_pointers", "true")?;
//! let isa = cranelift_native::builder()?.finish(settings::Flags::new(flags))?;
//!
//! let mut signature = Signature::new(CallConv::SystemV);
//! signature.params.push(AbiParam::new(types::I64));
//! signature.returns.push(AbiParam::new(types::I64));
//!
//! let options = GateOptions { counting: Counting::Plain, interleave: false };
//! let gate = gate(&signature, options, &*isa)?;
//! check_gate(&gate, &*isa)?;
//! println!("{gate}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `tests/golden/gate-plain.clif` has what it prints, with the symbols named. The call of the body
//! is marked with a source location, by which [`GateFrame`] knows it.

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
