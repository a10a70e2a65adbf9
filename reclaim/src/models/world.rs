//! The world of a model: functions, and the threads that call, replace and remove them.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread::{self, JoinHandle};

use super::events::{Event, Seen};
use super::explore::{self, Fault};
use super::function::{Function, Payload, gate, version};
use super::machine::{Change, Dispatch, Gates, HeavyFence, LightFence, Machine, Planted, Restart};
use crate::sync::{AtomicU32, AtomicUsize, Ordering, fence};
use crate::{Context, Domain, Lane, State, Step};

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
    machine: Machine,
    domain: Arc<Domain>,
    /// See the [module documentation](super).
    pipelines: RefCell<Vec<Rc<Mutex<()>>>>,
    /// Every context that a thread ever had.
    contexts: RefCell<Vec<*const Context>>,
    /// How many threads are spawned and have not ended.
    running: Cell<usize>,
    seen: Arc<Seen>,
}

impl World {
    fn run(machine: Machine, scenario: Scenario, seen: &Arc<Seen>) {
        let domain = Domain::new(5);
        let world = Box::into_raw(Box::new(Self {
            f: Function::new(&domain, 3),
            g: Function::new(&domain, 2),
            machine,
            domain,
            pipelines: RefCell::default(),
            contexts: RefCell::default(),
            running: Cell::new(0),
            seen: Arc::clone(seen),
        }));
        {
            // SAFETY: the world is not freed before every thread that has this reference is gone.
            let world = unsafe { &*world };
            scenario(world);
            assert_eq!(world.running.get(), 0, "the scenario joins its threads");
            world.f.check_end();
            world.g.check_end();
        }
        // An execution that panics does not get here. That is as well: loom then unwinds the
        // threads outside of the execution, where its objects cannot be dropped.
        //
        // SAFETY: it comes from `Box::into_raw`, and no thread runs any more.
        drop(unsafe { Box::from_raw(world) });
    }

    /// A thread with a context, not running yet.
    pub(super) fn thread(&'static self) -> Thread {
        self.newcomer().register()
    }

    /// A thread without a context.
    pub(super) fn newcomer(&'static self) -> Newcomer {
        let pipeline = Rc::new(Mutex::new(()));
        let mut pipelines = self.pipelines.borrow_mut();
        pipelines.push(Rc::clone(&pipeline));
        Newcomer { world: self, owner: pipelines.len() as u64, pipeline }
    }
}

/// A thread that cannot call anything yet, or any more.
pub(super) struct Newcomer {
    world: &'static World,
    owner: u64,
    pipeline: Rc<Mutex<()>>,
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
        Thread { world, owner, pipeline, context }
    }

    /// Runs `program` as this thread.
    pub(super) fn spawn(self, program: impl FnOnce(Self) + 'static) -> JoinHandle<()> {
        let world = self.world;
        world.running.set(world.running.get() + 1);
        thread::spawn(move || {
            program(self);
            world.running.set(world.running.get() - 1);
        })
    }
}

/// A thread that can call functions and replace them.
pub(super) struct Thread {
    world: &'static World,
    owner: u64,
    pipeline: Rc<Mutex<()>>,
    context: &'static Context,
}

impl Thread {
    /// Runs `program` as this thread.
    pub(super) fn spawn(self, program: impl FnOnce(Self) + 'static) -> JoinHandle<()> {
        let Self { world, owner, pipeline, context } = self;
        Newcomer { world, owner, pipeline }.spawn(move |Newcomer { world, owner, pipeline }| {
            program(Self { world, owner, pipeline, context });
        })
    }

    /// Gives the context up.
    pub(super) fn release(self) -> Newcomer {
        let Self { world, owner, pipeline, context } = self;
        // SAFETY: the thread owns its context, calls nothing while it has this `self`, and is
        // left with none.
        unsafe { context.release() };
        Newcomer { world, owner, pipeline }
    }

    /// Calls `function`. Returns the version that ran, or `None` if it was removed.
    pub(super) fn call(&self, function: &Function) -> Option<usize> {
        self.call_and(function, || ())
    }

    /// Calls `function`, whose body does `inside`.
    pub(super) fn call_and(&self, function: &Function, inside: impl FnOnce()) -> Option<usize> {
        let Machine { fetch, restart, .. } = self.world.machine;
        let settled = function.settled.get();
        // Whoever comes to a gate too early or too late finds the lane closed, so no ordering is
        // needed.
        let call = self.next_call(function);
        let found = call.load(fetch);
        let mut inside = Some(|version| {
            self.check_order(function, found, version);
            inside();
        });
        let (mut gate, mut restarted) = (found, None);
        let version = loop {
            match self.follow(self.world.machine.counting.gate(), function, gate, &mut inside) {
                Exit::Return(version) => break version,
                Exit::Restart => {}
            }
            gate = match restart {
                Restart::Current => function.current.load(Ordering::Acquire),
                Restart::Call => call.load(Ordering::Acquire),
            };
            if gate == 0 {
                self.world.seen.note(Event::FoundRemoved);
                return None;
            }
            // So it restarts once for each replacement that it meets, and never waits for one.
            assert!(restarted < Some(gate), "wait: {gate} again, after {restarted:?}");
            restarted = Some(gate);
        };
        // Nobody told this thread of the replacement, and yet once the heavy fence is over no
        // call that begins can reach the version before.
        assert!(settled <= Some(version), "stale call: version {version}, not {settled:?}");
        self.world.seen.note(match function.latest.get() {
            Some(latest) if version == latest => Event::RanCurrent,
            Some(latest) if version > latest => Event::RanEarly,
            _ => Event::RanOld,
        });
        Some(version)
    }

    /// Where this thread's next call of `function` finds a gate.
    fn next_call<'f>(&self, function: &'f Function) -> &'f AtomicUsize {
        let mut caller = function.caller(self.owner);
        caller.calls += 1;
        match self.world.machine.dispatch {
            Dispatch::Slot => &function.calls[0],
            // Of two threads that call once, each has its own.
            Dispatch::Sites { .. } => &function.calls[(self.owner as usize + caller.calls + 1) % 2],
        }
    }

    /// Checks that a thread does not go back to a version older than one that it has run. It runs
    /// `version`, having found the gate `found`.
    fn check_order(&self, function: &Function, found: usize, version: usize) {
        // Who comes to the gate of a version that was replaced before the last one was may be in
        // this version before it could know that the last one is closed.
        let late = found < version && function.settled.get() < Some(version);
        let may_go_back = match self.world.machine {
            Machine { dispatch: Dispatch::Slot, .. } => false,
            Machine { fetch: Ordering::Acquire, .. } => late,
            _ => true,
        };
        let mut caller = function.caller(self.owner);
        assert!(caller.met <= Some(version), "went back: {version}, after {:?}", caller.met);
        if caller.ran > Some(version) {
            self.world.seen.note(Event::WentBack);
        }
        caller.ran = caller.ran.max(Some(version));
        if !may_go_back {
            caller.met = caller.ran;
        }
    }

    /// Interprets the steps of a gate.
    fn follow(
        &self,
        steps: &[Step],
        function: &Function,
        gate: usize,
        inside: &mut Option<impl FnOnce(usize)>,
    ) -> Exit {
        let Machine { counting, light_fence, load_body, count_out, gates, .. } = self.world.machine;
        let lane = function.lane(gate);
        let cell: &AtomicU32 = self.context.cell(lane.cell());
        let mut body = 0;
        for step in steps {
            // A light fence does nothing here that could be interrupted.
            if !matches!(step, Step::LightFence) {
                self.instant();
            }
            if gates == Gates::GoWithVersion {
                function.code(gate).execute();
            }
            match step {
                Step::CountIn => cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed),
                Step::CountInFenced => {
                    cell.fetch_add(1, Ordering::AcqRel);
                    fence(Ordering::SeqCst);
                }
                Step::LightFence => match light_fence {
                    LightFence::Nothing => {}
                    LightFence::Full => fence(Ordering::SeqCst),
                },
                Step::LoadBody => {
                    body = lane.body(load_body);
                    if body == 0 {
                        self.world.seen.note(Event::Bailed);
                        return self.follow(counting.bail(), function, gate, inside);
                    }
                }
                Step::CallBody => {
                    let code = function.code(body);
                    code.enter();
                    self.instant();
                    inside.take().expect("a gate calls the body once")(version(body));
                    code.exit();
                }
                Step::CountOut => cell.store(cell.load(Ordering::Relaxed) - 1, count_out),
                Step::CountOutFenced => {
                    cell.fetch_sub(1, Ordering::AcqRel);
                    fence(Ordering::SeqCst);
                }
                Step::CheckBody => {
                    if lane.body(Ordering::Acquire) == 0 && lane.leave() {
                        self.freed(function, Event::FreedByLeaver);
                    }
                }
                Step::Restart => return Exit::Restart,
                Step::PushLane
                | Step::SwapLane
                | Step::PopLane
                | Step::CountOutTaken
                | Step::CountOutTakenFenced
                | Step::CheckTaken
                | Step::JumpBody => unreachable!("not a step of a gate that is only called"),
            }
        }
        Exit::Return(version(body))
    }

    /// A moment at which a heavy fence may interrupt the thread.
    fn instant(&self) {
        if self.world.machine.heavy_fence == HeavyFence::Interrupt {
            drop(self.pipeline.lock());
        }
    }

    fn heavy_fence(&self) {
        match self.world.machine.heavy_fence {
            HeavyFence::Interrupt => {
                let pipelines = self.world.pipelines.borrow().clone();
                for other in pipelines.iter().filter(|other| !Rc::ptr_eq(other, &self.pipeline)) {
                    let _interrupted = other.lock();
                    fence(Ordering::SeqCst);
                }
            }
            HeavyFence::Own => fence(Ordering::SeqCst),
            HeavyFence::Missing => {}
        }
    }

    /// Gives `function` its next version and retires the one before, if there is one.
    pub(super) fn replace(&self, function: &Function) {
        let (version, before) = self.publish(function);
        if let Some(before) = before {
            self.retire(function, before, version);
        }
    }

    /// Publishes the next version of `function`. Returns it, and the lane of the one before, which
    /// is closed.
    fn publish<'f>(&self, function: &'f Function) -> (usize, Option<&'f Lane<Payload>>) {
        let _turn = function.turn.lock();
        let before = function.latest.get().map(|version| function.lane(gate(version)));
        let (index, free) = function
            .lanes
            .iter()
            .enumerate()
            .find(|(_, lane)| lane.state().state() == State::Free)
            .expect("a lane for every version that is alive");
        if free.state().generation() != 0 {
            self.world.seen.note(Event::ReusedLane);
        }
        let Machine { dispatch, order, causal, .. } = self.world.machine;
        let (body, payload) = function.compile(index, causal);
        let mut payload = Some(payload);
        for change in order {
            match change {
                Change::Calls => {
                    let changing = match dispatch {
                        Dispatch::Slot => &function.calls[..1],
                        Dispatch::Sites { stale } => &function.calls[stale..],
                    };
                    for call in changing {
                        call.store(body, Ordering::Release);
                    }
                }
                Change::Occupy => {
                    let payload = payload.take().expect("a version moves in once");
                    // SAFETY: the lane is free, and installers of this function take turns. `body`
                    // stands for code that is there until the payload is dropped.
                    unsafe { free.occupy(body, payload) };
                }
                // Release: who goes on from here finds the lane.
                Change::Current => function.current.store(body, Ordering::Release),
                Change::Close => {
                    if let Some(before) = before {
                        // SAFETY: this thread is the one installing, and the lane was current.
                        unsafe { before.close() };
                    }
                }
            }
            if *change == dispatch.decisive() {
                function.latest.set(Some(version(body)));
            }
        }
        (version(body), before)
    }

    /// Leaves `function` without a version.
    pub(super) fn remove(&self, function: &Function) {
        let removed = function.latest.take().expect("a version to remove");
        // Before the lane is closed, so that whoever bails out of it knows why.
        function.current.store(0, Ordering::Release);
        let lane = function.lane(gate(removed));
        // SAFETY: this thread alone publishes here, and the lane was current.
        unsafe { lane.close() };
        self.retire(function, lane, function.versions());
    }

    /// Retires what sits in `lane`, which is closed. Calls that begin after it run `next` or a
    /// later version.
    fn retire(&self, function: &Function, lane: &Lane<Payload>, next: usize) {
        self.heavy_fence();
        function.settled.set(function.settled.get().max(Some(next)));
        // SAFETY: this thread has closed it, and executed a heavy fence since.
        if unsafe { lane.retire() } {
            self.freed(function, Event::FreedByRetirer);
        }
    }

    fn freed(&self, function: &Function, by: Event) {
        function.freed.set(function.freed.get() + 1);
        self.world.seen.note(by);
    }
}

/// How a thread gets out of a gate.
enum Exit {
    /// It ran this version.
    Return(usize),
    /// It bailed.
    Restart,
}
