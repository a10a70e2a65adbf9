//! Calls that are patched: which ones, when, and that it is the call itself that changes.
//!
//! A call that still had an older version's gate would bail there, and come to the current version
//! all the same. So what tells whether it was patched is how many steps of gates it takes.

#![cfg(target_arch = "x86_64")]

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::thread;

use cranelift_codegen::ir::{InstBuilder, types};
use cranelift_module::{FuncId, Linkage, Module};
use crossbeam_utils::Backoff;
use lastout::{Adopted, CallError, Engine, Error, Unit};
use lastout_tests::emit::Emitter;
use lastout_tests::support::{
    self, COUNTINGS, Callback, Door, Nullary, OnDrop, caller, calling_back, constant,
    define_call_at, handle, install, nullary, step, steps,
};
use lastout_tests::{builder, call};

/// An engine of which steps are counted.
fn counted() -> Engine {
    builder!().interleave(step).build().unwrap()
}

/// How many calls are patched, in place and by a jump.
fn patched(engine: &Engine) -> (usize, usize) {
    let stats = engine.stats();
    (stats.patched_calls, stats.patched_calls_by_jump)
}

fn patched_in_all(engine: &Engine) -> usize {
    let (in_place, by_jump) = patched(engine);
    in_place + by_jump
}

/// Functions that call others, and how many steps that takes as long as nobody bails.
struct Callers {
    handles: Vec<Nullary>,
    steps: usize,
}

impl Callers {
    /// All of these have as many gates to pass as the first.
    fn new(engine: &Engine, names: impl IntoIterator<Item: AsRef<str>>) -> Self {
        let handles: Vec<_> = names.into_iter().map(|name| handle(engine, name.as_ref())).collect();
        let (steps, _) = steps(|| call!(handles[0]).unwrap());
        assert!(steps > 0);
        Self { handles, steps }
    }

    /// Calls all of them.
    #[track_caller]
    fn check(&self, expected: i64) {
        for handle in &self.handles {
            let met = steps(|| call!(handle).unwrap());
            assert_eq!(met, (self.steps, expected), "{}", handle.name());
        }
    }
}

/// A unit with calls of `callee` in functions of these names, whose distances are that far from a
/// multiple of eight.
fn calls_at(engine: &Engine, callee: &str, places: &[(&str, usize)]) -> Unit {
    let mut unit = engine.unit();
    let callee = unit.declare_function(callee, Linkage::Import, &nullary()).unwrap();
    for &(name, offset) in places {
        define_call_at(&mut unit, name, callee, offset);
    }
    unit
}

/// Calls of `callee` in each of the ways in which a call can lie.
const EVERYWHERE: [(&str, usize); 8] = [
    ("at0", 0),
    ("at1", 1),
    ("at2", 2),
    ("at3", 3),
    ("at4", 4),
    ("at5", 5),
    ("at6", 6),
    ("at7", 7),
];

#[test]
fn a_call_is_patched_however_it_lies() {
    let engine = counted();
    install(&engine, &constant("callee", 0));
    engine.install(calls_at(&engine, "callee", &EVERYWHERE)).unwrap();
    // From 5 on the four bytes are in two words.
    assert_eq!(patched(&engine), (5, 3));
    let callers = Callers::new(&engine, EVERYWHERE.map(|(name, _)| name));
    callers.check(0);
    for version in 1..20 {
        install(&engine, &constant("callee", version));
        callers.check(version);
        assert_eq!(patched(&engine), (5, 3));
    }
    engine.remove("callee").unwrap();
    for handle in &callers.handles {
        assert!(matches!(call!(handle), Err(CallError::Removed(name)) if &*name == "callee"));
    }
    for version in 20..24 {
        install(&engine, &constant("callee", version));
        callers.check(version);
    }
    for (name, _) in EVERYWHERE {
        engine.remove(name).unwrap();
    }
    assert_eq!(patched(&engine), (0, 0));
}

#[test]
fn calls_are_patched_under_threads_that_make_them() {
    const VERSIONS: i64 = 1000;
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        install(&engine, &constant("callee", 0));
        engine.install(calls_at(&engine, "callee", &EVERYWHERE)).unwrap();
        let handles = EVERYWHERE.map(|(name, _)| handle(&engine, name));
        let (begun, done) = (AtomicI64::new(0), AtomicI64::new(0));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        for handle in &handles {
                            let oldest = done.load(Ordering::SeqCst);
                            let version = call!(handle).unwrap();
                            let newest = begun.load(Ordering::SeqCst);
                            assert!((oldest..=newest).contains(&version), "{}", handle.name());
                        }
                    }
                });
            }
            for version in 1..=VERSIONS {
                begun.store(version, Ordering::SeqCst);
                install(&engine, &constant("callee", version));
                done.store(version, Ordering::SeqCst);
                for handle in &handles {
                    assert_eq!(call!(handle).unwrap(), version, "{}", handle.name());
                }
            }
        });
    }
}

#[test]
fn calls_of_other_functions_stay_as_they_are() {
    let engine = counted();
    install(&engine, &(constant("one", 10) + &constant("other", 20)));
    let mut unit = engine.unit();
    let [one, other] = ["one", "other"]
        .map(|name| unit.declare_function(name, Linkage::Import, &nullary()).unwrap());
    for offset in 0..8 {
        define_call_at(&mut unit, &format!("one_at{offset}"), one, offset);
        define_call_at(&mut unit, &format!("other_at{offset}"), other, offset);
    }
    engine.install(unit).unwrap();
    assert_eq!(patched(&engine), (10, 6));
    let ones = Callers::new(&engine, (0..8).map(|offset| format!("one_at{offset}")));
    let others = Callers::new(&engine, (0..8).map(|offset| format!("other_at{offset}")));
    for value in 11..15 {
        install(&engine, &constant("one", value));
        ones.check(value);
        others.check(value + 9);
        install(&engine, &constant("other", value + 10));
        ones.check(value);
        others.check(value + 10);
    }
    // Both at once, and one that nobody calls.
    install(&engine, &(constant("alone", 0) + &constant("one", 30) + &constant("other", 31)));
    ones.check(30);
    others.check(31);
    install(&engine, &(constant("other", 33) + &constant("one", 32) + &constant("alone", 0)));
    ones.check(32);
    others.check(33);
}

#[test]
fn calls_are_no_longer_patched_once_their_unit_is_gone() {
    let engine = counted();
    install(&engine, &constant("callee", 1));
    engine.install(calls_at(&engine, "callee", &EVERYWHERE)).unwrap();
    // One half is replaced by what calls nobody, the other by the same calls; then all is removed.
    let (nobody, same) = EVERYWHERE.split_at(4);
    for (name, _) in nobody {
        install(&engine, &constant(name, 0));
    }
    // Units go with their last version.
    assert_eq!(patched(&engine), (5, 3));
    engine.install(calls_at(&engine, "callee", same)).unwrap();
    assert_eq!(patched(&engine), (1, 3));
    install(&engine, &constant("callee", 2));
    Callers::new(&engine, same.iter().map(|(name, _)| name)).check(2);
    for (name, _) in same {
        assert_eq!(patched(&engine), (1, 3));
        engine.remove(name).unwrap();
    }
    assert_eq!(patched(&engine), (0, 0));

    // What is not installed in the end is not patched either.
    drop(calls_at(&engine, "callee", &EVERYWHERE));
    let missing = calls_at(&engine, "missing", &EVERYWHERE);
    assert!(matches!(engine.install(missing), Err(Error::MissingImport(_))));
    let mut undefined = calls_at(&engine, "callee", &EVERYWHERE);
    undefined.declare_function("undefined", Linkage::Export, &nullary()).unwrap();
    assert!(matches!(engine.install(undefined), Err(Error::Undefined(_))));
    assert_eq!(patched(&engine), (0, 0));
}

/// A thread is inside a unit that no other can enter any more. It goes on calling.
#[test]
fn calls_of_a_replaced_unit_are_patched_until_it_is_left() {
    let engine = counted();
    install(&engine, &constant("callee", 1));
    let outer = "function %outer(i64) -> i64 system_v {
            fn0 = %callee() -> i64 system_v
            fn1 = %call_back(i64, i64) -> i64 system_v
         block0(v0: i64):
            v1 = iconst.i64 0
            v2 = call fn1(v0, v1)
            v3 = call fn0()
            v4 = call fn1(v0, v3)
            return v4
         }";
    install(&engine, outer);
    let handle = engine.function::<fn(usize) -> i64>("outer").unwrap();
    let replace = |value| drop(install(&engine, &constant("callee", value)));
    let quietly = Callback::new(|value| value);
    let (undisturbed, _) = steps(|| call!(handle, quietly.address()).unwrap());
    let door = Door::default();
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let wait = Callback::new(|value| {
                door.pass();
                value
            });
            steps(|| call!(handle, wait.address()).unwrap())
        });
        door.arrived();
        install(&engine, &outer.replace("call fn0()", "iconst.i64 7"));
        assert_eq!(patched_in_all(&engine), 1);
        (2..=6).for_each(replace);
        door.open();
        door.arrived();
        assert_eq!(patched_in_all(&engine), 1);
        door.open();
        // The gate of `outer` finds its version gone on the way out, which is no step more.
        assert_eq!(inside.join().unwrap(), (undisturbed, 6));
    });
    assert_eq!(patched_in_all(&engine), 0);
}

/// Where two threads meet, unless one of them has failed.
#[derive(Default)]
struct Meeting {
    arrived: AtomicUsize,
    failed: AtomicBool,
}

impl Meeting {
    /// Waits for the other thread, without sleeping: both go on at the same moment.
    fn wait(&self) {
        let round = self.arrived.fetch_add(1, Ordering::SeqCst) / 2;
        let backoff = Backoff::new();
        while self.arrived.load(Ordering::SeqCst) < 2 * (round + 1) {
            assert!(!self.failed.load(Ordering::SeqCst), "the other thread has failed");
            backoff.snooze();
        }
    }

    /// Held by a thread as long as the other may wait for it.
    fn attend(&self) -> OnDrop<impl FnMut()> {
        OnDrop(|| {
            if thread::panicking() {
                self.failed.store(true, Ordering::SeqCst);
            }
        })
    }
}

/// A unit is linked while what it calls is replaced: it either has the new gate from the start, or
/// is patched.
#[test]
fn units_come_while_what_they_call_is_replaced() {
    const ROUNDS: i64 = 400;
    let engine = counted();
    install(&engine, &constant("callee", 0));
    install(&engine, &caller("caller", "callee", 0));
    let (expected, _) = steps(|| call!(handle(&engine, "caller")).unwrap());
    let turn = Meeting::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _attending = turn.attend();
            for round in 1..=ROUNDS {
                let unit = support::unit(&engine, &constant("callee", round));
                turn.wait();
                engine.install(unit).unwrap();
                turn.wait();
            }
        });
        let _attending = turn.attend();
        for round in 1..=ROUNDS {
            // The one that the last round has made is replaced, and another comes.
            let places = [("caller", round as usize % 8), ("other", round as usize % 5)];
            let unit = calls_at(&engine, "callee", &places);
            turn.wait();
            // Not always at the same moment of the other's way.
            (0..round % 16 * 50).for_each(|_| std::hint::spin_loop());
            engine.install(unit).unwrap();
            turn.wait();
            for name in ["caller", "other"] {
                let met = steps(|| call!(handle(&engine, name)).unwrap());
                assert_eq!(met, (expected, round), "{name}");
            }
            assert_eq!(patched_in_all(&engine), 2);
        }
    });
}

/// Units go, and others come where they were, while what all of them call is replaced: nothing is
/// written to what is not a call any more.
#[test]
fn units_come_and_go_while_what_they_call_is_replaced() {
    const ROUNDS: i64 = 600;
    // Without quarantine, so that memory is used again at once.
    let engine = builder!().quarantine(0).build().unwrap();
    install(&engine, &constant("callee", 0));
    install(&engine, &caller("stays", "callee", 0));
    let stays = handle(&engine, "stays");
    let done = AtomicI64::new(0);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                let name = |number: usize| format!("f{}", number % 3);
                let (one, two) = (name(round), name(round + 1));
                let places = [(&*one, round % 8), (&*two, round / 8 % 8)];
                engine.install(calls_at(&engine, "callee", &places)).unwrap();
                let oldest = done.load(Ordering::SeqCst);
                assert!(call!(handle(&engine, &one)).unwrap() >= oldest);
                // As large as the calls, and none.
                let number = round as i64;
                install(&engine, &constant("data", number));
                assert_eq!(call!(handle(&engine, "data")).unwrap(), number);
                engine.remove(&two).unwrap();
                round += 1;
            }
        });
        for round in 1..=ROUNDS {
            install(&engine, &constant("callee", round));
            done.store(round, Ordering::SeqCst);
            assert_eq!(call!(stays).unwrap(), round);
        }
    });
    for name in ["f0", "f1", "f2"] {
        let _ = engine.remove(name);
    }
    assert_eq!(patched_in_all(&engine), 1);
    engine.remove("stays").unwrap();
    assert_eq!(patched_in_all(&engine), 0);
}

/// A function that calls another one this often, and returns the sum.
fn define_sum(emitter: &mut Emitter, unit: &mut Unit, name: &str, callee: &str, calls: usize) {
    let signature = nullary();
    let id = unit.declare_function(name, Linkage::Export, &signature).unwrap();
    let callee: FuncId = unit.declare_function(callee, Linkage::Import, &signature).unwrap();
    let body = emitter.define(unit, id, |builder, unit, _| {
        let callee = unit.declare_func_in_func(callee, builder.func);
        let mut sum = builder.ins().iconst(types::I64, 0);
        for _ in 0..calls {
            let call = builder.ins().call(callee, &[]);
            let result = builder.func.dfg.first_result(call);
            sum = builder.ins().iadd(sum, result);
        }
        builder.ins().return_(&[sum]);
    });
    body.unwrap();
}

#[test]
fn an_install_patches_ten_thousand_calls_and_takes_one_heavy_fence() {
    const UNITS: usize = 40;
    const CALLS: usize = 250;
    let engine = counted();
    install(&engine, &constant("callee", 1));
    let mut emitter = Emitter::default();
    let name = |number: usize| format!("sum{number}");
    for number in 0..UNITS {
        let mut unit = engine.unit();
        define_sum(&mut emitter, &mut unit, &name(number), "callee", CALLS);
        engine.install(unit).unwrap();
    }
    let (in_place, by_jump) = patched(&engine);
    assert_eq!(in_place + by_jump, UNITS * CALLS);
    // About five eighths and three.
    assert!(in_place > by_jump && by_jump > UNITS * CALLS / 10, "{in_place} {by_jump}");
    let sums = Callers::new(&engine, (0..UNITS).map(name));
    for value in 2..6 {
        let fences = engine.stats().heavy_fences;
        install(&engine, &constant("callee", value));
        assert_eq!(engine.stats().heavy_fences, fences + 1);
        sums.check(CALLS as i64 * value);
    }
    (0..UNITS).for_each(|number| engine.remove(&name(number)).unwrap());
    assert_eq!(patched(&engine), (0, 0));
}

/// Which calls within a unit are patched: those that another version may have to answer.
#[test]
fn calls_that_stay_in_their_version_are_not_patched() {
    for (linkage, expected) in
        [(Linkage::Local, 0), (Linkage::Hidden, 0), (Linkage::Export, 0), (Linkage::Preemptible, 2)]
    {
        for import_first in [false, true] {
            let engine = counted();
            let mut unit = engine.unit();
            let declare = |unit: &mut Unit, linkage| {
                unit.declare_function("callee", linkage, &nullary()).unwrap()
            };
            if !import_first {
                declare(&mut unit, linkage);
            }
            let mut emitter = Emitter::default();
            define_sum(&mut emitter, &mut unit, "sum", "callee", 2);
            let callee = declare(&mut unit, linkage);
            let body = emitter.define(&mut unit, callee, |builder, _, _| {
                let result = builder.ins().iconst(types::I64, 3);
                builder.ins().return_(&[result]);
            });
            body.unwrap();
            engine.install(unit).unwrap();
            // An export that was an import when it was called is one that can be replaced.
            let expected = if import_first && linkage == Linkage::Export { 2 } else { expected };
            let sum = handle(&engine, "sum");
            let (first, _) = steps(|| call!(sum).unwrap());
            assert_eq!(patched_in_all(&engine), expected, "{linkage:?} {import_first}");
            assert_eq!(call!(sum).unwrap(), 6);
            if expected > 0 {
                install(&engine, &constant("callee", 4));
                assert_eq!(steps(|| call!(sum).unwrap()), (first, 8), "{linkage:?}");
            }
        }
    }
}

#[test]
fn calls_by_address_and_of_the_host_are_not_patched() {
    let engine = counted();
    install(&engine, &constant("callee", 1));
    install(&engine, &calling_back("host", 0));
    install(
        &engine,
        "function %by_address() -> i64 system_v {
            fn0 = %callee() -> i64 system_v
            sig1 = () -> i64 system_v
         block0:
            v0 = func_addr.i64 fn0
            v1 = call_indirect sig1, v0()
            return v1
         }",
    );
    assert_eq!(patched(&engine), (0, 0));
    let by_address = Callers::new(&engine, ["by_address"]);
    for value in 2..5 {
        install(&engine, &constant("callee", value));
        // Entries call by the slot, which has the current gate.
        by_address.check(value);
    }
}

#[test]
fn no_calls_are_patched_unless_that_is_asked_for() {
    let engine = support::builder().interleave(step).build().unwrap();
    install(&engine, &constant("callee", 1));
    install(&engine, &caller("caller", "callee", 0));
    assert_eq!(patched(&engine), (0, 0));
    Callers::new(&engine, ["caller"]).check(1);
}

/// A function that calls itself has sites in its own unit, which is not published yet when they
/// are made.
#[test]
fn a_function_that_calls_itself_calls_its_next_version() {
    let engine = counted();
    let text = |number: i64| {
        format!(
            "function %f(i64) -> i64 system_v {{
                fn0 = %f(i64) -> i64 system_v
             block0(v0: i64):
                v1 = iconst.i64 {number}
                brif v0, block1, block2
             block1:
                v2 = iconst.i64 -1
                v3 = iadd v0, v2
                v4 = call fn0(v3)
                v5 = iadd v4, v1
                return v5
             block2:
                return v1
             }}"
        )
    };
    install(&engine, &text(1));
    let f = engine.function::<fn(i64) -> i64>("f").unwrap();
    let (first, sum) = steps(|| call!(f, 9).unwrap());
    assert_eq!(sum, 10);
    for number in 2..8 {
        install(&engine, &text(number));
        assert_eq!(steps(|| call!(f, 9).unwrap()), (first, 10 * number));
        assert_eq!(patched_in_all(&engine), 1);
    }
    engine.remove("f").unwrap();
    drop(f);
    assert_eq!((patched_in_all(&engine), engine.stats().alive()), (0, 0));
}

#[test]
fn calls_of_adopted_code_are_patched() {
    extern "C" fn seven() -> i64 {
        7
    }

    let engine = counted();
    install(&engine, &constant("callee", 1));
    engine.install(calls_at(&engine, "callee", &EVERYWHERE)).unwrap();
    let callers = Callers::new(&engine, EVERYWHERE.map(|(name, _)| name));
    for value in 2..5 {
        let mut adopted = Adopted::new(|| {});
        // SAFETY: the function is of this signature, and stays.
        unsafe { adopted.export("callee", &nullary(), seven as *const u8) };
        engine.adopt(adopted).unwrap();
        callers.check(7);
        install(&engine, &constant("callee", value));
        callers.check(value);
    }
}

/// Functions that are known and have no version have a gate to be called by.
#[test]
fn calls_of_a_declared_function_find_its_first_version() {
    let engine = counted();
    engine.declare("callee", &nullary()).unwrap();
    engine.install(calls_at(&engine, "callee", &EVERYWHERE)).unwrap();
    assert_eq!(patched(&engine), (5, 3));
    for (name, _) in EVERYWHERE {
        assert!(matches!(call!(handle(&engine, name)), Err(CallError::Removed(_))));
    }
    install(&engine, &constant("callee", 1));
    let callers = Callers::new(&engine, EVERYWHERE.map(|(name, _)| name));
    callers.check(1);
    install(&engine, &constant("callee", 2));
    callers.check(2);
}
