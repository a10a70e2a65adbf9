//! Points at which the frames of a function move to its current version: which functions and flags
//! a point has, and how long they stay. [`lastout_instrument::resume`] describes their code.
//!
//! # What a point has
//!
//! Versions come and go; a point is what they have in common: a number, and what is alive there
//! ([`PointKey`]). As long as a version is alive that has the point, the point has:
//!
//! - a *resume entry*, a function, whose version is that of the unit that was the last to have the
//!   point;
//! - the *flags* of all these versions: words that say whether frames are to leave;
//! - if the point is at a call, *parked calls*: functions in which frames are while the call is in
//!   progress. There are several if versions call different functions.
//!
//! # Offered points
//!
//! A point is *offered* while the current version has it. Then its resume entry is current too, its
//! parked calls can be entered, and all flags are set except that of the current version.
//!
//! An install whose version does not have the point withdraws it: flags are cleared and parked
//! calls closed, and a frame that comes to a closed gate goes to its fallback. But a frame in a
//! parked call has no fallback any more, since its version may be gone, and it must still find a
//! resume entry. So the resume entry stays current as long as there is a [`Lease`]. A parked call
//! has a lease until the last frame has left it. The last lease takes the resume entry away, unless
//! the point is offered again.
//!
//! A frame that leaves a parked call counts in at the resume entry before it counts out there. So
//! it does not matter that this frame may be the one that takes the resume entry away.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use cranelift_codegen::ir::{Signature, Type};
use lastout_instrument::resume::{Live, ResumePoint};

use crate::Result;
use crate::code::Block;
use crate::function::callee::Callee;
use crate::function::{Closing, Function};
use crate::host::fork::{ForkSafeMutex, Guard};
use crate::version::Version;
use crate::version::payload::{DropQueue, Payload};

/// What points of different versions must have in common to be the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PointKey {
    id: u32,
    live: Vec<Live>,
    /// The types that the call returns, if the point is at a call.
    results: Option<Vec<Type>>,
}

impl PointKey {
    pub(crate) fn new(point: &ResumePoint) -> Self {
        let returned = |call: &Signature| call.returns.iter().map(|it| it.value_type).collect();
        Self { id: point.id, live: point.live.clone(), results: point.call.as_ref().map(returned) }
    }

    /// The same point, but with other values alive.
    pub(crate) fn with_live(&self, live: Vec<Live>) -> Self {
        Self { live, ..self.clone() }
    }
}

impl fmt::Display for PointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.id)?;
        for (index, Live { label, ty }) in self.live.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            label.iter().try_for_each(|label| write!(f, "{label}: "))?;
            write!(f, "{ty}")?;
        }
        f.write_str(")")?;
        if let Some(results) = &self.results {
            f.write_str(" after")?;
            results.iter().try_for_each(|ty| write!(f, " {ty}"))?;
        }
        Ok(())
    }
}

/// The points of a function.
#[derive(Default)]
pub(crate) struct Points {
    /// Only the holder of this lock publishes resume entries and parked calls.
    table: ForkSafeMutex<PointTable>,
}

/// The points that some living version has.
#[derive(Default)]
pub(crate) struct PointTable {
    points: HashMap<PointKey, Point>,
}

#[derive(Default)]
struct Point {
    resume_entry: Weak<Function>,
    /// How many units have the point.
    uses: usize,
    /// The addresses of the flags in these units.
    flags: Vec<usize>,
    parked_calls: Vec<(ParkedCallKey, Weak<ParkedCall>)>,
    lease: Weak<Lease>,
    /// The lease that offers the point, while it is offered.
    offered: Option<Arc<Lease>>,
}

/// Stands for a unit that has a point, until this is dropped.
pub(crate) struct PointUse {
    points: Arc<Points>,
    key: PointKey,
    resume_entry: Arc<Function>,
    flag: Option<usize>,
}

/// Keeps a resume entry current, whether or not the point is offered.
pub(crate) struct Lease {
    points: Arc<Points>,
    key: PointKey,
    resume_entry: Arc<Function>,
}

/// The function that a parked call calls.
pub(crate) enum ParkedCallee {
    Replaceable(Arc<Function>),
    /// Code of the host, by its address.
    Host(usize),
}

/// What parked calls of a point must have in common to be the same. A parked call keeps its callee,
/// so while it lives, the address in its key is no other function's.
#[derive(PartialEq, Eq)]
struct ParkedCallKey {
    callee: usize,
    called_as: Signature,
}

impl ParkedCallKey {
    fn new(callee: &ParkedCallee, called_as: &Signature) -> Self {
        let callee = match callee {
            ParkedCallee::Replaceable(callee) => Arc::as_ptr(callee).addr(),
            ParkedCallee::Host(address) => *address,
        };
        Self { callee, called_as: called_as.clone() }
    }
}

/// A parked call: a function, and the code of its versions, which is always the same. The units
/// whose calls are made there keep it.
pub(crate) struct ParkedCall {
    pub(crate) function: Arc<Function>,
    pub(crate) code: Arc<Block>,
    pub(crate) callee: ParkedCallee,
    pub(crate) resume_entry: Arc<Function>,
}

/// The things that a version of a parked call owns, in the order in which they are dropped.
struct ParkedVersion {
    _lease: Arc<Lease>,
    _callees: Vec<Callee>,
    _code: Arc<Block>,
}

impl ParkedCall {
    /// A version of the parked call, for as long as the point is offered: its code and its payload.
    pub(crate) fn version(
        &self,
        lease: Arc<Lease>,
        drop_queue: &Arc<DropQueue>,
    ) -> (usize, Payload) {
        let callee = match &self.callee {
            ParkedCallee::Replaceable(callee) => Some(callee),
            ParkedCallee::Host(_) => None,
        };
        let callees = callee.into_iter().chain([&self.resume_entry]);
        let callees = callees.map(|function| Callee::new(Arc::clone(function))).collect();
        let code = Arc::clone(&self.code);
        let owned = Arc::new(ParkedVersion { _lease: lease, _callees: callees, _code: code });
        let version = Version::new(Arc::clone(self.function.name()));
        (self.code.address(), Payload::new(owned, version, Arc::clone(drop_queue)))
    }
}

impl Points {
    /// Notes that a unit has a point. If the point has no resume entry yet, it is made.
    pub(crate) fn register(
        self: &Arc<Self>,
        key: &PointKey,
        make: impl FnOnce() -> Result<Arc<Function>>,
    ) -> Result<PointUse> {
        let existing = |table: &PointTable| table.points.get(key)?.resume_entry.upgrade();
        let found = existing(&self.table.lock());
        let resume_entry = match found {
            Some(resume_entry) => resume_entry,
            None => make()?,
        };
        let mut table = self.table.lock();
        // Another thread may have been faster. The unused one goes when nothing is locked.
        let (resume_entry, _unused) = match existing(&table) {
            Some(faster) => (faster, Some(resume_entry)),
            None => (resume_entry, None),
        };
        let point = table.points.entry(key.clone()).or_default();
        point.resume_entry = Arc::downgrade(&resume_entry);
        point.uses += 1;
        drop(table);
        Ok(PointUse { points: Arc::clone(self), key: key.clone(), resume_entry, flag: None })
    }

    /// The right to publish what belongs to points.
    pub(crate) fn lock(&self) -> Guard<'_, PointTable> {
        self.table.lock()
    }

    /// The resume entries of all points, and the parked calls.
    pub(crate) fn functions(&self) -> (Vec<Arc<Function>>, Vec<Arc<Function>>) {
        let table = self.table.lock();
        let resume_entries =
            table.points.values().filter_map(|point| point.resume_entry.upgrade()).collect();
        let parked_calls = table.points.values().flat_map(|point| &point.parked_calls);
        let parked_calls: Vec<_> =
            parked_calls.filter_map(|(_, parked_call)| parked_call.upgrade()).collect();
        drop(table);
        (
            resume_entries,
            parked_calls.iter().map(|parked_call| Arc::clone(&parked_call.function)).collect(),
        )
    }
}

impl PointUse {
    /// Whether the point is one of the function that has these points.
    pub(crate) fn is_of(&self, points: &Arc<Points>) -> bool {
        Arc::ptr_eq(&self.points, points)
    }

    pub(crate) fn resume_entry(&self) -> &Arc<Function> {
        &self.resume_entry
    }

    /// Says where the unit's flag is: an aligned word that stays until this is dropped.
    pub(crate) fn set_flag(&mut self, address: usize) {
        self.flag = Some(address);
        let mut table = self.points.table.lock();
        table.point(&self.key).flags.push(address);
    }

    /// The parked call of the point that calls `callee`; it is made if there is none yet.
    pub(crate) fn parked_call(
        &self,
        callee: ParkedCallee,
        called_as: &Signature,
        make: impl FnOnce(&ParkedCallee) -> Result<(Arc<Function>, Arc<Block>)>,
    ) -> Result<Arc<ParkedCall>> {
        let key = ParkedCallKey::new(&callee, called_as);
        let existing = |table: &mut PointTable| {
            let parked_calls = &mut table.point(&self.key).parked_calls;
            parked_calls.retain(|(_, parked_call)| parked_call.strong_count() > 0);
            parked_calls.iter().find(|(other, _)| *other == key)?.1.upgrade()
        };
        let found = existing(&mut self.points.table.lock());
        if let Some(parked_call) = found {
            return Ok(parked_call);
        }
        let (function, code) = make(&callee)?;
        let resume_entry = Arc::clone(&self.resume_entry);
        let parked_call = Arc::new(ParkedCall { function, code, callee, resume_entry });
        let mut table = self.points.table.lock();
        if let Some(faster) = existing(&mut table) {
            drop(table);
            return Ok(faster);
        }
        table.point(&self.key).parked_calls.push((key, Arc::downgrade(&parked_call)));
        Ok(parked_call)
    }
}

impl Drop for PointUse {
    fn drop(&mut self) {
        let mut table = self.points.table.lock();
        let point = table.point(&self.key);
        point.uses -= 1;
        point.flags.retain(|&flag| Some(flag) != self.flag);
        let gone = (point.uses == 0).then(|| table.points.remove(&self.key));
        drop(table);
        drop(gone);
    }
}

/// A point of a unit that is about to be current.
pub(crate) struct Offer {
    pub(crate) lease: Arc<Lease>,
    /// The address of the unit's flag.
    flag: Option<usize>,
}

impl Lease {
    pub(crate) fn is_for(&self, resume_entry: &Arc<Function>) -> bool {
        Arc::ptr_eq(&self.resume_entry, resume_entry)
    }
}

/// What an install leaves behind after it has changed which points are offered. This is to be
/// dropped when nothing is locked.
#[derive(Default)]
pub(crate) struct Withdrawn {
    /// Parked calls that are unpublished and still to be closed.
    pub(crate) closing: Vec<Closing>,
    _leases: Vec<Arc<Lease>>,
    _parked_calls: Vec<Arc<ParkedCall>>,
}

impl PointTable {
    fn point(&mut self, key: &PointKey) -> &mut Point {
        self.points.get_mut(key).expect("a point is there as long as something uses it")
    }

    /// Makes what is needed to offer the point that a unit has.
    pub(crate) fn offer(&mut self, used: &PointUse) -> Offer {
        let point = self.point(&used.key);
        let lease = point.lease.upgrade().unwrap_or_else(|| {
            let (points, resume_entry) = (Arc::clone(&used.points), Arc::clone(&used.resume_entry));
            let lease = Arc::new(Lease { points, key: used.key.clone(), resume_entry });
            point.lease = Arc::downgrade(&lease);
            lease
        });
        Offer { lease, flag: used.flag }
    }

    /// Offers these points, whose resume entries have been published, and withdraws all others.
    ///
    /// # Safety
    ///
    /// The table was locked before the resume entries were published.
    pub(crate) unsafe fn withdraw_others(&mut self, offered: Vec<Offer>) -> Withdrawn {
        let mut withdrawn = Withdrawn::default();
        let leases: HashMap<_, _> =
            offered.iter().map(|offer| (&offer.lease.key, &offer.lease)).collect();
        for (key, point) in &mut self.points {
            let lease = leases.get(key).map(|&lease| Arc::clone(lease));
            let is_offered = lease.is_some();
            let before = std::mem::replace(&mut point.offered, lease);
            for &flag in &point.flags {
                let own = offered.iter().any(|offer| offer.flag == Some(flag));
                // SAFETY: `set_flag` asks for such a word. Code only reads it.
                let flag =
                    unsafe { AtomicUsize::from_ptr(std::ptr::with_exposed_provenance_mut(flag)) };
                flag.store(usize::from(is_offered && !own), Ordering::Release);
            }
            if !is_offered && before.is_some() {
                for parked_call in
                    point.parked_calls.iter().filter_map(|(_, parked_call)| parked_call.upgrade())
                {
                    // SAFETY: as the caller says.
                    withdrawn.closing.extend(unsafe { parked_call.function.unpublish() });
                    withdrawn._parked_calls.push(parked_call);
                }
            }
            withdrawn._leases.extend(before);
        }
        withdrawn
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let table = self.points.table.lock();
        let kept = table.points.get(&self.key).is_some_and(|point| {
            // Another lease may have been made since the last reference to this one went.
            point.offered.is_some() || point.lease.strong_count() > 0
        });
        if kept {
            return;
        }
        // SAFETY: the table is locked.
        let Some(closing) = (unsafe { self.resume_entry.unpublish() }) else { return };
        // SAFETY: as above.
        unsafe { closing.close() };
        self.resume_entry.env().retirement.retire(vec![closing], table.unlock());
    }
}
