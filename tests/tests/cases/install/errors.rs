//! What an install can fail with, and that afterwards everything is as it was before.

use lastout::cranelift_codegen::binemit::Reloc;
use lastout::cranelift_codegen::ir::Signature;
use lastout::cranelift_module::{
    DataDescription, DataId, FuncId, Linkage, Module, ModuleReloc, ModuleRelocTarget,
};
use lastout::{Counting, Engine, Error, Handle, Stats, Unit};
use lastout_tests::support::{Drops, caller, constant, install, nullary, unit};
use lastout_tests::{builder, call, clif, engine};

/// `() -> i64`.
/// An engine with a few functions that must not be disturbed.
struct Undisturbed {
    engine: Engine,
    outer: Handle<fn() -> i64>,
    inner: Handle<fn() -> i64>,
}

impl Undisturbed {
    fn new() -> Self {
        let engine = engine!();
        install(&engine, &constant("inner", 1));
        install(&engine, &caller("outer", "inner", 10));
        install(&engine, &constant("gone", 1));
        engine.remove("gone").unwrap();
        let outer: Handle<fn() -> i64> = engine.function("outer").unwrap();
        let inner: Handle<fn() -> i64> = engine.function("inner").unwrap();
        // Entries are made when they are first asked for, and kept.
        for handle in [&outer, &inner] {
            handle.c_address().unwrap();
        }
        Self { engine, outer, inner }
    }

    fn check(&self) -> Stats {
        assert_eq!(call!(self.outer).unwrap(), 11);
        assert_eq!(call!(self.inner).unwrap(), 1);
        assert_eq!(self.engine.versions("inner").unwrap().len(), 1);
        // Which pages are kept for the next block says nothing about what is held.
        Stats { committed_bytes: 0, ..self.engine.stats() }
    }

    /// Tries to install a unit that also has replacements of what is there.
    fn refused(&self, fill: impl FnOnce(&mut Unit)) -> Error {
        let before = self.check();
        let drops = Drops::new();
        let mut unit = unit(&self.engine, &(constant("inner", 2) + &constant("new", 3)));
        unit.attach(drops.value());
        fill(&mut unit);
        assert_eq!(drops.count(), 0);
        let error = self.engine.install(unit).unwrap_err();
        assert_eq!(drops.count(), 1);
        assert_eq!(self.check(), before, "{error}");
        assert!(matches!(self.engine.versions("new"), Err(Error::UnknownFunction(_))));
        error
    }
}

fn define(unit: &mut Unit, text: &str) {
    clif::define(unit, text).unwrap();
}

/// Defines data that is the address of other data.
fn define_pointer_to(unit: &mut Unit, id: DataId) {
    let mut description = DataDescription::new();
    description.define_zeroinit(8);
    let target = unit.declare_data_in_data(id, &mut description);
    description.write_data_addr(0, target, 0);
    let id = unit.declare_anonymous_data(false, false).unwrap();
    unit.define_data(id, &description).unwrap();
}

#[test]
fn an_import_that_nobody_has() {
    let undisturbed = Undisturbed::new();
    for name in ["missing", "gone"] {
        let error = undisturbed.refused(|unit| define(unit, &caller("f", name, 0)));
        assert!(matches!(error, Error::MissingImport(missing) if missing == name));
    }
    let error = undisturbed.refused(|unit| {
        let id = unit.declare_data("missing.data", Linkage::Import, false, false).unwrap();
        define_pointer_to(unit, id);
    });
    assert!(matches!(error, Error::MissingImport(name) if name == "missing.data"));
}

#[test]
fn an_import_that_nobody_uses_is_none() {
    let engine = engine!();
    let mut unit = unit(&engine, &constant("f", 1));
    unit.declare_function("missing", Linkage::Import, &nullary()).unwrap();
    unit.declare_data("missing.data", Linkage::Import, false, false).unwrap();
    unit.declare_function("unused", Linkage::Local, &nullary()).unwrap();
    engine.install(unit).unwrap();
}

#[test]
fn what_is_declared_as_defined_and_is_not() {
    let undisturbed = Undisturbed::new();
    let error = undisturbed.refused(|unit| {
        unit.declare_function("outer", Linkage::Export, &nullary()).unwrap();
    });
    assert!(matches!(error, Error::Undefined(name) if name == "outer"));
    for linkage in [Linkage::Local, Linkage::Hidden] {
        let error = undisturbed.refused(|unit| {
            unit.declare_function("inside", linkage, &nullary()).unwrap();
            define(unit, &caller("f", "inside", 0).replace("fn0 = ", "fn0 = colocated "));
        });
        assert!(matches!(error, Error::Undefined(name) if name == "inside"));
        // And where it was an import when it was called.
        let error = undisturbed.refused(|unit| {
            define(unit, &caller("f", "inside", 0));
            unit.declare_function("inside", linkage, &nullary()).unwrap();
        });
        assert!(matches!(error, Error::Undefined(name) if name == "inside"));
    }
    let error = undisturbed.refused(|unit| {
        let id = unit.declare_data("data", Linkage::Local, false, false).unwrap();
        define_pointer_to(unit, id);
    });
    assert!(matches!(error, Error::Undefined(name) if name == "data"));
}

#[test]
fn a_signature_that_is_not_the_functions() {
    let undisturbed = Undisturbed::new();
    let defined = undisturbed.refused(|unit| {
        define(
            unit,
            "function %outer(i64) -> i64 system_v {
             block0(v0: i64):
                return v0
             }",
        );
    });
    match defined {
        Error::SignatureMismatch { name, existing, given } => {
            assert_eq!(name, "outer");
            assert_eq!(existing.to_string(), "() -> i64 system_v");
            assert_eq!(given.to_string(), "(i64) -> i64 system_v");
        }
        other => panic!("{other}"),
    }
    // For other units, the calling convention and extensions count too.
    for signature in ["(i64) -> i64 system_v", "() -> i64 tail", "() -> i64 sext system_v"] {
        let imported = undisturbed.refused(|unit| {
            let text = format!(
                "function %f() -> i64 system_v {{
                    fn0 = %outer{signature}
                 block0:
                    v0 = func_addr.i64 fn0
                    return v0
                 }}"
            );
            define(unit, &text);
        });
        assert!(matches!(imported, Error::SignatureMismatch { name, .. } if name == "outer"));
    }
    let declared = undisturbed.engine.declare("inner", &Signature::new(nullary().call_conv));
    assert!(matches!(declared, Err(Error::SignatureMismatch { name, .. }) if name == "inner"));
    undisturbed.check();
}

#[test]
fn a_name_of_the_hosts() {
    let undisturbed = Undisturbed::new();
    let error = undisturbed.refused(|unit| define(unit, &constant("call_back", 0)));
    assert!(matches!(error, Error::HostSymbol(name) if name == "call_back"));
}

#[test]
fn a_unit_of_another_engine() {
    let undisturbed = Undisturbed::new();
    let before = undisturbed.check();
    let other = engine!();
    let drops = Drops::new();
    let mut unit = unit(&other, &constant("inner", 2));
    unit.attach(drops.value());
    assert!(matches!(undisturbed.engine.install(unit), Err(Error::ForeignUnit)));
    assert_eq!(drops.count(), 1);
    assert_eq!(undisturbed.check(), before);
}

/// Defines bytes that are not code, with a relocation in them.
fn define_bytes(unit: &mut Unit, len: usize, relocs: &[ModuleReloc]) -> FuncId {
    let id = unit.declare_function("bytes", Linkage::Export, &nullary()).unwrap();
    unit.define_function_bytes(id, 16, &vec![0; len], relocs).unwrap();
    id
}

fn reloc(kind: Reloc, offset: u32, namespace: u32, index: u32) -> ModuleReloc {
    ModuleReloc { kind, offset, name: ModuleRelocTarget::user(namespace, index), addend: 0 }
}

#[test]
fn a_relocation_that_cannot_be_made() {
    let undisturbed = Undisturbed::new();
    let link_error = |error| match error {
        Error::Link { symbol, why } => (symbol, why),
        other => panic!("{other}"),
    };
    // Four bytes that would have to hold the address of something else altogether.
    let (symbol, why) = link_error(undisturbed.refused(|unit| {
        let far = unit.declare_function("outer", Linkage::Import, &nullary()).unwrap();
        define_bytes(unit, 16, &[reloc(Reloc::Abs4, 4, 0, far.as_u32())]);
    }));
    assert_eq!((&*symbol, why), ("outer", "it is too far away"));
    let (symbol, why) = link_error(undisturbed.refused(|unit| {
        define_bytes(unit, 16, &[reloc(Reloc::S390xTlsGdCall, 4, 0, 0)]);
    }));
    assert_eq!((&*symbol, why), ("inner", "this kind of relocation is not supported"));
    for offset in [13, 16, 17, 1 << 20] {
        for kind in [Reloc::X86PCRel4, Reloc::Aarch64AddAbsLo12Nc] {
            let (symbol, why) = link_error(undisturbed.refused(|unit| {
                define_bytes(unit, 16, &[reloc(kind, offset, 0, 1)]);
            }));
            assert_eq!(symbol, "new");
            assert_eq!(why, "the relocation is outside of what it relocates");
        }
    }
}

#[test]
fn data_of_the_host_that_is_out_of_reach() {
    // No code is ever mapped within two gigabytes of there. A call would go by way of a veneer.
    let nowhere = std::ptr::without_provenance(0x10);
    let engine = builder!().host_symbol("nowhere", nowhere).build().unwrap();
    let mut unit = engine.unit();
    let id = unit.declare_function("nowhere", Linkage::Import, &nullary()).unwrap();
    define_bytes(&mut unit, 16, &[reloc(Reloc::X86PCRel4, 1, 0, id.as_u32())]);
    match engine.install(unit) {
        Err(Error::Link { symbol, why: "it is too far away" }) => assert_eq!(symbol, "nowhere"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_relocation_against_what_there_is_not() {
    let undisturbed = Undisturbed::new();
    // Functions, data, and every namespace after them, those of this crate's own symbols too.
    for namespace in 0..10 {
        for index in [99, u32::MAX - 1] {
            let error = undisturbed.refused(|unit| {
                define_bytes(unit, 16, &[reloc(Reloc::Abs8, 0, namespace, index)]);
            });
            assert!(matches!(error, Error::MissingImport(_)), "{error}");
        }
    }
    let error = undisturbed.refused(|unit| {
        let mut reloc = reloc(Reloc::Abs8, 0, 0, 0);
        reloc.name = ModuleRelocTarget::FunctionOffset(FuncId::from_u32(99), 0);
        define_bytes(unit, 16, &[reloc]);
    });
    assert!(matches!(error, Error::MissingImport(_)), "{error}");
}

#[test]
fn code_memory_that_is_used_up() {
    // However much there is, an install succeeds or leaves everything as it was.
    let text = constant("a", 10) + &constant("b", 20) + &caller("c", "a", 1);
    const SIZE: usize = 8192;
    let mut refused = 0;
    for left in (0..).step_by(64) {
        let engine = builder!().code_memory(SIZE).build().unwrap();
        install(&engine, &constant("a", 1));
        let a = engine.function::<fn() -> i64>("a").unwrap();
        let mut ballast = engine.unit();
        let id = ballast.declare_function("ballast", Linkage::Export, &nullary()).unwrap();
        ballast.define_function_bytes(id, 1, &[0xcc], &[]).unwrap();
        let filler = ballast.declare_anonymous_function(&nullary()).unwrap();
        // Beside what is there already, and a gate for `ballast`.
        let used = engine.stats().code_bytes + 320;
        ballast.define_function_bytes(filler, 64, &vec![0xcc; SIZE - used - left], &[]).unwrap();
        match engine.install(ballast) {
            Err(Error::OutOfCodeMemory { .. }) => continue,
            other => other.unwrap(),
        };
        let before = engine.stats();
        assert!(before.code_bytes <= SIZE);
        let drops = Drops::new();
        let mut unit = unit(&engine, &text);
        unit.attach(drops.value());
        match engine.install(unit) {
            Err(Error::OutOfCodeMemory { needed, available }) => {
                assert!(needed <= SIZE && available <= left + 64);
                assert_eq!(drops.count(), 1);
                assert_eq!(call!(a).unwrap(), 1);
                let after = engine.stats();
                assert_eq!(after.functions, before.functions);
                assert_eq!((after.installed, after.freed), (before.installed, before.freed));
                // What a known function has got for its next version, it may keep.
                assert!(after.code_bytes <= before.code_bytes + 320);
                refused += 1;
            }
            installed => {
                installed.unwrap();
                assert_eq!(call!(a).unwrap(), 10);
                assert_eq!(drops.count(), 0);
                break;
            }
        }
    }
    assert!(refused > 4, "too few limits were met in the middle");
}

#[test]
fn code_memory_of_a_size_that_cannot_be() {
    for size in [(1 << 30) + 1, usize::MAX] {
        match builder!().code_memory(size).build() {
            Err(Error::CodeMemoryTooLarge { asked, most }) => {
                assert_eq!((asked, most), (size, 1 << 30));
            }
            other => panic!("{other:?}"),
        }
    }
    for size in [0, 1, 64] {
        // Rounded up to a page, which is enough for the engine's own stubs.
        builder!().code_memory(size).build().unwrap();
    }
}

#[test]
fn data_that_no_memory_is_enough_for() {
    let limit = 1 << 20;
    let engine = builder!().code_memory(limit).build().unwrap();
    let before = engine.stats();
    let mut unit = engine.unit();
    for size in [usize::MAX, isize::MAX as usize, 1 << 62] {
        let id = unit.declare_anonymous_data(true, false).unwrap();
        let mut description = DataDescription::new();
        description.define_zeroinit(size);
        assert!(unit.define_data(id, &description).is_err());
    }
    let id = unit.declare_anonymous_data(true, false).unwrap();
    let mut description = DataDescription::new();
    description.define_zeroinit(limit + 1);
    unit.define_data(id, &description).unwrap();
    assert!(matches!(engine.install(unit), Err(Error::OutOfCodeMemory { .. })));
    assert_eq!(Stats { committed_bytes: before.committed_bytes, ..engine.stats() }, before);
}

#[test]
fn a_flag_that_there_is_not() {
    for (name, value) in
        [("no_such_flag", "true"), ("opt_level", "most"), ("", ""), ("is_pic", "?")]
    {
        let built = builder!().flag(name, value).build();
        assert!(matches!(built, Err(Error::Isa(_))), "{name}={value}");
    }
    // The engine's own flags are its own.
    let builder = builder!().flag("enable_pinned_reg", "false").flag("is_pic", "true");
    let engine = builder.counting(Counting::Atomic).build().unwrap();
    install(&engine, &constant("f", 1));
    assert_eq!(call!(engine.function::<fn() -> i64>("f").unwrap()).unwrap(), 1);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn features_of_the_processor_can_be_left_alone() {
    let has_avx = |engine: &lastout::Engine| {
        engine.isa().isa_flags().iter().find(|flag| flag.name == "has_avx").unwrap().as_bool()
    };
    let engine = builder!().build().unwrap();
    assert_eq!(has_avx(&engine), Some(std::is_x86_feature_detected!("avx")));
    let engine = builder!().flag("has_avx", "false").build().unwrap();
    assert_eq!(has_avx(&engine), Some(false));
    assert!(matches!(builder!().flag("has_avx", "?").build(), Err(Error::Isa(_))));
}
