//! Replacing a version where it is, while callers are held.

use std::cell::RefCell;
use std::mem::forget;
use std::rc::Rc;

use loom::thread::yield_now;

use super::events::Event;
use super::function::{Function, address, version};
use super::memory::{Gate, Payload};
use super::world::{Interrupt, Thread};
use crate::Hold;

/// In the address of a body: it is the detour's, which goes on to that body.
const DETOUR: usize = 1 << 16;

/// The body that is behind a detour, if this is one.
pub(super) fn held(body: usize) -> Option<usize> {
    (body & DETOUR != 0).then_some(body & !DETOUR)
}

/// How often the replacer looks whether a frame is inside.
const LOOKS: usize = 2;

fn hold(gate: &Gate) -> &Hold {
    gate.lane.hold.as_ref().expect("it is that of the first version")
}

impl Thread {
    /// Writes other code over the version of `function` that is current, if no frame is inside.
    /// Returns whether it has.
    pub(super) fn replace_in_place(&self, function: &'static Function) -> bool {
        let world = self.world;
        let _holding = world.holding.lock();
        let (latest, gate) = {
            let _turn = function.turn.lock();
            let latest = function.latest.get().expect("a version to replace");
            let gate = function.gate(address(latest));
            if gate.lane.hold.is_none() {
                return false;
            }
            // SAFETY: this thread is the one that holds the callers, and with the turn no other
            // closes the lane.
            unsafe {
                hold(&gate).begin();
                gate.lane.inner.divert(address(latest) | DETOUR);
            }
            (latest, gate)
        };
        world.heavy_fence();
        for _ in 0..LOOKS {
            let _turn = function.turn.lock();
            if function.latest.get() != Some(latest) {
                break;
            }
            let waiting = world.waiting.get() > 0;
            // SAFETY: this thread holds the callers, and there was a fence.
            if unsafe { hold(&gate).decide(&gate.lane.inner) }.is_ok() {
                if waiting {
                    world.seen.note(Event::ReplacedUnderWaiter);
                }
                self.write(function, &gate, latest);
                return true;
            }
            yield_now();
        }
        let _turn = function.turn.lock();
        world.seen.note(if function.latest.get() == Some(latest) {
            // SAFETY: with the turn no other thread closes the lane.
            unsafe { gate.lane.inner.divert(address(latest)) };
            Event::GaveUp
        } else {
            Event::LostPlace
        });
        // SAFETY: this thread holds the callers.
        unsafe { hold(&gate).end() };
        false
    }

    /// Writes other code over a version that no frame is inside of, and lets callers go on.
    fn write(&self, function: &Function, gate: &Rc<Gate>, latest: usize) {
        let world = self.world;
        world.seen.note(Event::ReplacedInPlace);
        let code = function.code(address(latest));
        code.overwrite();
        let callees = code.callees().iter().map(|callee| callee.handle()).collect();
        let (lease, point) = (None, RefCell::default());
        let payload = Payload { code: Rc::clone(&code), callees, with_gate: false, lease, point };
        // SAFETY: no frame is inside, and with the turn no other thread closes the lane.
        let mut before = unsafe { gate.lane.inner.exchange(payload) }.expect("a version was there");
        // SAFETY: as above, and this thread holds the callers.
        unsafe {
            gate.lane.inner.divert(address(latest));
            hold(gate).end();
        }
        function.edition.set(code.edition());
        before.callees.clear();
        // Its code is the other's now.
        forget(before);
    }

    /// What the detour does.
    pub(super) fn wait(&self, function: &'static Function, body: usize) {
        let world = self.world;
        let gate = function.gate(body);
        let (hold, lane) = (hold(&gate), &gate.lane.inner);
        let counts = [lane.cell(), hold.cell()].map(|cell| self.context.cell(cell));
        let mut waited = false;
        hold.wait_as(counts[0], counts[1], false, |_, seen| {
            let inside = self.running.get() > 0 && !Hold::is_deciding(seen);
            assert!(!inside, "wait: a thread that is inside, for itself");
            self.interrupted(Interrupt::Waiting, function);
            world.waiting.set(world.waiting.get() + 1);
            if waited {
                // What the holder has done before is visible from here on. It is not if the first
                // look was enough.
                drop(world.holding.lock());
            } else {
                yield_now();
            }
            world.waiting.set(world.waiting.get() - 1);
            waited = true;
            true
        });
        if self.running.get() > 0 && !waited && hold.is_on() {
            world.seen.note(Event::LetThrough);
        }
        debug_assert_eq!(version(body), 0);
    }

    /// A place where a signal may interrupt the thread.
    pub(super) fn interrupted(&self, place: Interrupt, function: &'static Function) {
        if self.interrupt.get() == Some(place) {
            self.interrupt.set(None);
            self.call(function);
        }
    }
}
