//! A point at which frames move to the version that is current, as the runtime has it: what frames
//! find there, and for how long.
//!
//! The function `f` has it, its *resume entry* is `g`, and if it is at a call and not in a loop,
//! its *parked call* is `h`. In the runtime, code and resume entry of a version are one image,
//! which is freed with the last of the two. Here each is freed on its own, so a model is told of
//! more that is gone; only the *flag* goes with the last.

use std::cell::RefCell;
use std::ptr;
use std::rc::Rc;
use std::thread::panicking;

use loom::sync::{Mutex, MutexGuard};

use super::events::Event;
use super::function::Function;
use super::machine::Moving;
use super::memory::Memory;
use super::ownership::Owner;
use super::world::World;
use crate::sync::{AtomicUsize, Ordering, fence};

/// Where the point is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PointKind {
    /// Frames look at the flag, and tail-call the resume entry if it is set.
    Loop,
    /// Frames tail-call the parked call.
    Call,
}

/// What versions have in common that have the point.
pub(super) struct Point {
    pub(super) kind: PointKind,
    pub(super) function: &'static Function,
    pub(super) resume_entry: &'static Function,
    pub(super) parked: &'static Function,
    /// Held by the thread that publishes a resume entry or a parked call.
    table: Mutex<Table>,
}

#[derive(Default)]
pub(super) struct Table {
    /// The lease that was made last, whether or not anything has it.
    lease: Option<Rc<Held>>,
    /// While the point is offered.
    pub(super) offered: Option<Lease>,
    /// Those of versions that have the point and are not freed.
    pub(super) flags: Vec<Rc<Flag>>,
}

/// Keeps the resume entry current: a counted reference to it. The last takes the resume entry
/// away.
///
/// It is written out, as loom has no references that do not count.
pub(super) struct Lease {
    world: &'static World,
    held: Rc<Held>,
}

struct Held {
    count: AtomicUsize,
    /// Of the resume entry.
    owner: RefCell<Option<Owner>>,
}

impl Table {
    /// Whether there is a lease.
    pub(super) fn is_held(&self) -> bool {
        self.lease.as_ref().is_some_and(|held| held.count.load(Ordering::Relaxed) > 0)
    }
}

impl Held {
    /// Another reference, if there still is one.
    fn upgrade(self: &Rc<Self>, world: &'static World) -> Option<Lease> {
        let one_more = |count| (count > 0).then(|| count + 1);
        self.count.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more).ok()?;
        Some(Lease { world, held: Rc::clone(self) })
    }
}

impl Clone for Lease {
    fn clone(&self) -> Self {
        self.held.count.fetch_add(1, Ordering::Relaxed);
        Self { world: self.world, held: Rc::clone(&self.held) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if panicking() || self.held.count.fetch_sub(1, Ordering::Release) > 1 {
            return;
        }
        fence(Ordering::Acquire);
        let owner = self.held.owner.take();
        self.world.take_away();
        drop(owner);
    }
}

/// A word of a version that says whether to leave it.
pub(super) struct Flag {
    word: AtomicUsize,
    memory: Memory,
}

impl Flag {
    /// The flag of a version that is current.
    fn new(causal: bool) -> Self {
        Self { word: AtomicUsize::new(0), memory: Memory::new("a flag", causal) }
    }

    /// Says whether frames are to leave.
    pub(super) fn set(&self, leave: bool) {
        self.word.store(usize::from(leave), Ordering::Release);
    }

    /// Whether a frame that looks is to leave.
    pub(super) fn is_set(&self) -> bool {
        self.memory.touch();
        self.word.load(Ordering::Relaxed) != 0
    }
}

/// A version has the point, until this is dropped: by the last of what the version is made of.
pub(super) struct PointUse {
    world: &'static World,
    flag: Option<Rc<Flag>>,
    _resume_entry: Owner,
}

impl PointUse {
    /// For a version that is made now.
    pub(super) fn new(world: &'static World, table: &mut Table) -> Self {
        let point = world.point();
        let flag = point.kind == PointKind::Loop;
        let flag = flag.then(|| Rc::new(Flag::new(world.machine.causal)));
        table.flags.extend(flag.clone());
        Self { world, flag, _resume_entry: point.resume_entry.handle() }
    }

    /// The flag that frames of the version look at.
    pub(super) fn flag(&self) -> Option<&Rc<Flag>> {
        self.flag.as_ref()
    }
}

impl Drop for PointUse {
    fn drop(&mut self) {
        if panicking() {
            return;
        }
        let mut table = self.world.point().lock();
        if let Some(own) = &self.flag {
            table.flags.retain(|flag| !Rc::ptr_eq(flag, own));
            drop(table);
            own.memory.free();
        }
    }
}

impl Point {
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no thread panics")
    }

    /// Whether calls that find no version go on in the fallback: the version that they come from.
    fn has_fallback(&self, function: &Function) -> bool {
        ptr::eq(function, self.resume_entry) || ptr::eq(function, self.parked)
    }

    /// Checks that the resume entry is there if the point is offered, and else nothing of it, once
    /// no thread runs.
    fn check(&self) {
        let offered = self.lock().offered.is_some();
        let [resume_entry, parked] =
            [self.resume_entry, self.parked].map(|function| function.latest.get());
        assert!(offered || resume_entry.is_none(), "leak: nobody has taken the resume entry away");
        assert!(offered || parked.is_none(), "leak: nobody has closed the parked call");
        assert!(
            !offered || resume_entry.is_some(),
            "lost: a point is offered and has no resume entry"
        );
    }
}

impl World {
    /// Has the functions of this world have a point.
    pub(super) fn put_point(&'static self, kind: PointKind) {
        let (function, resume_entry, parked) = (&self.f, &self.g, &self.h);
        let point = Point { kind, function, resume_entry, parked, table: Mutex::default() };
        assert!(self.point.set(point).is_ok(), "there is one point");
    }

    pub(super) fn point(&self) -> &Point {
        self.point.get().expect("a scenario with a point")
    }

    /// Checks that of the point there is what there should be, once no thread runs.
    pub(super) fn check_point(&self) {
        if let Some(point) = self.point.get() {
            point.check();
        }
    }

    /// The lease of the point that is about to be offered.
    pub(super) fn lease(
        &'static self,
        table: &mut Table,
        resume_entry: &'static Function,
    ) -> Lease {
        let old = table.lease.as_ref().filter(|_| self.machine.moving != Moving::LeasesNotReused);
        if let Some(lease) = old.and_then(|held| held.upgrade(self)) {
            if table.offered.is_none() {
                self.seen.note(Event::ReusedLease);
            }
            return lease;
        }
        let owner = RefCell::new(Some(resume_entry.handle()));
        let held = Rc::new(Held { count: AtomicUsize::new(1), owner });
        table.lease = Some(Rc::clone(&held));
        Lease { world: self, held }
    }

    /// Notes that a call of a function that has no version goes on in the fallback, if it has one.
    /// Returns whether it does.
    ///
    /// `from` is the function whose version tail-calls it.
    pub(super) fn falls_back(&self, from: &Function, to: &Function) -> bool {
        let Some(point) = self.point.get().filter(|point| point.has_fallback(to)) else {
            return false;
        };
        assert!(
            !ptr::eq(from, point.parked),
            "lost: a frame leaves a parked call and finds no resume entry"
        );
        self.seen.note(Event::FellBack);
        true
    }
}
