//! Calls: what a thread does at a gate, and in the body behind it.

use std::mem::replace;
use std::ptr;
use std::rc::Rc;

use super::events::Event;
use super::function::{Function, version};
use super::in_place;
use super::machine::{Convention, Dispatch, LightFence, Machine, Restart, Transfer};
use super::memory::Frame;
use super::ownership::Owner;
use super::world::{Interrupt, Thread};
use crate::Step;
use crate::sync::{AtomicU32, AtomicUsize, Ordering, fence};

/// What bodies do: told which function is called, one may say which to tail-call.
type Bodies<'a> = &'a mut dyn FnMut(&'static Function) -> Option<&'static Function>;

/// A call that has come to a gate.
#[derive(Clone, Copy)]
struct Call {
    function: &'static Function,
    /// The gate that it found first.
    found: usize,
    /// The version that it cannot run an older one than.
    settled: Option<usize>,
    /// Of the first version, how often it was written over at least.
    edition: usize,
}

/// How a thread gets out of a gate.
enum Exit {
    /// The call is over. It has run this version last, or found a function removed.
    Return(Option<usize>),
    /// The body at this address is to be run for this call.
    Jump(Call, usize),
    /// It bailed.
    Restart,
}

impl Thread {
    /// Calls `function`. Returns the version that ran, or `None` if it was removed.
    pub(super) fn call(&self, function: &'static Function) -> Option<usize> {
        self.call_and(function, || ())
    }

    /// Calls `function`, whose body does `inside`.
    pub(super) fn call_and(
        &self,
        function: &'static Function,
        inside: impl FnOnce(),
    ) -> Option<usize> {
        let mut inside = Some(inside);
        self.call_bodies(function, |_| {
            inside.take().expect("a gate calls the body once")();
            None
        })
    }

    /// Calls `function`, whose body and those that are tail-called after it do what `bodies` says;
    /// but a version that was not made to tail-call a function returns instead. Returns the
    /// version that ran last, or `None` if the function was removed whose version should have.
    pub(super) fn call_bodies(
        &self,
        function: &'static Function,
        mut bodies: impl FnMut(&'static Function) -> Option<&'static Function>,
    ) -> Option<usize> {
        let Machine { counting, convention, transfer, transfer_steps, .. } = self.world.machine;
        let steps = match convention {
            Convention::Call => [counting.gate(), counting.bail()],
            Convention::Tail if transfer == Transfer::OfAllCalls && self.calls.get() > 0 => {
                transfer_steps
            }
            Convention::Tail => [counting.tail_gate(), counting.bail()],
        };
        self.calls.set(self.calls.get() + 1);
        let frames = self.frames.borrow().len();
        let ran = match self.enter(steps, function, &mut bodies) {
            Ok(ran) => ran,
            Err((call, body)) => self.run(call, body, &mut bodies),
        };
        assert_eq!(self.frames.borrow().len(), frames, "a call leaves the frames as they were");
        self.calls.set(self.calls.get() - 1);
        ran
    }

    /// The same by a handle, of which the host lets go when the call has returned.
    pub(super) fn call_by(
        &self,
        handle: Owner,
        mut bodies: impl FnMut(&'static Function) -> Option<&'static Function>,
    ) -> Option<usize> {
        let function = handle.function();
        let mut handle = Some(handle);
        let ran = self.call_bodies(function, |here| {
            if !self.world.machine.host_keeps {
                handle = None;
            }
            bodies(here)
        });
        drop(handle);
        ran
    }

    /// Passes the gate of `function` by these steps, and those of a bail, however often that
    /// takes. Returns what [`run`](Self::run) does, or else the call and the body to run for it.
    fn enter(
        &self,
        mut steps: [&'static [Step]; 2],
        function: &'static Function,
        bodies: Bodies<'_>,
    ) -> Result<Option<usize>, (Call, usize)> {
        let Machine { fetch, restart, counting, transfer, .. } = self.world.machine;
        let settled = function.settled.get();
        // A caller that comes to a gate too early or too late finds the lane closed, so no
        // ordering is needed.
        function.memory.touch();
        let word = self.next_call(function);
        let found = word.load(fetch);
        let edition = function.edition.get();
        let call = Call { function, found, settled, edition };
        let (mut gate, mut restarted) = (found, None);
        loop {
            match self.follow(steps, call, gate, bodies) {
                Exit::Return(ran) => return Ok(ran),
                Exit::Jump(call, body) => return Err((call, body)),
                Exit::Restart => {}
            }
            function.memory.touch();
            gate = match restart {
                Restart::Current => function.current.load(Ordering::Acquire),
                Restart::Call => word.load(Ordering::Acquire),
            };
            if gate == 0 {
                self.world.seen.note(Event::FoundRemoved);
                return Ok(None);
            }
            // So it restarts once for each replacement that it meets, and never waits for one.
            assert!(restarted < Some(gate), "wait: {gate} again, after {restarted:?}");
            restarted = Some(gate);
            if transfer == Transfer::OfFirstTries {
                steps[0] = counting.tail_gate();
            }
        }
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

    /// Runs the body of a call that is counted in, and then those that are tail-called. Returns
    /// the version that ran last, or `None` if a function was removed that was tail-called.
    fn run(&self, mut call: Call, mut body: usize, bodies: Bodies<'_>) -> Option<usize> {
        let Machine { counting, transfer, transfer_steps, .. } = self.world.machine;
        let steps = match transfer {
            Transfer::Never => [counting.tail_gate(), counting.bail()],
            _ => transfer_steps,
        };
        loop {
            assert_ne!(body, 0, "use after free: a thread jumps to where no code is");
            if let Some(held) = in_place::held(body) {
                self.wait(call.function, held);
                body = held;
            }
            let code = call.function.code(body);
            code.enter();
            self.running.set(self.running.get() + 1);
            self.instant();
            self.check_order(call, version(body));
            let current = version(body) > 0 || code.edition() >= call.edition;
            assert!(current, "stale call: what was written over");
            let callee = bodies(call.function).filter(|callee| code.calls(callee));
            self.running.set(self.running.get() - 1);
            code.exit();
            self.check_current(call, version(body));
            let Some(callee) = callee else { return Some(version(body)) };
            match self.enter(steps, callee, bodies) {
                Ok(None) if self.world.falls_back(call.function, callee) => {}
                Ok(ran) => return ran,
                Err(next) => (call, body) = next,
            }
        }
    }

    /// Checks that a thread does not go back to a version older than one that it has run.
    fn check_order(&self, call: Call, version: usize) {
        let Call { function, found, .. } = call;
        // A caller that comes to the gate of a version that was replaced before the last one was
        // may be in this version before it could know that the last one is closed.
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

    /// Checks that a body that has run was not out of date as it was called.
    fn check_current(&self, call: Call, version: usize) {
        let Call { function, settled, .. } = call;
        // Nothing told this thread of the replacement, and yet once the heavy fence is over no
        // call that begins can reach the version before.
        assert!(settled <= Some(version), "stale call: version {version}, not {settled:?}");
        self.world.seen.note(match function.latest.get() {
            Some(latest) if version == latest => Event::RanCurrent,
            Some(latest) if version > latest => Event::RanEarly,
            _ => Event::RanOld,
        });
    }

    /// Interprets the steps of a gate.
    fn follow(
        &self,
        [steps, bail]: [&[Step]; 2],
        call: Call,
        address: usize,
        bodies: Bodies<'_>,
    ) -> Exit {
        let Machine { light_fence, load_body, .. } = self.world.machine;
        let gate = call.function.gate(address);
        let own = Frame { lane: Rc::clone(&gate.lane), function: call.function };
        let transfer = steps.contains(&Step::SwapLane);
        let (mut body, mut ran, mut taken) = (0, None, None);
        for step in steps {
            // A light fence does nothing here that could be interrupted.
            if !matches!(step, Step::LightFence) {
                self.instant();
            }
            gate.memory.touch();
            match step {
                Step::CountIn | Step::CountInFenced => self.count_in(*step, &own),
                Step::LightFence => match light_fence {
                    LightFence::Nothing => {}
                    LightFence::Full => fence(Ordering::SeqCst),
                },
                Step::LoadBody => {
                    self.interrupted(Interrupt::CountedIn, call.function);
                    body = own.touch().body(load_body);
                    if body == 0 {
                        self.world.seen.note(Event::Bailed);
                        if transfer {
                            self.world.seen.note(Event::TransferBailed);
                        }
                        return self.follow([bail, &[]], call, address, bodies);
                    }
                }
                Step::PushLane => {
                    let mut frames = self.frames.borrow_mut();
                    frames.push(own.clone());
                    assert!(frames.len() <= self.calls.get(), "growth: a tail call leaves a frame");
                }
                Step::SwapLane => {
                    let mut frames = self.frames.borrow_mut();
                    let frame = frames.last_mut().expect("a call in progress");
                    taken = Some(replace(frame, own.clone()));
                }
                Step::CallBody => ran = self.run(call, body, bodies),
                Step::PopLane => taken = self.frames.borrow_mut().pop(),
                Step::CountOut | Step::CountOutFenced => self.count_out(*step, &own),
                Step::CountOutTaken | Step::CountOutTakenFenced => {
                    self.count_out(*step, taken.as_ref().expect("a lane was taken"));
                }
                Step::CheckBody => self.check(&own, Event::FreedByLeaver),
                Step::CheckTaken => {
                    let by = if transfer { Event::FreedByTransfer } else { Event::FreedByLeaver };
                    self.check(taken.as_ref().expect("a lane was taken"), by);
                }
                Step::JumpBody => {
                    self.world.seen.note(Event::Transferred);
                    return Exit::Jump(call, body);
                }
                Step::Restart => return Exit::Restart,
            }
        }
        Exit::Return(ran)
    }

    /// The thread's count of the frames in a lane.
    fn cell(&self, frame: &Frame) -> &AtomicU32 {
        self.context.cell(frame.touch().cell())
    }

    fn count_in(&self, step: Step, frame: &Frame) {
        let cell = self.cell(frame);
        frame.lane.calls.set(frame.lane.calls.get() + 1);
        if step == Step::CountIn {
            cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        } else {
            cell.fetch_add(1, Ordering::AcqRel);
            fence(Ordering::SeqCst);
        }
    }

    fn count_out(&self, step: Step, frame: &Frame) {
        let cell = self.cell(frame);
        if matches!(step, Step::CountOut | Step::CountOutTaken) {
            cell.store(cell.load(Ordering::Relaxed) - 1, self.world.machine.count_out);
        } else {
            cell.fetch_sub(1, Ordering::AcqRel);
            fence(Ordering::SeqCst);
        }
        frame.lane.calls.set(frame.lane.calls.get() - 1);
    }

    /// Leaves the version that the call in `frame` was counted in.
    fn check(&self, frame: &Frame, by: Event) {
        let body = frame.touch().body(Ordering::Acquire);
        let tenant = frame.lane.tenant.get().expect("a lane that gates know");
        let late = !ptr::eq(tenant, frame.function);
        if late {
            self.world.seen.note(Event::LateLeaver);
        }
        if body == 0 && frame.lane.inner.leave() {
            self.world.freed(&frame.lane, by);
            if late {
                self.world.seen.note(Event::FreedForAnother);
            }
        }
    }
}
