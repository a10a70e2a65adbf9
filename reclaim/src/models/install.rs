//! Replacing and removing functions.

use std::ptr;
use std::rc::Rc;

use super::events::Event;
use super::function::{Function, address, version};
use super::machine::{Callees, Change, Dispatch, Gates, Machine, Seats};
use super::memory::{Code, Gate, Payload, Seat};
use super::world::{Thread, World};
use crate::State;
use crate::sync::Ordering;

impl Thread {
    /// Gives `function` its next version and retires the one before, if there is one.
    pub(super) fn replace(&self, function: &'static Function) {
        self.replace_by(function, &[]);
    }

    /// The same, with a version that may tail-call these functions.
    pub(super) fn replace_by(&self, function: &'static Function, callees: &[&'static Function]) {
        let (version, before) = self.world.publish(function, callees);
        if let Some(before) = before {
            self.world.retire_replaced(function, &before.seat, version);
        }
    }

    /// Leaves `function` without a version.
    pub(super) fn remove(&self, function: &'static Function) {
        self.world.remove(function);
    }
}

impl World {
    /// Publishes the next version of `function`. Returns it, and the gate of the one before, which
    /// is closed.
    fn publish(
        &self,
        function: &'static Function,
        callees: &[&'static Function],
    ) -> (usize, Option<Rc<Gate>>) {
        let _turn = function.turn.lock();
        let before = function.latest.get().map(|version| function.gate(address(version)));
        let gate = function.free_gate().expect("a lane for every version that is alive");
        let lane = &gate.seat.lane;
        if lane.state().generation() != 0 {
            self.seen.note(Event::ReusedLane);
        }
        let Machine { dispatch, order, .. } = self.machine;
        let (body, payload) = self.compile(function, &gate, callees);
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
                    unsafe { lane.occupy(body, payload) };
                }
                // Release: who goes on from here finds the lane.
                Change::Current => function.current.store(body, Ordering::Release),
                Change::Close => {
                    if let Some(before) = &before {
                        // SAFETY: this thread is the one installing, and the lane was current.
                        unsafe { before.seat.lane.close() };
                    }
                }
            }
            if *change == dispatch.decisive() {
                function.latest.set(Some(version(body)));
            }
        }
        (version(body), before)
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
        let payload =
            Payload { code: Rc::clone(&code), callees, with_gate: gates == Gates::GoWithVersion };
        (function.add(&code), payload)
    }

    /// Gives `function` the seat of a function that is gone, with a new gate, if there is one.
    pub(super) fn give_seat(&self, function: &'static Function) -> bool {
        let Machine { gates, seats, causal, .. } = self.machine;
        let mut pool = self.pool.lock().expect("no thread panics");
        let free = |gate: &Rc<Gate>| {
            seats == Seats::PooledAtOnce || gate.seat.lane.state().state() == State::Free
        };
        let Some(old) = pool.iter().position(free) else { return false };
        let old = pool.remove(old);
        if seats == Seats::PooledAtOnce {
            let free = old.seat.lane.state().state() == State::Free;
            assert!(free, "occupied: a version is in a seat that is given away");
        }
        if gates != Gates::GoWithFunction {
            old.memory.free();
        }
        self.seen.note(Event::ReusedSeat);
        old.seat.tenant.set(Some(function));
        function.gates.borrow_mut().push(Gate::new(Rc::clone(&old.seat), causal));
        true
    }

    /// Leaves `function` without a version.
    pub(super) fn remove(&self, function: &'static Function) {
        let removed = function.latest.take().expect("a version to remove");
        // Before the lane is closed, so that whoever bails out of it knows why.
        function.current.store(0, Ordering::Release);
        let gate = function.gate(address(removed));
        // SAFETY: this thread alone publishes here, and the lane was current.
        unsafe { gate.seat.lane.close() };
        self.retire_replaced(function, &gate.seat, function.versions());
    }

    /// Retires what sits in `seat`, which is closed. Calls that begin after it run `next` or a
    /// later version.
    fn retire_replaced(&self, function: &Function, seat: &Seat, next: usize) {
        self.heavy_fence();
        function.settled.set(function.settled.get().max(Some(next)));
        self.retire(seat);
    }

    /// Retires what sits in `seat`, which was closed before the last heavy fence.
    pub(super) fn retire(&self, seat: &Seat) {
        // SAFETY: this thread has closed it, and executed a heavy fence since.
        if unsafe { seat.lane.retire() } {
            self.freed(seat, Event::FreedByRetirer);
        }
    }
}
