//! What panics leave behind: nothing, however many versions and engines have come and gone. As it
//! would be little each time, it has to be often.

use cranelift_codegen::binemit::Reloc;
use lastout::cranelift_module::{Linkage, Module, ModuleReloc, ModuleRelocTarget};
use lastout::{Dispatch, Engine, FunctionType, Unit};
use lastout_tests::child::child;
use lastout_tests::measure;
use lastout_tests::support::{Drops, calls};
use lastout_tests::{call, dispatch};

use super::panics::{left, raise};

type Calling = extern "C-unwind" fn(usize, i64) -> i64;

/// Always panics.
extern "C-unwind" fn call_back(_: usize, number: i64) -> i64 {
    raise(number)
}

/// An engine that uses freed memory again at once.
fn engine() -> Engine {
    let function = call_back as Calling;
    let builder = Engine::builder().dispatch(dispatch!()).host_function("call_back", function);
    builder.build().unwrap()
}

/// A unit with a function `f` that calls back, of which there is nothing to compile: that would
/// take most of the time.
fn calling_back(engine: &Engine, drops: &Drops) -> Unit {
    let mut unit = engine.unit();
    let signature = Calling::signature(engine.isa());
    let callee = unit.declare_function("call_back", Linkage::Import, &signature).unwrap();
    let function = unit.declare_function("f", Linkage::Export, &signature).unwrap();
    let mut code = vec![0x55, 0x48, 0x89, 0xe5]; // push rbp; mov rbp, rsp
    code.extend([0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0]); // mov rax, callee
    code.extend([0xff, 0xd0, 0x5d, 0xc3]); // call rax; pop rbp; ret
    let name = ModuleRelocTarget::user(0, callee.as_u32());
    let reloc = ModuleReloc { offset: 6, kind: Reloc::Abs8, name, addend: 0 };
    unit.define_function_bytes(function, 16, &code, &[reloc]).unwrap();
    unit.attach(drops.value());
    unit
}

/// How many are enough. What is looked for has nothing to do with how functions are called, so that
/// once is enough, too.
fn rounds(enough: i64) -> i64 {
    if dispatch!() == Dispatch::Slot { enough } else { enough / 5 }
}

/// Sees that `rounds` of something leave nothing behind: they are told which one they are.
fn leaves_nothing(rounds: i64, round: impl Fn(i64)) {
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    round(0);
    let mapped = mappings();
    measure::leaves_nothing(rounds, round);
    let now_mapped = mappings();
    assert!(now_mapped < mapped + 8, "{mapped} mappings became {now_mapped}");
}

#[test]
fn a_hundred_thousand_panics_and_as_many_versions_leave_nothing() {
    let ended = child("panics", || {
        let engine = engine();
        let drops = Drops::new();
        leaves_nothing(rounds(100_000), |number| {
            engine.install(calling_back(&engine, &drops)).unwrap();
            let f = calls(&engine, "f");
            assert_eq!(left(|| call!(f, 0, number)), Err(number));
        });
        let stats = engine.stats();
        assert_eq!((stats.alive(), drops.count() as u64), (1, stats.installed - 1));
        assert!(stats.committed_bytes < 1 << 16, "{stats:?}");
    });
    if let Some(ended) = ended {
        assert!(ended.well(), "{}", ended.errors);
    }
}

#[test]
fn engines_by_the_thousand_are_unwound_and_dropped() {
    let ended = child("engines", || {
        leaves_nothing(rounds(400), |number| {
            // Several at a time: their tables go in another order than they came.
            let drops = Drops::new();
            let new = |_| {
                let engine = engine();
                engine.install(calling_back(&engine, &drops)).unwrap();
                (calls(&engine, "f"), engine)
            };
            let mut engines: Vec<_> = (0..3).map(new).collect();
            for gone in 1..=3 {
                for (f, _) in &engines {
                    assert_eq!(left(|| call!(f, 0, number)), Err(number));
                }
                engines.remove(engines.len() / 2);
                assert_eq!(drops.count(), gone);
            }
        });
    });
    if let Some(ended) = ended {
        assert!(ended.well(), "{}", ended.errors);
    }
}
