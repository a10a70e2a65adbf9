//! What an engine should do, in plain single-threaded words.
//!
//! Nothing here knows of slots, gates or counters. A version is freed when it is not current and
//! no frame on any thread's stack was entered through its function; a unit is dropped when all of
//! its versions are freed; a removed function is forgotten when nothing refers to it.

use std::collections::BTreeMap;
use std::rc::Rc;

use lastout::{DropPolicy, VersionState};

use super::worker::{NUMBER, Outcome, Returned};
use super::{Body, Callee, Mistake, Name, Thread, UnitPlan};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FunctionId(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VersionId(pub(super) usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnitId(pub(super) usize);

/// An error that an operation is to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Undefined,
    MissingImport,
    HostSymbol,
    SignatureMismatch,
    UnknownFunction,
    NotInPlace,
    StillInside,
}

pub(super) struct Model {
    /// Whether the engine is still there.
    engine: bool,
    drop_policy: DropPolicy,
    known: BTreeMap<Name, FunctionId>,
    /// Those that were removed, and may come back if something has kept them.
    removed: BTreeMap<Name, FunctionId>,
    functions: Vec<Function>,
    pub(super) versions: Vec<Version>,
    pub(super) units: Vec<Unit>,
    /// What the host has handles to.
    pub(super) handles: Vec<FunctionId>,
    /// The calls that each thread is inside of, one within the other.
    threads: [Vec<Calling>; Thread::ALL.len()],
    /// How many units were installed.
    installs: u64,
    /// How many of them are not among `units`.
    pub(super) ballasts: u64,
}

struct Function {
    /// `None` for an exposed function.
    name: Option<Name>,
    wide: bool,
    current: Option<VersionId>,
}

pub(super) struct Version {
    pub(super) function: FunctionId,
    unit: UnitId,
    body: usize,
    pub(super) number: u64,
    pub(super) state: VersionState,
}

pub(super) struct Unit {
    pub(super) plan: Rc<UnitPlan>,
    versions: Vec<VersionId>,
    /// The functions that it calls through their slots.
    callees: BTreeMap<Name, FunctionId>,
}

/// A call from the host, and what has come of it so far.
struct Calling {
    function: FunctionId,
    frames: Vec<Frame>,
    missing: Option<Name>,
}

struct Frame {
    unit: UnitId,
    body: usize,
    /// The version, if the call went through a slot.
    version: Option<VersionId>,
    depth: i64,
    result: i64,
    next: usize,
}

impl Model {
    pub(super) fn new(drop_policy: DropPolicy) -> Self {
        Self {
            engine: true,
            drop_policy,
            known: BTreeMap::new(),
            removed: BTreeMap::new(),
            functions: Vec::new(),
            versions: Vec::new(),
            units: Vec::new(),
            handles: Vec::new(),
            threads: Default::default(),
            installs: 0,
            ballasts: 0,
        }
    }

    /// Installs a unit. Its versions are the last ones then, in the order of `plan.bodies()` less
    /// the helper.
    ///
    /// If more than one thing is wrong, any of them may be the engine's error.
    pub(super) fn install(&mut self, plan: &Rc<UnitPlan>) -> Result<(), Vec<Refusal>> {
        let refusals = self.check(plan);
        if !refusals.is_empty() {
            return Err(refusals);
        }
        self.installs += 1;
        let unit = UnitId(self.units.len());
        let mut versions = Vec::new();
        for (body, export) in plan.exports.iter().enumerate() {
            let function = self.revive(export.name, plan.wide.contains(&export.name));
            versions.push(self.publish(function, unit, body));
        }
        if plan.exposed.is_some() {
            let function = self.new_function(None, false);
            let body = plan.exports.len() + usize::from(plan.helper.is_some());
            versions.push(self.publish(function, unit, body));
            self.handles.push(function);
        }
        let callees = plan.callees().map(|name| (name, self.known[&name])).collect();
        self.units.push(Unit { plan: Rc::clone(plan), versions, callees });
        Ok(())
    }

    /// What is wrong with a unit.
    fn check(&self, plan: &UnitPlan) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        match plan.mistake {
            Some(Mistake::HostName) => return vec![Refusal::HostSymbol],
            Some(Mistake::Undefined) => refusals.push(Refusal::Undefined),
            None => {}
        }
        let wide = |name: &Name| plan.wide.contains(name);
        for export in &plan.exports {
            if let Some(existing) = self.existing(export.name)
                && self.functions[existing.0].wide != wide(&export.name)
            {
                refusals.push(Refusal::SignatureMismatch);
            }
        }
        for name in plan.callees().filter(|&name| plan.export(name).is_none()) {
            match self.known.get(&name) {
                None => refusals.push(Refusal::MissingImport),
                Some(known) if self.functions[known.0].wide != wide(&name) => {
                    refusals.push(Refusal::SignatureMismatch);
                }
                Some(_) => {}
            }
        }
        refusals
    }

    /// The version that a unit would be written over, or why there is none.
    pub(super) fn place(&self, plan: &UnitPlan) -> Result<VersionId, Refusal> {
        if plan.mistake == Some(Mistake::HostName) {
            return Err(Refusal::UnknownFunction);
        }
        if !plan.is_alone() {
            return Err(Refusal::NotInPlace);
        }
        let function = self.known(plan.exports[0].name).ok_or(Refusal::UnknownFunction)?;
        let version = self.functions[function.0].current.ok_or(Refusal::NotInPlace)?;
        let is_alone = self.plan(version).is_alone() && cfg!(target_arch = "x86_64");
        is_alone.then_some(version).ok_or(Refusal::NotInPlace)
    }

    /// What the unit of a version was made from.
    pub(super) fn plan(&self, version: VersionId) -> &UnitPlan {
        &self.units[self.versions[version.0].unit.0].plan
    }

    /// Replaces a version in its place. In the end that is an install.
    pub(super) fn replace_in_place(&mut self, plan: &Rc<UnitPlan>) -> Result<(), Vec<Refusal>> {
        let place = self.place(plan).map_err(|refusal| vec![refusal])?;
        let inside = self.frames(place).iter().any(|&frames| frames != 0);
        match self.check(plan) {
            refusals if !refusals.is_empty() => Err(refusals),
            _ if inside => Err(vec![Refusal::StillInside]),
            _ => self.install(plan),
        }
    }

    /// Another install, of a version that is removed again before the next comparison.
    pub(super) fn install_ballast(&mut self) {
        self.installs += 1;
        self.ballasts += 1;
    }

    pub(super) fn declare(&mut self, name: Name, wide: bool) -> Result<(), Refusal> {
        if let Some(existing) = self.existing(name)
            && self.functions[existing.0].wide != wide
        {
            return Err(Refusal::SignatureMismatch);
        }
        self.revive(name, wide);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: Name) -> Result<(), Refusal> {
        let function = self.known.remove(&name).ok_or(Refusal::UnknownFunction)?;
        self.removed.insert(name, function);
        if let Some(version) = self.functions[function.0].current.take() {
            self.versions[version.0].state = VersionState::Retired;
        }
        Ok(())
    }

    pub(super) fn get_handle(&mut self, name: Name, wide: bool) -> Result<(), Refusal> {
        let &function = self.known.get(&name).ok_or(Refusal::UnknownFunction)?;
        if self.functions[function.0].wide != wide {
            return Err(Refusal::SignatureMismatch);
        }
        self.handles.push(function);
        Ok(())
    }

    pub(super) fn collect(&mut self) -> usize {
        let drained = |version: &&mut Version| version.state == VersionState::Drained;
        let drained = self.versions.iter_mut().filter(drained);
        drained.map(|version| version.state = VersionState::Freed).count()
    }

    pub(super) fn drop_engine(&mut self) {
        for name in Name::ALL {
            // Unless it is not there.
            let _ = self.remove(name);
        }
        self.settle();
        self.collect();
        self.engine = false;
    }

    /// What a call by this thread returns.
    pub(super) fn call(&self, handle: usize, depth: i64) -> Returned {
        let mut calling = self.calling(handle, depth);
        loop {
            if let Outcome::Returned(returned) = self.run(&mut calling) {
                return returned;
            }
        }
    }

    pub(super) fn enter(&mut self, thread: Thread, handle: usize, depth: i64) -> Outcome {
        let calling = self.calling(handle, depth);
        self.threads[thread as usize].push(calling);
        let inside =
            self.threads[thread as usize].last().and_then(|calling| self.visiting(calling));
        inside.unwrap_or_else(|| self.go_on(thread))
    }

    pub(super) fn is_inside(&self, thread: Thread) -> bool {
        !self.threads[thread as usize].is_empty()
    }

    pub(super) fn go_on(&mut self, thread: Thread) -> Outcome {
        let mut calling = self.threads[thread as usize].pop().expect("it is inside something");
        let outcome = self.run(&mut calling);
        if matches!(outcome, Outcome::Inside(_)) {
            self.threads[thread as usize].push(calling);
        }
        outcome
    }

    fn calling(&self, handle: usize, depth: i64) -> Calling {
        let function = self.handles[handle];
        let mut calling = Calling { function, frames: Vec::new(), missing: None };
        self.call_through_slot(&mut calling, function, depth, NUMBER);
        calling
    }

    /// The constant that the newest frame's visit has, if it visits at all.
    fn visiting(&self, calling: &Calling) -> Option<Outcome> {
        let frame = calling.frames.last()?;
        let constant = i64::from(self.body(frame).constant);
        (frame.depth > 0).then_some(Outcome::Inside(constant))
    }

    /// Goes on to the next visit or the end.
    fn run(&self, calling: &mut Calling) -> Outcome {
        let mut returned = 0;
        while let Some(frame) = calling.frames.last_mut() {
            let body = self.body(frame);
            let calls = if frame.depth > 0 { &body.calls[..] } else { &[] };
            let Some(call) = calls.get(frame.next) else {
                returned = frame.result;
                calling.frames.pop();
                if let Some(caller) = calling.frames.last_mut() {
                    caller.accept(returned);
                }
                continue;
            };
            frame.next += 1;
            let (unit, depth, result) = (frame.unit, frame.depth - 1, frame.result);
            let frames = calling.frames.len();
            self.call_from(calling, unit, call.callee, depth, result);
            if calling.frames.len() > frames
                && let Some(inside) = self.visiting(calling)
            {
                return inside;
            }
        }
        Outcome::Returned(match calling.missing.take() {
            Some(name) => Err(name.as_str().to_owned()),
            None => Ok(returned),
        })
    }

    /// What a body's call does until the callee's first instruction.
    fn call_from(
        &self,
        calling: &mut Calling,
        unit_id: UnitId,
        callee: Callee,
        depth: i64,
        number: i64,
    ) {
        let unit = &self.units[unit_id.0];
        let direct = match callee {
            Callee::Helper if unit.plan.helper.is_none() => return,
            Callee::Helper => Some((unit.plan.exports.len(), false)),
            Callee::Named(name) => {
                let mut exports = unit.plan.exports.iter();
                let index = exports.position(|export| export.name == name && !export.preemptible);
                index.map(|index| (index, unit.plan.wide.contains(&name)))
            }
        };
        match (direct, callee) {
            (Some((body, wide)), _) => {
                let frame = self.frame(unit_id, body, None, depth, wide.then_some(number));
                calling.frames.push(frame);
            }
            (None, Callee::Named(name)) => {
                self.call_through_slot(calling, unit.callees[&name], depth, number);
            }
            (None, Callee::Helper) => unreachable!("helpers are called directly"),
        }
    }

    fn call_through_slot(
        &self,
        calling: &mut Calling,
        function: FunctionId,
        depth: i64,
        number: i64,
    ) {
        let Function { name, wide, current } = self.functions[function.0];
        let Some(id) = current else {
            calling.missing = calling.missing.or(name);
            if let Some(caller) = calling.frames.last_mut() {
                caller.accept(0);
            }
            return;
        };
        let version = &self.versions[id.0];
        let number = wide.then_some(number);
        calling.frames.push(self.frame(version.unit, version.body, Some(id), depth, number));
    }

    fn frame(
        &self,
        unit: UnitId,
        body: usize,
        version: Option<VersionId>,
        depth: i64,
        number: Option<i64>,
    ) -> Frame {
        let mut frame = Frame { unit, body, version, depth, result: 0, next: 0 };
        frame.result = i64::from(self.body(&frame).constant).wrapping_add(number.unwrap_or(0));
        frame
    }

    fn body(&self, frame: &Frame) -> &Body {
        let mut bodies = self.units[frame.unit.0].plan.bodies();
        bodies.nth(frame.body).expect("a frame is one of a body")
    }

    /// Frees what nobody is inside of any more.
    pub(super) fn settle(&mut self) {
        for index in 0..self.versions.len() {
            let id = VersionId(index);
            let function = self.versions[index].function;
            let unreachable =
                self.functions[function.0].name.is_none() && !self.is_referred_to(function);
            let empty = self.frames(id).iter().all(|&frames| frames == 0);
            let version = &mut self.versions[index];
            let retired = version.state == VersionState::Retired && empty;
            let forgotten = version.state == VersionState::Live && unreachable;
            if retired || forgotten {
                let waits = self.drop_policy == DropPolicy::Collector && self.engine;
                version.state = if waits { VersionState::Drained } else { VersionState::Freed };
            }
        }
    }

    /// How many frames each thread has in a version.
    pub(super) fn frames(&self, version: VersionId) -> [u32; Thread::ALL.len()] {
        self.threads.each_ref().map(|callings| {
            let frames = callings.iter().flat_map(|calling| &calling.frames);
            frames.filter(|frame| frame.version == Some(version)).count() as u32
        })
    }

    pub(super) fn is_dropped(&self, unit: UnitId) -> bool {
        let freed = |id: &VersionId| self.versions[id.0].state == VersionState::Freed;
        self.units[unit.0].versions.iter().all(freed)
    }

    /// How many versions are in this state.
    pub(super) fn count(&self, state: VersionState) -> usize {
        self.versions.iter().filter(|version| version.state == state).count()
    }

    pub(super) fn known(&self, name: Name) -> Option<FunctionId> {
        self.known.get(&name).copied()
    }

    pub(super) fn known_functions(&self) -> usize {
        self.known.len()
    }

    fn publish(&mut self, function: FunctionId, unit: UnitId, body: usize) -> VersionId {
        let id = VersionId(self.versions.len());
        let state = VersionState::Live;
        self.versions.push(Version { function, unit, body, number: self.installs, state });
        if let Some(replaced) = self.functions[function.0].current.replace(id) {
            self.versions[replaced.0].state = VersionState::Retired;
        }
        id
    }

    /// The function of this name, made known if it is not yet.
    fn revive(&mut self, name: Name, wide: bool) -> FunctionId {
        let function = match self.existing(name) {
            Some(function) => function,
            None => self.new_function(Some(name), wide),
        };
        self.removed.remove(&name);
        self.known.insert(name, function);
        function
    }

    fn new_function(&mut self, name: Option<Name>, wide: bool) -> FunctionId {
        self.functions.push(Function { name, wide, current: None });
        FunctionId(self.functions.len() - 1)
    }

    /// The function of this name, if it is known, or removed and not forgotten.
    fn existing(&self, name: Name) -> Option<FunctionId> {
        let removed = || self.removed.get(&name).filter(|&&function| self.is_referred_to(function));
        self.known.get(&name).or_else(removed).copied()
    }

    /// Whether anything but its name in the engine keeps a function.
    fn is_referred_to(&self, function: FunctionId) -> bool {
        let by_unit = (0..self.units.len()).any(|index| {
            !self.is_dropped(UnitId(index))
                && self.units[index].callees.values().any(|&callee| callee == function)
        });
        let mut calls = self.threads.iter().flatten();
        self.handles.contains(&function)
            || by_unit
            || calls.any(|calling| calling.function == function)
    }
}

impl Frame {
    /// Takes the result of a call.
    fn accept(&mut self, returned: i64) {
        self.result = self.result.wrapping_mul(31).wrapping_add(returned);
    }
}
