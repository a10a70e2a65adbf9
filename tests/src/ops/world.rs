//! A real engine and its model, side by side.

use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lastout::{Engine, Error, Installed, Stats, ThreadFrames, Version, VersionInfo, VersionState};

use super::model::{FunctionId, Model, Refusal, UnitId, VersionId};
use super::unit::{ballast, build, signature};
use super::worker::{AnyHandle, Worker, visit};
use super::{End, Name, Op, Pick, Scenario, Thread, UnitPlan};

/// Enough for every scenario of [`MAX_OPS`], and little enough to be filled.
const CODE_MEMORY: usize = 1 << 20;
/// More of a scenario than this is not looked at.
const MAX_OPS: usize = 64;
/// The host has no more handles at a time than this.
const MAX_HANDLES: usize = 8;

/// Does what the scenario says, and compares the engine with the model after every step.
///
/// # Panics
///
/// If they differ, with the step and the difference.
pub fn check(scenario: &Scenario) {
    let mut world = World::new(scenario);
    for (index, op) in scenario.ops.iter().take(MAX_OPS).enumerate() {
        world.step = format!("operation {index}, {op:?}");
        world.apply(op);
    }
    world.end(scenario.end);
    for (index, op) in scenario.afterwards.iter().take(MAX_OPS).enumerate() {
        world.step = format!("afterwards {index}, {op:?}");
        world.apply(op);
    }
    world.step = "at the very end".to_owned();
    world.leave_everything();
    world.handles.clear();
    world.model.handles.clear();
    world.compare();
    let freed = world.versions.iter().all(|version| version.state() == VersionState::Freed);
    assert!(freed, "something is left: {:?}", world.versions);
}

struct World {
    engine: Option<Engine>,
    model: Model,
    /// In the order of the model's.
    versions: Vec<Version>,
    /// For each unit of the model how many attached values were dropped.
    dropped: Vec<Arc<AtomicUsize>>,
    handles: Vec<AnyHandle>,
    workers: Vec<Worker>,
    /// What the engine held before there was anything in it.
    baseline: Stats,
    /// What is being done, for messages.
    step: String,
}

impl World {
    fn new(scenario: &Scenario) -> Self {
        let engine = Engine::builder()
            .counting(scenario.counting)
            .dispatch(scenario.dispatch)
            .drop_policy(scenario.drop_policy)
            .code_memory(CODE_MEMORY)
            .quarantine(4 << 20)
            .host_function("visit", visit as extern "C" fn(i64))
            .build()
            .unwrap();
        let mut world = Self {
            baseline: engine.stats(),
            engine: Some(engine),
            model: Model::new(scenario.drop_policy),
            versions: Vec::new(),
            dropped: Vec::new(),
            handles: Vec::new(),
            workers: Thread::ALL.iter().map(|_| Worker::spawn()).collect(),
            step: "at the start".to_owned(),
        };
        // What an engine keeps for every type that it has given a handle of belongs to the
        // baseline, and what it keeps once it has replaced something in its place.
        for wide in [false, true] {
            world.declare(Name::A, wide);
            world.get_handle(Name::A, wide);
            world.handles.clear();
            world.model.handles.clear();
            world.remove(Name::A);
        }
        let plan = UnitPlan::returning_zero(Name::A);
        world.install(&plan, false);
        world.replace_in_place(&plan);
        world.remove(Name::A);
        world.compare();
        world.model.collect();
        world.engine().collect();
        world.baseline = world.engine().stats();
        for &name in &scenario.declared {
            world.declare(name, false);
            world.get_handle(name, false);
        }
        world.compare();
        world
    }

    fn apply(&mut self, op: &Op) {
        match op {
            &Op::Call(handle, depth) => {
                let Some(handle) = self.pick(handle) else { return };
                let expected = self.model.call(handle, depth.0);
                self.expect_same(&self.handles[handle].call(depth.0), &expected);
            }
            &Op::Enter(thread, handle, depth) => {
                let Some(handle) = self.pick(handle) else { return };
                let expected = self.model.enter(thread, handle, depth.0);
                let worker = &self.workers[thread as usize];
                let outcome = worker.enter(self.handles[handle].clone(), depth.0);
                self.expect_same(&outcome, &expected);
            }
            &Op::Step(thread) => self.go_on(thread),
            &Op::DropHandle(handle) => {
                let Some(handle) = self.pick(handle) else { return };
                self.drop_handle(handle);
            }
            _ if self.engine.is_none() => return,
            Op::Install(plan) => self.install(plan, false),
            Op::ReplaceInPlace(plan) => self.replace_in_place(plan),
            Op::InstallSqueezed(plan, lines) => self.install_squeezed(plan, *lines),
            &Op::Declare(name, wide) => self.declare(name, wide),
            &Op::Remove(name) => self.remove(name),
            &Op::GetHandle(name, wide) => self.get_handle(name, wide),
            Op::Collect => {
                let expected = self.model.collect();
                let collected = self.engine().collect();
                self.expect_same(&collected, &expected);
            }
        }
        self.compare();
    }

    /// Installs a unit. If memory is short, that there is not enough is fine too.
    fn install(&mut self, plan: &UnitPlan, short: bool) {
        let dropped = Arc::default();
        let (unit, exposed) = build(self.engine(), plan, &dropped);
        let result = self.engine().install(unit);
        if short && matches!(result, Err(Error::OutOfCodeMemory { .. })) {
            return self.expect_same(&dropped.load(Ordering::SeqCst), &plan.attached);
        }
        let expected = self.model.install(&Rc::new(plan.clone()));
        let installed = self.installed(plan, result, expected, dropped);
        if let Some((exposed, installed)) = exposed.zip(installed) {
            self.handles.push(AnyHandle::Narrow(installed.function(exposed).unwrap()));
            self.limit_handles();
        }
    }

    /// Notes what was installed, if it should have been.
    fn installed(
        &mut self,
        plan: &UnitPlan,
        result: lastout::Result<Installed>,
        expected: Result<(), Vec<Refusal>>,
        dropped: Arc<AtomicUsize>,
    ) -> Option<Installed> {
        match (result, expected) {
            (Ok(installed), Ok(())) => {
                self.dropped.push(dropped);
                self.versions.extend(installed.versions().iter().cloned());
                self.expect_same(&self.versions.len(), &self.model.versions.len());
                Some(installed)
            }
            (Err(error), Err(refusals)) => {
                let fits = refusal(&error).is_some_and(|refusal| refusals.contains(&refusal));
                assert!(fits, "{}: {error}, not {refusals:?}", self.step);
                self.expect_same(&dropped.load(Ordering::SeqCst), &plan.attached);
                None
            }
            (result, expected) => panic!("{}: {result:?}, not {expected:?}", self.step),
        }
    }

    /// Replaces a function in its place. Where none was kept, there may not be enough room.
    fn replace_in_place(&mut self, plan: &UnitPlan) {
        let dropped = Arc::default();
        let (unit, _) = build(self.engine(), plan, &dropped);
        let place = self.model.place(plan);
        let result = self.engine().replace_in_place(unit, Duration::ZERO);
        if let Err(Error::StillInside { threads, .. }) = &result {
            let inside = place.map(|version| self.inside(version));
            self.expect_same(&Ok(frames(threads)), &inside);
        }
        if let (Err(Error::DoesNotFit { .. }), Ok(version)) = (&result, place) {
            self.expect_same(&dropped.load(Ordering::SeqCst), &plan.attached);
            return self.expect_same(&self.model.plan(version).roomy, &false);
        }
        let expected = self.model.replace_in_place(&Rc::new(plan.clone()));
        self.installed(plan, result, expected, dropped);
    }

    /// Installs a unit when there is memory for all of it, for some of it, or for nothing.
    fn install_squeezed(&mut self, plan: &UnitPlan, lines: usize) {
        let free = CODE_MEMORY - self.engine().stats().code_bytes;
        let bytes = free.saturating_sub(lines << 6);
        let heavy = self.engine().install(ballast(self.engine(), bytes)).is_ok();
        if heavy {
            self.model.install_ballast();
        }
        self.install(plan, true);
        if heavy {
            self.engine().remove("ballast").unwrap();
        }
        // Where payloads wait for the collector, the ballast does.
        self.model.settle();
        self.model.collect();
        self.engine().collect();
    }

    fn declare(&mut self, name: Name, wide: bool) {
        let signature = signature(self.engine(), wide);
        let result = self.engine().declare(name.as_str(), &signature);
        let expected = self.model.declare(name, wide);
        self.expect_same_result(result, expected);
    }

    fn remove(&mut self, name: Name) {
        let result = self.engine().remove(name.as_str());
        let expected = self.model.remove(name);
        self.expect_same_result(result, expected);
    }

    fn get_handle(&mut self, name: Name, wide: bool) {
        let engine = self.engine();
        let result = if wide {
            engine.function(name.as_str()).map(AnyHandle::Wide)
        } else {
            engine.function(name.as_str()).map(AnyHandle::Narrow)
        };
        let expected = self.model.get_handle(name, wide);
        let result = result.map(|handle| self.handles.push(handle));
        self.expect_same_result(result, expected);
        self.limit_handles();
    }

    fn limit_handles(&mut self) {
        if self.handles.len() > MAX_HANDLES {
            self.drop_handle(0);
        }
    }

    fn drop_handle(&mut self, index: usize) {
        self.handles.remove(index);
        self.model.handles.remove(index);
    }

    fn go_on(&mut self, thread: Thread) {
        if self.model.is_inside(thread) {
            let expected = self.model.go_on(thread);
            let outcome = self.workers[thread as usize].go_on();
            self.expect_same(&outcome, &expected);
        }
    }

    fn leave_everything(&mut self) {
        for thread in Thread::ALL {
            while self.model.is_inside(thread) {
                self.go_on(thread);
                self.compare();
            }
        }
    }

    fn end(&mut self, end: End) {
        self.step = format!("the end, {end:?}");
        if end == End::Orderly {
            self.leave_everything();
            self.handles.clear();
            self.model.handles.clear();
            for name in Name::ALL {
                self.remove(name);
            }
            self.model.settle();
            self.model.collect();
            self.engine().collect();
            self.compare();
            let left = self.engine().stats();
            let held = |stats: Stats| (stats.functions, stats.code_bytes, stats.data_bytes);
            self.expect_same(&held(left), &held(self.baseline));
            self.expect_same(&left.alive(), &0);
        }
        self.model.drop_engine();
        self.engine = None;
        self.compare();
    }

    /// Compares all that can be seen.
    fn compare(&mut self) {
        self.model.settle();
        for (version, model) in self.versions.iter().zip(&self.model.versions) {
            self.expect_same(&version.number(), &model.number);
            let state = version.state();
            assert_eq!(state, model.state, "{}: {version:?}", self.step);
        }
        for (index, dropped) in self.dropped.iter().enumerate() {
            let attached = self.model.units[index].plan.attached;
            let expected = if self.model.is_dropped(UnitId(index)) { attached } else { 0 };
            let dropped = dropped.load(Ordering::SeqCst);
            assert_eq!(dropped, expected, "{}: attached values of unit {index}", self.step);
        }
        if let Some(engine) = &self.engine {
            let stats = engine.stats();
            let known = self.model.known_functions();
            let ballasts = self.model.ballasts;
            let installed = ballasts + self.versions.len() as u64;
            let freed = ballasts + self.model.count(VersionState::Freed) as u64;
            let expected = (known, installed, freed);
            self.expect_same(&(stats.functions, stats.installed, stats.freed), &expected);
            for name in Name::ALL {
                match (engine.versions(name.as_str()), self.model.known(name)) {
                    (Ok(infos), Some(function)) => self.compare_versions(&infos, function),
                    (Err(Error::UnknownFunction(_)), None) => {}
                    (infos, known) => panic!("{}: {infos:?}, not {known:?}", self.step),
                }
            }
        }
        for (handle, &function) in self.handles.iter().zip(&self.model.handles) {
            self.compare_versions(&handle.versions(), function);
        }
    }

    /// Compares which threads are inside the versions of a function.
    fn compare_versions(&self, infos: &[VersionInfo], function: FunctionId) {
        let infos = infos.iter().filter(|info| info.version.state() != VersionState::Drained);
        let infos: Vec<_> =
            infos.map(|info| (info.version.number(), frames(&info.threads))).collect();
        let alive = |state| matches!(state, VersionState::Live | VersionState::Retired);
        let versions = self.model.versions.iter().enumerate();
        let expected: Vec<_> = versions
            .filter(|(_, version)| version.function == function && alive(version.state))
            .map(|(index, version)| (version.number, self.inside(VersionId(index))))
            .collect();
        self.expect_same(&infos, &expected);
    }

    /// Which threads should be inside of a version, and how many frames each has there.
    fn inside(&self, version: VersionId) -> Vec<(u64, u32)> {
        let frames = self.model.frames(version);
        let frames = self.workers.iter().map(|worker| worker.thread_id).zip(frames);
        let mut frames: Vec<_> = frames.filter(|&(_, frames)| frames != 0).collect();
        frames.sort_unstable();
        frames
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("there is an engine")
    }

    fn pick(&self, handle: Pick) -> Option<usize> {
        usize::from(handle.0).checked_rem(self.handles.len())
    }

    fn expect_same<T: PartialEq + Debug>(&self, real: &T, expected: &T) {
        assert!(real == expected, "{}: {real:?}, not {expected:?}", self.step);
    }

    fn expect_same_result(&self, real: lastout::Result<()>, expected: Result<(), Refusal>) {
        match real {
            Ok(()) => self.expect_same(&Ok(()), &expected),
            Err(error) => {
                let refused = refusal(&error).ok_or_else(|| error.to_string());
                self.expect_same(&refused, &expected.err().ok_or("success".to_owned()));
            }
        }
    }
}

fn frames(threads: &[ThreadFrames]) -> Vec<(u64, u32)> {
    let mut frames: Vec<_> =
        threads.iter().map(|thread| (thread.thread_id, thread.frames)).collect();
    frames.sort_unstable();
    frames
}

fn refusal(error: &Error) -> Option<Refusal> {
    Some(match error {
        Error::Undefined(_) => Refusal::Undefined,
        Error::MissingImport(_) => Refusal::MissingImport,
        Error::HostSymbol(_) => Refusal::HostSymbol,
        Error::SignatureMismatch { .. } => Refusal::SignatureMismatch,
        Error::UnknownFunction(_) => Refusal::UnknownFunction,
        Error::NotInPlace { .. } => Refusal::NotInPlace,
        Error::StillInside { .. } => Refusal::StillInside,
        _ => return None,
    })
}
