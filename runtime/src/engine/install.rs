//! Installing a unit: first the steps that can fail, then those that must not.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cranelift_module::FuncId;
use lastout_instrument::Dispatch;

use crate::code::Patches;
use crate::function::handle::Handle;
use crate::function::names::Names;
use crate::function::resume_points::{Offer, ParkedCall, Withdrawn};
use crate::function::{Closing, Function, ReservedLane};
use crate::host::fork::Pass;
use crate::types::FunctionType;
use crate::unit::env::UnitEnv;
use crate::unit::image::Image;
use crate::unit::link::{Linked, Root};
use crate::version::Version;
use crate::version::payload::{DropQueue, Owned, Payload};
use crate::{Error, Result};

/// The result of an install: versions, and exposed functions.
///
/// It keeps the exposed functions of the unit alive, and nothing else.
pub struct Installed {
    versions: Vec<Version>,
    /// The address at which the code of each version starts.
    addresses: Vec<usize>,
    functions: HashMap<FuncId, Arc<Function>>,
}

impl Installed {
    /// A version that was written over another.
    pub(crate) fn in_place(version: Version, root: Root) -> Self {
        let functions = root.exposed.map(|id| (id, root.function)).into_iter().collect();
        Self { versions: vec![version], addresses: vec![root.body], functions }
    }

    /// The versions that were installed, one for each function that the unit exports or exposes.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The version of the function with this name.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.function() == name)
    }

    /// Where the code of the version of the function with this name starts.
    ///
    /// Calls of this address are not counted. The caller must make sure that the version is not
    /// freed meanwhile, nor [written over](crate::Engine::replace_in_place). Addresses to hand out
    /// are those of [`Handle::c_address`].
    pub fn address(&self, name: &str) -> Option<usize> {
        let found = self.versions.iter().position(|version| version.function() == name)?;
        Some(self.addresses[found])
    }

    /// A handle to an exposed function of the unit.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFunction`] if the unit did not [expose](crate::Unit::expose) it,
    /// [`Error::SignatureMismatch`] if `F` is not its type, or there is no memory for the entry.
    pub fn function<F: FunctionType>(&self, function: FuncId) -> Result<Handle<F>> {
        let exposed = self.functions.get(&function);
        let exposed = exposed.ok_or_else(|| Error::UnknownFunction(function.to_string()))?;
        Handle::new(Arc::clone(exposed))
    }
}

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Installed").field(&self.versions).finish()
    }
}

/// The versions of a unit, each with a lane for it, before they are current.
pub(crate) struct Publication {
    roots: Vec<Prepared>,
    parked_calls: Vec<(ReservedLane, Arc<ParkedCall>)>,
    functions: HashMap<FuncId, Arc<Function>>,
}

struct Prepared {
    lane: ReservedLane,
    body: usize,
    public: bool,
    /// Whether this is the resume entry of a point, and so part of another root's version.
    part: bool,
    payload: Payload,
}

/// The rest of an install, to be done when nothing is locked any more.
pub(crate) struct Replaced {
    /// Versions to be retired. The pass keeps the process from forking until then.
    pub(crate) closing: Vec<Closing>,
    pub(crate) pass: Pass,
    /// To be dropped after the versions are retired.
    pub(crate) withdrawn: Vec<Withdrawn>,
}

impl Publication {
    /// Reserves a lane for each root. On an error nothing has changed.
    pub(crate) fn new(
        drop_queue: &Arc<DropQueue>,
        linked: Linked,
        attached: impl FnOnce() -> Vec<Box<dyn Any + Send>>,
    ) -> Result<Self> {
        let Linked { code, roots, callees, points } = linked;
        let lanes = roots.iter().map(|root| root.function.reserve_lane());
        let lanes = lanes.collect::<Result<Vec<_>>>()?;
        let parked_calls = points
            .parked_calls
            .iter()
            .map(|parked_call| Ok((parked_call.function.reserve_lane()?, Arc::clone(parked_call))));
        let parked_calls = parked_calls.collect::<Result<Vec<_>>>()?;
        // Only payloads keep the image: it goes with the last one, and at once if there is none.
        let image = Arc::new(Image::new(code, callees, attached()).with_points(points));
        let mut prepared: Vec<Prepared> = Vec::with_capacity(roots.len());
        for (root, lane) in roots.iter().zip(lanes) {
            let version = match root.part_of {
                Some(whole) => prepared[whole].payload.version().another_part(),
                None => Version::new(Arc::clone(lane.function().name())),
            };
            let owned = Arc::clone(&image) as Owned;
            let payload = Payload::new(owned, version, Arc::clone(drop_queue));
            let &Root { body, public, part_of, .. } = root;
            prepared.push(Prepared { lane, body, public, part: part_of.is_some(), payload });
        }
        let exposed = roots.into_iter().filter_map(|root| Some((root.exposed?, root.function)));
        Ok(Self { roots: prepared, parked_calls, functions: exposed.collect() })
    }

    /// Makes the versions current, and those that they replace impossible to enter.
    ///
    /// # Errors
    ///
    /// If calls have to be patched and the system refuses that. Then nothing has changed.
    pub(crate) fn publish(
        self,
        env: &UnitEnv,
        names: &Names,
        drop_queue: &Arc<DropQueue>,
    ) -> Result<(Installed, Replaced)> {
        let Self { roots, parked_calls, functions } = self;
        let wholes = || roots.iter().filter(|root| !root.part);
        let versions = wholes().map(|root| root.payload.version().clone()).collect();
        let addresses = wholes().map(|root| root.body).collect();
        let installed = Installed { versions, addresses, functions };
        let resumable: Vec<_> = wholes()
            .filter_map(|root| root.lane.function().known_points().map(Arc::clone))
            .collect();
        let mut replaced = Vec::with_capacity(roots.len());
        // On an error the names are unlocked before payloads are dropped, which may run anything.
        let mut names = names.lock();
        let published =
            roots.iter().map(|root| &root.lane).chain(parked_calls.iter().map(|(lane, _)| lane));
        let patches = patches(env, published)?;
        names.installs += 1;
        let image = roots.first().and_then(|root| root.payload.owned::<Image>());
        if let Some(image) = image {
            image.set_number(names.installs);
        }
        // The tables are locked before any resume entry or parked call is published.
        let mut tables: Vec<_> = resumable.iter().map(|points| points.lock()).collect();
        let offers = resumable.iter().zip(&mut tables).map(|(points, table)| {
            let uses = image.map_or(&[][..], Image::uses).iter().filter(|used| used.is_of(points));
            uses.map(|used| table.offer(used)).collect::<Vec<_>>()
        });
        let offers: Vec<_> = offers.collect();
        let (parts, wholes): (Vec<_>, Vec<_>) = roots.into_iter().partition(|root| root.part);
        let mut lanes = Vec::with_capacity(parts.len() + wholes.len() + parked_calls.len());
        let mut open = |lane: ReservedLane, body, payload| {
            // Where calls go by slots, no thread may go back to an older version. So the slot comes
            // first. A caller that finds the new gate and not the body yet bails, to the version
            // that is still current. One that finds the body, even by way of a lane that it was
            // late for, finds the new gate from then on: the stores of the body and of the current
            // gate are releases, and gates load both with acquire.
            if patches.is_none() {
                lane.enter_slot();
            }
            // SAFETY: the names and the tables are locked, so this thread is the only one
            // publishing. `body` is code of the function's signature, which the payload keeps.
            replaced.extend(unsafe { lane.publish(body, payload) });
            lanes.push(lane);
        };
        for whole in &wholes {
            whole.payload.publish(names.installs);
        }
        // A frame in a parked call finds the new resume entry, and a frame of a function that makes
        // such calls finds the parked call.
        for Prepared { lane, body, payload, .. } in parts {
            open(lane, body, payload);
        }
        for (lane, parked_call) in parked_calls {
            let mut offers = offers.iter().flatten();
            let offer = offers.find(|offer| offer.lease.is_for(&parked_call.resume_entry));
            if let Some(Offer { lease, .. }) = offer
                && !parked_call.function.is_published()
            {
                let (body, payload) = parked_call.version(Arc::clone(lease), drop_queue);
                open(lane, body, payload);
            }
        }
        for Prepared { lane, body, public, payload, .. } in wholes {
            if public {
                names.publish(lane.function());
            }
            open(lane, body, payload);
        }
        let mut withdrawn = Vec::with_capacity(tables.len());
        for (table, offers) in tables.iter_mut().zip(offers) {
            // SAFETY: the table has been locked since before anything was published.
            let mut left = unsafe { table.withdraw_others(offers) };
            replaced.append(&mut left.closing);
            withdrawn.push(left);
        }
        // Lanes close only when all that is new is current: callers turn away from a closed gate to
        // the current version, and would otherwise find half a unit.
        for closing in &replaced {
            // SAFETY: as above, and these were replaced just now.
            unsafe { closing.close() };
        }
        // Sites do not change all at once, nor together with the slot. So the closing decides:
        // before it every call leads to the old version, after it to the new one, if need be by
        // bailing.
        if let Some(patches) = patches {
            for lane in &lanes {
                if lane.enter_slot() {
                    lane.function().sites().aim(lane.function().gate(), &patches);
                }
            }
        }
        drop(tables);
        let pass = names.unlock();
        Ok((installed, Replaced { closing: replaced, pass, withdrawn }))
    }
}

/// The right to patch calls of these functions, if calls are patched in this engine.
fn patches<'a, 'b>(
    env: &'a UnitEnv,
    mut published: impl Iterator<Item = &'b ReservedLane>,
) -> Result<Option<Patches<'a>>> {
    if env.dispatch != Dispatch::PatchedSites {
        return Ok(None);
    }
    let mut patches = env.memory().patches();
    // From here on no unit registers sites that these patches would miss.
    if published.any(|lane| lane.function().sites().any()) {
        patches.prepare()?;
    }
    Ok(Some(patches))
}
