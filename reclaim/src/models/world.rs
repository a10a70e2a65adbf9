//! The world of a model: functions, and the threads that call, replace and remove them.

use std::cell::{Cell, OnceCell, RefCell};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread::{self, JoinHandle, ThreadId};

use super::events::{Event, Seen};
use super::explore::{self, Fault};
use super::function::Function;
use super::machine::{Dropped, HeavyFence, Lanes, Machine, Planted};
use super::memory::{Frame, FunctionLane, Gate, Memory};
use super::ownership::{Engine, Owner};
use super::point::Point;
use crate::sync::{Ordering, fence};
use crate::{Context, Domain, State};

/// A program of calls and replacements. It joins every thread that it spawns.
pub(super) type Scenario = fn(&'static World);

impl Machine {
    /// Explores every execution of `scenario` with at most `preemptions` preemptions, and checks
    /// that each of `events` happens in some of them.
    ///
    /// A test that says that something never goes wrong has to see it go right, too, lest it be
    /// true because nothing happens.
    pub(super) fn explore(self, preemptions: usize, scenario: Scenario, events: &[Event]) {
        let _planted = Planted::new(self);
        let seen = Arc::new(Seen::default());
        let noted = Arc::clone(&seen);
        explore::explore(preemptions, move || World::run(self, scenario, &noted));
        let missing: Vec<_> = events.iter().filter(|event| !seen.happened(**event)).collect();
        assert!(missing.is_empty(), "did not happen: {missing:?}");
    }

    /// Explores `scenario` until an execution goes wrong, which one must, and in the way that
    /// `fault` says.
    pub(super) fn refute(self, preemptions: usize, scenario: Scenario, fault: Fault) {
        let _planted = Planted::new(self);
        let seen = Arc::default();
        explore::refute(preemptions, fault, move || World::run(self, scenario, &seen));
    }
}

/// All there is in one execution.
pub(super) struct World {
    pub(super) f: Function,
    pub(super) g: Function,
    /// Unless it is a parked call, it has no lanes of its own.
    pub(super) h: Function,
    /// What scenarios about moving begin with.
    pub(super) point: OnceCell<Point>,
    pub(super) machine: Machine,
    pub(super) lanes: Vec<Rc<FunctionLane>>,
    /// The gates of functions that are gone, with their lanes.
    pub(super) pool: Mutex<Vec<Rc<Gate>>>,
    engine: RefCell<Option<Engine>>,
    domain: Arc<Domain>,
    pipelines: RefCell<Vec<Rc<Pipeline>>>,
    /// Every context that a thread ever had.
    contexts: RefCell<Vec<*const Context>>,
    /// How many threads are spawned and have not ended.
    running: Cell<usize>,
    /// Held by the thread that holds callers, so that these need not look again and again.
    pub(super) holding: Mutex<()>,
    /// How many callers are held.
    pub(super) waiting: Cell<usize>,
    /// How often `leave` has said that it freed a version.
    freed: Cell<usize>,
    pub(super) seen: Arc<Seen>,
}

/// Where a thread is interrupted: see the chapter on the [models](crate::docs::models).
struct Pipeline {
    interrupt: Mutex<()>,
    /// loom's name for the thread, once it runs.
    thread: Cell<Option<ThreadId>>,
}

impl World {
    fn run(machine: Machine, scenario: Scenario, seen: &Arc<Seen>) {
        let causal = machine.causal;
        let lanes = 5 + machine.parked_lanes;
        let domain = Domain::new(lanes as u32 + u32::from(machine.in_place));
        let lane = |number| FunctionLane {
            inner: domain.lane().expect("a cell"),
            hold: (machine.in_place && number == 0).then(|| domain.hold().expect("a cell")),
            memory: Memory::new("a lane", causal),
            tenant: Cell::new(None),
            calls: Cell::new(0),
        };
        let lanes: Vec<_> = (0..lanes).map(lane).map(Rc::new).collect();
        let function = |lanes: &[Rc<FunctionLane>]| {
            let gates = lanes.iter().map(|lane| Gate::new(Rc::clone(lane), causal));
            Function::new(gates.collect(), causal)
        };
        let world = Box::into_raw(Box::new(Self {
            f: function(&lanes[..3]),
            g: function(&lanes[3..5]),
            h: function(&lanes[5..]),
            point: OnceCell::new(),
            machine,
            lanes,
            pool: Mutex::default(),
            engine: RefCell::default(),
            domain,
            pipelines: RefCell::default(),
            contexts: RefCell::default(),
            running: Cell::new(0),
            holding: Mutex::new(()),
            waiting: Cell::new(0),
            freed: Cell::new(0),
            seen: Arc::clone(seen),
        }));
        {
            // SAFETY: the world is not freed before every thread that has this reference is gone.
            let world = unsafe { &*world };
            world.begin();
            scenario(world);
            assert_eq!(world.running.get(), 0, "the scenario joins its threads");
            world.end();
        }
        // An execution that panics does not get here. That is as well: loom then unwinds the
        // threads outside of the execution, where its objects cannot be dropped.
        //
        // SAFETY: it comes from `Box::into_raw`, and no thread runs any more.
        drop(unsafe { Box::from_raw(world) });
    }

    fn functions(&'static self) -> [&'static Function; 3] {
        [&self.f, &self.g, &self.h]
    }

    fn begin(&'static self) {
        let engine = Engine::new(self);
        for function in self.functions() {
            for gate in function.gates.borrow().iter() {
                gate.lane.tenant.set(Some(function));
            }
            let owner = Owner::new(self, function, engine.clone());
            *function.name.borrow_mut() = Some(owner);
        }
        *self.engine.borrow_mut() = Some(engine);
    }

    /// Checks that nothing is left over once no thread runs any more, neither now nor when the
    /// engine is gone.
    fn end(&'static self) {
        self.check_freed();
        self.check_point();
        self.tear_down();
        self.check_freed();
        for function in self.functions() {
            assert!(function.memory.is_gone(), "leak: nobody has dropped a function");
        }
        for lane in &self.lanes {
            assert!(lane.memory.is_gone(), "leak: nobody has dropped the engine");
            assert_eq!(lane.inner.frames(), []);
            let free = lane.inner.state().state() == State::Free;
            assert!(
                free || self.machine.dropped == Dropped::DropsPayloads,
                "leak: a lane is not free"
            );
        }
    }

    fn check_freed(&'static self) {
        let freed: usize = self.functions().map(Function::check_end).iter().sum();
        assert_eq!(self.freed.get(), freed, "a thread that frees a version says so");
    }

    /// Lets everything go that the engine keeps, as when it is dropped.
    pub(super) fn tear_down(&'static self) {
        self.remove_with_point();
        for function in self.functions() {
            if function.latest.get().is_some() {
                self.remove(function);
            }
            self.forget(function);
        }
        drop(self.engine.take());
    }

    /// Takes the name of a function from it, if it has one.
    pub(super) fn forget(&self, function: &Function) {
        let owner = function.name.take();
        drop(owner);
    }

    /// A thread with a context, not running yet.
    ///
    /// The first is the one that the scenario runs on.
    pub(super) fn thread(&'static self) -> Thread {
        self.newcomer().register()
    }

    /// A thread without a context.
    pub(super) fn newcomer(&'static self) -> Newcomer {
        let mut pipelines = self.pipelines.borrow_mut();
        let running = pipelines.is_empty().then(|| thread::current().id());
        let pipeline = Rc::new(Pipeline { interrupt: Mutex::new(()), thread: Cell::new(running) });
        pipelines.push(Rc::clone(&pipeline));
        Newcomer { world: self, owner: pipelines.len() as u64, pipeline }
    }

    /// Makes every other thread execute a full fence, wherever it is.
    pub(super) fn heavy_fence(&self) {
        match self.machine.heavy_fence {
            HeavyFence::Interrupt => {
                let this = Some(thread::current().id());
                let pipelines = self.pipelines.borrow().clone();
                for other in pipelines.iter().filter(|other| other.thread.get() != this) {
                    let _interrupted = other.interrupt.lock();
                    fence(Ordering::SeqCst);
                }
            }
            HeavyFence::Own => fence(Ordering::SeqCst),
            HeavyFence::Missing => {}
        }
    }

    /// Notes that a thread has freed the version in `lane`.
    pub(super) fn freed(&self, lane: &FunctionLane, by: Event) {
        self.freed.set(self.freed.get() + 1);
        self.seen.note(by);
        if self.machine.lanes == Lanes::GoWhenFree
            && lane.tenant.get().is_some_and(|tenant| tenant.memory.is_gone())
        {
            lane.memory.free();
        }
    }
}

/// A thread that cannot call anything yet, or any more.
pub(super) struct Newcomer {
    world: &'static World,
    owner: u64,
    pipeline: Rc<Pipeline>,
}

impl Newcomer {
    /// Gets the thread a context.
    pub(super) fn register(self) -> Thread {
        let Self { world, owner, pipeline } = self;
        let context = world.domain.register(owner).expect("memory for a ledger");
        let mut contexts = world.contexts.borrow_mut();
        if contexts.contains(&ptr::from_ref(context)) {
            world.seen.note(Event::ReusedContext);
        } else {
            contexts.push(context);
        }
        let frames = RefCell::default();
        let (calls, running, interrupt) = (Cell::new(0), Cell::new(0), Cell::new(None));
        Thread { world, owner, pipeline, context, frames, calls, running, interrupt }
    }

    /// Runs `program` as this thread.
    pub(super) fn spawn(self, program: impl FnOnce(Self) + 'static) -> JoinHandle<()> {
        let world = self.world;
        world.running.set(world.running.get() + 1);
        thread::spawn(move || {
            self.pipeline.thread.set(Some(thread::current().id()));
            program(self);
            world.running.set(world.running.get() - 1);
        })
    }
}

/// A thread that can call functions and replace them.
pub(super) struct Thread {
    pub(super) world: &'static World,
    pub(super) owner: u64,
    pipeline: Rc<Pipeline>,
    pub(super) context: &'static Context,
    /// The frames of gates that can be tail-called.
    pub(super) frames: RefCell<Vec<Frame>>,
    /// How many calls are in progress that are not tail calls.
    pub(super) calls: Cell<usize>,
    /// How many bodies it is running.
    pub(super) running: Cell<usize>,
    /// Where a signal interrupts it, once, whose handler calls the same function.
    pub(super) interrupt: Cell<Option<Interrupt>>,
}

/// See [`Thread::interrupt`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// Between counting in and loading the body.
    CountedIn,
    /// While it waits.
    Waiting,
}

impl Thread {
    /// Runs `program` as this thread.
    pub(super) fn spawn(self, program: impl FnOnce(Self) + 'static) -> JoinHandle<()> {
        let Self { world, owner, pipeline, context, frames, calls, running, interrupt } = self;
        Newcomer { world, owner, pipeline }.spawn(move |Newcomer { world, owner, pipeline }| {
            program(Self { world, owner, pipeline, context, frames, calls, running, interrupt });
        })
    }

    /// Gives the context up.
    pub(super) fn release(self) -> Newcomer {
        let Self { world, owner, pipeline, context, .. } = self;
        // SAFETY: the thread owns its context, calls nothing while it has this `self`, and is
        // left with none.
        unsafe { context.release() };
        Newcomer { world, owner, pipeline }
    }

    /// A moment at which a heavy fence may interrupt the thread.
    pub(super) fn instant(&self) {
        if self.world.machine.heavy_fence == HeavyFence::Interrupt {
            drop(self.pipeline.interrupt.lock());
        }
    }
}
