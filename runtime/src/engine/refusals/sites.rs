//! Installs that have to patch calls, which the system refuses, are errors, and all calls still go
//! to the version that is current.

use std::collections::BTreeSet;

use cranelift_module::{Linkage, Module};
use lastout_tests::call;
use lastout_tests::clif::define;
use lastout_tests::support::{constant, define_call_at, step, steps};

use super::Traces;
use crate::host::fork;
use crate::host::process;
use crate::host::sys::{Call, faults};
use crate::{Adopted, Dispatch, Engine, Error, FunctionType, Handle, Result, Stats};

type Nullary = fn() -> i64;

struct World {
    engine: Engine,
    /// Each calls `callee` by a call at another place in a word.
    callers: Vec<Handle<Nullary>>,
    /// The steps of a call that does not bail.
    steps: usize,
}

impl World {
    /// An engine with a current version that returns 2, and a free lane for the next.
    fn new(strict: bool) -> Self {
        let builder = Engine::builder().dispatch(Dispatch::PatchedSites);
        let engine = builder.strict(strict).interleave(step).build().unwrap();
        let mut world = Self { engine, callers: Vec::new(), steps: 0 };
        world.install(1).unwrap();
        let mut unit = world.engine.unit();
        let signature = Nullary::signature(world.engine.isa());
        let callee = unit.declare_function("callee", Linkage::Import, &signature).unwrap();
        let names: Vec<_> = (0..8).map(|offset| format!("at{offset}")).collect();
        for (offset, name) in names.iter().enumerate() {
            define_call_at(&mut unit, name, callee, offset);
        }
        world.engine.install(unit).unwrap();
        let callers = names.iter().map(|name| world.engine.function(name).unwrap());
        world.callers = callers.collect();
        world.steps = steps(|| call!(world.callers[0]).unwrap()).0;
        world.install(2).unwrap();
        world
    }

    /// Installs a version as a unit.
    fn install(&self, value: i64) -> Result<()> {
        let mut unit = self.engine.unit();
        define(&mut unit, &constant("callee", value)).unwrap();
        self.engine.install(unit).map(drop)
    }

    /// Installs a version that returns 3 and takes no memory.
    fn adopt(&self) -> Result<()> {
        extern "C" fn three() -> i64 {
            3
        }

        let mut adopted = Adopted::new(|| {});
        let signature = Nullary::signature(self.engine.isa());
        // SAFETY: the function is of this type, and stays.
        unsafe { adopted.export("callee", &signature, three as *const u8) };
        self.engine.adopt(adopted).map(drop)
    }

    /// The engine's figures, except for the pages that it keeps.
    fn stats(&self) -> Stats {
        Stats { committed_bytes: 0, ..self.engine.stats() }
    }

    fn check(&self, value: i64, why: &str) {
        for caller in &self.callers {
            let met = steps(|| call!(caller).unwrap());
            assert_eq!(met, (self.steps, value), "{} {why}", caller.name());
        }
        let stats = self.engine.stats();
        assert_eq!((stats.patched_calls, stats.patched_calls_by_jump), (5, 3), "{why}");
    }
}

/// Installs a version with a call of the system refused, and once more if that was an error.
/// Returns whether it was an error, and whether the call was never made.
fn install_without(call: Call, nth: usize, setting: [bool; 3]) -> (bool, bool) {
    let why = format!("{call:?} {nth} {setting:?}");
    let [strict, adopted, forked] = setting;
    let world = World::new(strict);
    if forked {
        fork::pretend();
    }
    world.check(2, &why);
    let before = world.stats();
    faults::refuse(call, nth);
    let replace = || if adopted { world.adopt() } else { world.install(3) };
    let result = replace();
    let never = faults::clear();
    let refused = match result {
        Ok(()) => false,
        Err(Error::Memory(_)) => {
            world.check(2, &why);
            assert_eq!(world.stats(), before, "{why}");
            replace().unwrap();
            true
        }
        Err(error) => panic!("{why}: {error}"),
    };
    world.check(3, &why);
    world.install(4).unwrap();
    world.check(4, &why);
    for caller in &world.callers {
        world.engine.remove(caller.name()).unwrap();
    }
    let World { engine, callers, .. } = world;
    drop(callers);
    assert_eq!(engine.stats().alive(), 1, "{why}");
    let stats = engine.stats();
    assert_eq!((stats.patched_calls, stats.patched_calls_by_jump), (0, 0), "{why}");
    drop(engine);
    let now = Traces::now();
    assert_eq!((now.files, now.views), (0, 0), "{why}");
    (refused, never)
}

/// The calls of the system without which a version cannot be installed.
fn needed(setting: [bool; 3]) -> BTreeSet<String> {
    let mut needed = BTreeSet::new();
    for call in super::CALLS {
        for nth in 0.. {
            let (refused, never) = install_without(call, nth, setting);
            if refused {
                needed.insert(format!("{call:?}"));
            }
            if never {
                break;
            }
        }
    }
    needed
}

#[test]
fn an_install_that_cannot_patch_changes_nothing() {
    let _alone = process::alone();
    let before = Traces::now();
    let set = |calls: &[Call]| calls.iter().map(|call| format!("{call:?}")).collect();
    for (setting, expected) in [
        // A view is mapped to patch through.
        ([true, true, false], set(&[Call::Reserve, Call::MapFile])),
        ([true, false, false], set(&[Call::Reserve, Call::MapFile, Call::Write])),
        // The view is there already, unless the code is to be copied first.
        ([false, true, false], BTreeSet::new()),
        ([false, true, true], set(&[Call::CreateFile, Call::Resize, Call::Write, Call::MapFile])),
        (
            [true, true, true],
            set(&[Call::CreateFile, Call::Resize, Call::Write, Call::MapFile, Call::Reserve]),
        ),
    ] {
        assert_eq!(needed(setting), expected, "{setting:?}");
    }
    let halves = Traces::now().halves;
    assert!(halves.abs_diff(before.halves) <= 1, "{} before, {halves} after", before.halves);
}
