//! Functions, and what must be true of them in the end.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::ptr;
use std::rc::Rc;

use loom::sync::Mutex;
use loom::sync::atomic::AtomicUsize;

use super::memory::{Code, Gate, Memory};
use super::ownership::Owner;
use crate::State;

/// A function: what stays while its versions come and go.
///
/// A gate's address stands for its lane, and is modelled as the address of the body that the lane
/// was occupied with: see [`Function::gate`].
pub(super) struct Function {
    /// Where calls find a gate. With [`Dispatch::Slot`](super::machine::Dispatch) it is the first
    /// alone, the slot. With sites, the slot is but another site. They begin with the gate of the
    /// lane that the first version will sit in.
    pub(super) calls: [AtomicUsize; 2],
    /// The gate of the lane that is current, or 0 if there is none. A caller that has bailed out of
    /// a gate goes on from here.
    pub(super) current: AtomicUsize,
    /// These words.
    pub(super) memory: Memory,
    /// Held by the thread that installs.
    pub(super) turn: Mutex<()>,
    /// Those of all lanes that it will need, or else they come from functions that are gone. That a
    /// lane added later is visible to a caller that finds it in the slot follows from a dependency
    /// of addresses, which loom does not know.
    pub(super) gates: RefCell<Vec<Rc<Gate>>>,
    /// The engine's table of names, as far as it has this function.
    pub(super) name: RefCell<Option<Owner>>,
    /// Every version there ever was. Only grows.
    codes: RefCell<Vec<Rc<Code>>>,
    /// The version that calls are to run, as of the [decisive](super::machine::Dispatch::decisive)
    /// change.
    pub(super) latest: Cell<Option<usize>>,
    /// No call that begins now can run a version older than this.
    pub(super) settled: Cell<Option<usize>>,
    /// Calls that begin now do not run what was there before the first version was written over
    /// so often.
    pub(super) edition: Cell<usize>,
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
    pub(super) fn new(gates: Vec<Rc<Gate>>, causal: bool) -> Self {
        Self {
            calls: [AtomicUsize::new(address(0)), AtomicUsize::new(address(0))],
            current: AtomicUsize::new(0),
            memory: Memory::new("a function", causal),
            turn: Mutex::new(()),
            gates: RefCell::new(gates),
            name: RefCell::default(),
            codes: RefCell::default(),
            latest: Cell::new(None),
            settled: Cell::new(None),
            edition: Cell::new(0),
            callers: RefCell::default(),
        }
    }

    /// Another owner, for as long as the function has its name.
    pub(super) fn handle(&self) -> Owner {
        self.name.borrow().clone().expect("a function with a name")
    }

    /// The code of a version is gone.
    pub(super) fn is_freed(&self, version: usize) -> bool {
        self.codes.borrow()[version].is_freed()
    }

    /// What the thread with this number has done.
    pub(super) fn caller(&self, owner: u64) -> RefMut<'_, Caller> {
        RefMut::map(self.callers.borrow_mut(), |callers| callers.entry(owner).or_default())
    }

    /// The gate at an address.
    pub(super) fn gate(&self, address: usize) -> Rc<Gate> {
        Rc::clone(&self.code(address).gate)
    }

    /// How many versions there ever were.
    pub(super) fn versions(&self) -> usize {
        self.codes.borrow().len()
    }

    /// The code of the version whose body is at `body`.
    pub(super) fn code(&self, body: usize) -> Rc<Code> {
        Rc::clone(&self.codes.borrow()[version(body)])
    }

    /// Adds the next version, and returns the address of its body, which is never 0.
    pub(super) fn add(&self, code: &Rc<Code>) -> usize {
        self.codes.borrow_mut().push(Rc::clone(code));
        self.versions()
    }

    /// A gate whose lane is free, if there is one.
    pub(super) fn free_gate(&self) -> Option<Rc<Gate>> {
        let gates = self.gates.borrow().clone();
        gates.into_iter().find(|gate| gate.lane.inner.state().state() == State::Free)
    }

    /// Frees all code, though frames may be in it, as must not be done. Returns of how many
    /// versions.
    pub(super) fn drop_payloads(&self) -> usize {
        let codes = self.codes.borrow();
        codes.iter().filter(|code| !code.is_freed()).map(|code| code.free()).count()
    }

    /// How many versions are freed. Checks that these are all but the current one, once no thread
    /// runs any more, and that all lanes are as they should be then.
    pub(super) fn check_end(&self) -> usize {
        let codes = self.codes.borrow();
        for (version, code) in codes.iter().enumerate() {
            let current = self.latest.get() == Some(version);
            assert!(current || code.is_freed(), "leak: nobody has freed version {version}");
            assert!(!(current && code.is_freed()), "version {version} is freed and current");
        }
        let current = self.latest.get().map(|version| &codes[version].gate);
        for gate in self.gates.borrow().iter() {
            let live = current.is_some_and(|current| ptr::eq(&**current, &**gate));
            let expected = if live { State::Live } else { State::Free };
            assert_eq!(gate.lane.inner.state().state(), expected);
        }
        codes.iter().filter(|code| code.is_freed()).count()
    }
}

/// The version whose code is at `body`.
pub(super) fn version(body: usize) -> usize {
    body - 1
}

/// The address of the gate of the lane that `version` was put into.
pub(super) fn address(version: usize) -> usize {
    version + 1
}
