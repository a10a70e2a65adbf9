//! The face of the crate: engines, their builder, installing, and replacing in place. This layer
//! may know all others.

pub(crate) mod builder;
mod in_place;
pub(crate) mod install;
#[cfg(test)]
mod refusals;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::TargetIsa;

use crate::engine::builder::EngineBuilder;
use crate::engine::in_place::Holds;
use crate::engine::install::{Installed, Publication};
use crate::function::Function;
use crate::function::env::FunctionEnv;
use crate::function::handle::Handle;
use crate::function::names::{NameTable, Names};
use crate::host::fork::Guard;
use crate::types::FunctionType;
use crate::unit::Unit;
use crate::unit::adopted::Adopted;
use crate::unit::env::UnitEnv;
use crate::unit::link::link;
use crate::unwind::{self, location_of_code};
use crate::version::location::Location;
use crate::version::payload::{DropPolicy, DropQueue};
use crate::version::{ThreadFrames, VersionInfo};
use crate::{Error, Result};

/// Functions that can be replaced while threads run them.
///
/// Engines are shared by reference, or in an `Arc`: everything takes `&self`, from any thread.
///
/// Dropping an engine removes all functions that it knows by name. Threads that are inside one
/// leave in peace: the code stays until they have left. Handles can still be called, but their
/// calls return [`CallError::Removed`](crate::CallError::Removed).
pub struct Engine {
    pub(crate) units: Arc<UnitEnv>,
    pub(crate) names: Names,
    pub(crate) drop_queue: Arc<DropQueue>,
    pub(crate) holds: Holds,
}

impl Engine {
    /// An engine that knows no function yet.
    pub(crate) fn from_parts(units: UnitEnv, drop_policy: DropPolicy) -> Self {
        Self {
            units: Arc::new(units),
            names: Names::default(),
            drop_queue: Arc::new(DropQueue::new(drop_policy)),
            holds: Holds::default(),
        }
    }

    /// The state that the engine's functions share.
    pub(crate) fn functions(&self) -> &Arc<FunctionEnv> {
        &self.units.functions
    }

    /// An engine with the defaults of [`EngineBuilder`].
    ///
    /// # Errors
    ///
    /// As [`EngineBuilder::build`].
    pub fn new() -> Result<Self> {
        EngineBuilder::new().build()
    }

    /// A builder for an engine with other settings than the defaults.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
    }

    /// The host's instruction set and Cranelift's flags, for which code is generated.
    pub fn isa(&self) -> &dyn TargetIsa {
        &*self.units.isa
    }

    /// A new unit, to be filled and [installed](Self::install).
    pub fn unit(&self) -> Unit {
        Unit::new(Arc::clone(&self.units))
    }

    /// Installs a unit: all of it, or, if anything is wrong, nothing.
    ///
    /// From now on calls of the functions that the unit exports go to it. A version that it
    /// replaces is freed at once if no thread is inside, and otherwise by the last thread to leave.
    /// However many versions there are, this takes one heavy fence, and no thread waits.
    ///
    /// # Errors
    ///
    /// A function is exported and not defined ([`Error::Undefined`]), is used and not known
    /// ([`Error::MissingImport`]), is known with another signature ([`Error::SignatureMismatch`]);
    /// the unit exports a name of the host's ([`Error::HostSymbol`]) or belongs to another engine
    /// ([`Error::ForeignUnit`]); an address is out of reach ([`Error::Link`]); there is no memory.
    /// In all cases the versions that were current before still are.
    pub fn install(&self, mut unit: Unit) -> Result<Installed> {
        if !unit.belongs_to(&self.units) {
            return Err(Error::ForeignUnit);
        }
        self.recover_after_fork();
        let linked = link(&self.units, &self.names, &unit)?;
        let attached = || std::mem::take(&mut unit.attached);
        self.publish(Publication::new(&self.drop_queue, linked, attached)?)
    }

    /// Replaces the version of a function by another at the same address: callers wait at the gate
    /// until every thread that is inside has left, the new code and data are written over the old,
    /// and the callers go on, in the new version. This is for hosts that have handed out the
    /// [address](Installed::address) of the code, or want no second version in memory. All others
    /// are better served by [`install`](Self::install), which makes no thread wait.
    ///
    /// A thread that is inside and calls the function again is let through, and so can leave. But
    /// if it waits for another thread that calls the function, neither goes on before the time is
    /// over; nor if this is called from inside. A caller waits for one replacement at most.
    ///
    /// The unit gives a version to one function and no more, which it exports; and so did the unit
    /// that is written over, since other functions of that could call into it directly. The new
    /// unit may be larger only as far as the old one has [reserved](Unit::reserve) space. When this
    /// returns, the version that is replaced is freed: what was attached to it is dropped, though
    /// not before the new version runs. This takes two heavy fences.
    ///
    /// # Errors
    ///
    /// [`Error::StillInside`] if threads were inside all the time until `limit` was over,
    /// [`Error::DoesNotFit`], [`Error::NotInPlace`] if the units are not such, the code is
    /// [adopted](Self::adopt), another replacement in its place took all the time or the function
    /// was installed anew or removed meanwhile, or the host is not x86-64;
    /// [`Error::UnknownFunction`] if no function has this name; and as [`install`](Self::install).
    /// In all cases the version that was current before still is, and callers go on in it.
    pub fn replace_in_place(&self, unit: Unit, limit: Duration) -> Result<Installed> {
        if !unit.belongs_to(&self.units) {
            return Err(Error::ForeignUnit);
        }
        self.recover_after_fork();
        in_place::replace(self, unit, limit)
    }

    /// Installs code that something else owns, all of its exports at once, as
    /// [`install`](Self::install) does with those of a unit.
    ///
    /// # Errors
    ///
    /// An export has the name of a symbol of the host's ([`Error::HostSymbol`]), is known with
    /// another signature ([`Error::SignatureMismatch`]), has a signature that no gate can have
    /// ([`Error::Instrument`]), or is at the null address ([`Error::Undefined`]); or there is no
    /// memory. Then the owner is told to release the code, and what was current before still is.
    pub fn adopt(&self, adopted: Adopted) -> Result<Installed> {
        self.recover_after_fork();
        let linked = adopted.link(&self.units, &self.names)?;
        self.publish(Publication::new(&self.drop_queue, linked, Vec::new)?)
    }

    /// Recovers in a process that was forked, before anything else is done there.
    fn recover_after_fork(&self) {
        if self.functions().retirement.recover_after_fork(&self.functions().lane_pool) {
            in_place::recover_after_fork(self);
        }
    }

    fn publish(&self, publication: Publication) -> Result<Installed> {
        let (installed, replaced) =
            publication.publish(&self.units, &self.names, &self.drop_queue)?;
        self.functions().retirement.retire(replaced.closing, replaced.pass);
        drop(replaced.withdrawn);
        Ok(installed)
    }

    /// Makes a function known before any unit defines it, so that units that call each other can be
    /// installed one after the other. Until then a call of it returns
    /// [`CallError::Removed`](crate::CallError::Removed).
    ///
    /// # Errors
    ///
    /// [`Error::SignatureMismatch`] if the function is known with another signature,
    /// [`Error::HostSymbol`] if the host has a symbol of this name, [`Error::Instrument`] if no
    /// gate can have this signature, or there is no memory.
    pub fn declare(&self, name: &str, signature: &Signature) -> Result<()> {
        if self.units.host.contains_key(name) {
            return Err(Error::HostSymbol(name.to_owned()));
        }
        let function = self.names.obtain(name, signature, self.functions())?;
        self.names.lock().publish(&function);
        Ok(())
    }

    /// Removes a function: its version is freed as if it had been replaced, and its name is
    /// forgotten. Calls through remaining handles and imports meet
    /// [`CallError::Removed`](crate::CallError::Removed) until a function of this name is installed
    /// again.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFunction`] if no function has this name.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.recover_after_fork();
        let unknown = || Error::UnknownFunction(name.to_owned());
        let mut names = self.names.lock();
        let function = names.remove(name).ok_or_else(unknown)?;
        self.retire_all(names, vec![function]);
        Ok(())
    }

    /// Takes the versions from functions, and retires them after `names` is unlocked.
    fn retire_all(&self, names: Guard<'_, NameTable>, functions: Vec<Arc<Function>>) {
        let (mut removed, mut withdrawn) = (Vec::new(), Vec::new());
        for function in &functions {
            // SAFETY: `names` is locked, so this thread is the only one publishing.
            removed.extend(unsafe { function.unpublish() });
            if let Some(points) = function.known_points() {
                // SAFETY: nothing is published, and the table is locked.
                let mut left = unsafe { points.lock().withdraw_others(Vec::new()) };
                removed.append(&mut left.closing);
                withdrawn.push(left);
            }
        }
        for closing in &removed {
            // SAFETY: as above, and these were unpublished just now.
            unsafe { closing.close() };
        }
        self.functions().retirement.retire(removed, names.unlock());
        drop(withdrawn);
    }

    /// A handle to the function of this name.
    ///
    /// `F` is its type, such as `fn(i64, f64) -> i64`, with pointers as `usize` or raw pointers.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFunction`] if no function has this name, [`Error::SignatureMismatch`] if it
    /// is of another type, or there is no memory for the entry.
    pub fn function<F: FunctionType>(&self, name: &str) -> Result<Handle<F>> {
        let unknown = || Error::UnknownFunction(name.to_owned());
        let function = self.names.known(name).ok_or_else(unknown)?;
        Handle::new(function)
    }

    /// The versions of a function that are not freed yet, oldest first, and the frames inside them.
    /// Versions that only wait for [`collect`](Self::collect) may be missing.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFunction`] if no function has this name.
    pub fn versions(&self, name: &str) -> Result<Vec<VersionInfo>> {
        let unknown = || Error::UnknownFunction(name.to_owned());
        let function = self.names.known(name).ok_or_else(unknown)?;
        Ok(function.versions())
    }

    /// The frames that are inside a function and in none of its versions: each is in a call that
    /// was [marked](crate::ResumePoints::call), after which it goes on in the version that is
    /// current then.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFunction`] if no function has this name.
    pub fn waiting(&self, name: &str) -> Result<Vec<ThreadFrames>> {
        let unknown = || Error::UnknownFunction(name.to_owned());
        let function = self.names.known(name).ok_or_else(unknown)?;
        Ok(function.waiting())
    }

    /// The frames of this engine's code on the stack of the calling thread, innermost first: for a
    /// host function that wants to know which functions called it. The walk ends at code that
    /// cannot be unwound, so on some hosts there is nothing to see.
    pub fn backtrace(&self) -> Vec<Location> {
        unwind::backtrace(self.units.memory().code_map())
    }

    /// Finds the function of a unit that has code at an address, while the code is there. The
    /// address may be the return address of a frame, less one, or what a profiler has seen.
    pub fn locate(&self, address: usize) -> Option<Location> {
        location_of_code(self.units.memory().code_map(), address)
    }

    /// Drops the payloads of versions that all frames have left, where [`DropPolicy::Collector`]
    /// makes them wait for this. Returns the number of versions.
    pub fn collect(&self) -> usize {
        self.recover_after_fork();
        self.functions().retirement.retry();
        self.drop_queue.collect()
    }

    /// What the engine holds at the moment.
    pub fn stats(&self) -> Stats {
        let (installed, freed) = self.drop_queue.counts();
        let calls = self.functions().calls.get();
        Stats {
            functions: self.names.lock().len(),
            installed,
            freed,
            heavy_fences: self.functions().retirement.fences(),
            patched_calls: calls.in_place,
            patched_calls_by_jump: calls.by_jump,
            code_bytes: self.units.memory().code_bytes(),
            data_bytes: self.units.memory().data_bytes(),
            committed_bytes: self.units.memory().committed_bytes(),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.recover_after_fork();
        let mut names = self.names.lock();
        let functions = names.take_all();
        self.retire_all(names, functions);
        // If the fence was refused, no later call tries again.
        self.functions().retirement.retry();
        // No further call of `collect` can come.
        self.drop_queue.collect_from_now_on();
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Figures of an engine at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Functions that are known by name.
    pub functions: usize,
    /// Versions installed so far.
    pub installed: u64,
    /// The versions of these that have been freed.
    pub freed: u64,
    /// Heavy fences executed so far: one for each install or removal that had a version to retire,
    /// however many it had, and two for each replacement in place.
    pub heavy_fences: u64,
    /// With [`Dispatch::PatchedSites`](crate::Dispatch::PatchedSites), the calls of replaceable
    /// functions in installed units that are patched themselves; otherwise 0.
    pub patched_calls: usize,
    /// Calls that cannot be patched because of how their bytes lie: each goes by way of a jump of
    /// its unit's, which is patched instead.
    pub patched_calls_by_jump: usize,
    /// Bytes of machine code, of versions, gates and entries, in whole cache lines.
    pub code_bytes: usize,
    /// Bytes of the data of units, in whole cache lines.
    pub data_bytes: usize,
    /// Bytes that code and data take from the system, in whole pages.
    pub committed_bytes: usize,
}

impl Stats {
    /// Versions that are installed and not freed.
    pub fn alive(&self) -> u64 {
        self.installed - self.freed
    }
}
