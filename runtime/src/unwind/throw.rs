//! Exceptions of generated code.

use std::ffi::{c_int, c_void};

use super::machine::{FRAME_POINTER, KEPT, PINNED, Registers, number};
use super::system::{self, Context, END_OF_STACK, NO_REASON, STOP};
use super::walk::{self, Target};
use super::{SUPPORTED, registry};
use crate::CallError;
use crate::host::context;
use crate::version::location::{Exception, Uncaught};

/// Throws an exception from a host function that generated code has called: goes on at the first
/// `try_call` on the way out that has a handler for `tag`, which gets the payload, or has a default
/// handler. If there is none, the call through a [`Handle`](crate::Handle) that is in progress
/// returns [`CallError::Exception`]. This function returns only if nothing catches the exception.
///
/// All frames in between are left, and counted out. Handlers see exceptions that are thrown by this
/// function and no others: panics pass them.
///
/// # Safety
///
/// The function that calls this, and those between it and the generated code, are left without
/// going on: they are `extern "C-unwind"` or of Rust's own calling convention, are compiled to be
/// unwound, and catch nothing (no `catch_unwind`). As with any forced unwinding, they had best have
/// nothing to drop.
pub unsafe fn throw(tag: u32, payload: [u64; 2]) -> Uncaught {
    if !SUPPORTED {
        return Uncaught;
    }
    let mut search = Search { tag, target: None };
    // SAFETY: `look` takes a `Search`.
    unsafe { system::backtrace(look, (&raw mut search).cast()) };
    let Some(target) = search.target else { return Uncaught };
    // The exception is not on the stack: the system's unwinder may run destructors of the functions
    // in between where this function's frame was.
    let exception = system::Exception { class: CLASS, cleanup: None, private: [0; 2] };
    let thrown = Box::into_raw(Box::new(Thrown { exception, tag, payload, target }));
    // SAFETY: `stop` takes what was thrown, and does not return once it is at generated code, of
    // which the search has found a frame. Until then this is what the caller allows.
    unsafe { system::force(thrown.cast(), stop, thrown.cast()) };
    unreachable!("the search has found where to stop")
}

/// The class of these exceptions: `lastout` and a zero.
const CLASS: u64 = u64::from_be_bytes(*b"lastout\0");

struct Search {
    tag: u32,
    target: Option<Target>,
}

/// Looks for the first frame of generated code, and for what catches the exception from there.
unsafe extern "C" fn look(context: *mut Context, search: *mut c_void) -> c_int {
    // SAFETY: `throw` passes its search.
    let search = unsafe { &mut *search.cast::<Search>() };
    // SAFETY: the context is a frame's.
    let returned = unsafe { system::returned(context) };
    if registry::returned_to(returned).is_none() {
        return NO_REASON;
    }
    // SAFETY: the unwinder is at this frame of the calling thread.
    unsafe {
        let frame_pointer = system::register(context, number(FRAME_POINTER.0));
        search.target = walk::search(returned, frame_pointer, Some(search.tag));
    }
    STOP
}

#[repr(C)]
struct Thrown {
    exception: system::Exception,
    tag: u32,
    payload: [u64; 2],
    target: Target,
}

/// Called for each frame before it is left. It takes over at the first one of generated code.
unsafe extern "C-unwind" fn stop(
    _version: c_int,
    actions: c_int,
    _class: u64,
    _exception: *mut system::Exception,
    context: *mut Context,
    thrown: *mut c_void,
) -> c_int {
    // SAFETY: the context is a frame's.
    let pc = unsafe { system::returned(context) };
    if registry::returned_to(pc).is_none() {
        if actions & END_OF_STACK != 0 {
            // The search has been further than this has come.
            std::process::abort();
        }
        return NO_REASON;
    }
    // SAFETY: `throw` has made it of a box, and nothing uses it after this.
    let Thrown { tag, payload, target, .. } = *unsafe { Box::from_raw(thrown.cast::<Thrown>()) };
    if !target.is_handler() {
        context::fail(CallError::Exception(Box::new(Exception { tag, payload })));
    }
    let register = |register: u16| {
        // SAFETY: calls keep these registers, so the unwinder has them.
        unsafe { system::register(context, number(register)) }
    };
    let registers = Registers {
        pc,
        sp: 0,
        frame_pointer: register(FRAME_POINTER.0),
        kept: KEPT.map(register),
        pinned: register(PINNED.0),
        payload,
    };
    // SAFETY: the unwinder is at this frame, from which the target was found. All frames between
    // here and there are the unwinder's, and those of functions that have been left.
    unsafe { walk::go_on(registers, target) }
}
