//! Functions, the code of their versions, and what must be true of them in the end.
//!
//! loom runs the threads of a model on one thread, one at a time. What is in a `std::cell` here is
//! therefore not part of the model but what its observer knows. No modelled thread acts on it,
//! except that installers, who take turns, know what is current.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use loom::sync::Mutex;
use loom::sync::atomic::AtomicUsize;

use crate::sync::UnsafeCell;
use crate::{Domain, Lane, State};

/// A function: what stays while its versions come and go.
///
/// A gate's address stands for its lane, and is modelled as the address of the body that the lane
/// was occupied with: see [`Function::lane`].
pub(super) struct Function {
    /// Where calls find a gate. With [`Dispatch::Slot`](super::machine::Dispatch) it is the first
    /// alone, the slot. With sites, the slot is but another site. They begin with the gate of the
    /// lane that the first version will sit in.
    pub(super) calls: [AtomicUsize; 2],
    /// The gate of the lane that is current, or 0 if there is none. Who has bailed out of a gate
    /// goes on from here.
    pub(super) current: AtomicUsize,
    /// Held by the one who installs.
    pub(super) turn: Mutex<()>,
    /// All lanes that it will need. That a lane added later is visible to whoever finds it in the
    /// slot follows from a dependency of addresses, which loom does not know.
    pub(super) lanes: Vec<Lane<Payload>>,
    /// Every version there ever was. Only grows.
    codes: RefCell<Vec<Rc<Code>>>,
    /// The version that calls are to run, as of the [decisive](super::machine::Dispatch::decisive)
    /// change.
    pub(super) latest: Cell<Option<usize>>,
    /// No call that begins now can run a version older than this.
    pub(super) settled: Cell<Option<usize>>,
    /// How often `leave` and `retire` have said that they freed a version.
    pub(super) freed: Cell<usize>,
    /// By owner.
    callers: RefCell<BTreeMap<u64, Caller>>,
}

/// What a thread has done with a function.
#[derive(Default)]
pub(super) struct Caller {
    /// How often it has called.
    pub(super) calls: usize,
    /// The latest version that it has run.
    pub(super) ran: Option<usize>,
    /// The latest that it is never to go back from.
    pub(super) met: Option<usize>,
}

impl Function {
    pub(super) fn new(domain: &Arc<Domain>, lanes: usize) -> Self {
        Self {
            calls: [AtomicUsize::new(gate(0)), AtomicUsize::new(gate(0))],
            current: AtomicUsize::new(0),
            turn: Mutex::new(()),
            lanes: (0..lanes).map(|_| domain.lane().expect("a cell")).collect(),
            codes: RefCell::default(),
            latest: Cell::new(None),
            settled: Cell::new(None),
            freed: Cell::new(0),
            callers: RefCell::default(),
        }
    }

    /// Whether the code of `version` is gone.
    pub(super) fn is_freed(&self, version: usize) -> bool {
        self.codes.borrow()[version].freed.get()
    }

    /// What the thread with this number has done.
    pub(super) fn caller(&self, owner: u64) -> RefMut<'_, Caller> {
        RefMut::map(self.callers.borrow_mut(), |callers| callers.entry(owner).or_default())
    }

    /// The lane of a gate.
    pub(super) fn lane(&self, gate: usize) -> &Lane<Payload> {
        &self.lanes[self.code(gate).lane]
    }

    /// How many versions there ever were.
    pub(super) fn versions(&self) -> usize {
        self.codes.borrow().len()
    }

    pub(super) fn code(&self, body: usize) -> Rc<Code> {
        Rc::clone(&self.codes.borrow()[version(body)])
    }

    /// Writes the code of the next version, which is to sit in `lane`. Returns its address, never
    /// 0, and what owns it.
    pub(super) fn compile(&self, lane: usize, causal: bool) -> (usize, Payload) {
        let code = Rc::new(Code::write(lane, causal));
        self.codes.borrow_mut().push(Rc::clone(&code));
        (self.versions(), Payload(code))
    }

    /// Checks that nothing is left over once no thread runs any more.
    pub(super) fn check_end(&self) {
        for (version, code) in self.codes.borrow().iter().enumerate() {
            let current = self.latest.get() == Some(version);
            assert!(current || code.freed.get(), "leak: nobody has freed version {version}");
            assert!(!(current && code.freed.get()), "version {version} is freed and current");
        }
        let freed = self.codes.borrow().iter().filter(|code| code.freed.get()).count();
        assert_eq!(self.freed.get(), freed, "who frees a version says so");
        let current = self.latest.get().map(|version| self.codes.borrow()[version].lane);
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

/// The gate of the lane that `version` was put into.
pub(super) fn gate(version: usize) -> usize {
    version + 1
}

/// The code of a version.
pub(super) struct Code {
    /// The lane that the version was put into.
    lane: usize,
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
    fn write(lane: usize, causal: bool) -> Self {
        let memory = UnsafeCell::new(());
        memory.with_mut(|_| ());
        Self { lane, memory, causal, frames: Cell::new(0), freed: Cell::new(false) }
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
    pub(super) fn execute(&self) {
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
