//! Programs with tail calls.
//!
//! Where they begin, `f` and `g` have versions 0 that tail-call each other, if not said otherwise.

use std::ptr;

use crate::models::function::Function;
use crate::models::world::{Thread, World};

/// Gives `f` and `g` their next versions, which tail-call each other.
fn replace_both(thread: &Thread, world: &'static World) {
    thread.replace_by(&world.g, &[&world.f]);
    thread.replace_by(&world.f, &[&world.g]);
}

/// What bodies do that tail-call these functions one after the other.
fn to(
    callees: impl IntoIterator<Item = &'static Function>,
) -> impl FnMut(&'static Function) -> Option<&'static Function> {
    let mut callees = callees.into_iter().collect::<Vec<_>>().into_iter();
    move |_| callees.next()
}

/// A body tail-calls another function while another thread replaces its own.
pub(in crate::models) fn tail_caller_replaced(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    replace_both(&retirer, world);
    let calls = caller.spawn(|caller| {
        caller.call_bodies(&world.f, to([&world.g]));
    });
    retirer.replace_by(&world.f, &[&world.g]);
    calls.join().unwrap();
}

/// A body tail-calls another function while another thread replaces that one.
pub(in crate::models) fn tail_callee_replaced(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    replace_both(&retirer, world);
    let calls = caller.spawn(|caller| {
        caller.call_bodies(&world.f, to([&world.g]));
    });
    retirer.replace_by(&world.g, &[&world.f]);
    calls.join().unwrap();
}

/// Two functions tail-call each other for some rounds while another thread replaces both.
pub(in crate::models) fn mutual_tail_calls(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    replace_both(&retirer, world);
    let calls = caller.spawn(|caller| {
        caller.call_bodies(&world.f, to([&world.g, &world.f, &world.g]));
    });
    replace_both(&retirer, world);
    calls.join().unwrap();
}

/// A function tail-calls itself while another thread replaces it.
pub(in crate::models) fn tail_recursion(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    retirer.replace_by(&world.f, &[&world.f]);
    let calls = caller.spawn(|caller| {
        caller.call_bodies(&world.f, to([&world.f, &world.f]));
    });
    retirer.replace_by(&world.f, &[&world.f]);
    calls.join().unwrap();
}

/// Two threads tail-call while a third replaces the version that their calls move out of.
pub(in crate::models) fn two_tail_callers(world: &'static World) {
    let retirer = world.thread();
    replace_both(&retirer, world);
    let calls = [world.thread(), world.thread()].map(|caller| {
        caller.spawn(|caller| {
            caller.call_bodies(&world.f, to([&world.g]));
        })
    });
    retirer.replace_by(&world.f, &[&world.g]);
    for calls in calls {
        calls.join().unwrap();
    }
}

/// A body replaces its own function and then tail-calls another, while another thread calls. When
/// both have moved on, the old version is gone, though its call has not returned.
pub(in crate::models) fn replaced_before_a_tail_call(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    replace_both(&retirer, world);
    let calls = caller.spawn(|caller| {
        caller.call_bodies(&world.f, to([&world.g]));
    });
    let mut calls = Some(calls);
    let ran = retirer.call_bodies(&world.f, |here| {
        if ptr::eq(here, &world.f) {
            retirer.replace_by(&world.f, &[&world.g]);
            assert!(!world.f.is_freed(0), "freed under the frame that replaces it");
            return Some(&world.g);
        }
        calls.take().expect("g runs once").join().unwrap();
        assert!(world.f.is_freed(0), "leak: everyone has moved on");
        None
    });
    assert_eq!(ran, Some(0));
}

/// A body that was tail-called calls the function that it was tail-called by, which tail-calls
/// once more, while another thread replaces both.
pub(in crate::models) fn calls_and_tail_calls(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    replace_both(&retirer, world);
    let calls = caller.spawn(|caller| {
        let mut depth = 0;
        caller.call_bodies(&world.f, |here| {
            if ptr::eq(here, &world.f) {
                return Some(&world.g);
            }
            depth += 1;
            if depth == 1 {
                caller.call_bodies(&world.f, to([&world.g]));
            }
            None
        });
    });
    replace_both(&retirer, world);
    calls.join().unwrap();
}

/// A body tail-calls a function while another thread removes that one.
pub(in crate::models) fn tail_callee_removed(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    replace_both(&retirer, world);
    let calls = caller.spawn(|caller| {
        caller.call_bodies(&world.f, to([&world.g]));
    });
    retirer.remove(&world.g);
    calls.join().unwrap();
}

/// A function that only the version keeps that tail-calls it, while another thread replaces that
/// version. It goes with a version that is live.
pub(in crate::models) fn tail_callee_dropped(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    retirer.replace(&world.g);
    retirer.replace_by(&world.f, &[&world.g]);
    world.forget(&world.g);
    let calls = caller.spawn(|caller| {
        caller.call_bodies(&world.f, to([&world.g]));
    });
    retirer.replace(&world.f);
    calls.join().unwrap();
}

/// The same with two threads that tail-call it.
pub(in crate::models) fn tail_callee_dropped_by_two(world: &'static World) {
    let retirer = world.thread();
    retirer.replace(&world.g);
    retirer.replace_by(&world.f, &[&world.g]);
    world.forget(&world.g);
    let calls = [world.thread(), world.thread()].map(|caller| {
        caller.spawn(|caller| {
            caller.call_bodies(&world.f, to([&world.g]));
        })
    });
    retirer.replace(&world.f);
    for calls in calls {
        calls.join().unwrap();
    }
}

/// The same with a function that is removed first: it goes with a version that is retired.
pub(in crate::models) fn removed_tail_callee_dropped(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    retirer.replace(&world.g);
    retirer.replace_by(&world.f, &[&world.g]);
    let calls = caller.spawn(|caller| {
        caller.call_bodies(&world.f, to([&world.g]));
    });
    retirer.remove(&world.g);
    world.forget(&world.g);
    retirer.replace(&world.f);
    calls.join().unwrap();
}

/// The same with a function that tail-calls itself: it goes with the version that does.
pub(in crate::models) fn removed_tail_recursion_dropped(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    retirer.replace_by(&world.g, &[&world.g]);
    retirer.replace_by(&world.f, &[&world.g]);
    let calls = caller.spawn(|caller| {
        caller.call_bodies(&world.f, to([&world.g, &world.g]));
    });
    retirer.remove(&world.g);
    world.forget(&world.g);
    retirer.replace(&world.f);
    calls.join().unwrap();
}

/// A body lets go of the version that it is of, which alone keeps the function that it then
/// tail-calls.
pub(in crate::models) fn dropped_before_a_tail_call(world: &'static World) {
    let caller = world.thread();
    caller.replace(&world.g);
    caller.replace_by(&world.f, &[&world.g]);
    world.forget(&world.g);
    let ran = caller.call_bodies(&world.f, |here| {
        if ptr::eq(here, &world.f) {
            caller.replace(&world.f);
            return Some(&world.g);
        }
        assert!(world.g.memory.is_gone(), "leak: nobody can call g any more");
        None
    });
    assert_eq!(ran, Some(0));
}

/// A function goes, and another gets its lane, a version in it, and is removed, while a leaver of
/// the first may still be about to look.
pub(in crate::models) fn lane_given_away(world: &'static World) {
    let (caller, retirer) = (world.thread(), world.thread());
    caller.replace(&world.g);
    caller.replace_by(&world.f, &[&world.g]);
    world.forget(&world.g);
    let replaces = retirer.spawn(|retirer| {
        retirer.replace(&world.f);
        if world.give_lane(&world.h) {
            retirer.replace(&world.h);
            retirer.remove(&world.h);
        }
    });
    caller.call_bodies(&world.f, to([&world.g]));
    replaces.join().unwrap();
}

/// The same, and the other function is removed from inside. That frame stays until the caller is
/// done.
pub(in crate::models) fn lane_given_away_and_entered(world: &'static World) {
    let (caller, retirer) = (world.thread(), world.thread());
    caller.replace(&world.g);
    caller.replace_by(&world.f, &[&world.g]);
    world.forget(&world.g);
    let calls = caller.spawn(|caller| {
        caller.call_bodies(&world.f, to([&world.g]));
    });
    let replaces = retirer.spawn(|retirer| {
        retirer.replace(&world.f);
        if world.give_lane(&world.h) {
            retirer.replace(&world.h);
            let ran = retirer.call_and(&world.h, || {
                retirer.remove(&world.h);
                calls.join().unwrap();
            });
            assert_eq!(ran, Some(0));
        } else {
            calls.join().unwrap();
        }
    });
    replaces.join().unwrap();
}

/// A thread calls by a handle while another lets go of everything else.
pub(in crate::models) fn torn_down(world: &'static World) {
    let (retirer, caller) = (world.thread(), world.thread());
    retirer.replace(&world.g);
    retirer.replace_by(&world.f, &[&world.g]);
    let handle = world.f.handle();
    let calls = caller.spawn(|caller| {
        caller.call_by(handle, to([&world.g]));
    });
    world.tear_down();
    calls.join().unwrap();
}
