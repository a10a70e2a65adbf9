//! Programs in which the first version of `f` is replaced where it is.

use crate::models::world::{Interrupt, World};

/// One thread calls while another replaces in place.
pub(in crate::models) fn in_place_one_caller(world: &'static World) {
    let (holder, caller) = (world.thread(), world.thread());
    holder.replace(&world.f);
    let calls = caller.spawn(|caller| {
        caller.call(&world.f);
    });
    holder.replace_in_place(&world.f);
    holder.call(&world.f);
    calls.join().unwrap();
}

/// Two threads call while a third replaces in place.
pub(in crate::models) fn in_place_two_callers(world: &'static World) {
    let holder = world.thread();
    holder.replace(&world.f);
    let calls = [world.thread(), world.thread()].map(|caller| {
        caller.spawn(|caller| {
            caller.call(&world.f);
        })
    });
    holder.replace_in_place(&world.f);
    for calls in calls {
        calls.join().unwrap();
    }
}

/// A thread calls twice while another replaces twice in place.
pub(in crate::models) fn in_place_twice(world: &'static World) {
    let (holder, caller) = (world.thread(), world.thread());
    holder.replace(&world.f);
    let calls = caller.spawn(|caller| {
        caller.call(&world.f);
        caller.call(&world.f);
    });
    holder.replace_in_place(&world.f);
    holder.replace_in_place(&world.f);
    calls.join().unwrap();
}

/// The body calls its own function while another thread replaces it in place.
pub(in crate::models) fn in_place_recursion(world: &'static World) {
    let (holder, caller) = (world.thread(), world.thread());
    holder.replace(&world.f);
    let calls = caller.spawn(|caller| {
        caller.call_and(&world.f, || {
            caller.call(&world.f);
        });
    });
    holder.replace_in_place(&world.f);
    calls.join().unwrap();
}

/// The body replaces its own function in place, in vain, while another thread calls.
pub(in crate::models) fn in_place_from_inside(world: &'static World) {
    let (holder, caller) = (world.thread(), world.thread());
    holder.replace(&world.f);
    let calls = caller.spawn(|caller| {
        caller.call(&world.f);
    });
    holder.call_and(&world.f, || {
        assert!(!holder.replace_in_place(&world.f), "use after free: replaced from inside");
    });
    calls.join().unwrap();
}

/// A thread calls while another replaces in place and a third replaces elsewhere.
pub(in crate::models) fn in_place_and_elsewhere(world: &'static World) {
    let (holder, retirer, caller) = (world.thread(), world.thread(), world.thread());
    holder.replace(&world.f);
    let calls = caller.spawn(|caller| {
        caller.call(&world.f);
    });
    let replaces = retirer.spawn(|retirer| retirer.replace(&world.f));
    holder.replace_in_place(&world.f);
    calls.join().unwrap();
    replaces.join().unwrap();
}

/// A thread is interrupted on its way in by a signal whose handler calls the function too, while
/// another replaces in place.
pub(in crate::models) fn in_place_interrupted(world: &'static World) {
    interrupted(world, Interrupt::CountedIn);
}

/// The same as it waits.
pub(in crate::models) fn in_place_interrupted_waiting(world: &'static World) {
    interrupted(world, Interrupt::Waiting);
}

fn interrupted(world: &'static World, place: Interrupt) {
    let (holder, caller) = (world.thread(), world.thread());
    holder.replace(&world.f);
    caller.interrupt.set(Some(place));
    let calls = caller.spawn(|caller| {
        caller.call(&world.f);
    });
    holder.replace_in_place(&world.f);
    calls.join().unwrap();
}

/// The body tail-calls its own function, once, while another thread replaces it in place.
pub(in crate::models) fn in_place_tail_call(world: &'static World) {
    let (holder, caller) = (world.thread(), world.thread());
    holder.replace_by(&world.f, &[&world.f]);
    let calls = caller.spawn(|caller| {
        let mut calls = 0;
        caller.call_bodies(&world.f, |_| {
            calls += 1;
            (calls == 1).then_some(&world.f)
        });
    });
    holder.replace_in_place(&world.f);
    calls.join().unwrap();
}
