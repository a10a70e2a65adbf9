//! Replacing and removing functions.

use std::cell::RefCell;
use std::ptr;
use std::rc::Rc;

use super::events::Event;
use super::function::{Function, address, version};
use super::machine::{Callees, Change, Dispatch, Gates, Lanes, Machine};
use super::memory::{Code, FunctionLane, Gate, Payload};
use super::world::{Thread, World};
use crate::State;
use crate::sync::Ordering;

/// A version that is being published.
pub(super) struct Installing {
    function: &'static Function,
    /// The gate of the one before.
    before: Option<Rc<Gate>>,
    gate: Rc<Gate>,
    body: usize,
    /// Until the version moves in.
    pub(super) payload: Option<Payload>,
}

impl Installing {
    /// What it replaces.
    pub(super) fn replaced(self) -> Option<Closing> {
        let Self { function, before, body, .. } = self;
        Some(Closing { function, gate: before?, next: version(body) })
    }
}

/// A version that is not current any more, and is to be closed, and retired after a heavy fence.
pub(super) struct Closing {
    function: &'static Function,
    gate: Rc<Gate>,
    /// Calls that begin after the fence run this version or a later one.
    next: usize,
}

impl Thread {
    /// Gives `function` its next version and retires the one before, if there is one.
    pub(super) fn replace(&self, function: &'static Function) {
        self.replace_by(function, &[]);
    }

    /// The same, with a version that may tail-call these functions.
    pub(super) fn replace_by(&self, function: &'static Function, callees: &[&'static Function]) {
        let replaced = self.world.publish(function, callees);
        self.world.retire_all(replaced.into_iter().collect());
    }

    /// Leaves `function` without a version.
    pub(super) fn remove(&self, function: &'static Function) {
        self.world.remove(function);
    }
}

impl Closing {
    pub(super) fn close(&self) {
        // SAFETY: this thread is the one installing, and the lane was current until it was
        // unpublished.
        unsafe { self.gate.lane.inner.close() };
    }
}

impl World {
    /// Publishes the next version of `function`. Returns the one before, which is closed.
    fn publish(
        &self,
        function: &'static Function,
        callees: &[&'static Function],
    ) -> Option<Closing> {
        let _turn = function.turn.lock();
        let mut installing = self.prepare(function, callees);
        for change in self.machine.order {
            self.change(&mut installing, *change);
        }
        installing.replaced()
    }

    /// The next version of `function`, with nothing of it published.
    pub(super) fn prepare(
        &self,
        function: &'static Function,
        callees: &[&'static Function],
    ) -> Installing {
        let before = function.latest.get().map(|version| function.gate(address(version)));
        let gate = function.free_gate().expect("a lane for every version that is alive");
        if gate.lane.inner.state().generation() != 0 {
            self.seen.note(Event::ReusedLane);
        }
        let (body, payload) = self.compile(function, &gate, callees);
        Installing { function, before, gate, body, payload: Some(payload) }
    }

    /// The first half of publishing several versions together: all can be entered.
    pub(super) fn open(&self, installing: &mut [Installing]) {
        for version in installing {
            let order = self.machine.order.iter().take_while(|change| **change != Change::Close);
            order.for_each(|change| self.change(version, *change));
        }
    }

    /// The second half: what they replace is closed.
    pub(super) fn close(&self, installing: &mut [Installing]) {
        let order = self.machine.order.iter().skip_while(|change| **change != Change::Close);
        for change in order {
            installing.iter_mut().for_each(|version| self.change(version, *change));
        }
    }

    fn change(&self, installing: &mut Installing, change: Change) {
        let dispatch = self.machine.dispatch;
        let Installing { function, before, gate, body, payload } = installing;
        match change {
            Change::Calls => {
                let changing = match dispatch {
                    Dispatch::Slot => &function.calls[..1],
                    Dispatch::Sites { stale } => &function.calls[stale..],
                };
                for call in changing {
                    call.store(*body, Ordering::Release);
                }
            }
            Change::Occupy => {
                let payload = payload.take().expect("a version moves in once");
                // SAFETY: the lane is free, and installers of this function take turns. `body`
                // stands for code that is there until the payload is dropped.
                unsafe { gate.lane.inner.occupy(*body, payload) };
            }
            // Release: a caller that goes on from here finds the lane.
            Change::Current => function.current.store(*body, Ordering::Release),
            Change::Close => {
                if let Some(before) = before {
                    // SAFETY: this thread is the one installing, and the lane was current.
                    unsafe { before.lane.inner.close() };
                }
            }
        }
        if change == dispatch.decisive() {
            function.latest.set(Some(version(*body)));
        }
    }

    /// The code of the next version of `function`, which is to sit in the lane of `gate`: the
    /// address of its body, and what owns it.
    fn compile(
        &self,
        function: &'static Function,
        gate: &Rc<Gate>,
        callees: &[&'static Function],
    ) -> (usize, Payload) {
        let Machine { gates, causal, .. } = self.machine;
        let code = Code::write(gate, callees, causal);
        let kept = callees.iter().filter(|callee| match self.machine.callees {
            Callees::Kept => true,
            Callees::KeptButItself => !ptr::eq(**callee, function),
        });
        let callees = kept.map(|callee| callee.handle()).collect();
        let payload = Payload {
            code: Rc::clone(&code),
            callees,
            with_gate: gates == Gates::GoWithVersion,
            lease: None,
            point: RefCell::default(),
        };
        (function.add(&code), payload)
    }

    /// Gives `function` the lane of a function that is gone, with a new gate, if there is one.
    pub(super) fn give_lane(&self, function: &'static Function) -> bool {
        let Machine { gates, lanes, causal, .. } = self.machine;
        let mut pool = self.pool.lock().expect("no thread panics");
        let free = |gate: &Rc<Gate>| {
            lanes == Lanes::PooledAtOnce || gate.lane.inner.state().state() == State::Free
        };
        let Some(old) = pool.iter().position(free) else { return false };
        let old = pool.remove(old);
        if lanes == Lanes::PooledAtOnce {
            let free = old.lane.inner.state().state() == State::Free;
            assert!(free, "occupied: a version is in a lane that is given away");
        }
        if gates != Gates::GoWithFunction {
            old.memory.free();
        }
        self.seen.note(Event::LaneChangedHands);
        old.lane.tenant.set(Some(function));
        function.gates.borrow_mut().push(Gate::new(Rc::clone(&old.lane), causal));
        true
    }

    /// Leaves `function` without a version.
    pub(super) fn remove(&self, function: &'static Function) {
        let removed = self.unpublish(function).expect("a version to remove");
        removed.close();
        self.retire_all(vec![removed]);
    }

    /// Takes the version from `function`, if it has one.
    pub(super) fn unpublish(&self, function: &'static Function) -> Option<Closing> {
        let removed = function.latest.take()?;
        // Before the lane is closed, so that a caller that bails out of it knows why.
        function.current.store(0, Ordering::Release);
        let (gate, next) = (function.gate(address(removed)), function.versions());
        Some(Closing { function, gate, next })
    }

    /// Retires versions that are closed, with one fence for all of them.
    pub(super) fn retire_all(&self, closed: Vec<Closing>) {
        if closed.is_empty() {
            return;
        }
        self.heavy_fence();
        for Closing { function, next, .. } in &closed {
            function.settled.set(function.settled.get().max(Some(*next)));
        }
        for Closing { gate, .. } in &closed {
            // SAFETY: this thread has closed it, and executed a heavy fence since.
            unsafe { gate.lane.inner.retire() };
        }
        closed.iter().for_each(|closed| self.leave_retired(&closed.gate.lane));
    }

    /// Leaves `lane`, whose version this thread has retired.
    pub(super) fn leave_retired(&self, lane: &FunctionLane) {
        if lane.inner.leave() {
            self.freed(lane, Event::FreedByRetirer);
        }
    }
}
