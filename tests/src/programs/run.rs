//! A program in an engine, and what it is compared with.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lastout::{
    CallError, Dispatch, DropPolicy, Engine, EngineBuilder, Error, Handle, ThreadFrames, TrapCause,
    Version, VersionState,
};

use super::host::{self, Observed, Outcome, Place, visit};
use super::model::expected;
use super::plain::Plain;
use super::stack::{self, Inside, Ledger, Seen, Segment};
use super::units::first_units;
use super::{DISPATCHES, Entry, Program, Replacement, WayIn, lower, name};
use crate::support::Drops;

/// How many bytes of code there may be.
const CODE_MEMORY: usize = 16 << 20;

/// Runs a program in all ways there are, and compares what there is to see.
///
/// # Panics
///
/// If two ways differ.
pub fn check(program: &Program) {
    let program = Arc::new(program.clone());
    let plainly = expected(&program, false);
    if !plainly.failed && !plainly.dies {
        let observed = host::run(&program, Arc::new(Plain::new(&program)), false);
        compare(&observed, &plainly.observed, "in a JITModule");
    }
    let expected = expected(&program, true);
    if expected.dies {
        return;
    }
    for dispatch in DISPATCHES {
        let gated = Arc::new(Gated::new(&program, dispatch, Duration::ZERO, |builder| builder));
        let way = format!("in an engine, {dispatch:?}");
        let observed = host::run(&program, gated.clone(), true);
        compare(&observed, &expected.observed, &way);
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
    /// Where the code is.
    code: Range<usize>,
    installs: Mutex<Vec<Install>>,
    /// How long a replacement in place waits for the frames that are inside.
    patience: Duration,
}

struct Install {
    /// The functions, each with its version.
    versions: Vec<(usize, Version)>,
    /// How often what was attached to the unit was dropped.
    drops: Drops,
}

impl Gated {
    pub(super) fn new(
        program: &Arc<Program>,
        dispatch: Dispatch,
        patience: Duration,
        options: impl FnOnce(EngineBuilder) -> EngineBuilder,
    ) -> Self {
        let builder = Engine::builder()
            .counting(program.counting)
            .dispatch(dispatch)
            .drop_policy(program.drop_policy)
            .code_memory(CODE_MEMORY)
            .quarantine(4 << 20)
            .traps(program.failures)
            .host_function("visit", visit as extern "C-unwind" fn(i64, i64, i64) -> i64);
        let engine = options(builder).build().unwrap();
        for function in program.named() {
            let signature = lower::signature(program.signature(function));
            engine.declare(&name(function), &signature).unwrap();
        }
        let callable = program.named().filter(|&f| program.functions[f].signature == 0);
        let handle = |f| -> Handle<Entrance> { engine.function(&name(f)).unwrap() };
        let handles: BTreeMap<_, _> = callable.map(|f| (f, handle(f))).collect();
        let code = stack::code_range(handles[&0].c_address().unwrap().addr());
        assert_eq!(code.len(), CODE_MEMORY);
        let installs = Mutex::default();
        let gated =
            Self { engine, program: Arc::clone(program), handles, code, installs, patience };
        for unit in first_units(program) {
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
        self.collect();
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
            let drops = install.drops.count();
            assert_eq!(drops, usize::from(!live), "drops of install {index}");
        }
        assert_eq!(self.waiting(None), BTreeMap::new(), "frames that wait");
        for &function in current.keys() {
            self.engine.remove(&name(function)).unwrap();
        }
        self.collect();
        for (index, install) in installs.iter().enumerate() {
            assert_eq!(install.drops.count(), 1, "drops of install {index}");
        }
        assert_eq!((self.engine.stats().alive(), self.engine.stats().functions), (0, 0));
    }
}

impl Gated {
    /// Drops what waits for it; leavers drop for themselves.
    fn collect(&self) {
        if self.program.drop_policy == DropPolicy::Collector {
            self.engine.collect();
        }
    }

    /// How many frames of each function are in none of its versions, of one thread or of all.
    fn waiting(&self, thread: Option<u64>) -> BTreeMap<usize, u32> {
        let named = self.program.named();
        let waiting = named.map(|function| {
            let threads = self.engine.waiting(&name(function)).unwrap();
            (function, frames(&threads, thread))
        });
        waiting.filter(|(_, frames)| *frames > 0).collect()
    }

    /// How many frames there are in each version that is not freed, of one thread or of all.
    fn ledger(&self, thread: Option<u64>) -> Ledger {
        let installs = self.installs.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = installs.iter().flat_map(|install| &install.versions);
        let left = versions.filter(|(_, version)| version.state() != VersionState::Freed);
        let mut ledger: Ledger =
            left.map(|(function, version)| ((*function, version.number()), 0)).collect();
        for function in self.program.named() {
            for info in self.engine.versions(&name(function)).unwrap() {
                let frames = frames(&info.threads, thread);
                ledger.insert((function, info.version.number()), frames);
            }
        }
        ledger
    }
}

/// The frames of one thread or of all.
fn frames(threads: &[ThreadFrames], thread: Option<u64>) -> u32 {
    let threads = threads.iter();
    let counted = threads.filter(|counted| thread.is_none_or(|thread| thread == counted.thread_id));
    counted.map(|counted| counted.frames).sum()
}

impl Place for Gated {
    fn enter(&self, entry: &Entry) -> Outcome {
        let handle = &self.handles[&entry.function];
        let called = match entry.way {
            // SAFETY: a program's functions only compute with what they are given, and what they
            // call by address is current or of their own unit.
            WayIn::Handle => unsafe { handle.call(entry.fuel, entry.argument) },
            WayIn::Address => {
                let address = handle.c_address().unwrap();
                // SAFETY: the function has this type and C's convention, and the handle keeps it.
                let call: extern "C-unwind" fn(i64, i64) -> i64 =
                    unsafe { std::mem::transmute(address) };
                Ok(call(entry.fuel, entry.argument))
            }
        };
        match called {
            Ok(result) => Outcome::Returned(result),
            Err(CallError::Exception(thrown)) => Outcome::Thrown(thrown.tag, thrown.payload),
            Err(CallError::Trap(trap)) => match (trap.cause, stack::version(trap.location)) {
                (TrapCause::Code(code), Some((function, number))) => {
                    Outcome::Trapped(code, function, number)
                }
                (cause, _) => panic!("a call has trapped: {cause:?}"),
            },
            Err(error) => panic!("a call has failed: {error}"),
        }
    }

    fn replace(&self, replacement: &Replacement) -> bool {
        let mut installs = self.installs.lock().unwrap_or_else(PoisonError::into_inner);
        let number = installs.len() as u64 + 1;
        let unit = || {
            let mut unit = self.engine.unit();
            lower::define(&mut unit, &self.program, replacement, number);
            // What has had points before takes a little less or more.
            unit.reserve(16 << 10, 0);
            let drops = Drops::new();
            unit.attach(drops.value());
            (unit, drops)
        };
        let in_place = replacement.in_place.then(|| {
            let (unit, drops) = unit();
            match self.engine.replace_in_place(unit, self.patience) {
                Ok(installed) => Some((installed, drops)),
                Err(Error::StillInside { .. } | Error::NotInPlace { .. }) => None,
                Err(error) => panic!("not replaced in place: {error}"),
            }
        });
        let in_place = in_place.flatten();
        let was_in_place = in_place.is_some();
        let (installed, drops) = in_place.unwrap_or_else(|| {
            let (unit, drops) = unit();
            (self.engine.install(unit).unwrap(), drops)
        });
        let version = |&function: &usize| {
            let version = installed.version(&name(function)).unwrap().clone();
            assert_eq!(version.number(), number);
            (function, version)
        };
        installs
            .push(Install { versions: replacement.functions.iter().map(version).collect(), drops });
        was_in_place
    }

    fn locate(&self, returned: usize) -> Option<Inside> {
        stack::locate(&self.engine, returned)
    }

    fn look(&self, segments: &[Segment]) -> Option<Seen> {
        self.collect();
        let ledger = self.ledger(None);
        // SAFETY: these are the frames of visits that have not returned, of this engine.
        let walked = unsafe { stack::walk(&self.engine, &self.code, segments) };
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let mut own = BTreeMap::new();
        for ((_, number), frames) in self.ledger(Some(thread as u64)) {
            *own.entry(number).or_default() += frames;
        }
        own.retain(|_, frames| *frames != 0);
        assert_eq!(stack::counts(&walked), own, "frames that are found, and in the ledger");
        let own = self.waiting(Some(thread as u64));
        assert_eq!(stack::waiting(&walked), own, "frames that wait, and in the ledger");
        let waiting = self.waiting(None);
        Some(Seen { ledger, waiting, walked, traced: stack::trace(&self.engine) })
    }
}
