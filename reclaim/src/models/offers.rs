//! Offering a point and withdrawing it: what installs do with [points](super::point).

use std::mem::replace;
use std::rc::Rc;

use super::events::Event;
use super::install::{Closing, Installing};
use super::machine::Moving;
use super::ownership::Counted;
use super::point::{Flag, Lease, Point, PointKind, PointUse, Table};
use super::world::{Thread, World};

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

/// A point that is about to be offered.
struct Offer {
    lease: Lease,
    /// Of the version that offers it.
    flag: Option<Rc<Flag>>,
}

impl World {
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
        let used = PointUse::new(self, table);
        let flag = used.flag().cloned();
        let used = Counted::new(used);
        for payload in parts.iter().filter_map(|part| part.payload.as_ref()) {
            payload.code.flag.replace(flag.clone());
            payload.point.replace(Some(used.clone()));
        }
        flag
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
            flag.set(set);
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

    /// The last to have had a lease takes the resume entry away, unless another lease was made
    /// since.
    pub(super) fn take_away(&self) {
        let point = self.point();
        let table = point.lock();
        let kept = table.offered.is_some() || table.is_held();
        if kept && self.machine.moving != Moving::LeasesTakeAway {
            self.seen.note(Event::KeptByNewLease);
            return;
        }
        let Some(closing) = self.unpublish(point.resume_entry) else { return };
        closing.close();
        drop(table);
        self.retire_all(vec![closing]);
    }
}
