//! The system's unwinder: the parts that are used here of the Itanium C++ ABI's exception handling
//! (level I), and of libgcc's interface for generated code.

use std::ffi::{c_int, c_void};

/// What is being unwound. Its class says which library has thrown it.
#[repr(C, align(16))]
pub(super) struct Exception {
    pub(super) class: u64,
    pub(super) cleanup: Option<unsafe extern "C" fn(c_int, *mut Exception)>,
    pub(super) private: [usize; 2],
}

/// A frame, as the unwinder sees it.
#[repr(C)]
pub(super) struct Context {
    _opaque: [u8; 0],
}

pub(super) const CLEANUP_PHASE: c_int = 2;
pub(super) const END_OF_STACK: c_int = 16;

pub(super) const NO_REASON: c_int = 0;
pub(super) const STOP: c_int = 5;
pub(super) const CONTINUE_UNWIND: c_int = 8;

pub(super) type Trace = unsafe extern "C" fn(*mut Context, *mut c_void) -> c_int;
pub(super) type Stop = unsafe extern "C-unwind" fn(
    c_int,
    c_int,
    u64,
    *mut Exception,
    *mut Context,
    *mut c_void,
) -> c_int;

unsafe extern "C" {
    #[link_name = "_Unwind_GetIP"]
    pub(super) fn returned(context: *mut Context) -> usize;
    #[link_name = "_Unwind_GetGR"]
    pub(super) fn register(context: *mut Context, register: c_int) -> usize;
    #[link_name = "_Unwind_SetGR"]
    pub(super) fn set_register(context: *mut Context, register: c_int, value: usize);
    #[link_name = "_Unwind_GetLanguageSpecificData"]
    pub(super) fn data(context: *mut Context) -> *const c_void;
    #[link_name = "_Unwind_Backtrace"]
    pub(super) fn backtrace(trace: Trace, argument: *mut c_void) -> c_int;
    #[link_name = "__register_frame"]
    pub(super) fn register_table(table: *const u8);
    #[link_name = "__deregister_frame"]
    pub(super) fn deregister_table(table: *const u8);
}

unsafe extern "C-unwind" {
    #[link_name = "_Unwind_ForcedUnwind"]
    pub(super) fn force(exception: *mut Exception, stop: Stop, argument: *mut c_void) -> c_int;
}
