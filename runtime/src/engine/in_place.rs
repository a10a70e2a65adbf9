//! Replacing a version by another at the same address, while callers wait.
//!
//! # How callers wait
//!
//! The body word of the lane, which gates load, gets the address of a *detour*: code that calls the
//! runtime, which waits, and then goes on to the body. So gates are what they always are; a caller
//! that waits is counted in, in the detour instead of in the body, and is noted as one that waits.
//! [`Hold`](lastout_reclaim::Hold) says when only such callers are inside, and makes sure that it
//! stays so. Then the code is written, the lane gets the other payload, the body word gets its old
//! value, and the callers go on.
//!
//! # What may come between
//!
//! Only the holder of the right to publish holds callers, releases them, and exchanges code and
//! payload. In between other threads may publish: if the version is replaced or removed, the
//! callers go on in it, to leave it, and the replacement fails. A fork can come in between, too:
//! the child has the detour in the lane and no thread that would release the callers. So callers do
//! not wait there, and the [recovery](recover_after_fork) puts the body back.
//!
//! Each lane has a detour of its own, made when it is first needed. With one detour for a function,
//! a caller that has waited in one lane would not know its body when callers of the next are held.
//!
//! A signal handler may call the function on the thread that holds its callers. That call is let
//! through, and while the thread decides and writes, it takes no signals.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cranelift_module::{FuncId, Linkage, Module};
use lastout_reclaim::Frames;

use crate::code::{Block, Footprint};
use crate::engine::Engine;
use crate::engine::install::Installed;
use crate::function::CurrentVersion;
use crate::function::names::NameTable;
use crate::host::fork::{self, ForkSafeMutex, Guard};
use crate::host::signals::BlockedSignals;
use crate::host::threads;
use crate::unit::Unit;
use crate::unit::image::{Code, Image};
use crate::unit::link::{LinkedOver, link_over};
use crate::version::Version;
use crate::version::payload::Payload;
use crate::{Error, Result};

/// The versions whose callers are held, each with the [generation](fork::generation) of the process
/// that holds them.
#[derive(Default)]
pub(crate) struct Holds(ForkSafeMutex<Vec<(CurrentVersion, u64)>>);

impl Holds {
    fn note(&self, target: &CurrentVersion) {
        self.0.lock().push((target.clone(), fork::generation()));
    }

    /// Forgets that the callers of a version are held since the process had this generation.
    /// Returns whether they were.
    fn forget(&self, target: &CurrentVersion, since: u64) -> bool {
        let mut holds = self.0.lock();
        let found = holds.iter().position(|(held, of)| held == target && *of == since);
        found.map(|found| holds.swap_remove(found)).is_some()
    }
}

/// In a process that was forked, makes callers go on that a thread which it lacks has held.
pub(crate) fn recover_after_fork(engine: &Engine) {
    let lock = engine.names.lock();
    let mut holds = engine.holds.0.lock();
    let stale = |(_, of): &(CurrentVersion, u64)| *of != fork::generation();
    let stale: Vec<_> = holds.extract_if(.., |hold| stale(hold)).collect();
    drop(holds);
    for (target, since) in &stale {
        // SAFETY: the names are locked, so this thread is the only one publishing, and another
        // process is the one that held the callers.
        unsafe { target.go_on(*since) };
    }
    // These may be the last references to functions.
    drop(lock);
    drop(stale);
}

/// See [`Engine::replace_in_place`](crate::Engine::replace_in_place).
pub(crate) fn replace(engine: &Engine, mut unit: Unit, limit: Duration) -> Result<Installed> {
    let names = &engine.names;
    let (id, name) = only_function(&unit)?;
    let not_in_place = |why| Error::NotInPlace { function: name.clone(), why };
    let mut pauses = Pauses::until(Instant::now().checked_add(limit));
    loop {
        let function = names.known(&name).ok_or_else(|| Error::UnknownFunction(name.clone()))?;
        let lock = names.lock();
        // SAFETY: the names are locked, so this thread is the only one publishing.
        let target = unsafe { function.live() };
        let target = target.ok_or_else(|| not_in_place("it has no version"))?;
        // SAFETY: as above, and the version is current.
        let place = unsafe { target.look(place) };
        let place = place.unwrap_or(Err("it has no version")).map_err(not_in_place)?;
        drop(lock);
        let linked = link_over(&engine.units, names, &unit, id, &place.footprint, place.body)?;
        if !Arc::ptr_eq(&linked.root.function, target.function()) {
            // The function was removed, and another now has its name.
            continue;
        }
        let lock = names.lock();
        // SAFETY: as above.
        if !unsafe { target.is_current() } {
            continue;
        }
        // SAFETY: as above, and the version is current, with its code at this place.
        if !unsafe { target.hold(place.body)? } {
            drop(lock);
            if pauses.are_over() {
                return Err(not_in_place("another replacement in its place is under way"));
            }
            pauses.next();
            continue;
        }
        engine.holds.note(&target);
        let since = fork::generation();
        drop(lock);
        let holding = Holding { engine, target, since };
        let attached = || std::mem::take(&mut unit.attached);
        return holding.replace(&place.block, linked, attached, pauses).map_err(
            |failed| match failed {
                Failed::Inside(frames) => Error::StillInside {
                    function: name.clone(),
                    threads: frames.into_iter().map(threads::describe).collect(),
                },
                Failed::Lost => not_in_place("it was replaced or removed meanwhile"),
                Failed::Error(error) => error,
            },
        );
    }
}

/// The function to which the unit gives a version, and its name.
fn only_function(unit: &Unit) -> Result<(FuncId, String)> {
    let declaration = |id: &FuncId| unit.declarations().get_function_decl(*id);
    let is_public =
        |id: &FuncId| matches!(declaration(id).linkage, Linkage::Export | Linkage::Preemptible);
    let versions: Vec<_> =
        unit.functions.keys().filter(|id| is_public(id) || unit.exposed.contains(id)).collect();
    let name = |id: &FuncId| declaration(id).linkage_name(*id).into_owned();
    match *versions {
        [id] if is_public(id) => Ok((*id, name(id))),
        _ => {
            let function = versions.into_iter().map(name).collect::<Vec<_>>().join("`, `");
            let why = "the unit does not export exactly one function, and expose no other";
            Err(Error::NotInPlace { function, why })
        }
    }
}

/// The place of a version that can be written over.
struct OverwriteTarget {
    block: Arc<Block>,
    footprint: Footprint,
    /// Where the function's code starts.
    body: usize,
}

/// The place of a version's code and data, or why it cannot be written over.
fn place(payload: &Payload) -> Result<OverwriteTarget, &'static str> {
    match payload.owned().map(Image::code) {
        Some(Code::Block { block, only: Some(body), .. }) => {
            let block = Arc::clone(block);
            Ok(OverwriteTarget { footprint: block.footprint(), block, body: *body })
        }
        Some(Code::Block { .. }) => Err("its unit has several functions that can be replaced"),
        Some(Code::Adopted { .. }) | None => Err("its code is not a unit's"),
    }
}

/// Why a version whose callers were held was not replaced.
enum Failed {
    /// Threads were inside.
    Inside(Vec<Frames>),
    /// Another thread has replaced or removed the version, or recovered in a forked process.
    Lost,
    Error(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The right to go on with a replacement: the callers of a version are held, until `end`.
struct Holding<'a> {
    engine: &'a Engine,
    target: CurrentVersion,
    since: u64,
}

impl Holding<'_> {
    /// Waits until no thread is inside, and writes the other version over this one.
    fn replace(
        self,
        block: &Arc<Block>,
        linked: LinkedOver,
        attached: impl FnOnce() -> Vec<Box<dyn std::any::Any + Send>>,
        mut pauses: Pauses,
    ) -> Result<Installed, Failed> {
        if let Err(refused) = self.engine.functions().retirement.heavy_fence() {
            self.give_up();
            return Err(Failed::Error(refused.into()));
        }
        loop {
            let over = pauses.are_over();
            let inside = self.target.inside();
            if !inside.is_empty() && self.target.is_live() {
                if over {
                    self.give_up();
                    return Err(Failed::Inside(inside));
                }
                pauses.next();
                continue;
            }
            let names = self.engine.names.lock();
            if !self.is_mine() {
                drop(names);
                self.give_up();
                return Err(Failed::Lost);
            }
            let blocked = BlockedSignals::new();
            // SAFETY: this thread holds the callers, and there was a heavy fence since.
            match unsafe { self.target.decide() } {
                Ok(()) => return self.write(names, blocked, block, linked, attached),
                Err(inside) if over => {
                    drop((blocked, names));
                    self.give_up();
                    return Err(Failed::Inside(inside));
                }
                Err(_) => {}
            }
            drop((blocked, names));
            pauses.next();
        }
    }

    /// Whether the version is still current and its callers are held by this thread in this
    /// process. The names are locked.
    fn is_mine(&self) -> bool {
        // SAFETY: the names are locked, so this thread is the only one publishing.
        self.since == fork::generation() && unsafe { self.target.is_current() }
    }

    /// Makes the callers go on in the version that is there.
    fn give_up(self) {
        let names = self.engine.names.lock();
        self.end(&names);
        drop(names);
    }

    fn end(&self, _names: &Guard<'_, NameTable>) {
        if self.engine.holds.forget(&self.target, self.since) {
            // SAFETY: the names are locked, so this thread is the only one publishing, and it has
            // held the callers until now.
            unsafe { self.target.go_on(self.since) };
        }
    }

    /// Writes the other version while no thread is inside, and makes the callers go on there.
    fn write(
        self,
        mut names: Guard<'_, NameTable>,
        blocked: BlockedSignals,
        block: &Arc<Block>,
        linked: LinkedOver,
        attached: impl FnOnce() -> Vec<Box<dyn std::any::Any + Send>>,
    ) -> Result<Installed, Failed> {
        let Self { engine, ref target, .. } = self;
        let memory = engine.units.memory();
        let LinkedOver { mut contents, calls, root, description } = linked;
        // From now on, calls in the old code must not be patched any more, and calls in the new
        // code must.
        let turn = memory.patches();
        let written = calls.aim(contents.code().0, &turn).and_then(|()| {
            // SAFETY: no thread is inside, and this thread has the turn to patch.
            unsafe { block.overwrite(&contents) }
        });
        if let Err(error) = written {
            drop(turn);
            self.end(&names);
            return Err(error.into());
        }
        let code = Code::Block {
            block: Arc::clone(block),
            description: Arc::clone(&description),
            only: Some(root.body),
        };
        block.describe(description);
        let callees = calls.register(memory, &turn);
        let image = Image::new(code, callees, attached());
        let version = Version::new(Arc::clone(target.function().name()));
        let drop_queue = Arc::clone(&engine.drop_queue);
        names.installs += 1;
        image.set_number(names.installs);
        let payload = Payload::new(Arc::new(image), version.clone(), drop_queue);
        payload.publish(names.installs);
        // SAFETY: the names are locked, the version is current, and no thread is inside before the
        // callers go on.
        let mut replaced = unsafe { target.exchange(payload) };
        if let Some(image) = replaced.as_mut().and_then(Payload::owned_mut) {
            Image::deregister_sites(image);
        }
        drop(turn);
        engine.functions().retirement.serialize();
        self.end(&names);
        drop((blocked, names));
        // The drop of a payload may run anything.
        drop(replaced);
        Ok(Installed::in_place(version, root))
    }
}

/// The pauses between two looks: the longer the whole takes, the longer they are.
struct Pauses {
    end: Option<Instant>,
    count: u32,
}

impl Pauses {
    fn until(end: Option<Instant>) -> Self {
        Self { end, count: 0 }
    }

    fn are_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    fn next(&mut self) {
        const YIELDS: u32 = 16;
        const LONGEST: Duration = Duration::from_millis(1);

        self.count += 1;
        let Some(sleeps) = self.count.checked_sub(YIELDS) else { return thread::yield_now() };
        let pause = LONGEST.min(Duration::from_micros(1 << sleeps.min(10)));
        let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
        thread::sleep(left.map_or(pause, |left| left.min(pause)));
    }
}
