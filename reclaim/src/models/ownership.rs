//! What keeps functions alive, and what happens when nothing does.

use std::mem::{ManuallyDrop, forget, take};
use std::rc::Rc;
use std::thread::panicking;

use loom::sync::Arc;

use super::events::Event;
use super::function::Function;
use super::machine::{Dropped, Gates, Lanes};
use super::world::World;
use crate::State;

/// A reference that is counted.
///
/// It is let go of only while the model runs: after a panic, loom unwinds the threads outside of
/// the execution.
pub(super) struct Counted<T>(ManuallyDrop<Arc<T>>);

impl<T> Counted<T> {
    pub(super) fn new(value: T) -> Self {
        Self(ManuallyDrop::new(Arc::new(value)))
    }
}

impl<T> Clone for Counted<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        if !panicking() {
            // SAFETY: this is dropped once, and the reference not used any more.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

/// Keeps a function: its name, a handle of the host, or a version that calls it.
#[derive(Clone)]
pub(super) struct Owner(Counted<Ownership>);

impl Owner {
    pub(super) fn new(world: &'static World, function: &'static Function, engine: Engine) -> Self {
        Self(Counted::new(Ownership { world, function, _engine: engine }))
    }

    /// The function, for as long as it is kept.
    pub(super) fn function(&self) -> &'static Function {
        self.0.0.function
    }
}

struct Ownership {
    world: &'static World,
    function: &'static Function,
    /// Functions keep what they have in common.
    _engine: Engine,
}

impl Drop for Ownership {
    fn drop(&mut self) {
        self.world.drop_function(self.function);
    }
}

/// Keeps the lanes, until nothing does.
#[derive(Clone)]
pub(super) struct Engine {
    _common: Counted<Common>,
}

impl Engine {
    pub(super) fn new(world: &'static World) -> Self {
        Self { _common: Counted::new(Common(world)) }
    }
}

struct Common(&'static World);

impl Drop for Common {
    fn drop(&mut self) {
        self.0.drop_lanes();
    }
}

impl World {
    /// What becomes of a function that nothing keeps any more.
    fn drop_function(&self, function: &Function) {
        let gates = take(&mut *function.gates.borrow_mut());
        for gate in &gates {
            if gate.lane.calls.get() > 0 {
                self.seen.note(Event::DroppedInside);
            }
            let lane = &gate.lane.inner;
            let state = lane.state().state();
            if state == State::Freeing {
                self.seen.note(Event::DroppedByItself);
            }
            match self.machine.dropped {
                Dropped::Retires { fence } if state == State::Live => {
                    // SAFETY: no thread installs a version of a function that nothing keeps.
                    unsafe { lane.close() };
                    if fence {
                        self.heavy_fence();
                    }
                    // SAFETY: the lane is closed, and there was a fence, unless it is the mistake
                    // that there is none.
                    unsafe { lane.retire() };
                    self.leave_retired(&gate.lane);
                }
                Dropped::Retires { .. } => {}
                Dropped::DropsPayloads => {
                    // What is left of the payload must not be dropped a second time.
                    forget(Rc::clone(&gate.lane));
                    gate.lane.memory.free();
                    for _ in 0..function.drop_payloads() {
                        self.freed(&gate.lane, Event::FreedByRetirer);
                    }
                }
            }
            if self.machine.gates == Gates::GoWithFunction {
                gate.memory.free();
            }
            if self.machine.lanes == Lanes::GoWithFunction {
                gate.lane.memory.free();
            }
        }
        function.memory.free();
        if self.machine.lanes == Lanes::GoWhenFree {
            for gate in gates.iter().filter(|gate| gate.lane.inner.state().state() == State::Free) {
                gate.lane.memory.free();
            }
        }
        function.latest.set(None);
        self.pool.lock().expect("no thread panics").extend(gates);
    }

    /// What becomes of lanes, and of gates that have no function any more, when the engine goes.
    fn drop_lanes(&self) {
        if self.machine.gates == Gates::Stay {
            for gate in self.pool.lock().expect("no thread panics").iter() {
                gate.memory.free();
            }
        }
        for lane in self.lanes.iter().filter(|lane| !lane.memory.is_gone()) {
            let counted = lane.calls.get();
            assert!(counted == 0, "use after free: calls are counted in a lane that goes");
            lane.memory.free();
        }
    }
}
