//! Functions, the code of their versions, and what must be true of them in the end.
//!
//! loom runs the threads of a model on one thread, one at a time. What is in a `std::cell` here is
//! therefore not part of the model but what its observer knows. No modelled thread acts on it,
//! except that installers, who take turns, know what is current.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, AtomicUsize};

use crate::sync::{Ordering, UnsafeCell};
use crate::{Domain, Lane, State};

/// A function: what stays while its versions come and go.
pub(super) struct Function {
    /// The current lane's index.
    pub(super) slot: AtomicUsize,
    pub(super) removed: AtomicBool,
    /// Held by the one who installs.
    pub(super) turn: Mutex<()>,
    /// All lanes that it will need. That a lane added later is visible to whoever finds it in the
    /// slot follows from a dependency of addresses, which loom does not know.
    pub(super) lanes: Vec<Lane<Payload>>,
    /// Every version there ever was. Only grows.
    codes: RefCell<Vec<Rc<Code>>>,
    /// The version in the slot.
    pub(super) current: Cell<Option<usize>>,
    /// No call that begins now can run a version older than this.
    pub(super) settled: Cell<Option<usize>>,
    /// How often `leave` and `retire` have said that they freed a version.
    pub(super) freed: Cell<usize>,
}

impl Function {
    pub(super) fn new(domain: &Arc<Domain>, lanes: usize) -> Self {
        Self {
            slot: AtomicUsize::new(0),
            removed: AtomicBool::new(false),
            turn: Mutex::new(()),
            lanes: (0..lanes).map(|_| domain.lane().expect("a cell")).collect(),
            codes: RefCell::default(),
            current: Cell::new(None),
            settled: Cell::new(None),
            freed: Cell::new(0),
        }
    }

    /// Whether the code of `version` is gone.
    pub(super) fn is_freed(&self, version: usize) -> bool {
        self.codes.borrow()[version].freed.get()
    }

    /// The lane that the slot holds.
    pub(super) fn lane(&self, look: Ordering) -> &Lane<Payload> {
        &self.lanes[self.slot.load(look)]
    }

    /// How many versions there ever were.
    pub(super) fn versions(&self) -> usize {
        self.codes.borrow().len()
    }

    pub(super) fn code(&self, body: usize) -> Rc<Code> {
        Rc::clone(&self.codes.borrow()[version(body)])
    }

    /// Writes the next version's code. Returns its address, never 0, and what owns it.
    pub(super) fn compile(&self, causal: bool) -> (usize, Payload) {
        let code = Rc::new(Code::write(causal));
        self.codes.borrow_mut().push(Rc::clone(&code));
        (self.versions(), Payload(code))
    }

    /// Checks that nothing is left over once no thread runs any more.
    pub(super) fn check_end(&self) {
        for (version, code) in self.codes.borrow().iter().enumerate() {
            let current = self.current.get() == Some(version);
            assert!(current || code.freed.get(), "leak: nobody has freed version {version}");
            assert!(!(current && code.freed.get()), "version {version} is freed and current");
        }
        let freed = self.codes.borrow().iter().filter(|code| code.freed.get()).count();
        assert_eq!(self.freed.get(), freed, "who frees a version says so");
        let current = self.current.get().map(|_| self.slot.load(Ordering::Relaxed));
        for (index, lane) in self.lanes.iter().enumerate() {
            let expected = if current == Some(index) { State::Live } else { State::Free };
            assert_eq!(lane.state().state(), expected, "lane {index}");
            assert_eq!(lane.frames(), [], "lane {index}");
        }
    }
}

/// The version whose code is at `body`.
pub(super) fn version(body: usize) -> usize {
    body - 1
}

/// The code of a version.
pub(super) struct Code {
    /// Written as the code is written and freed, read as it runs. Here loom checks that whoever
    /// runs it comes after the one and before the other.
    memory: UnsafeCell<()>,
    /// Whether it does: without, a use after free is one only once the free is over.
    causal: bool,
    /// How many frames are in it.
    frames: Cell<usize>,
    freed: Cell<bool>,
}

impl Code {
    /// Writes the code.
    fn write(causal: bool) -> Self {
        let memory = UnsafeCell::new(());
        memory.with_mut(|_| ());
        Self { memory, causal, frames: Cell::new(0), freed: Cell::new(false) }
    }

    /// A frame enters.
    pub(super) fn enter(&self) {
        self.execute();
        self.frames.set(self.frames.get() + 1);
    }

    /// A frame is about to leave.
    pub(super) fn exit(&self) {
        self.execute();
        self.frames.set(self.frames.get() - 1);
    }

    /// Something in the code is executed.
    fn execute(&self) {
        assert!(!self.freed.get(), "use after free: a thread is in code that is gone");
        if self.causal {
            self.memory.with(|_| ());
        }
    }

    /// The memory goes.
    fn free(&self) {
        assert!(!self.freed.replace(true), "freed twice");
        assert!(self.frames.get() == 0, "use after free: frames are in code that goes");
        if self.causal {
            self.memory.with_mut(|_| ());
        }
    }
}

/// What a lane drops when its version has drained.
pub(super) struct Payload(Rc<Code>);

impl Drop for Payload {
    fn drop(&mut self) {
        self.0.free();
    }
}
