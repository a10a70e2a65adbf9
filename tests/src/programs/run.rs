//! A program in an engine, and what it is compared with.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lastout::{Dispatch, Engine, EngineBuilder, Handle, Version, VersionState};

use super::host::{self, Place, visit};
use super::model::{Ledger, Observed, expected};
use super::plain::Plain;
use super::{DISPATCHES, Entry, Program, Replacement, WayIn, lower, name};

/// Runs a program in all ways there are, and compares what there is to see.
///
/// # Panics
///
/// If two ways differ.
pub fn check(program: &Program) {
    let program = Arc::new(program.clone());
    let plain = host::run(&program, Arc::new(Plain::new(&program)), false);
    compare(&plain, &expected(&program, false), "in a JITModule");
    let expected = expected(&program, true);
    for dispatch in DISPATCHES {
        let gated = Arc::new(Gated::new(&program, dispatch, |builder| builder));
        let way = format!("in an engine, {dispatch:?}");
        let observed = host::run(&program, gated.clone(), true);
        compare(&observed, &expected, &way);
        gated.end();
    }
}

/// # Panics
///
/// If there was something else to see than expected.
pub(super) fn compare(observed: &Observed, expected: &Observed, way: &str) {
    for (index, visit) in observed.visits.iter().enumerate() {
        let expected = expected.visits.get(index);
        assert_eq!(Some(visit), expected, "{way}: visit {index}");
    }
    assert_eq!(observed, expected, "{way}");
}

/// The function that the host calls: its fuel and its argument.
type Entrance = fn(i64, i64) -> i64;

/// A program's functions in an engine.
pub(super) struct Gated {
    engine: Engine,
    program: Arc<Program>,
    /// For functions that the host can call.
    handles: BTreeMap<usize, Handle<Entrance>>,
    installs: Mutex<Vec<Install>>,
}

struct Install {
    /// The functions, each with its version.
    versions: Vec<(usize, Version)>,
    /// How often what was attached to the unit was dropped.
    drops: Arc<AtomicUsize>,
}

/// Counts itself when it is dropped.
struct Attached(Arc<AtomicUsize>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Gated {
    pub(super) fn new(
        program: &Arc<Program>,
        dispatch: Dispatch,
        options: impl FnOnce(EngineBuilder) -> EngineBuilder,
    ) -> Self {
        let builder = Engine::builder()
            .counting(program.counting)
            .dispatch(dispatch)
            .drop_policy(program.drop_policy)
            .code_memory(16 << 20)
            .quarantine(4 << 20)
            .flag("preserve_frame_pointers", "true")
            .host_function("visit", visit as extern "C" fn(i64, i64, i64) -> i64);
        let engine = options(builder).build().unwrap();
        for function in program.named() {
            let signature = lower::signature(program.signature(function));
            engine.declare(&name(function), &signature).unwrap();
        }
        let callable = program.named().filter(|&f| program.functions[f].signature == 0);
        let handles = callable.map(|f| (f, engine.function(&name(f)).unwrap())).collect();
        let installs = Mutex::default();
        let gated = Self { engine, program: Arc::clone(program), handles, installs };
        for unit in program.first_units() {
            gated.replace(&unit);
        }
        gated
    }

    /// Checks that nothing is left of what was replaced, and that nothing is left of anything when
    /// all functions are removed.
    ///
    /// # Panics
    ///
    /// If something is left, or is dropped too often.
    pub(super) fn end(&self) {
        self.engine.collect();
        let installs = self.installs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut current = BTreeMap::new();
        for (index, install) in installs.iter().enumerate() {
            current.extend(install.versions.iter().map(|&(function, _)| (function, index)));
        }
        for (index, install) in installs.iter().enumerate() {
            let mut live = false;
            for (function, version) in &install.versions {
                let is_current = current[function] == index;
                let state = if is_current { VersionState::Live } else { VersionState::Freed };
                assert_eq!(version.state(), state, "{version:?}");
                live |= is_current;
            }
            let drops = install.drops.load(Ordering::SeqCst);
            assert_eq!(drops, usize::from(!live), "drops of install {index}");
        }
        for &function in current.keys() {
            self.engine.remove(&name(function)).unwrap();
        }
        self.engine.collect();
        for (index, install) in installs.iter().enumerate() {
            assert_eq!(install.drops.load(Ordering::SeqCst), 1, "drops of install {index}");
        }
        assert_eq!((self.engine.stats().alive(), self.engine.stats().functions), (0, 0));
    }
}

impl Place for Gated {
    fn enter(&self, entry: &Entry) -> i64 {
        let handle = &self.handles[&entry.function];
        match entry.way {
            // SAFETY: a program's functions only compute with what they are given, and what they
            // call by address is current or of their own unit.
            WayIn::Handle => unsafe { handle.call(entry.fuel, entry.argument) }.unwrap(),
            WayIn::Address => {
                let address = handle.c_address().unwrap();
                // SAFETY: the function has this type and C's convention, and the handle keeps it.
                let call: extern "C" fn(i64, i64) -> i64 = unsafe { std::mem::transmute(address) };
                call(entry.fuel, entry.argument)
            }
        }
    }

    fn replace(&self, replacement: &Replacement) {
        let mut installs = self.installs.lock().unwrap_or_else(PoisonError::into_inner);
        let number = installs.len() as u64 + 1;
        let mut unit = self.engine.unit();
        lower::define(&mut unit, &self.program, replacement, |_| number);
        let drops = Arc::new(AtomicUsize::new(0));
        unit.attach(Attached(Arc::clone(&drops)));
        let installed = self.engine.install(unit).unwrap();
        let version = |&function: &usize| {
            let version = installed.version(&name(function)).unwrap().clone();
            assert_eq!(version.number(), number);
            (function, version)
        };
        installs.push(Install { versions: replacement.0.iter().map(version).collect(), drops });
    }

    fn look(&self) -> Option<Ledger> {
        self.engine.collect();
        let installs = self.installs.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = installs.iter().flat_map(|install| &install.versions);
        let left = versions.filter(|(_, version)| version.state() != VersionState::Freed);
        let mut ledger: Ledger =
            left.map(|(function, version)| ((*function, version.number()), 0)).collect();
        for function in self.program.named() {
            for info in self.engine.versions(&name(function)).unwrap() {
                let frames = info.frames() as u32;
                ledger.insert((function, info.version.number()), frames);
            }
        }
        Some(ledger)
    }
}
