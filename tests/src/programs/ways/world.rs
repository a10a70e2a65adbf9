//! A real engine and its threads, side by side with their model.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use lastout::{DropPolicy, Engine, Handle, Installed, Version, VersionState};

use super::super::name;
use super::super::stack::{self, Ledger};
use super::model::Model;
use super::unit::{build, signature, way};
use super::worker::{Entered, Order, Worker, visit};
use super::{Entrance, Export, Function, Move, Sequence, Step, Thread, UnitPlan};
use crate::support::Drops;

const CODE_MEMORY: usize = 4 << 20;
/// More of a sequence than this is not looked at.
const MAX_STEPS: usize = 128;

/// Does what the sequence says, and compares the engine with the model after every step.
///
/// # Panics
///
/// If they differ, with the step and the difference.
pub fn check(sequence: &Sequence) {
    let mut world = World::new(sequence);
    for (index, step) in sequence.steps.iter().take(MAX_STEPS).enumerate() {
        world.step = format!("step {index}, {step:?}");
        match step {
            Step::Install(plan) => {
                let unit = world.build(plan);
                let installed = world.engine.install(unit).unwrap();
                world.installed(plan, &installed);
            }
            Step::Move(thread, move_) => world.go_on(*thread, move_),
        }
        world.compare();
    }
    world.end();
}

struct World {
    engine: Arc<Engine>,
    code: Range<usize>,
    model: Model,
    drop_policy: DropPolicy,
    /// For each [`Entrance`].
    handles: [Handle<Entered>; Entrance::ALL.len()],
    workers: [Worker; Thread::ALL.len()],
    installs: Vec<Install>,
    /// What is being done, for messages.
    step: String,
}

struct Install {
    versions: Vec<(Function, Version)>,
    drops: Drops,
}

impl World {
    fn new(sequence: &Sequence) -> Self {
        let engine = Engine::builder()
            .counting(sequence.counting)
            .dispatch(sequence.dispatch)
            .drop_policy(sequence.drop_policy)
            .code_memory(CODE_MEMORY)
            .quarantine(1 << 20)
            .traps(true)
            .host_function("visit", visit as extern "C-unwind" fn(i64, i64, i64, i64) -> i64)
            .build()
            .unwrap();
        for function in Function::ALL {
            engine.declare(&name(function as usize), &signature(function)).unwrap();
        }
        let handle = |entrance: Entrance| engine.function(&name(entrance.function() as usize));
        let handles = Entrance::ALL.map(|entrance| handle(entrance).unwrap());
        let code = stack::code_range(handles[0].c_address().unwrap().addr());
        let engine = Arc::new(engine);
        let workers = Thread::ALL.map(|_| Worker::spawn(&engine, &code));
        let mut world = Self {
            engine,
            code,
            model: Model::default(),
            drop_policy: sequence.drop_policy,
            handles,
            workers,
            installs: Vec::new(),
            step: "at the start".to_owned(),
        };
        let is_first = |&function: &Function| {
            sequence.first.0.iter().any(|export| export.function == function)
        };
        let others = Function::ALL.into_iter().filter(|function| !is_first(function));
        let others = others.map(|function| Export { function, preemptible: false });
        for plan in [sequence.first.clone(), UnitPlan(others.collect())] {
            if !plan.0.is_empty() {
                let unit = world.build(&plan);
                let installed = world.engine.install(unit).unwrap();
                world.installed(&plan, &installed);
            }
        }
        world.compare();
        world
    }

    /// The next unit to be installed.
    fn build(&mut self, plan: &UnitPlan) -> lastout::Unit {
        let mut unit = build(&self.engine, plan, self.installs.len() as u64 + 1);
        let drops = Drops::new();
        unit.attach(drops.value());
        self.installs.push(Install { versions: Vec::new(), drops });
        unit
    }

    fn installed(&mut self, plan: &UnitPlan, installed: &Installed) {
        self.model.install(plan);
        let version = |export: &Export| {
            let version = installed.version(&name(export.function as usize)).unwrap();
            (export.function, version.clone())
        };
        let install = self.installs.last_mut().expect("it was built just now");
        install.versions = plan.0.iter().map(version).collect();
    }

    fn go_on(&mut self, thread: Thread, move_: &Move) {
        match move_ {
            Move::Install(plan) => {
                let unit = self.build(plan);
                let installed = self.workers[thread as usize].install(unit);
                self.installed(plan, &installed);
                return;
            }
            Move::End => {
                if self.model.is_outside(thread) {
                    // The other one begins after this has ended, and may get its table of counts.
                    self.workers[thread as usize].end();
                    self.workers[thread as usize] = Worker::spawn(&self.engine, &self.code);
                }
                return;
            }
            _ => {}
        }
        // The outermost call has to catch panics.
        let outermost = self.model.is_outside(thread);
        let Some(expected) = self.model.go_on(thread, move_) else { return };
        let order = match *move_ {
            Move::Enter(entrance, way, catches) => {
                Order::Enter(self.handles[entrance as usize].clone(), way, catches || outermost)
            }
            Move::Throw(tag) => Order::Throw(tag),
            Move::Panic => Order::Panic,
            _ => Order::GoOn(way(move_).expect("the function goes on by itself")),
        };
        let report = self.workers[thread as usize].order(order);
        self.expect_same(&report, &expected);
    }

    /// Compares which threads are inside of what, and what is freed.
    fn compare(&self) {
        if self.drop_policy == DropPolicy::Collector {
            self.engine.collect();
        }
        let expected = self.model.ledgers();
        for (install, number) in self.installs.iter().zip(1..) {
            let mut left = 0;
            for (function, version) in &install.versions {
                let alive = expected[0].contains_key(&(*function as usize, number));
                self.expect_same(&(version.state() == VersionState::Freed), &!alive);
                left += usize::from(alive);
            }
            self.expect_same(&install.drops.count(), &usize::from(left == 0));
        }
        let mut ledgers = expected.each_ref().map(|_| Ledger::new());
        for function in Function::ALL {
            for info in self.engine.versions(&name(function as usize)).unwrap() {
                for (ledger, worker) in ledgers.iter_mut().zip(&self.workers) {
                    let threads = info.threads.iter();
                    let own = threads.filter(|frames| frames.thread_id == worker.thread_id);
                    let frames = own.map(|frames| frames.frames).sum();
                    ledger.insert((function as usize, info.version.number()), frames);
                }
                let frames: u64 = ledgers
                    .iter()
                    .map(|ledger| ledger[&(function as usize, info.version.number())])
                    .map(u64::from)
                    .sum();
                self.expect_same(&info.frames(), &frames);
            }
        }
        self.expect_same(&ledgers, &expected);
    }

    /// Has all threads leave, and checks that nothing is left.
    fn end(mut self) {
        for thread in Thread::ALL {
            while !self.model.is_outside(thread) {
                self.step = format!("at the end, {thread:?}");
                self.go_on(thread, &Move::Return);
                self.compare();
            }
        }
        for function in Function::ALL {
            self.engine.remove(&name(function as usize)).unwrap();
        }
        self.engine.collect();
        for install in &self.installs {
            self.expect_same(&install.drops.count(), &1);
        }
        let stats = self.engine.stats();
        self.expect_same(&(stats.alive(), stats.functions), &(0, 0));
    }

    fn expect_same<T: PartialEq + Debug>(&self, real: &T, expected: &T) {
        assert!(real == expected, "{}: {real:?}, not {expected:?}", self.step);
    }
}
