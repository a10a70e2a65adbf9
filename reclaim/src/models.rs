//! Models of the protocol: loom runs small programs of calls and replacements in every order, and
//! with every stale value, that the memory model allows.
//!
//! # What runs
//!
//! - The gate: a thread interprets the very lists that machine code is made from,
//!   [`Counting::gate`](crate::Counting::gate) and [`Counting::bail`](crate::Counting::bail), and
//!   of gates that can be tail-called [`Counting::tail_gate`](crate::Counting::tail_gate) and
//!   [`Counting::transfer`](crate::Counting::transfer).
//! - The slow path: [`Lane`](crate::Lane), [`Domain`](crate::Domain) and
//!   [`Context`](crate::Context) as they are, on loom's atomics instead of `std`'s.
//! - The code of a version: a cell that is written when the version is installed, read whenever a
//!   frame is in it, and written again when it is freed. So loom itself finds a free that does not
//!   happen after the last frame, and assertions find one under a frame, a second one, and none.
//!   In the same way gates, lanes and the words of functions are in [`memory`].
//!
//! # The fences
//!
//! The model is asymmetric, as the protocol is. The light fence is *nothing*. The heavy fence is
//! an *interrupt* that can hit a thread between any two steps of a gate, and makes it execute a
//! full fence there. Without spinning, this is a mutex for each thread, its pipeline:
//!
//! - a thread takes its own before each step and gives it back at once; that is an instant at
//!   which it may have been interrupted;
//! - a heavy fence takes every other thread's, executes a full fence, and gives it back.
//!
//! So a heavy fence falls between two instants of each thread. What the thread did before the
//! first is visible to the retirer after the fence, and what the retirer did before it is visible
//! to the thread after the second. Nobody but a thread itself and a heavy fence ever takes its
//! pipeline, so nothing else gets ordered by it. The step between the two instants is ordered
//! neither way, where an interrupt on a machine would come before or after it; and a thread in
//! the slow path has no instants, where a machine would interrupt it too. Both make the model
//! weaker than a machine, which is the safe side: no order that a machine allows is left out.
//!
//! Nor does it cost anything: nothing is accessed while a pipeline is held, so nobody ever waits
//! for one, and loom has one more choice for each step instead of a protocol of requests and
//! acknowledgements to explore.
//!
//! It is tempting to make both fences `fence(SeqCst)` and be done.
//! [`mutants::a_symmetric_model_is_blind`] shows what that would miss.
//!
//! # The two dispatches
//!
//! The protocol promises its safety whatever gate a caller comes to and whenever. So the models
//! have both ways in which the runtime lets callers find one, each with the order of changes that
//! an install has there, [`machine::Dispatch::order`]:
//!
//! - By the **slot**: one word, which changes before the new lane can be entered.
//! - By **sites**: words that change one after the other, once the old lane is closed. A thread
//!   makes its calls by two of them in turn, one of which may be the slot, as other callers go on
//!   using it. Patched code is a word here, as it is on a machine: it is written by one store, and
//!   what is fetched is the old call or the new one.
//!
//! Both words are loaded relaxed, so a caller may find any gate that was ever in it, up to the last
//! one that it knows to be replaced. That is how a call which was fetched long ago is modelled; and
//! in [`sound::stale_site`] a site is never patched at all.
//!
//! Two things depend on the order of changes. A caller that bails finds a gate to go on with that
//! is newer than where it comes from, or it would wait for an install to go on. And a thread does
//! not go *back*: having run a version it runs no older one. By the slot it never does, for who has
//! met a new body finds the slot set before. By sites there is an exception, which
//! [`sound::sites_in_order`] is exact about. Who comes to a gate so late that its version was
//! replaced before the last one was, may get to the newest before the last is closed: in the lane
//! that it came for, which is occupied again, or from there as it bails to what is current. Then
//! its next call may still find the last one. And all that is said of a machine on which who finds
//! a new site also finds what was stored before it, as when instructions are fetched in order and
//! before they load anything. Without, in [`sound::sites`], a thread may go back until the heavy
//! fence, and nothing else changes.
//!
//! # Tail calls
//!
//! A body may say which function to tail-call next, if its version was made to call that. Its frame
//! is over then, and the thread goes through the callee's gate by the steps of a transfer. That the
//! frames of gates are no more than the calls that are in progress is checked.
//!
//! Who keeps a function is counted in it, as the runtime does: its name in the engine, the handles
//! of the host, and versions that call it. What the runtime does when nobody is left is
//! [`ownership`]: it closes, fences and retires, and puts the lanes where other functions may get
//! them. Gates of a function that is gone stay with their lane until then. When engine and functions
//! are gone, as in the end of every execution, lanes and gates go.
//!
//! The steps of a gate after its body has returned are taken in the code of the gate that was
//! called first, as if it was there that the body returns to, though other gates have taken over
//! its frame since. A gate may as well have that part in common with all others.
//!
//! # Replacing in place
//!
//! A detour is a body that stands for another. A thread that comes to one runs
//! [`Hold`](crate::Hold) as it is, with a yield where it would wait, and the code is written over,
//! which must come after the last frame that was there, as a free must. The holder looks twice and
//! gives up then, as when its time is over. A signal may interrupt a thread, once, at a place where
//! it is counted in and not inside, and its handler calls the function too.
//!
//! # Points
//!
//! Where frames move is said by a *point*, of which the runtime keeps a table. The table is the
//! runtime's, so [`point`] says over again what it does: the order in which an install makes its
//! changes, the lock under which it does, and leases, which are counted as `Arc` and `Weak` do.
//! Gates, transfers and freeing are those of all other calls.
//!
//! A body that may tail-call the resume entry looks at its version's flag first. A tail call that finds no
//! version of a resume entry or a parked call goes *home*: the code that it comes from goes on, which has
//! to be there. But who comes from a parked call has no home, and that is checked. In the end the
//! resume entry is there if, and only if, the point is offered.
//!
//! # What is not modelled
//!
//! - Instructions: that a processor fetches the new code and not what was there before is the
//!   heavy fence's promise.
//! - Several functions that are published together, but those of a point.
//! - Points at which something else is alive, which are points of their own, and several waiting
//!   rooms of one.
//! - Lanes that are added, but for those of functions that are gone, see [`function::Function`].
//! - A name that is let go of while its function is being replaced: who replaces keeps it.
//! - More than three threads, and more preemptions than each test says. loom, too, is a little
//!   stronger than the language: to it, the later of two full fences synchronizes with the earlier.
//!
//! # Reading on
//!
//! [`machine`] is what can vary, [`memory`], [`function`], [`point`] and [`world`] are what there is,
//! [`call`], [`install`], [`in_place`] and [`ownership`] what happens to it, [`scenarios`] the
//! programs that run, [`events`] what must happen in them. [`sound`] says what holds in them;
//! [`mutants`] and [`literal`] are mistakes, each of which loom has to refute in a scenario that
//! without it passes. [`explore`] calls loom.
//!
//! `cargo test -p lastout-reclaim -- --nocapture` prints how many executions each takes.

mod call;
mod events;
mod explore;
mod function;
mod in_place;
mod install;
mod literal;
mod machine;
mod memory;
mod mutants;
mod ownership;
mod point;
mod scenarios;
mod sound;
mod world;
