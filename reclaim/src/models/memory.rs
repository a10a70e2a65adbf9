//! What is in memory for a time: code, and words that code uses.
//!
//! loom runs the threads of a model on one thread, one at a time. What is in a `std::cell` here, as
//! elsewhere in the models, is therefore not part of the model but what its observer knows. No
//! modelled thread acts on it, except that installers, which take turns, know what is current.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::rc::Rc;

use super::function::Function;
use super::ownership::{Counted, Owner};
use super::point::{Flag, Lease, PointUse};
use crate::sync::UnsafeCell;
use crate::{Hold, Lane};

/// Something that is in memory until it is freed.
pub(super) struct Memory {
    /// What is used, where it is used after it was freed.
    what: &'static str,
    /// Written as the thing is made and freed, read as it is used. Here loom checks that every use
    /// comes after the one and before the other.
    cell: UnsafeCell<()>,
    /// Whether it does: without, a use after free is one only once the free is over.
    causal: bool,
    gone: Cell<bool>,
}

impl Memory {
    pub(super) fn new(what: &'static str, causal: bool) -> Self {
        let cell = UnsafeCell::new(());
        cell.with_mut(|_| ());
        Self { what, cell, causal, gone: Cell::new(false) }
    }

    /// A thread uses it.
    pub(super) fn touch(&self) {
        assert!(!self.gone.get(), "use after free: a thread uses {} that is gone", self.what);
        if self.causal {
            self.cell.with(|_| ());
        }
    }

    pub(super) fn free(&self) {
        assert!(!self.gone.replace(true), "{} freed twice", self.what);
        if self.causal {
            self.cell.with_mut(|_| ());
        }
    }

    fn write(&self) {
        if self.causal {
            self.cell.with_mut(|_| ());
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.get()
    }
}

/// A lane, where gates know it.
pub(super) struct FunctionLane {
    /// The lane as it is in a program.
    pub(super) inner: Lane<Payload>,
    /// What its callers can be held with.
    pub(super) hold: Option<Hold>,
    pub(super) memory: Memory,
    /// The function that it belongs to, or the last that it did.
    pub(super) tenant: Cell<Option<&'static Function>>,
    /// How many calls are counted in it.
    pub(super) calls: Cell<usize>,
}

/// The gate of a lane, made for one function.
pub(super) struct Gate {
    pub(super) lane: Rc<FunctionLane>,
    /// Its code.
    pub(super) memory: Memory,
}

impl Gate {
    pub(super) fn new(lane: Rc<FunctionLane>, causal: bool) -> Rc<Self> {
        Rc::new(Self { lane, memory: Memory::new("a gate", causal) })
    }
}

/// The frame of a gate that can be tail-called: the lane that the call is counted in.
#[derive(Clone)]
pub(super) struct Frame {
    pub(super) lane: Rc<FunctionLane>,
    /// The function that the lane was of when the call was counted in.
    pub(super) function: &'static Function,
}

impl Frame {
    /// The lane, which a thread uses.
    pub(super) fn touch(&self) -> &Lane<Payload> {
        self.lane.memory.touch();
        &self.lane.inner
    }
}

/// The code of a version.
pub(super) struct Code {
    /// The gate of the lane that the version was put into.
    pub(super) gate: Rc<Gate>,
    /// The functions that it may tail-call.
    callees: Vec<&'static Function>,
    /// What its frames look at before they tail-call anything.
    pub(super) flag: RefCell<Option<Rc<Flag>>>,
    memory: Memory,
    /// How many frames are in it.
    frames: Cell<usize>,
    /// How often it was written over.
    edition: Cell<usize>,
}

impl Code {
    /// Writes the code.
    pub(super) fn write(gate: &Rc<Gate>, callees: &[&'static Function], causal: bool) -> Rc<Self> {
        let memory = Memory::new("code", causal);
        let (gate, callees) = (Rc::clone(gate), callees.to_vec());
        let (frames, edition) = (Cell::new(0), Cell::new(0));
        Rc::new(Self { gate, callees, flag: RefCell::default(), memory, frames, edition })
    }

    /// Whether a frame that may tail-call `function` does so.
    pub(super) fn calls(&self, function: &Function) -> bool {
        let leaves = || self.flag.borrow().as_ref().is_none_or(|flag| flag.is_set());
        self.callees.iter().any(|callee| ptr::eq(*callee, function)) && leaves()
    }

    /// A frame enters.
    pub(super) fn enter(&self) {
        self.memory.touch();
        self.frames.set(self.frames.get() + 1);
    }

    /// A frame is about to leave.
    pub(super) fn exit(&self) {
        self.memory.touch();
        self.frames.set(self.frames.get() - 1);
    }

    /// How often it was written over.
    pub(super) fn edition(&self) -> usize {
        self.edition.get()
    }

    /// Other code is written in its place.
    pub(super) fn overwrite(&self) {
        assert!(self.frames.get() == 0, "use after free: frames are in code that is written over");
        self.memory.write();
        self.edition.set(self.edition.get() + 1);
    }

    /// The functions that it may tail-call.
    pub(super) fn callees(&self) -> &[&'static Function] {
        &self.callees
    }

    pub(super) fn is_freed(&self) -> bool {
        self.memory.is_gone()
    }

    /// The memory goes.
    pub(super) fn free(&self) {
        assert!(self.frames.get() == 0, "use after free: frames are in code that goes");
        self.memory.free();
    }
}

/// What a lane drops when its version has drained.
pub(super) struct Payload {
    pub(super) code: Rc<Code>,
    /// The functions that the code calls.
    pub(super) callees: Vec<Owner>,
    /// Whether its gate is freed with it, as no gate must be.
    pub(super) with_gate: bool,
    /// If it is that of a parked call.
    pub(super) lease: Option<Lease>,
    /// If the version has the point.
    pub(super) point: RefCell<Option<Counted<PointUse>>>,
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.lease = None;
        self.callees.clear();
        self.point.take();
        self.code.free();
        if self.with_gate {
            self.code.gate.memory.free();
        }
    }
}
