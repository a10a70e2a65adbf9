//! Points at which a frame goes on in another version.
//!
//! What this does not do: it makes and rewrites CLIF, and says which functions it takes. The runtime
//! declares and compiles them, and sees to it that a frame that moves finds what it moves to.
//!
//! A frame of a version cannot be made one of another, but a call can be handed on: with a tail
//! call. So a point at which a function can be resumed is a function, whose parameters are what is
//! *alive* at the point, and which is replaceable like any other. A frame moves by tail-calling it,
//! through its gate, which counts it in there and out where it was. That takes no stack, however
//! often it is done, and whatever holds for tail calls holds for it.
//!
//! For each point there is, besides the function itself with its points in it ([`Resumable::start`]):
//!
//! - the *code* ([`Resumable::code`]): a copy of the function that begins at the point;
//! - the *resume entry* ([`Resumable::resume_entry`]), the replaceable function: it tail-calls the code of its
//!   own version.
//!
//! # Loops
//!
//! At the header of a marked loop the function looks at a word, the *flag*. It is 0 as a rule; else
//! the function tail-calls the resume entry, which by then is another version's.
//!
//! # Calls that may never return
//!
//! A marked call is not made by the function but by its *parked call* ([`parked_call`]), a
//! replaceable function of one version that outlives those of the function. It is tail-called with
//! the arguments of the call and what is alive after it; it makes the call, and then tail-calls
//! the resume entry. So while the call is in progress there is no frame of any version on the stack.
//!
//! # Why not by return addresses
//!
//! The other way to have a suspended frame go on elsewhere is to overwrite the address that its
//! callee will return to, with that of code that turns the old frame into a new one. Beside it, this
//! way
//!
//! - costs something for each marked call, where the other costs nothing until a version is
//!   replaced: `cargo bench -p lastout --bench moving` says how much;
//! - has no need to find the frame, on the stack of another thread, while that thread runs: it would
//!   have to be stopped, or to change its own stack at a safe point, which a thread that never
//!   returns from a call does not come to;
//! - works where the processor keeps a second copy of return addresses and traps when they differ
//!   (CET on x86-64, GCS on aarch64), and is unwound by the same tables as everything else: every
//!   return address is one that a call has put there;
//! - needs no map of what is in which register and stack slot at the return: what is alive are the
//!   arguments of a call, and the compiler moves them. So old and new code may be compiled in
//!   whatever way, and the old code's memory need not be there any more when the frame moves.
//!
//! # Points that are gone
//!
//! The resume entry and the parked call are taken away where the version that is current does not have
//! the point. A frame may be on the way there, and goes on where it was. So the last argument of
//! both is the address of the frame's *fallback*, which does the same in the version that the frame
//! is of, and is still counted in by: the code, or [`Resumable::fallback`], which makes the call
//! itself. [`call_fallback`] takes the place of what is not there.

mod entry;
mod fallback;
mod liveness;
mod parked;
mod point;
mod rebuild;
mod resumable;

pub use self::fallback::call_fallback;
pub use self::parked::parked_call;
pub use self::point::{Live, Mark, PointNames, PointPosition, PositionNames, ResumePoint};
pub use self::resumable::Resumable;
