//! What a version owns: dropped exactly once, after its last frame, and where the policy says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lastout::cranelift_codegen::Context;
use lastout::cranelift_module::Module;
use lastout::{DropPolicy, Handle, VersionState};
use lastout_tests::support::{
    COUNTINGS, Callback, Door, Drops, OnDrop, calling_back, constant, install, install_counted,
    unit,
};
use lastout_tests::{builder, call, engine};

#[test]
fn what_is_attached_is_dropped_once_with_its_version() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let (first_drops, second_drops) = (Drops::new(), Drops::new());
        let first = install_counted(&engine, &constant("f", 1), &first_drops);
        assert_eq!(first_drops.count(), 0);
        install_counted(&engine, &constant("f", 2), &second_drops);
        assert_eq!(first_drops.count(), 1);
        assert_eq!(first.versions()[0].state(), VersionState::Freed);
        engine.remove("f").unwrap();
        assert_eq!(second_drops.count(), 1);
        drop(engine);
        assert_eq!((first_drops.count(), second_drops.count()), (1, 1));
    }
}

#[test]
fn a_unit_that_is_not_installed_drops_what_is_attached() {
    let engine = engine!();
    let drops = Drops::new();
    let mut unit = unit(&engine, &constant("f", 1));
    unit.attach(drops.value());
    unit.attach(drops.value());
    drop(unit);
    assert_eq!(drops.count(), 2);
}

#[test]
fn nothing_is_dropped_under_a_frame() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let drops = Drops::new();
        install_counted(&engine, &calling_back("f", 1), &drops);
        let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
        let doors: [Door; 2] = Default::default();
        thread::scope(|scope| {
            let visit = |door: &Door| {
                let wait = door.callback();
                call!(f, wait.address(), 1).unwrap()
            };
            let visitors = doors.each_ref().map(|door| scope.spawn(move || visit(door)));
            doors.iter().for_each(Door::arrived);
            engine.remove("f").unwrap();
            assert_eq!(drops.count(), 0);
            let [first, second] = visitors;
            doors[0].open();
            assert_eq!(first.join().unwrap(), 2);
            assert_eq!(drops.count(), 0);
            doors[1].open();
            assert_eq!(second.join().unwrap(), 2);
            assert_eq!(drops.count(), 1);
        });
    }
}

#[test]
fn a_function_can_replace_itself_at_any_depth() {
    const DEPTH: i64 = 20;
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let drops: Vec<Drops> = (0..DEPTH).map(|_| Drops::new()).collect();
        let install = |number: i64| {
            let text = calling_back("f", 1 << number);
            install_counted(&engine, &text, &drops[number as usize]);
        };
        let dropped = || drops.iter().map(Drops::count).sum::<usize>();
        install(0);
        let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
        let address = AtomicUsize::new(0);
        // Called by version `number`: installs the next, calls it, and looks what is gone by then.
        let replace = Callback::new(|number| {
            if number + 1 == DEPTH {
                assert_eq!(dropped(), 0);
                assert_eq!(f.versions().len(), DEPTH as usize);
                return 0;
            }
            install(number + 1);
            let result = call!(f, address.load(Ordering::Relaxed), number + 1).unwrap();
            // Those further in have left, all but the one that is current.
            assert_eq!(dropped() as i64, DEPTH - 2 - number);
            assert_eq!(drops[number as usize].count(), 0);
            result
        });
        address.store(replace.address(), Ordering::Relaxed);
        assert_eq!(call!(f, replace.address(), 0).unwrap(), (1 << DEPTH) - 1);
        assert_eq!(dropped() as i64, DEPTH - 1);
        assert_eq!(drops[DEPTH as usize - 1].count(), 0);
    }
}

#[test]
fn a_recursion_keeps_its_version_until_the_outermost_frame_leaves() {
    let engine = engine!();
    let drops = Drops::new();
    install_counted(
        &engine,
        // Direct recursion, which is not counted, and a way out at its end.
        "function %f(i64, i64) -> i64 system_v {
            fn0 = colocated %f(i64, i64) -> i64 system_v
            fn1 = %call_back(i64, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            brif v1, block1, block2
         block1:
            v2 = iconst.i64 -1
            v3 = iadd v1, v2
            v4 = call fn0(v0, v3)
            return v4
         block2:
            v5 = call fn1(v0, v1)
            return v5
         }",
        &drops,
    );
    let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
    let remove = Callback::new(|_| {
        assert_eq!(f.versions()[0].frames(), 1);
        engine.remove("f").unwrap();
        assert_eq!(drops.count(), 0);
        7
    });
    assert_eq!(call!(f, remove.address(), 100).unwrap(), 7);
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_unit_goes_with_its_last_version() {
    let engine = engine!();
    let text = constant("a", 1) + &constant("b", 1) + &constant("c", 1);
    let drops = Drops::new();
    let installed = install_counted(&engine, &text, &drops);
    install(&engine, &constant("b", 2));
    engine.remove("a").unwrap();
    assert_eq!(installed.version("a").unwrap().state(), VersionState::Freed);
    assert_eq!(drops.count(), 0);
    install(&engine, &constant("c", 2));
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_unit_without_versions_is_dropped_when_it_is_installed() {
    let engine = std::sync::Arc::new(engine!());
    let mut unit = engine.unit();
    // The destructor uses the engine, which must not be locked by then.
    let (sender, receiver) = std::sync::mpsc::channel();
    let its_engine = std::sync::Arc::clone(&engine);
    unit.attach(OnDrop(move || {
        install(&its_engine, &constant("f", 1));
        sender.send(its_engine.stats().functions).unwrap();
    }));
    thread::spawn(move || {
        engine.install(unit).unwrap();
        engine.remove("f").unwrap();
    });
    assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Ok(1));
}

#[test]
fn a_panic_in_a_destructor_stays_there() {
    let engine = engine!();
    let drops = Drops::new();
    let mut unit = unit(&engine, &calling_back("f", 1));
    unit.attach(drops.value());
    unit.attach(OnDrop(|| panic!("this panic is part of the test")));
    unit.attach(drops.value());
    let installed = engine.install(unit).unwrap();
    let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
    // Dropped by the leaving thread, in the middle of its way out.
    let remove = Callback::new(|x| {
        engine.remove("f").unwrap();
        x
    });
    assert_eq!(call!(f, remove.address(), 1).unwrap(), 2);
    assert_eq!(drops.count(), 2);
    assert_eq!(installed.versions()[0].state(), VersionState::Freed);
    // The lane is good for another version.
    install(&engine, &calling_back("f", 5));
    let same = Callback::new(|x| x);
    assert_eq!(call!(f, same.address(), 1).unwrap(), 6);
}

/// A value of a panic that panics when it is dropped, with another such value, a few times.
struct PanicsAgain(usize);

impl Drop for PanicsAgain {
    fn drop(&mut self) {
        if self.0 > 0 {
            // Without the hook, which prints.
            std::panic::resume_unwind(Box::new(PanicsAgain(self.0 - 1)));
        }
    }
}

/// It came out of the install or removal that freed the version, and the thread freed no version ever
/// after; on a thread that left the version, it ended the process.
#[test]
fn the_value_of_a_panic_in_a_destructor_may_panic_when_it_is_dropped() {
    let engine = engine!();
    let drops = Drops::new();
    let panicking = |text: &str| {
        let mut unit = unit(&engine, text);
        unit.attach(OnDrop(|| std::panic::resume_unwind(Box::new(PanicsAgain(3)))));
        unit.attach(drops.value());
        engine.install(unit).unwrap()
    };
    let replaced = panicking(&constant("f", 1));
    install_counted(&engine, &constant("f", 2), &drops);
    assert_eq!(replaced.versions()[0].state(), VersionState::Freed);
    assert_eq!(drops.count(), 1);
    engine.remove("f").unwrap();
    assert_eq!(drops.count(), 2);

    let left = panicking(&calling_back("g", 1));
    let g = engine.function::<fn(usize, i64) -> i64>("g").unwrap();
    let remove = Callback::new(|x| {
        engine.remove("g").unwrap();
        x
    });
    assert_eq!(call!(g, remove.address(), 1).unwrap(), 2);
    assert_eq!(left.versions()[0].state(), VersionState::Freed);
    assert_eq!(drops.count(), 3);
}

#[test]
fn with_a_collector_nothing_is_dropped_before_it_collects() {
    for counting in COUNTINGS {
        let builder = builder!().counting(counting).drop_policy(DropPolicy::Collector);
        let engine = builder.build().unwrap();
        let (first_drops, second_drops) = (Drops::new(), Drops::new());
        let first = install_counted(&engine, &calling_back("f", 1), &first_drops);
        let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
        let replace = Callback::new(|x| {
            install_counted(&engine, &calling_back("f", 2), &second_drops);
            assert_eq!(engine.collect(), 0);
            assert_eq!(first.versions()[0].state(), VersionState::Retired);
            x
        });
        assert_eq!(call!(f, replace.address(), 0).unwrap(), 1);
        let version = &first.versions()[0];
        assert_eq!(version.state(), VersionState::Drained);
        assert!(!version.wait_freed(Duration::ZERO));
        engine.remove("f").unwrap();
        assert_eq!(engine.stats().freed, 0);
        assert_eq!((first_drops.count(), second_drops.count()), (0, 0));
        assert_eq!(engine.collect(), 2);
        assert_eq!((first_drops.count(), second_drops.count()), (1, 1));
        assert_eq!(version.state(), VersionState::Freed);
        assert_eq!(engine.stats().freed, 2);
        assert_eq!(engine.collect(), 0);
    }
}

#[test]
fn a_destructor_can_install_and_remove_in_the_same_engine() {
    let engine = std::sync::Arc::new(engine!());
    let mut unit = unit(&engine, &constant("f", 1));
    let its_engine = std::sync::Arc::downgrade(&engine);
    unit.attach(OnDrop(move || {
        let engine = its_engine.upgrade().unwrap();
        install(&engine, &constant("g", 1));
        install(&engine, &(constant("g", 2) + &constant("f", 3)));
        let f: Handle<fn() -> i64> = engine.function("f").unwrap();
        assert_eq!(call!(f).unwrap(), 3);
        install(&engine, &constant("f", 4));
        engine.remove("g").unwrap();
    }));
    engine.install(unit).unwrap();
    let f: Handle<fn() -> i64> = engine.function("f").unwrap();
    install(&engine, &constant("f", 2));
    assert_eq!(call!(f).unwrap(), 4);
    assert_eq!(engine.stats().functions, 1);
    assert_eq!(engine.stats().alive(), 1);
}

#[test]
fn a_long_chain_of_units_is_dropped_without_a_stack_as_long() {
    const UNITS: usize = 3000;
    // Each owns a handle to the one before, as closures do.
    let engine = engine!();
    let drops = Drops::new();
    let mut last: Option<Handle<fn() -> i64>> = None;
    for _ in 0..UNITS {
        let mut unit = engine.unit();
        let mut context = Context::for_function(
            cranelift_reader::parse_functions(&constant("f", 1)).unwrap().remove(0),
        );
        let id = unit.declare_anonymous_function(&context.func.signature).unwrap();
        unit.define_function(id, &mut context).unwrap();
        unit.expose(id);
        unit.attach(drops.value());
        unit.attach(last);
        last = Some(engine.install(unit).unwrap().function(id).unwrap());
    }
    let drop_all = {
        let drops = drops.clone();
        move || {
            assert_eq!(drops.count(), 0);
            drop(last);
            drops.count()
        }
    };
    let small = thread::Builder::new().stack_size(64 << 10);
    assert_eq!(small.spawn(drop_all).unwrap().join().unwrap(), UNITS);
    assert_eq!(engine.stats().alive(), 0);
}
