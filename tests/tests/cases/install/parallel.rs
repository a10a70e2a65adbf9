//! Units that many threads fill, link and install at once, under names of their own and under the
//! same names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

use lastout::{CallError, Engine, Error, Unit};
use lastout_tests::support::{
    COUNTINGS, Drops, caller, constant, handle, held, install, install_counted, nullary, unit,
};
use lastout_tests::{builder, call, clif, engine};

const THREADS: usize = 4;

/// Runs a role on each of the threads, all of them starting together.
fn on_threads(role: impl Fn(usize) + Sync) {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (start, role) = (&start, &role);
            scope.spawn(move || {
                start.wait();
                role(thread);
            });
        }
    });
}

/// Makes the entries that an engine keeps; returns what it then holds.
fn warm(engine: &Engine) -> (usize, u64, usize, usize) {
    install(engine, &constant("warm", 0));
    handle(engine, "warm");
    engine.remove("warm").unwrap();
    held(engine.stats())
}

/// The versions that threads have installed, by the name of the function and the version's number,
/// and what they return.
#[derive(Default)]
struct Record {
    installed: Mutex<BTreeMap<(String, u64), i64>>,
    /// Every version of every function returns a number of its own.
    results: AtomicI64,
    drops: Drops,
}

impl Record {
    /// Installs versions of functions as one unit. Returns its number.
    fn install(&self, engine: &Engine, names: &[&str]) -> u64 {
        self.prepare(engine, names).install(engine)
    }

    /// Fills a unit with versions of functions.
    fn prepare(&self, engine: &Engine, names: &[&str]) -> Prepared<'_> {
        let mut unit = engine.unit();
        let next = || self.results.fetch_add(1, Ordering::Relaxed);
        let results: Vec<_> = names.iter().map(|&name| (name.to_owned(), next())).collect();
        for (name, result) in &results {
            clif::define(&mut unit, &constant(name, *result)).unwrap();
        }
        unit.attach(self.drops.value());
        Prepared { record: self, unit, results }
    }

    /// The newest version of a function, and what it returns.
    fn newest(&self, name: &str) -> (u64, i64) {
        let record = self.installed.lock().unwrap();
        let versions = record.range((name.to_owned(), 0)..=(name.to_owned(), u64::MAX));
        let (&(_, number), &result) = versions.last().unwrap();
        (number, result)
    }

    fn numbers(&self) -> BTreeSet<u64> {
        self.installed.lock().unwrap().keys().map(|&(_, number)| number).collect()
    }

    fn versions(&self) -> u64 {
        self.installed.lock().unwrap().len() as u64
    }
}

/// A unit, and what its functions return.
struct Prepared<'a> {
    record: &'a Record,
    unit: Unit,
    results: Vec<(String, i64)>,
}

impl Prepared<'_> {
    /// Returns the number of the versions.
    fn install(self, engine: &Engine) -> u64 {
        let installed = engine.install(self.unit).unwrap();
        let number = installed.versions()[0].number();
        let mut record = self.record.installed.lock().unwrap();
        for (name, result) in self.results {
            assert_eq!(installed.version(&name).unwrap().number(), number);
            assert_eq!(record.insert((name, number), result), None);
        }
        number
    }
}

#[test]
fn the_newest_version_of_each_name_is_current_and_nothing_else_is_left() {
    const OWN: usize = 200;
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let nothing = warm(&engine);
        let warmed_up = engine.stats().installed;
        let record = Record::default();
        // One that exists, and is called, from the start.
        record.install(&engine, &["kept"]);
        let kept = handle(&engine, "kept");
        on_threads(|thread| {
            let mut last = 0;
            let mut next = |names: &[&str]| {
                let number = record.install(&engine, names);
                assert!(number > last, "a thread's installs have increasing numbers");
                last = number;
                number
            };
            for round in 0..OWN {
                let own = format!("own{thread}_{round}");
                let number = next(&[&own]);
                assert_eq!(record.newest(&own).0, number);
                assert_eq!(call!(handle(&engine, &own)).unwrap(), record.newest(&own).1);
                let new = format!("new{round}");
                next(&["kept", &new]);
                next(&[["there_and_gone", "gone_and_there"][round % 2]]);
                for name in ["there_and_gone", "gone_and_there"] {
                    if (round + thread) % 3 == 0 {
                        let removed = engine.remove(name);
                        assert!(matches!(removed, Ok(()) | Err(Error::UnknownFunction(_))));
                    }
                }
                assert!(call!(kept).unwrap() >= 0);
                refused(&engine, thread);
            }
        });

        let stats = engine.stats();
        assert_eq!(stats.installed, warmed_up + record.versions());
        let numbers = record.numbers();
        assert_eq!(numbers.len(), 1 + THREADS * OWN * 3, "every install has a number of its own");
        let first = *numbers.first().unwrap();
        assert!(numbers.iter().copied().eq(first..first + numbers.len() as u64));
        let mut alive = 0;
        let names = record.installed.lock().unwrap().keys().map(|(name, _)| name.clone()).collect();
        let names: BTreeSet<String> = names;
        for name in &names {
            let versions = match engine.versions(name) {
                Ok(versions) => versions,
                Err(_) => {
                    assert!(name.contains("gone"), "{name}");
                    continue;
                }
            };
            let (number, result) = record.newest(name);
            let current: Vec<_> = versions.iter().map(|info| info.version.number()).collect();
            assert_eq!(current, [number], "{name}");
            assert_eq!(call!(handle(&engine, name)).unwrap(), result, "{name}");
            alive += 1;
            engine.remove(name).unwrap();
        }
        assert_eq!(stats.alive(), alive);
        drop(kept);
        assert_eq!(held(engine.stats()), nothing);
        assert_eq!(record.drops.count(), numbers.len());
    }
}

/// Tries to install what cannot be, under names that others install at the same time.
fn refused(engine: &Engine, thread: usize) {
    let drops = Drops::new();
    let mut unit = unit(engine, &(constant("kept", -1) + &caller("refused", "missing", 0)));
    unit.attach(drops.value());
    assert!(matches!(engine.install(unit), Err(Error::MissingImport(_))));
    let unary = "function %kept(i64) -> i64 system_v { block0(v0: i64): return v0 }";
    let own = constant(&format!("refused{thread}"), 0);
    let refused = engine.install(lastout_tests::support::unit(engine, &(own + unary)));
    assert!(matches!(refused, Err(Error::SignatureMismatch { .. })));
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_name_that_is_new_to_all_is_one_function() {
    const ROUNDS: usize = 100;
    const NAMES: usize = 16;
    let engine = engine!();
    let nothing = warm(&engine);
    let record = Record::default();
    let filled = Barrier::new(THREADS);
    for round in 0..ROUNDS {
        // Of a name that was removed before the same function may be left, or not.
        let names: Vec<_> = (0..NAMES).map(|name| format!("new{}_{name}", round / 2)).collect();
        let handles = Mutex::new(Vec::new());
        on_threads(|thread| {
            let mut mine: Vec<_> = names.iter().map(String::as_str).collect();
            if thread % 2 == 1 {
                mine.reverse();
            }
            let unit = record.prepare(&engine, &mine);
            filled.wait();
            unit.install(&engine);
            for name in mine {
                let new = handle(&engine, name);
                let importer = format!("importer{thread}_{}", name.rsplit_once('_').unwrap().1);
                install(&engine, &caller(&importer, name, 0));
                handles.lock().unwrap().push((name, [new, handle(&engine, &importer)]));
            }
        });
        for (name, handles) in handles.into_inner().unwrap() {
            let (number, result) = record.newest(name);
            for handle in &handles {
                assert_eq!(call!(handle).unwrap(), result, "{}", handle.name());
            }
            let versions = engine.versions(name).unwrap();
            let numbers: Vec<_> = versions.iter().map(|info| info.version.number()).collect();
            assert_eq!(numbers, [number]);
        }
        let importers = engine.stats().functions - NAMES;
        assert_eq!(engine.stats().alive() as usize, NAMES + importers);
        for name in &names {
            engine.remove(name).unwrap();
        }
    }
    for thread in 0..THREADS {
        for name in 0..NAMES {
            engine.remove(&format!("importer{thread}_{name}")).unwrap();
        }
    }
    assert_eq!(held(engine.stats()), nothing);
    assert_eq!(record.drops.count(), THREADS * ROUNDS);
}

/// A function that calls another one by its address, and adds a number to its result.
fn caller_by_address(name: &str, callee: &str, plus: i64) -> String {
    let call = "v3 = func_addr.i64 fn0
            v0 = call_indirect sig1, v3()";
    caller(name, callee, plus)
        .replace("v0 = call fn0()", call)
        .replace("{\n", "{\n            sig1 = () -> i64 system_v\n")
}

#[test]
fn rings_of_imports_are_freed() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let nothing = warm(&engine);
        for len in 1..=5usize {
            for (with_handles, by_address, replace) in [
                (false, false, false),
                (true, false, false),
                (false, true, false),
                (true, true, true),
                (false, false, true),
            ] {
                let drops = Drops::new();
                let name = |number: usize| format!("f{}", number % len);
                let ring = |number: usize| {
                    let text = if by_address { caller_by_address } else { caller };
                    text(&name(number), &name(number + 1), 1)
                };
                for number in 0..len {
                    engine.declare(&name(number), &nullary()).unwrap();
                }
                let rounds = 1 + usize::from(replace);
                for _ in 0..rounds {
                    for number in 0..len {
                        install_counted(&engine, &ring(number), &drops);
                    }
                }
                assert_eq!(drops.count(), (rounds - 1) * len);
                let handles: Vec<_> = if with_handles {
                    // Opened, so that it can be called: the last calls nobody.
                    install_counted(&engine, &constant(&name(len - 1), 0), &drops);
                    (0..len).map(|number| handle(&engine, &name(number))).collect()
                } else {
                    Vec::new()
                };
                for (number, function) in (1..).zip(&handles) {
                    assert_eq!(call!(function).unwrap(), len as i64 - number);
                }
                if with_handles {
                    install_counted(&engine, &ring(len - 1), &drops);
                }
                for number in 0..len {
                    engine.remove(&name(number)).unwrap();
                }
                assert_eq!(drops.count(), rounds * len + if with_handles { 2 } else { 0 });
                for function in &handles {
                    assert!(matches!(call!(function), Err(CallError::Removed(_))));
                }
                drop(handles);
                assert_eq!(held(engine.stats()), nothing, "{len} {with_handles} {by_address}");
            }
        }
    }
}

#[test]
fn rings_made_and_removed_on_many_threads_are_freed() {
    let engine = engine!();
    let nothing = warm(&engine);
    let drops = Drops::new();
    on_threads(|thread| {
        for round in 0..50 {
            let name = |number: usize| format!("f{thread}_{}", (number + round) % 3);
            for number in 0..3 {
                engine.declare(&name(number), &nullary()).unwrap();
            }
            for number in 0..3 {
                install_counted(&engine, &caller(&name(number), &name(number + 1), 1), &drops);
            }
            install_counted(&engine, &constant(&name(1), 5), &drops);
            assert_eq!(call!(handle(&engine, &name(2))).unwrap(), 7);
            for number in 0..3 {
                engine.remove(&name(number)).unwrap();
            }
        }
    });
    assert_eq!(drops.count(), THREADS * 50 * 4);
    assert_eq!(held(engine.stats()), nothing);
}
