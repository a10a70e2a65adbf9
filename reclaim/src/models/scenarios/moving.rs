//! Programs whose frames move at points: out of versions of `f` by the resume entry `g`, and from
//! the parked call `h`.
//!
//! Where they begin, a version 0 of `f` offers the point.

use std::ptr;

use loom::thread::JoinHandle;

use crate::models::function::Function;
use crate::models::point::PointKind;
use crate::models::world::{Thread, World};

/// Calls `f`, and looks at the flag so many times.
fn look(thread: Thread, times: usize) -> JoinHandle<()> {
    thread.spawn(move |thread| {
        let mut looks = 0..times;
        let resume_entry = &thread.world.g;
        thread.call_bodies(&thread.world.f, |_| looks.next().map(|_| resume_entry));
    })
}

/// What bodies do that make one call, from the parked call if they find it, which does what
/// `inside` does.
fn park(
    world: &'static World,
    mut inside: impl FnMut(),
) -> impl FnMut(&'static Function) -> Option<&'static Function> {
    let mut to_go = true;
    move |here| {
        if ptr::eq(here, &world.h) {
            inside();
            return Some(&world.g);
        }
        // In the fallback, the call is made in the version itself.
        std::mem::take(&mut to_go).then_some(&world.h)
    }
}

/// Calls `f`, which makes a call.
fn call(thread: Thread) -> JoinHandle<()> {
    thread.spawn(|thread| {
        thread.call_bodies(&thread.world.f, park(thread.world, || ()));
    })
}

/// A loop goes on for two rounds while another thread does something.
fn while_looping(world: &'static World, meanwhile: impl FnOnce(&Thread)) {
    let (retirer, caller) = (world.thread(), world.thread());
    world.put_point(PointKind::Loop);
    retirer.offer();
    let loops = look(caller, 2);
    meanwhile(&retirer);
    loops.join().unwrap();
}

/// A thread is in a call while another does something.
fn while_calling(world: &'static World, meanwhile: impl FnOnce(&Thread)) {
    let (retirer, caller) = (world.thread(), world.thread());
    world.put_point(PointKind::Call);
    retirer.offer();
    let calls = call(caller);
    meanwhile(&retirer);
    calls.join().unwrap();
}

/// A thread makes a call, whose callee does something. Returns the version that the call has gone
/// on in.
fn by_callee(world: &'static World, mut inside: impl FnMut(&Thread)) -> Option<usize> {
    let caller = world.thread();
    world.put_point(PointKind::Call);
    caller.offer();
    caller.call_bodies(&world.f, park(world, || inside(&caller)))
}

/// A loop goes on while another thread replaces its function.
pub(in crate::models) fn looping(world: &'static World) {
    while_looping(world, Thread::offer);
}

/// The same, and the other thread loops as well: it replaces the function that it is in.
pub(in crate::models) fn two_looping(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    world.put_point(PointKind::Loop);
    retirer.offer();
    let loops = look(caller, 1);
    let mut replaced = false;
    let ran = retirer.call_bodies(&world.f, |_| {
        (!std::mem::replace(&mut replaced, true)).then(|| {
            retirer.offer();
            &world.g
        })
    });
    assert_eq!(ran, Some(1), "stale call: a loop looks at its flag and goes on");
    loops.join().unwrap();
}

/// A loop goes on while another thread replaces its function, and then once more, by a version
/// without the point.
pub(in crate::models) fn looping_withdrawn(world: &'static World) {
    while_looping(world, |retirer| {
        retirer.offer();
        retirer.withdraw();
    });
}

/// A thread is in a call while another replaces the version that it is from.
pub(in crate::models) fn parked(world: &'static World) {
    while_calling(world, Thread::offer);
}

/// The version that a call is from is replaced by the callee.
pub(in crate::models) fn replaced_while_parked(world: &'static World) {
    let ran = by_callee(world, |caller| {
        caller.offer();
        assert!(world.f.is_freed(0) && world.g.is_freed(0), "leak: nobody is in version 0");
    });
    assert_eq!(ran, Some(1));
}

/// The same by a version without the point; and then nothing else keeps the resume entry.
pub(in crate::models) fn withdrawn_while_parked(world: &'static World) {
    let caller = world.thread();
    world.put_point(PointKind::Call);
    caller.offer();
    world.forget(&world.g);
    world.forget(&world.h);
    let ran = caller.call_bodies(
        &world.f,
        park(world, || {
            caller.withdraw();
            assert!(world.f.is_freed(0), "leak: nobody is in version 0");
        }),
    );
    assert_eq!(ran, Some(0));
}

/// The same, and then by one with it.
pub(in crate::models) fn offered_again_while_parked(world: &'static World) {
    let ran = by_callee(world, |caller| {
        caller.withdraw();
        caller.offer();
    });
    assert_eq!(ran, Some(1));
}

/// A thread is in a call while another replaces the version that it is from by one without the
/// point.
pub(in crate::models) fn parked_withdrawn(world: &'static World) {
    while_calling(world, Thread::withdraw);
}

/// The same, and the other thread is in a call as well, whose callee does that.
pub(in crate::models) fn two_parked_withdrawn(world: &'static World) {
    while_calling(world, |retirer| {
        retirer.call_bodies(&world.f, park(world, || retirer.withdraw()));
    });
}

/// The callee of a call replaces the version that it is from by one without the point, while
/// another thread installs one with it.
pub(in crate::models) fn withdrawn_while_parked_and_offered(world: &'static World) {
    let (caller, other) = (world.thread(), world.thread());
    world.put_point(PointKind::Call);
    caller.offer();
    let offers = other.spawn(|other| other.offer());
    caller.call_bodies(&world.f, park(world, || caller.withdraw()));
    offers.join().unwrap();
}

/// A thread is in a call while another replaces the version that it is from, first by one with the
/// point and then by one without.
pub(in crate::models) fn parked_offered_and_withdrawn(world: &'static World) {
    while_calling(world, |retirer| {
        retirer.offer();
        retirer.withdraw();
    });
}

/// The other way around.
pub(in crate::models) fn parked_withdrawn_and_offered(world: &'static World) {
    while_calling(world, |retirer| {
        retirer.withdraw();
        retirer.offer();
    });
}
