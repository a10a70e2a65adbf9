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
//! leaves is never freed, unless its frames can [move](#what-never-returns).
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
//! How such a call finds the current version is chosen for each engine: [`Dispatch`]. It loads the
//! gate from the function's *slot*, or it is a direct call that is patched whenever the function is
//! replaced, while threads execute it. The second way saves a load, which is seldom what a call
//! waits for, and costs an update of every call site; the README has figures and says who wins
//! when. Both are followed by the same gates, and freed by the same protocol.
//!
//! # What never returns
//!
//! A loop that serves for ever, or a frame that waits for a call that does not return, stays in its
//! version, and keeps it. A front end can let such frames go on in the version that is current:
//!
//! - **Loops move over.** It marks the header of a loop as a point. A frame of a replaced version that
//!   comes by goes on at the same point of the new one.
//! - **Suspended frames move over.** It marks a call as a point. While the call is in progress the
//!   frame is of no version, and when the call returns it goes on in the version that is current
//!   then; the old one has been freed without waiting for it.
//!
//! Both are done by [`Unit::define_resumable_function`], and take a function of
//! [`CallConv::Tail`](cranelift_codegen::isa::CallConv), since moving is a tail call. The counts move
//! along, no return address is changed, and however often a frame moves, its stack does not grow.
//! How that is made is described at [`lastout_instrument::resume`].
//!
//! A frame at a point that the new version does not have, by its number and the types of what is
//! alive there, stays where it is; [`Engine::versions`] shows it. It moves as soon as there is a
//! version that has the point.
//!
//! # Guarantees
//!
//! - No thread runs or returns into freed code. The protocol behind that, and what is proved about
//!   it, is described in [`lastout_reclaim`].
//! - A version is freed once, by the last thread to leave it or by the one that replaced it, and
//!   nobody waits: not callers, not leavers, not installers for callers. The exception is asked
//!   for: [`Engine::replace_in_place`] has callers wait until nobody is inside.
//! - Install is all or nothing. When it has returned, no call that begins later runs a replaced
//!   version. While it runs, calls may find some of the unit's functions new and others old. With
//!   [slots](Dispatch::Slot), no thread ever goes back to an older version of a function; with
//!   [patched calls](Dispatch::PatchedSites), one that was held up just before a gate may, while an
//!   install is under way.
//! - Errors are values; after one, what was current still is.
//!
//! # What the caller owes
//!
//! Running generated code is `unsafe`, and what that asks for is written at [`Handle`]'s `call`.
//! Generated code must not use the pinned register (it is refused), nor be jumped out of.
//!
//! Functions can be entered by calls, tail calls, through addresses and from signal handlers, and
//! left by return, panics, exceptions and traps, on threads that end, processes that fork and
//! coroutines that wander: the page on that is [`contract`]. Whichever way, the count is exact.
//!
//! # How calls are patched
//!
//! With [`Dispatch::PatchedSites`], a call of a replaceable function is a direct call of the gate
//! of its current lane. An install that brings another lane into use changes every such call in
//! every unit that is alive, while threads execute them.
//!
//! **A thread executes the old call or the new one, never a mixture.** What changes is the
//! distance in a call or jump, nothing of the instruction itself, and it changes by one store:
//!
//! - On x86-64 the four bytes of the distance have to lie within eight bytes that are aligned. An
//!   aligned store of these is atomic, and AMD's manual (volume 2, "Cross-Modifying Code") allows
//!   just that for code that others may be executing. Intel's gives no such promise for any change
//!   without a handshake, but the same is what `HotSpot` does to its calls on all such processors,
//!   and the word is never split, neither between cache lines nor between the blocks in which
//!   instructions are fetched.
//! - On aarch64 an instruction is an aligned word, and a call or jump may become another of its
//!   kind while others execute it (Arm ARM, "Concurrent modification and execution of
//!   instructions").
//!
//! On x86-64 Cranelift does not align calls, and about three in eight would not lie like that. So a
//! function is placed up to seven bytes later than it would be, wherever most of its calls do: all
//! of them if there are one or two. A call that still does not is never changed. It calls an
//! aligned jump at the end of the unit's code, one for each function that is called so, and that
//! jump is what changes. Nothing is out of reach, as the code of an engine is near enough for any
//! call in it.
//!
//! **It does not matter which one it executes.** Old and new target are both gates, and gates stay
//! for as long as their function does, which the unit keeps that the call is in. A thread that has
//! fetched the old call, however long ago, comes to the gate of a lane that is closed, and bails to
//! what is current; or to one that has been occupied again, and runs the version in it, counted in
//! the right place. So the protocol does not rest on sites, as it does not on slots: the models of
//! `lastout-reclaim` run with both.
//!
//! **Install keeps its promise.** The replaced lanes are closed before the first site changes. From
//! then on nobody enters them, by whatever way; what the sites still cost until they have all
//! changed is a bail. The heavy fence after it serializes all running threads, so that no call that
//! begins after install has returned is one that was fetched before.
//!
//! One thing is weaker than with slots. A thread that comes to the gate of a version that was
//! replaced before the last one was, being held up for so long, goes on to what is current, or
//! finds the next version in that lane; it may do so just before the last one is closed, and meet
//! that once more in its next call. With slots the slot has changed by then. The models show that
//! nobody else goes back, provided that who executes a new call finds the lane closed that was
//! closed before the call was changed: as on x86-64, where both stores and the fetch and the load
//! that follows it are in order. Elsewhere more threads may go back, until the heavy fence; nothing
//! else depends on it.
//!
//! # Memory
//!
//! Versions are packed into one range of addresses per engine, of a size that is
//! [set](EngineBuilder::code_memory) when it is made. Freed memory is joined, used again, and given
//! back to the system when whole pages are empty. What is executable is never writable, freed code
//! is filled with traps, and a [strict](EngineBuilder::strict) engine has no view through which
//! code could be written, but for the moment in which it patches calls or replaces a version in its
//! place. Gates, lanes, slots and
//! entries go with their function; only what functions of a signature have in common stays for as
//! long as the engine does.
//!
//! [`Adopted`] code of others, such as a `JITModule` or a loaded library, is installed and replaced
//! like a unit; its owner is told to let go when the last thread has left.
//!
//! # Fork
//!
//! After `fork` both processes go on calling, installing and freeing, and neither sees what the
//! other does: the first to change code makes itself a copy. The thread that forks may be inside
//! any function, and a suspended [`Fiber`] goes on in both.
//!
//! The child does not have the other threads, nor the fibers that these were running. What only they
//! were inside of is freed by the first install, adoption, removal, collection or drop of its engine
//! that the child does; not before, as a child that does nothing but `exec` has no use for
//! destructors. What another thread was freeing at that moment, and what was left of an engine that
//! had been dropped, stays in the child for good.
//!
//! A process that is copied without running `pthread_atfork` handlers must not install or free
//! anything.
//!
//! # Threads
//!
//! Units can be compiled, linked and installed on any number of threads; only the moment of
//! publication is one at a time.
//!
//! A thread's first call registers it; it has a table of counters until it ends, for which 16 MiB
//! of address space are reserved and a page or two used. Contexts are the process's: a thread
//! registers once for all engines. What belongs to a call is kept with the context, not with the
//! thread, as a [`Fiber`]'s calls begin on one thread and end on another.
//!
//! # Departures from the first design
//!
//! - A removed function is met as zeros by generated code, and as [`CallError::Removed`] by the
//!   host call that it happened in.
//! - The slot of a function is never empty: after removal it keeps the last gate, whose lane is
//!   closed, and the gate finds in a second word that there is nothing to go on with.
//! - All code has frame pointer frames, gates and entries too, so that one rule unwinds all of it
//!   and an engine registers one table with the system's unwinder, however much it installs and
//!   frees; the rest is said by a map of code by address. A table for each unit would have to be
//!   registered and found among all others: in libgcc before version 13 by looking at each.
//! - Functions with `CallConv::Tail` have a gate of another kind, whose frame is handed on by tail
//!   calls; see [`lastout_instrument::tail_gate`]. Their lanes come from a pool, since a body that
//!   tail-calls may be the last that keeps what it calls.
//! - On x86-64, gates whose arguments and results are all in registers are made of machine code
//!   that is written down, from the same list of steps as those that are CLIF: see
//!   [`lastout_instrument::machine_gate`]. They are a third as large.
//! - Entries do not go through a gate, but are gates for the lane that is current as the call
//!   begins: a call from the host is one call less. Handles have theirs in
//!   [machine code](lastout_instrument::machine_entry), too.
//! - A call site that cannot be patched, because its bytes do not lie in an aligned word, goes by
//!   way of a jump of its unit's that can, and not through the slot: a load less, and one patch for
//!   all such calls of a function in a unit. [`Stats`] says how many there are.
//! - A point at which a function is resumed is itself a replaceable function, and a frame moves by
//!   tail-calling it: so there is no code of its own for moving, and what is proved and tested of
//!   tail calls holds for it.
//! - There is no crate for the free ranges of code memory. Those that were looked at either fix how
//!   many allocations there can be, and pay for all of them when they are made, or look at every
//!   gap to find the best.
//! - The slow path is called through stubs that keep every register. Called as C functions, they
//!   would make every pass through a gate save what it is about to return.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

#[doc = include_str!("../docs/contract.md")]
pub mod contract {}

mod adopted;
mod builder;
mod code_map;
mod engine;
mod error;
mod fiber;
mod fork;
mod function;
mod handle;
mod in_place;
mod install;
mod link;
mod memory;
mod names;
mod payload;
mod points;
#[cfg(test)]
mod process;
#[cfg(test)]
mod refusals;
mod relocation;
mod resumable;
mod retirement;
mod shared;
mod sites;
mod sys;
mod template;
mod thread;
mod types;
mod unit;
mod unwind;
mod version;

pub use adopted::Adopted;
pub use builder::EngineBuilder;
pub use engine::{Engine, Stats};
pub use error::{CallError, Error, FunctionName, Result};
pub use fiber::Fiber;
pub use handle::Handle;
pub use install::Installed;
pub use payload::DropPolicy;
pub use resumable::ResumePoints;
pub use types::{FunctionType, HostFunction, Returned, Value};
pub use unit::Unit;
pub use unwind::traps::{Trap, TrapCause};
pub use unwind::{Exception, Location, Part, Uncaught, throw};
pub use version::{ThreadFrames, Version, VersionInfo, VersionState};

pub use cranelift_codegen;
pub use cranelift_module;
pub use lastout_instrument::Dispatch;
pub use lastout_instrument::resume::{Live, Place, ResumePoint};
pub use lastout_reclaim::Counting;
