//! The protocol by which the last thread to leave a retired function frees it: at once, exactly
//! once, and with nobody waiting for anybody.
//!
//! Code that is generated at run time and replaced while threads run it must not be freed under
//! them. Counting who is inside is the obvious thing to do, and doing it *in* the function is
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
//! - **[`Lane`]**: what a version occupies, from install until its payload is dropped. It
//!   stays where it is as long as anyone can reach its gate, and is used again.
//! - **Gate**: a lane's [steps](Counting::gate): count in, check, call, count out, check.
//! - **Frame**, **transfer**: what a gate [that can be tail-called](Counting::tail_gate) leaves on
//!   the stack while the body runs, with the lane in it; and [how](Counting::transfer) a tail call
//!   takes that frame over instead of leaving one of its own.
//! - **Slot**, **sites**: where callers find the gate of the lane that is current: a word, or calls
//!   that are patched. Not of this crate: nothing here depends on who sees them change when.
//! - **[`Context`]**: a thread, or whatever else calls. It has a **ledger**: a counter, or *cell*,
//!   for each lane of the **[`Domain`]**.
//! - **Install, retire, drain, free**: publish a version; unpublish it; its last frame leaves; its
//!   payload is dropped.
//! - **[`Hold`]**, **detour**: while a version is replaced in its place, callers are held, in code
//!   that gates call instead of the body.
//! - **Light fence, heavy fence**: an asymmetric pair. The light one keeps a thread's accesses in
//!   order in the program and costs nothing. The heavy one makes every running thread execute a
//!   full fence, wherever it is: [`membarrier`].
//!
//! # The words of a lane
//!
//! ```text
//!             written by                      read by
//!  body       occupy, divert, close           gates, at entry and at exit
//!  state      occupy, close, retire, freer    retirer and leavers
//!  payload    occupy, exchange, freer         freer
//!  cell[c]    context c, in gates             retirer, leavers and holder, of every c
//! ```
//!
//! `body` is the address to call, or 0 if the lane cannot be entered. `state` is a [`State`] and a
//! generation in one word:
//!
//! ```text
//!   63                                  3 2     0
//!  +-------------------------------------+-------+
//!  | generation: advances on every free  | state |
//!  +-------------------------------------+-------+
//!
//!            occupy          close           retire           try_free
//!     Free ---------> Live ---------> Closing -----> Retired ---------> Freeing
//!      ^                                                                   |
//!      +--------------------- payload dropped, generation + 1 -------------+
//! ```
//!
//! # The rules
//!
//! 1. Only its own context writes a cell, and only between the entry and the exit of a gate:
//!    frames are balanced within a context. A context that gives its place up is inside nothing.
//!    One thread at a time runs with a context, and the next one comes to know of all that the last
//!    one did. (A process that was forked lacks threads. It [empties](Domain::empty_vanished) their
//!    contexts, with which nobody runs, and then [tries](Lane::leave) every lane that is `Retired`.)
//! 2. Only the installer, one at a time for each lane, takes a lane from `Free` to `Live` to
//!    `Closing`, and only it writes `body`.
//! 3. Only the retirer takes it from `Closing` to `Retired`, and only after a heavy fence.
//! 4. Anyone may take it from `Retired` to `Freeing` who, in this order, has executed a full fence,
//!    has read `Retired` with some generation, has then read 0 in the lane's cell of every ledger,
//!    and exchanges that very word, generation and all. That is the *freer*.
//! 5. Only the freer touches the payload then, and takes the lane to `Free`.
//! 6. Nobody runs a body that was not loaded between counting in and counting out.
//! 7. Who counts out and then finds `body` 0, whether it has run the body or bailed, calls
//!    [`Lane::leave`].
//!
//! Where there are tail calls, a function may be left by whoever kept it while a call is inside. So
//! there it is written down who keeps what:
//!
//! 8. A call is counted in the lane that is in its frame. A gate that is tail-called counts in at
//!    its own lane and finds the body there before it puts that lane into the frame and counts out
//!    of the one that it finds in it. Until then it may bail, and starts again as what it was.
//! 9. A version keeps every function that its code calls, its own if it calls that. Who calls from
//!    elsewhere keeps the function until the call returns.
//! 10. Who lets go of a function last closes the lane that is live, executes a heavy fence and
//!     retires it, as for a removal. The payload is dropped by the last to leave.
//! 11. A lane stays where it is until all functions are gone that lanes may pass between, and its
//!     gate until the lane is taken for another function. It is taken only when the function that
//!     had it is gone and it is `Free`, and it keeps its generation.
//!
//! Where a version is replaced in its place, by a [`Hold`]:
//!
//! 12. Only the installer has gates call the detour, and only it has them call the body again; in
//!     between others may close the lane.
//! 13. Who comes to the detour waits, and is noted as one that waits before it does; or it goes on
//!     after a full fence if it then finds that nobody decides, and either nobody holds callers, or
//!     it has frames in the lane besides those that wait, or it has waited before.
//! 14. The holder writes code and payload only if, in this order, it has had gates call the detour,
//!     has executed a heavy fence, has said that it decides, has executed a full fence, and has
//!     read as many frames in the lane's cell of every ledger as there are callers that wait. It
//!     decides until it has written.
//!
//! # The races, and how each ends
//!
//! **Entering against closing.** A caller writes its cell and then reads `body`, with a light fence
//! between; the retirer writes `body` and then reads cells, with a heavy fence between. If the
//! caller's read comes before the fence hits it, the count is visible to the retirer, and to
//! whoever reads `Retired` after it. If it comes after, it reads 0 and bails. There is no third
//! case, and with two light fences there would be: both would miss what the other wrote, and the
//! frame would lose its code.
//!
//! **Leaving against closing.** A leaver writes its cell and then reads `body`. If the read comes
//! before the fence, the cell is visible to the retirer as it is after leaving, and the retirer
//! frees. If after, the leaver finds 0 and calls [`Lane::leave`], and the next race decides.
//!
//! **The last leaver against the retirer.** The leaver writes its cell, executes a full fence and
//! reads `state`; the retirer writes `Retired`, executes a full fence and reads cells. One of the
//! fences is first. If the leaver's is, the retirer finds the cell empty; if the retirer's is, the
//! leaver finds `Retired`. If both find both, the exchange picks one.
//!
//! **Two last leavers.** Each writes its cell, executes a full fence and reads the other's. The one
//! whose fence is second finds the other gone. Without the fences each could find the other still
//! inside, and nobody would free.
//!
//! **A leaver against the fence.** A leaver that finds `Closing` does nothing: frames may be inside
//! whose counts it cannot see yet. If `Retired` were published before the heavy fence, it would
//! add those up as 0 and free. The retirer, after its fence, sees what there is.
//!
//! **A slow leaver against the next version.** A leaver reads `Retired`, finds all cells empty, and
//! is held up. Others free the version, put another into the lane, retire that, and a frame is
//! inside. The exchange expects the old generation, and fails.
//!
//! **A context that goes to another thread**, as a coroutine does that is suspended in a body. Its
//! count was made by the thread that it has left. If that is running still, the heavy fence hits it;
//! if not, whatever stopped it was a full fence. So the retirer finds the count, as if the thread had
//! been inside.
//!
//! **The freer against the last frame.** Counting out is a release and reading the 0 an acquire, so
//! what the frame did happens before what the freer does.
//!
//! **The next version against late callers.** Whoever comes to the gate of a lane that has been
//! occupied again runs the new version, whatever it came for. That is a version of the same
//! function, it is counted where it should be, and it may be current a moment before the slot or
//! a site says so: install must not publish what it may yet take back.
//!
//! **A late fetch against a new lane.** A caller finds its gate in the slot, or has it in a call
//! that was fetched before the call was patched, and between that and counting in any number of
//! replacements may pass. What it found does not matter, nor when: gates stay, and its gate is that
//! of a lane that is closed, where it bails to what is current; or of one that is occupied again,
//! the race before this. No count is needed before the gate, and no fence between site and gate.
//!
//! # The races of tail calls
//!
//! **Moving on against freeing.** Between counting in at the new lane and counting out of the old
//! one the call is counted in both. Before, the old version is there, and with it the functions
//! that it keeps: the callee's gate, and the word that says what is current, for who bails. After,
//! the new version is there. Were the order any other, there would be a moment at which the last
//! owner of the callee is gone and nothing says that somebody is about to run it.
//!
//! **Moving on against closing.** Counting out of the old lane is leaving, with all of the races of
//! a leaver: so a version that is replaced is freed when the last call has moved on, though that may
//! go on for ever.
//!
//! **A function that goes while a call is inside.** The version that called it is freed, and was the
//! last to keep it. Nobody can come any more: who could is counted in a version that keeps the
//! function, and that one is not freed. Nor is a count missed: a call that has moved in has then
//! counted out of where it came from, with release, and who frees that has read the 0 with acquire.
//! The heavy fence is for leavers: one that does not find the lane closed must be seen to be gone,
//! or nobody would free. It may fall to the last leaver of one version to execute it for another.
//!
//! **A slow gate against its function.** A transfer counts out of what kept its function and has
//! steps to go. It is counted in its own lane, so the lane is not `Free`, and the gate stays.
//!
//! **A slow leaver against another function.** A leaver has counted out and not looked at `body`
//! yet. The version is freed, the function goes, another gets the lane. What the leaver finds is
//! that function's business, and so is what it does about it: if the lane is `Retired` and empty it
//! may free it as well as anyone. If it has read the state before, the exchange expects the old
//! generation: that is why it goes on counting from one function to the next.
//!
//! **The last leaver against the end.** It may look at a lane when its function and its version are
//! gone. But somebody has made the first call of those that it is inside of, and keeps that function
//! until it returns (rule 9), and with it all lanes (rule 11).
//!
//! # The races of a hold
//!
//! **Entering against holding** is entering against closing, with the detour for 0: a caller that
//! finds the body is found by the holder.
//!
//! **Passing against deciding.** A caller that goes on from the detour has counted in, and is not
//! noted as one that waits, before its fence, and reads the word after it; the holder writes the
//! word, executes a fence, and reads the counts. One of the fences is first. If the caller's is, it
//! is found inside; if the holder's is, it finds the decision, and waits for that. So it does not
//! matter for safety why a caller may pass. That it may if it has frames inside is for those to
//! leave: otherwise they, the caller and the holder would wait for each other.
//!
//! **Who has waited against the next hold.** It is woken, and may find another hold on. It is still
//! noted: so it must take that back before its fence, or the next holder would take it for one that
//! waits. And what it finds in the word must be released by who began that hold, who knows of the
//! end of the one before: it runs what was written then.
//!
//! **A signal handler** that calls from between the steps of a gate makes the frame that it has
//! interrupted look as if it was inside. Nothing comes of it but that the handler's call passes.
//!
//! # The races of moving
//!
//! Tail calls are how frames move from a version to the next: see `lastout-instrument`. A *resume entry*
//! is a function that goes on where the frame was, and a *parked call* one in which the frame is
//! while a call is in progress. Both have lanes and gates like any other, so moving out of a version
//! is leaving it, and the last to move frees it. Three rules say who finds them:
//!
//! 15. Who tail-calls a resume entry or a parked call and finds no version goes *home*, on in the version
//!     that it comes from, where it is still counted. Who comes from a parked call has no home.
//! 16. A resume entry has a version as long as anybody has its *lease*. The version of a parked call has
//!     the lease until it is freed, and so has whoever publishes, as long as the version that is
//!     current has the point. It is one lease: a new one is made only when nobody has the old one.
//! 17. All are published, and taken away, under one lock: the resume entry before the parked call can be
//!     entered, and that before the function can; the parked call closed before the publisher's
//!     lease is let go. Who had the lease last takes the resume entry away, unless the point is offered,
//!     or there is a new lease.
//!
//! **Moving against being withdrawn.** A frame that finds the resume entry closed has counted in and
//! bailed, and is counted at home all the time.
//!
//! **Waiting against being withdrawn.** Who is in the parked call is counted there, and its version
//! has the lease. Who comes later finds it closed, and goes home. The last to leave is counted in at
//! the resume entry before it is counted out of the parked call: it may then find itself to be the one
//! who lets go of the lease, and takes away the resume entry that it is inside of.
//!
//! **The end of a lease against the next.** Between letting go of a lease as the last and taking the
//! lock, anybody may have offered the point again, with a new lease. So who has the lock looks.
//!
//! # Other accesses
//!
//! `Live` is stored with release and `Retired` loaded with acquire, so that the freer finds the
//! payload; `Free` is stored with release and loaded by `occupy` with acquire, so that the next
//! version moves in after the last one's payload is gone; `body` is stored with release and loaded
//! with acquire, so that a gate finds the code, and so that who finds 0 also finds what is current
//! in its place.
//!
//! # The fallback
//!
//! Where the kernel has no `membarrier`, gates count with atomic read-modify-writes that are full
//! fences themselves ([`Counting::Atomic`]), and the heavy fence is `fence(SeqCst)`. The races are
//! the same with "the fence hits it" read as "its count's fence comes first".
//!
//! # What is proved, and how
//!
//! `cargo test -p lastout-reclaim` runs the models. They check that no thread runs or returns into
//! freed code, that every retired version is freed exactly once, that nobody waits, and that calls
//! reach the version that is current; with recursion, replacement from inside, contexts that come
//! and go, lanes that are used again, several retirers, and removal. Each mistake that was made on
//! the way is planted as a mutant that the models must refute: no heavy fence, `Retired` too early,
//! no fence in `leave`, no generation, and the counter inside the function. The models are
//! asymmetric as the protocol is, since a symmetric one passes the second of these.
//!
//! All this with callers that find gates by the slot, by sites that are patched one after the
//! other, and by a site that never is. With each dispatch goes the order in which an install makes
//! its changes, so that who bails has somewhere newer to go, and that no thread goes back from a
//! version to the one before; by sites it may, if it came late. Orders that break this are mutants,
//! too: a site patched before the old lane is closed, the slot set after the new lane is occupied,
//! a lane closed before another is current, bailing back to the site, and gates that are freed with
//! their version.
//!
//! And all with functions that can be tail-called, that move on in turns of up to three while others
//! replace, remove or drop them and their callers, also with calls in between; with lanes that pass
//! from one function to another, and to the end of everything. Mutants are the orders of a transfer
//! that count out too early, one that looks too early, one that leaves without a look; frames that
//! stay, or are taken from a caller; payloads, lanes and gates that go with their function, lanes
//! that go when they are free, or change hands when they are not, or forget their generation; no
//! heavy fence as a function goes; and versions and hosts that do not keep what they call.
//!
//! And with holds: of callers, of recursion, of calls that a signal handler makes on its way in or
//! while its thread waits, of tail calls, two in a row, and with installs in between. Mutants are a
//! missing heavy fence, callers that pass though they are not inside, or without waiting for the
//! decision, or without their fence, waiters that count as inside, recursion that waits, and a
//! hold that is begun without release.
//!
//! And with frames that move: loops that look at a flag, and calls from parked calls, while others
//! offer the point, withdraw it, and offer it again. Nobody who has waited finds no resume entry, a version
//! does not stay for who waits, and of a point that is not offered nothing stays. Mutants are
//! parked calls that have no lease, open before the resume entry or are not closed; a resume entry that goes
//! when the point is withdrawn; a lease made beside another, or that ends without a look; and a
//! transfer that counts out of home before it knows the resume entry.
//!
//! Where two threads are at work, two to five preemptions are explored, and where three are, two.
//!
//! What they do not cover: more than three threads, more preemptions than each test says, and
//! instruction fetch, which is the heavy fence's to order.
//!
//! # Departures from the first design
//!
//! Cells are 32 bits wide, which no stack is deep enough to overflow, so that ledgers are half the
//! size. A ledger starts with a header, for whoever runs the gates. Contexts are found free by their
//! owner being 0. A bailing caller goes on from a word of
//! its own rather than the slot, so that the slot can always be called; see `lastout-instrument`.

mod context;
mod domain;
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
pub use gate::{Counting, Step};
pub use hold::Hold;
pub use lane::Lane;
pub use membarrier::{membarrier, register_membarrier};
pub use state::{State, StateWord};

/// What can go wrong here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The domain has as many lanes as it was made for.
    TooManyLanes,
    /// There is no memory for another context's ledger.
    TooManyContexts,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooManyLanes => "the domain has as many lanes as it was made for",
            Self::TooManyContexts => "no memory for another context's ledger",
        })
    }
}

impl std::error::Error for Error {}
