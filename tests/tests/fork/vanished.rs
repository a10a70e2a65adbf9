//! Versions that other threads were inside of when the process forked: the child does not have
//! these threads, and frees the versions itself, but not before it has to do with the engine.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use lastout::{Adopted, DropPolicy, Engine, FunctionType, Version};
use lastout_tests::support::{
    COUNTINGS, Callback, Door, Drops, calling_back, constant, install, install_counted, turn,
};
use lastout_tests::{builder, call};

use super::exercise;
use super::process::{Forked, Stage, fork, on_another_thread, split};

const POLICIES: [DropPolicy; 2] = [DropPolicy::Leaver, DropPolicy::Collector];

/// What a process may do with an engine first.
#[derive(Clone, Copy, Debug)]
enum First {
    Install,
    Adopt,
    Remove,
    Collect,
    Drop,
}

impl First {
    const ALL: [Self; 5] = [Self::Install, Self::Adopt, Self::Remove, Self::Collect, Self::Drop];

    /// Returns the engine, unless it is dropped.
    fn act(self, engine: Engine) -> Option<Engine> {
        extern "C" fn five() -> i64 {
            5
        }

        match self {
            Self::Install => drop(install(&engine, &constant("other", 3))),
            Self::Adopt => {
                let mut adopted = Adopted::new(|| {});
                let signature = <fn() -> i64>::signature(engine.isa());
                // SAFETY: the function is of this signature, and stays.
                unsafe { adopted.export("another", &signature, five as *const u8) };
                engine.adopt(adopted).unwrap();
            }
            Self::Remove => engine.remove("other").unwrap(),
            Self::Collect => {
                engine.collect();
            }
            Self::Drop => {
                drop(engine);
                return None;
            }
        }
        Some(engine)
    }
}

fn is_freed(version: &Version) -> bool {
    version.wait_freed(Duration::ZERO)
}

/// Forks while another thread is inside of a version of `f`, and has the child act on the engine.
fn fork_around(policy: DropPolicy, replaced_before: bool, first: First) {
    let counting = COUNTINGS[usize::from(replaced_before)];
    let engine = builder!().counting(counting).drop_policy(policy).build().unwrap();
    let drops = Drops::new();
    let old = install_counted(&engine, &calling_back("f", 10), &drops);
    let old = old.version("f").unwrap();
    install(&engine, &constant("other", 2));
    let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
    let double = Callback::new(|x| 2 * x);
    let door = Door::default();
    let wait = door.callback();
    let replace = |engine: &Engine| drop(install(engine, &calling_back("f", 20)));
    thread::scope(|scope| {
        let inside = scope.spawn(|| call!(f, wait.address(), 1).unwrap());
        door.arrived();
        if replaced_before {
            replace(&engine);
            assert!(!is_freed(old));
        }
        // Each process has one.
        let mut engine = Some(engine);
        let child = {
            let (engine, f, double, drops) = (&mut engine, &f, &double, &drops);
            fork(move || {
                let engine = engine.take().unwrap();
                let plus = if replaced_before { 20 } else { 10 };
                assert_eq!(call!(f, double.address(), 4).unwrap(), 8 + plus);
                let inside = engine.versions("f").unwrap();
                assert!(inside.iter().all(|info| info.threads.is_empty()), "{inside:?}");
                assert_eq!(drops.count(), 0, "destructors have run before they had to");
                let engine = first.act(engine);
                let (freed, dropped) = match (&engine, policy) {
                    // Nobody has replaced it yet.
                    (Some(_), _) if !replaced_before => (false, 0),
                    (Some(engine), DropPolicy::Collector) => {
                        engine.collect();
                        (true, 1)
                    }
                    _ => (true, 1),
                };
                assert_eq!((is_freed(old), drops.count()), (freed, dropped), "{first:?}");
                let Some(engine) = engine else { return };
                replace(&engine);
                engine.collect();
                assert!(is_freed(old));
                assert_eq!(drops.count(), 1);
                exercise_with(policy, &engine);
                assert_eq!(call!(f, double.address(), 4).unwrap(), 28);
                assert_eq!(drops.count(), 1);
            })
        };
        child.join();
        let engine = engine.unwrap();
        // The thread is still there, for this process.
        replace(&engine);
        engine.collect();
        assert!(!is_freed(old));
        assert_eq!(engine.versions("f").unwrap()[0].frames(), 1);
        door.open();
        assert_eq!(inside.join().unwrap(), 11);
        engine.collect();
        assert!(is_freed(old));
        assert_eq!(drops.count(), 1);
    });
}

/// That everything goes on as before, where versions are freed as they are replaced.
fn exercise_with(policy: DropPolicy, engine: &Engine) {
    if policy == DropPolicy::Leaver {
        exercise(engine, 5);
    }
}

#[test]
fn the_child_frees_it_when_it_first_has_to_do_with_the_engine() {
    let _turn = turn();
    for policy in POLICIES {
        for replaced_before in [false, true] {
            for first in First::ALL {
                fork_around(policy, replaced_before, first);
            }
        }
    }
}

#[test]
fn each_engine_frees_its_own() {
    let _turn = turn();
    let engines = [(); 2].map(|()| builder!().build().unwrap());
    let drops = [Drops::new(), Drops::new()];
    let door = Door::default();
    let wait = door.callback();
    let [one, two] = [0, 1].map(|index| {
        install_counted(&engines[index], &calling_back("f", 1), &drops[index]);
        engines[index].function::<fn(usize, i64) -> i64>("f").unwrap()
    });
    let counts = || [drops[0].count(), drops[1].count()];
    thread::scope(|scope| {
        scope.spawn(|| {
            let both = Callback::new(|x| call!(two, wait.address(), x).unwrap());
            call!(one, both.address(), 1).unwrap()
        });
        door.arrived();
        for engine in &engines {
            install(engine, &calling_back("f", 2));
        }
        let child = fork(|| {
            let [one, two] = &engines;
            assert_eq!(counts(), [0, 0]);
            two.collect();
            assert_eq!(counts(), [0, 1]);
            // Not only by the thread that has forked.
            on_another_thread(|| assert_eq!(one.collect(), 0));
            assert_eq!(counts(), [1, 1]);
            for engine in &engines {
                exercise(engine, 5);
            }
        });
        child.join();
        assert_eq!(counts(), [0, 0]);
        door.open();
    });
    assert_eq!(counts(), [1, 1]);
}

/// Two threads are inside, and one of them forks there: what it is inside of stays until it leaves.
#[test]
fn what_the_forking_thread_is_inside_of_stays() {
    let _turn = turn();
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let drops = Drops::new();
        let old = install_counted(&engine, &calling_back("f", 10), &drops);
        let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
        let door = Door::default();
        let wait = door.callback();
        thread::scope(|scope| {
            scope.spawn(|| call!(f, wait.address(), 1).unwrap());
            door.arrived();
            let child = Mutex::new(None);
            let forking = Callback::new(|x| {
                let split = split();
                install(&engine, &calling_back("f", 20));
                assert_eq!(drops.count(), 0);
                let inside = engine.versions("f").unwrap();
                let is_child = matches!(split, Forked::Child);
                assert_eq!(inside[0].threads.len(), if is_child { 1 } else { 2 });
                // SAFETY: getpid has no preconditions.
                let process = unsafe { libc::getpid() } as u64;
                if is_child {
                    // It is the only thread, and has the number of its process.
                    assert_eq!(inside[0].threads[0].thread_id, process);
                }
                *child.lock().unwrap() = Some(split);
                x
            });
            let result = call!(f, forking.address(), 2);
            let split = child.lock().unwrap().take().unwrap();
            split.both(|is_child| {
                assert_eq!(result.unwrap(), 12);
                assert_eq!(drops.count(), usize::from(is_child));
                assert_eq!(is_freed(&old.versions()[0]), is_child);
                exercise(&engine, 5);
            });
            door.open();
        });
        assert_eq!(drops.count(), 1);
    }
}

/// The child may fork before it has done anything about what it does not have.
#[test]
fn a_grandchild_frees_what_nobody_has_freed_before() {
    let _turn = turn();
    let engine = builder!().build().unwrap();
    let drops = Drops::new();
    install_counted(&engine, &calling_back("f", 10), &drops);
    let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
    let door = Door::default();
    let wait = door.callback();
    thread::scope(|scope| {
        scope.spawn(|| call!(f, wait.address(), 1).unwrap());
        door.arrived();
        install(&engine, &calling_back("f", 20));
        let stage = Stage::new();
        let child = fork(|| {
            let grandchild = fork(|| {
                assert_eq!(drops.count(), 0);
                engine.collect();
                assert_eq!(drops.count(), 1);
                exercise(&engine, 5);
                stage.reach(1);
            });
            grandchild.join();
            assert_eq!(drops.count(), 0);
            engine.collect();
            assert_eq!(drops.count(), 1);
            exercise(&engine, 5);
            // And another, of one that has.
            fork(|| {
                engine.collect();
                exercise(&engine, 5);
                assert_eq!(drops.count(), 1);
            })
            .join();
        });
        child.join();
        assert!(stage.reached(1));
        assert_eq!(drops.count(), 0);
        door.open();
    });
    assert_eq!(drops.count(), 1);
}

/// Contexts of threads that the child does not have are used by those that it makes.
#[test]
fn new_threads_of_the_child_are_told_apart_from_those_it_lacks() {
    let _turn = turn();
    let engine = builder!().build().unwrap();
    install(&engine, &calling_back("f", 10));
    let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
    let doors = [(); 3].map(|()| Door::default());
    thread::scope(|scope| {
        for door in &doors {
            scope.spawn(|| call!(f, door.callback().address(), 1).unwrap());
            door.arrived();
        }
        let child = fork(|| {
            // Some while the others are not forgotten yet, some afterwards.
            for emptied in [false, true] {
                if emptied {
                    install(&engine, &calling_back("f", 10));
                }
                on_another_thread(|| {
                    let look = Callback::new(|x| {
                        let inside = &engine.versions("f").unwrap()[0];
                        assert_eq!((inside.threads.len(), inside.frames()), (1, 1));
                        x
                    });
                    assert_eq!(call!(f, look.address(), 1).unwrap(), 11);
                });
                assert_eq!(engine.versions("f").unwrap()[0].frames(), 0);
            }
            exercise(&engine, 5);
        });
        child.join();
        assert_eq!(engine.versions("f").unwrap()[0].frames(), 3);
        doors.iter().for_each(Door::open);
    });
}
