//! Points at which a frame goes on in another version.
//!
//! What lives here makes the functions that a point takes. It makes and rewrites CLIF, and may know
//! symbols, signatures, and how functions are made from nothing. It must not know which version is
//! current: the runtime declares and compiles the functions, and sees to it that a frame that moves
//! finds what it moves to.
//!
//! A frame of a version cannot be turned into a frame of another, but a tail call hands a call on.
//! So a point at which a function can be resumed is itself a function, which is replaceable like
//! any other. Its parameters are the values that are *alive* at the point. A frame moves by
//! tail-calling that function through its gate, which counts the frame in there, and out where it
//! was. A move takes no stack, however often it is done, and whatever holds for tail calls holds
//! for it.
//!
//! For each point there is, besides the function itself with its points in it
//! ([`Resumable::start`]):
//!
//! - the *code* ([`Resumable::code`]): a copy of the function that begins at the point;
//! - the *resume entry* ([`Resumable::resume_entry`]): the replaceable function, which tail-calls
//!   the code of its own version.
//!
//! # Loops
//!
//! At the header of a marked loop the function looks at a word, the *flag*. The flag is 0 as a
//! rule. If it is not, the function tail-calls the resume entry, which by then is another
//! version's.
//!
//! # Calls that may never return
//!
//! The function does not make a marked call itself. It tail-calls a *parked call* ([`parked_call`])
//! with the arguments of the call and the values that are alive after it. The parked call is a
//! replaceable function of one version, which outlives the versions of the function. It makes the
//! call, and then tail-calls the resume entry. So while the call is in progress, the frame is
//! *parked*: no frame of any version is on the stack for it.
//!
//! # Why not by return addresses
//!
//! There is another way to have a suspended frame go on elsewhere: to overwrite the address that
//! its callee will return to with the address of code that turns the old frame into a new one.
//! Compared with that, tail calls
//!
//! - cost something for each marked call, where the other way costs nothing until a version is
//!   replaced: `cargo bench -p lastout --bench moving` says how much;
//! - do not have to find the frame, on the stack of another thread, while that thread runs. The
//!   other way has to stop the thread, or to have it change its own stack at a safe point, which a
//!   thread that never returns from a call does not come to;
//! - work where the processor keeps a second copy of return addresses and traps when they differ
//!   (CET on x86-64, GCS on aarch64), and are unwound by the same tables as everything else: every
//!   return address is one that a call has put there;
//! - need no map of what is in which register and stack slot at the return: the values that are
//!   alive are the arguments of a call, and the compiler moves them. So old and new code may be
//!   compiled in whatever way, and the old code's memory need not be there any more when the frame
//!   moves.
//!
//! # Points that are gone
//!
//! A resume entry and a parked call go when the version that is current does not have the point. A
//! frame may be on the way to them then, and goes on in its own version. So the last argument of
//! both is the address of the frame's *fallback*, a function of the frame's own version, in which
//! the frame is still counted in. Where it would have gone to a resume entry, the fallback is the
//! code. Where it would have gone to a parked call, the fallback is [`Resumable::fallback`], which
//! makes the call itself. [`call_fallback`] takes the place of a resume entry or parked call that
//! is gone.

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
