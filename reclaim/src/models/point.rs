//! A point at which frames move to the version that is current, as the runtime has it: what frames
//! find there, and for how long.
//!
//! The function `f` has it, its *resume entry* is `g`, and if it is at a call and not in a loop,
//! its *parked call* is `h`. In the runtime, code and resume entry of a version are one image,
//! which is freed with the last of the two. Here each is freed on its own, so a model is told of
//! more that is gone; only the *flag* goes with the last.

use std::cell::RefCell;
use std::mem::replace;
use std::ptr;
use std::rc::Rc;
use std::thread::panicking;

use loom::sync::{Mutex, MutexGuard};

use super::events::Event;
use super::function::Function;
use super::install::{Closing, Installing};
use super::machine::Moving;
use super::memory::Memory;
use super::ownership::{Counted, Owner};
use super::world::{Thread, World};
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
    kind: PointKind,
    function: &'static Function,
    pub(super) resume_entry: &'static Function,
    pub(super) parked: &'static Function,
    /// Held by the thread that publishes a resume entry or a parked call.
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// The lease that was made last, whether or not anything has it.
    lease: Option<Rc<Held>>,
    /// While the point is offered.
    offered: Option<Lease>,
    /// Those of versions that have the point and are not freed.
    flags: Vec<Rc<Flag>>,
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

/// A point that is about to be offered.
struct Offer {
    lease: Lease,
    /// Of the version that offers it.
    flag: Option<Rc<Flag>>,
}

impl Point {
    fn lock(&self) -> MutexGuard<'_, Table> {
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

    fn point(&self) -> &Point {
        self.point.get().expect("a scenario with a point")
    }

    /// Checks that of the point there is what there should be, once no thread runs.
    pub(super) fn check_point(&self) {
        if let Some(point) = self.point.get() {
            point.check();
        }
    }

    /// Takes the version from `f` if that has a point, and withdraws it.
    pub(super) fn remove_with_point(&'static self) {
        let Some(point) = self.point.get() else { return };
        let mut closing: Vec<_> = self.unpublish(point.function).into_iter().collect();
        let mut table = point.lock();
        let before = self.set_offer(point, &mut table, None, &mut closing);
        drop(table);
        closing.iter().for_each(Closing::close);
        self.retire_all(closing);
        drop(before);
    }

    /// Gives `f` its next version, which has the point or has not.
    fn install(&'static self, offers: bool) {
        let point = self.point();
        let (function, resume_entry, parked) = (point.function, point.resume_entry, point.parked);
        let mut table = point.lock();
        let callees: &[_] = match point.kind {
            _ if !offers => &[],
            PointKind::Loop => &[resume_entry],
            PointKind::Call => &[parked, resume_entry],
        };
        let mut roots = vec![self.prepare(function, callees)];
        // Before anything is published.
        let offer = offers.then(|| {
            roots.push(self.prepare(resume_entry, callees));
            Offer {
                lease: self.lease(&mut table, resume_entry),
                flag: self.used(&mut table, &roots),
            }
        });
        let mut resume_entries = roots.split_off(1);
        let mut parked_calls = Vec::new();
        if let (Some(offer), PointKind::Call, None) = (&offer, point.kind, parked.latest.get()) {
            let mut parked = self.prepare(parked, &[resume_entry]);
            if self.machine.moving != Moving::ParkedCallsWithoutLease {
                parked.payload.iter_mut().for_each(|it| it.lease = Some(offer.lease.clone()));
            }
            parked_calls.push(parked);
        }
        // A frame in a parked call finds the resume entry, and a frame that comes from the function
        // finds a parked call.
        let order = match self.machine.moving {
            Moving::ResumeEntryLast => [&mut parked_calls, &mut roots, &mut resume_entries],
            _ => [&mut resume_entries, &mut parked_calls, &mut roots],
        };
        order.into_iter().for_each(|installing| self.open(installing));
        let mut closing = Vec::new();
        let before = self.set_offer(point, &mut table, offer, &mut closing);
        roots.append(&mut resume_entries);
        roots.append(&mut parked_calls);
        self.close(&mut roots);
        closing.iter().for_each(Closing::close);
        drop(table);
        closing.extend(roots.into_iter().filter_map(Installing::replaced));
        self.retire_all(closing);
        // With nothing locked.
        drop(before);
    }

    /// Notes that a version has the point which is made of these. Returns its flag.
    fn used(&'static self, table: &mut Table, parts: &[Installing]) -> Option<Rc<Flag>> {
        let point = self.point();
        let flag = (point.kind == PointKind::Loop).then(|| {
            let memory = Memory::new("a flag", self.machine.causal);
            Rc::new(Flag { word: AtomicUsize::new(0), memory })
        });
        table.flags.extend(flag.clone());
        let used = PointUse {
            world: self,
            flag: flag.clone(),
            _resume_entry: point.resume_entry.handle(),
        };
        let used = Counted::new(used);
        for payload in parts.iter().filter_map(|part| part.payload.as_ref()) {
            payload.code.flag.replace(flag.clone());
            payload.point.replace(Some(used.clone()));
        }
        flag
    }

    /// The lease of the point that is about to be offered.
    fn lease(&'static self, table: &mut Table, resume_entry: &'static Function) -> Lease {
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

    /// Has the point be offered, if that is said, by the version with this flag, and else not.
    /// Returns the lease of before, to be dropped when nothing is locked, and adds what is to be
    /// closed.
    fn set_offer(
        &'static self,
        point: &Point,
        table: &mut Table,
        offer: Option<Offer>,
        closing: &mut Vec<Closing>,
    ) -> Option<Lease> {
        let own = offer.as_ref().and_then(|offer| offer.flag.as_ref());
        for flag in &table.flags {
            let set = offer.is_some() && !own.is_some_and(|own| Rc::ptr_eq(own, flag));
            flag.word.store(usize::from(set), Ordering::Release);
        }
        let offered = offer.is_some();
        let before = replace(&mut table.offered, offer.map(|offer| offer.lease));
        if !offered && before.is_some() {
            if self.machine.moving != Moving::ParkedCallsStayOpen {
                closing.extend(self.unpublish(point.parked));
            }
            if self.machine.moving == Moving::ResumeEntryGoesAtOnce {
                closing.extend(self.unpublish(point.resume_entry));
            }
        }
        before
    }

    /// The last to have had a lease takes the resume entry away, unless another lease was made
    /// since.
    fn take_away(&self) {
        let point = self.point();
        let table = point.lock();
        let held = table.lease.as_ref().is_some_and(|held| held.count.load(Ordering::Relaxed) > 0);
        let kept = table.offered.is_some() || held;
        if kept && self.machine.moving != Moving::LeasesTakeAway {
            self.seen.note(Event::KeptByNewLease);
            return;
        }
        let Some(closing) = self.unpublish(point.resume_entry) else { return };
        closing.close();
        drop(table);
        self.retire_all(vec![closing]);
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

impl Thread {
    /// Gives `f` a version that has the point.
    pub(super) fn offer(&self) {
        self.world.install(true);
    }

    /// Gives `f` a version that does not have it.
    pub(super) fn withdraw(&self) {
        self.world.install(false);
    }
}
