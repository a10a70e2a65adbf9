//! Other ways to keep a version alive while it is called, from Rust.
//!
//! Each holds the same function as its version, a heap object that could be replaced and dropped,
//! and calls it as its crate's documentation tells readers to.

use std::cell::RefCell;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use crossbeam_epoch::{Atomic, pin};
use haphazard::HazardPointer;
use seize::{Collector, Guard};

use crate::{Loop, Way};

/// What is called.
pub(crate) type Callee = extern "C" fn(i64) -> i64;

/// All of them, by their names in the table.
pub(crate) fn rivals(callee: Callee) -> Vec<Way> {
    vec![
        ("rust_slot", slot(callee)),
        ("arc_swap", arc_swap(callee)),
        ("epoch", epoch(callee)),
        ("seize", seize(callee)),
        ("haphazard", haphazard(callee)),
        ("rwlock", rwlock(callee)),
        ("arc_clone", arc_clone(callee)),
    ]
}

/// Calls as often as it is told, each time with what was returned last.
pub(crate) fn repeat(call: impl Fn(i64) -> i64 + Send + Sync + 'static) -> Loop {
    Box::new(move |calls| (0..calls).fold(1, |value, _| call(value)))
}

/// No counting: what is replaced is never freed.
fn slot(callee: Callee) -> Loop {
    let slot = AtomicPtr::new(callee as *mut ());
    repeat(move |value| {
        let callee = slot.load(Ordering::Acquire);
        // SAFETY: that is what the slot was made with.
        let callee = unsafe { std::mem::transmute::<*mut (), Callee>(callee) };
        callee(value)
    })
}

fn arc_swap(callee: Callee) -> Loop {
    let version = ArcSwap::from_pointee(callee);
    repeat(move |value| version.load()(value))
}

fn epoch(callee: Callee) -> Loop {
    let version = Atomic::new(callee);
    repeat(move |value| {
        let guard = pin();
        // SAFETY: the version is never freed, and if it was, that would wait for the guard.
        let callee = unsafe { version.load(Ordering::Acquire, &guard).deref() };
        callee(value)
    })
}

fn seize(callee: Callee) -> Loop {
    let collector = Collector::new();
    let version = AtomicPtr::new(Box::into_raw(Box::new(callee)));
    repeat(move |value| {
        let guard = collector.enter();
        let version = guard.protect(&version, Ordering::Acquire);
        // SAFETY: as for `epoch`.
        let callee = unsafe { *version };
        callee(value)
    })
}

fn haphazard(callee: Callee) -> Loop {
    thread_local! {
        static HAZARD: RefCell<HazardPointer<'static>> = RefCell::new(HazardPointer::new());
    }
    let version = haphazard::AtomicPtr::from(Box::new(callee));
    repeat(move |value| {
        HAZARD.with_borrow_mut(|hazard| {
            let callee = version.safe_load(hazard).expect("there is a version");
            let result = callee(value);
            hazard.reset_protection();
            result
        })
    })
}

fn rwlock(callee: Callee) -> Loop {
    let version = RwLock::new(callee);
    repeat(move |value| {
        let callee = version.read().unwrap_or_else(PoisonError::into_inner);
        callee(value)
    })
}

/// A clone for each call, of a version that another owner keeps meanwhile.
fn arc_clone(callee: Callee) -> Loop {
    let version = Arc::new(callee);
    repeat(move |value| {
        let callee = Arc::clone(&version);
        callee(value)
    })
}
