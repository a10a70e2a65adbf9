//! The programs that the models run. What has to hold in them is in [`world`](super::world).
//!
//! In each, the function `f` has version 0 as the threads begin.

use super::world::World;

mod in_place;
mod moving;
mod tail;

pub(super) use in_place::*;
pub(super) use moving::*;
pub(super) use tail::*;

/// One thread calls while another replaces.
pub(super) fn one_caller(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    retirer.replace(&world.f);
    let calls = caller.spawn(|caller| {
        caller.call(&world.f);
    });
    retirer.replace(&world.f);
    calls.join().unwrap();
}

/// Two threads call while a third replaces.
pub(super) fn two_callers(world: &'static World) {
    let retirer = world.thread();
    retirer.replace(&world.f);
    let calls = [world.thread(), world.thread()].map(|caller| {
        caller.spawn(|caller| {
            caller.call(&world.f);
        })
    });
    retirer.replace(&world.f);
    for calls in calls {
        calls.join().unwrap();
    }
}

/// The body calls its own function while another thread replaces it.
pub(super) fn recursion(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    retirer.replace(&world.f);
    let calls = caller.spawn(|caller| {
        caller.call_and(&world.f, || {
            caller.call(&world.f);
        });
    });
    retirer.replace(&world.f);
    calls.join().unwrap();
}

/// A thread calls twice while another replaces twice.
pub(super) fn two_calls(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    retirer.replace(&world.f);
    let calls = caller.spawn(|caller| {
        caller.call(&world.f);
        caller.call(&world.f);
    });
    retirer.replace(&world.f);
    retirer.replace(&world.f);
    calls.join().unwrap();
}

/// The body replaces its own function, and cannot be drained by it, while another thread calls.
pub(super) fn replaced_from_inside(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    retirer.replace(&world.f);
    let calls = caller.spawn(|caller| {
        caller.call(&world.f);
    });
    let ran = retirer.call_and(&world.f, || {
        retirer.replace(&world.f);
        assert!(!world.f.is_freed(0), "freed under the frame that replaces it");
    });
    assert_eq!(ran, Some(0));
    calls.join().unwrap();
}

/// Three replacements take turns in two lanes while another thread calls. The last is made from
/// inside the version that it replaces, and that frame stays until the caller is done.
pub(super) fn lane_reuse(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    retirer.replace(&world.f);
    let calls = caller.spawn(|caller| {
        caller.call(&world.f);
    });
    retirer.replace(&world.f);
    retirer.replace(&world.f);
    let ran = retirer.call_and(&world.f, || {
        retirer.replace(&world.f);
        calls.join().unwrap();
    });
    assert_eq!(ran, Some(2));
}

/// Two threads are each inside a function as they replace another: the one that the other thread
/// is inside.
pub(super) fn two_functions(world: &'static World) {
    let (one, other) = (world.thread(), world.thread());
    one.replace(&world.f);
    other.replace(&world.g);
    let others = other.spawn(|other| {
        other.call_and(&world.f, || other.replace(&world.g));
    });
    one.call_and(&world.g, || one.replace(&world.f));
    others.join().unwrap();
}

/// Two threads replace the same function, and the version of each may be the one that the other
/// replaces.
pub(super) fn two_retirers(world: &'static World) {
    let (one, other) = (world.thread(), world.thread());
    one.replace(&world.f);
    let others = other.spawn(|other| {
        other.replace(&world.f);
        other.call(&world.f);
    });
    one.replace(&world.f);
    others.join().unwrap();
}

/// One thread calls and ends, and another that begins gets its context, or a new one.
pub(super) fn passing_contexts(world: &'static World) {
    let (retirer, leaving, coming) = (world.thread(), world.thread(), world.newcomer());
    retirer.replace(&world.f);
    let ends = leaving.spawn(|leaving| {
        leaving.call(&world.f);
        leaving.release();
    });
    let begins = coming.spawn(|coming| {
        coming.register().call(&world.f);
    });
    retirer.replace(&world.f);
    ends.join().unwrap();
    begins.join().unwrap();
}

/// A thread registers for its first call while another replaces.
pub(super) fn new_context(world: &'static World) {
    let (retirer, coming) = (world.thread(), world.newcomer());
    retirer.replace(&world.f);
    let begins = coming.spawn(|coming| {
        coming.register().call(&world.f);
    });
    retirer.replace(&world.f);
    begins.join().unwrap();
}

/// A thread calls while another removes the function.
pub(super) fn removal(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    retirer.replace(&world.f);
    let calls = caller.spawn(|caller| {
        caller.call(&world.f);
    });
    retirer.remove(&world.f);
    calls.join().unwrap();
}

/// A thread calls while another removes the function and installs it again.
pub(super) fn removal_and_return(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    retirer.replace(&world.f);
    let calls = caller.spawn(|caller| {
        caller.call(&world.f);
    });
    retirer.remove(&world.f);
    retirer.replace(&world.f);
    calls.join().unwrap();
}
