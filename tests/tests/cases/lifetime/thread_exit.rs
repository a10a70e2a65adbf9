//! Threads that end inside of functions: the system unwinds them, and their frames are counted out.

#![cfg(all(target_arch = "x86_64", target_env = "gnu"))]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use lastout::{Engine, Handle};
use lastout_tests::support::{COUNTINGS, Drops, install_counted};
use lastout_tests::{builder, call};

unsafe extern "C-unwind" {
    fn pthread_exit(result: *mut c_void) -> !;
}

unsafe extern "C" {
    fn pthread_create(
        thread: *mut libc::pthread_t,
        attributes: *const libc::pthread_attr_t,
        start: extern "C-unwind" fn(*mut c_void) -> *mut c_void,
        argument: *mut c_void,
    ) -> c_int;
}

/// What a thread comes from and to. Nothing that it leaves by ending has anything to drop.
struct Plan {
    engine: Engine,
    outer: Handle<fn(usize) -> i64>,
    by_address: bool,
    /// The frames in both functions, just before the thread ends.
    frames: AtomicU64,
    replaced: Mutex<Vec<Drops>>,
}

fn frames(engine: &Engine) -> u64 {
    let infos = ["outer", "inner"].into_iter().flat_map(|name| engine.versions(name).unwrap());
    infos.map(|info| info.frames()).sum()
}

/// A function that calls `leave`, or another that does.
fn function(name: &str, callee: &str) -> String {
    format!(
        "function %{name}(i64) -> i64 system_v {{
            fn0 = %{callee}(i64) -> i64 system_v
         block0(v0: i64):
            v1 = call fn0(v0)
            v2 = iadd v1, v0
            return v2
         }}\n"
    )
}

extern "C-unwind" fn leave(plan: usize) -> i64 {
    replace(plan);
    // SAFETY: the frames up to the thread's first have nothing to drop and catch nothing.
    unsafe { pthread_exit(ptr::null_mut()) }
}

/// Replaces what the thread is inside of.
fn replace(plan: usize) {
    // SAFETY: the thread is given the address of a plan that outlives it.
    let plan = unsafe { &*ptr::with_exposed_provenance::<Plan>(plan) };
    plan.frames.store(frames(&plan.engine), Ordering::Relaxed);
    for (name, callee) in [("inner", "leave"), ("outer", "inner")] {
        let drops = Drops::new();
        install_counted(&plan.engine, &function(name, callee), &drops);
        plan.replaced.lock().unwrap().push(drops);
    }
}

extern "C-unwind" fn start(plan: *mut c_void) -> *mut c_void {
    // SAFETY: as above.
    let plan = unsafe { &*plan.cast::<Plan>() };
    let address = ptr::from_ref(plan).expose_provenance();
    if plan.by_address {
        let outer = plan.outer.c_address().unwrap();
        // SAFETY: that is the function's type, and the plan keeps it.
        let outer: extern "C-unwind" fn(usize) -> i64 = unsafe { std::mem::transmute(outer) };
        outer(address);
    } else {
        call!(plan.outer, address).unwrap();
    }
    unreachable!("the thread has ended");
}

#[test]
fn a_thread_that_ends_inside_is_counted_out_and_frees() {
    for (counting, by_address) in COUNTINGS.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let leave = leave as extern "C-unwind" fn(usize) -> i64;
        let engine = builder!().counting(counting).host_function("leave", leave).build().unwrap();
        let drops = Drops::new();
        install_counted(&engine, &function("inner", "leave"), &drops);
        install_counted(&engine, &function("outer", "inner"), &drops);
        let outer = engine.function("outer").unwrap();
        let (frames_before, replaced) = (AtomicU64::new(0), Mutex::default());
        let plan = Plan { engine, outer, by_address, frames: frames_before, replaced };
        let mut thread = 0;
        let argument = ptr::from_ref(&plan).cast_mut().cast();
        // SAFETY: the thread is joined before the plan goes.
        unsafe {
            assert_eq!(pthread_create(&mut thread, ptr::null(), start, argument), 0);
            assert_eq!(libc::pthread_join(thread, ptr::null_mut()), 0);
        }
        assert_eq!(plan.frames.load(Ordering::Relaxed), 2);
        assert_eq!(frames(&plan.engine), 0);
        assert_eq!(drops.count(), 2);
        let replaced = plan.replaced.lock().unwrap();
        assert_eq!(replaced.iter().map(Drops::count).sum::<usize>(), 0);
    }
}
