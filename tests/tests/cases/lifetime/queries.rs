//! What can be asked about versions: their state, which threads are inside, when they are freed.

use std::thread;
use std::time::{Duration, Instant};

use lastout::VersionState;
use lastout_tests::support::{COUNTINGS, Callback, Door, calling_back, calls, constant, install};
use lastout_tests::{builder, call, engine};

#[test]
fn a_thread_that_is_inside_is_seen_with_its_name() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        install(&engine, &calling_back("f", 1));
        let f = calls(&engine, "f");
        let door = Door::default();
        let wait = door.callback();
        thread::scope(|scope| {
            let inside = thread::Builder::new().name("the visitor".to_owned());
            let visitor = inside.spawn_scoped(scope, || call!(f, wait.address(), 41)).unwrap();
            door.arrived();
            let versions = f.versions();
            assert_eq!(versions.len(), 1);
            assert_eq!(versions[0].version.state(), VersionState::Live);
            assert_eq!(versions[0].threads[0].name.as_deref(), Some("the visitor"));
            assert_ne!(versions[0].threads[0].thread_id, u64::from(std::process::id()));
            assert_eq!(versions[0].frames(), 1);
            let first = versions[0].version.clone();

            install(&engine, &calling_back("f", 2));
            let versions = engine.versions("f").unwrap();
            let states: Vec<_> = versions.iter().map(|info| info.version.state()).collect();
            assert_eq!(states, [VersionState::Retired, VersionState::Live]);
            assert_eq!(versions[0].frames(), 1);
            assert_eq!(versions[1].frames(), 0);
            assert!(!first.wait_freed(Duration::ZERO));
            assert_eq!(engine.stats().alive(), 2);

            door.open();
            assert_eq!(visitor.join().unwrap().unwrap(), 42);
            assert!(first.wait_freed(Duration::ZERO));
            assert_eq!(first.state(), VersionState::Freed);
            assert_eq!(f.versions().len(), 1);
            assert_eq!(engine.stats().alive(), 1);
        });
    }
}

#[test]
fn the_frames_of_a_recursion_are_counted_one_by_one() {
    let engine = engine!();
    install(&engine, &calling_back("f", 0));
    let f = calls(&engine, "f");
    let address = std::sync::atomic::AtomicUsize::new(0);
    let load = || address.load(std::sync::atomic::Ordering::Relaxed);
    let recurse = Callback::new(|depth| {
        let threads = &f.versions()[0].threads;
        assert_eq!(threads.len(), 1);
        assert_eq!(i64::from(threads[0].frames), 10 - depth);
        if depth > 0 { call!(f, load(), depth - 1).unwrap() } else { 0 }
    });
    address.store(recurse.address(), std::sync::atomic::Ordering::Relaxed);
    assert_eq!(call!(f, load(), 9).unwrap(), 0);
    assert_eq!(f.versions()[0].frames(), 0);
}

#[test]
fn every_thread_inside_is_seen() {
    let engine = engine!();
    install(&engine, &calling_back("f", 0));
    let f = calls(&engine, "f");
    let doors: [Door; 3] = Default::default();
    thread::scope(|scope| {
        for door in &doors {
            let f = &f;
            scope.spawn(move || {
                let wait = door.callback();
                call!(f, wait.address(), 0).unwrap()
            });
            door.arrived();
        }
        let versions = f.versions();
        assert_eq!(versions[0].threads.len(), 3);
        assert_eq!(versions[0].frames(), 3);
        install(&engine, &calling_back("f", 0));
        for door in &doors {
            assert_eq!(versions[0].version.state(), VersionState::Retired);
            door.open();
        }
        assert!(versions[0].version.wait_freed(Duration::from_secs(60)));
    });
}

#[test]
fn who_waits_for_a_version_to_be_freed_is_woken() {
    let engine = engine!();
    let installed = install(&engine, &calling_back("f", 0));
    let version = installed.version("f").unwrap();
    let f = calls(&engine, "f");
    let door = Door::default();
    let wait = door.callback();
    thread::scope(|scope| {
        scope.spawn(|| call!(f, wait.address(), 0).unwrap());
        door.arrived();
        engine.remove("f").unwrap();
        let start = Instant::now();
        assert!(!version.wait_freed(Duration::from_millis(20)));
        assert!(start.elapsed() >= Duration::from_millis(20));
        let waiter = scope.spawn(|| version.wait_freed(Duration::from_secs(60)));
        thread::sleep(Duration::from_millis(5));
        door.open();
        assert!(waiter.join().unwrap());
        assert!(version.wait_freed(Duration::MAX));
    });
}

#[test]
fn versions_have_the_number_of_their_install() {
    let engine = engine!();
    let one = install(&engine, &(constant("a", 1) + &constant("b", 1)));
    let two = install(&engine, &constant("a", 2));
    let three = install(&engine, &constant("c", 3));
    let numbers = |installed: &lastout::Installed| -> Vec<u64> {
        installed.versions().iter().map(|version| version.number()).collect()
    };
    assert_eq!((numbers(&one), numbers(&two), numbers(&three)), (vec![1, 1], vec![2], vec![3]));
    assert_eq!(one.version("b").unwrap().function(), "b");
    assert!(one.version("c").is_none());
    assert_eq!(format!("{:?}", one.version("a").unwrap()), "a#1 Freed");
    assert_eq!(format!("{:?}", two.version("a").unwrap()), "a#2 Live");
    // An install that fails is none.
    let failed = lastout_tests::support::unit(&engine, &constant("call_back", 0));
    assert!(engine.install(failed).is_err());
    assert_eq!(numbers(&install(&engine, &constant("d", 4))), [4]);
}

#[test]
fn the_engine_counts_what_it_holds() {
    let engine = engine!();
    let empty = engine.stats();
    assert_eq!((empty.functions, empty.installed, empty.freed), (0, 0, 0));
    install(&engine, &(constant("a", 1) + &constant("b", 1)));
    let stats = engine.stats();
    assert_eq!((stats.functions, stats.installed, stats.freed, stats.alive()), (2, 2, 0, 2));
    assert!(stats.code_bytes > empty.code_bytes);
    assert!(stats.committed_bytes >= 4096);
    assert!(stats.committed_bytes >= stats.code_bytes);
    install(&engine, &constant("a", 2));
    let stats = engine.stats();
    // The first unit lives on for the sake of `b`.
    assert_eq!((stats.functions, stats.installed, stats.freed, stats.alive()), (2, 3, 1, 2));
    engine.remove("a").unwrap();
    engine.remove("b").unwrap();
    let stats = engine.stats();
    assert_eq!((stats.functions, stats.installed, stats.freed), (0, 3, 3));
    assert_eq!((stats.code_bytes, stats.data_bytes), (empty.code_bytes, empty.data_bytes));
    assert!(format!("{engine:?}").contains("installed: 3"));
}
