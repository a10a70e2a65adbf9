//! Panics that pass code of others, called through gates: they can if the code's owner has told
//! the system's unwinder how.

use cranelift_codegen::Context;
use cranelift_codegen::gimli::NativeEndian;
use cranelift_codegen::gimli::write::{Address, EhFrame, EndianVec, FrameTable};
use cranelift_codegen::isa::unwind::UnwindInfo;
use cranelift_jit::{JITBuilder, JITModule};
use lastout::cranelift_module::{Module, default_libcall_names};
use lastout::{Adopted, Engine, FunctionType};
use lastout_tests::child::child;
use lastout_tests::layers::{KINDS, engines, frames};
use lastout_tests::registers::call_address;
use lastout_tests::support::{Drops, calling_back, calls};
use lastout_tests::{builder, call, clif, engine};

use super::panics::{left, raise};

type Calling = extern "C-unwind" fn(usize, i64) -> i64;

/// What all of it ends in.
extern "C-unwind" fn raise_at_seven(_: usize, argument: i64) -> i64 {
    if argument == 7 { raise(70) } else { argument }
}

unsafe extern "C" {
    fn __register_frame(table: *const u8);
    fn __deregister_frame(table: *const u8);
}

/// A module of `cranelift-jit` with the function of a text, as the next version of `f`, and with
/// something that is dropped when it is let go. If `known`, the unwinder knows its code.
fn module(engine: &Engine, text: &str, known: bool, drops: &Drops) -> Adopted {
    let mut builder = JITBuilder::new(default_libcall_names()).unwrap();
    builder.symbol("call_back", raise_at_seven as Calling as *const u8);
    let mut module = JITModule::new(builder);
    let function = clif::define(&mut module, text).unwrap()[0];
    module.finalize_definitions().unwrap();
    let address = module.get_finalized_function(function);
    let table = known.then(|| unwind_table(&module, text, address));
    if let Some(table) = &table {
        // SAFETY: it is well formed, ends with a zero, and is deregistered before it goes.
        unsafe { __register_frame(table.as_ptr()) };
    }
    let value = drops.value();
    let mut adopted = Adopted::new(move || {
        if let Some(table) = table {
            // SAFETY: it was registered.
            unsafe { __deregister_frame(table.as_ptr()) };
        }
        // SAFETY: nobody else has the module, and nobody is inside any more.
        unsafe { module.free_memory() };
        drop(value);
    });
    let signature = Calling::signature(engine.isa());
    // SAFETY: the module's code is of this signature, and stays until the module is freed.
    unsafe { adopted.export("f", &signature, address) };
    adopted
}

/// What Cranelift says of how to unwind a function that is at an address.
fn unwind_table(module: &JITModule, text: &str, address: *const u8) -> Vec<u8> {
    let function = cranelift_reader::parse_functions(text).unwrap().remove(0);
    let mut context = Context::for_function(function);
    // The same once more.
    let compiled = context.compile(module.isa(), &mut Default::default()).unwrap();
    let info = compiled.create_unwind_info(module.isa()).unwrap();
    let Some(UnwindInfo::SystemV(info)) = info else { panic!("no unwind table") };
    let mut table = FrameTable::default();
    let cie = table.add_cie(module.isa().create_systemv_cie().unwrap());
    table.add_fde(cie, info.to_fde(Address::Constant(address.expose_provenance() as u64)));
    let mut section = EhFrame(EndianVec::new(NativeEndian));
    table.write_eh_frame(&mut section).unwrap();
    let mut bytes = section.0.into_vec();
    bytes.extend([0; 4]);
    bytes
}

#[test]
fn a_panic_passes_modules_that_the_unwinder_knows() {
    for (name, engine) in engines(|| builder!()) {
        let (drops, others) = (Drops::new(), Drops::new());
        // A body that saves registers, the one that is the engine's own among them.
        let text = KINDS[0].inner("f", "call_back", 8).replace("%f_inner", "%f");
        engine.adopt(module(&engine, &text, true, &drops)).unwrap();
        KINDS[0].install(&engine, "layer", "f", 8, &others);
        let (f, layer) = (calls(&engine, "f"), calls(&engine, "layer"));
        let address = f.c_address().unwrap().expose_provenance();
        for round in 1..=3 {
            assert_eq!(left(|| call!(layer, 0, 5)), Ok(Ok(7)), "{name}");
            assert_eq!(left(|| call!(f, 0, 7)), Err(70), "{name}");
            assert_eq!(left(|| call!(layer, 0, 7)), Err(70), "{name}");
            // SAFETY: it is the entry of a function of this type.
            assert_eq!(left(|| unsafe { call_address(address, 0, 7) }), Err(70), "{name}");
            assert_eq!(frames(&engine, &["f", "layer", "layer_inner"]), 0);
            engine.adopt(module(&engine, &text, true, &drops)).unwrap();
            assert_eq!(drops.count(), round);
        }
    }
}

#[test]
fn a_panic_frees_the_module_that_it_was_the_last_in() {
    struct Replacing(Engine, String, Drops);

    extern "C-unwind" fn replace(replacing: usize, _: i64) -> i64 {
        let replacing = std::ptr::with_exposed_provenance::<Replacing>(replacing);
        // SAFETY: it is what is passed below.
        let Replacing(engine, text, drops) = unsafe { &*replacing };
        engine.adopt(module(engine, text, true, drops)).unwrap();
        raise(drops.count() as i64)
    }

    for (name, engine) in engines(|| builder!()) {
        let drops = Drops::new();
        let text = calling_back("f", 1);
        let value = drops.value();
        // A function of this program, which is itself what panics.
        let mut adopted = Adopted::new(move || drop(value));
        let signature = Calling::signature(engine.isa());
        // SAFETY: it is of that type, and there for good.
        unsafe { adopted.export("f", &signature, replace as Calling as *const u8) };
        engine.adopt(adopted).unwrap();
        let f = calls(&engine, "f");
        let replacing = Replacing(engine, text, drops.clone());
        let address = std::ptr::from_ref(&replacing).expose_provenance();
        assert_eq!(left(|| call!(f, address, 1)), Err(0), "{name}");
        assert_eq!((drops.count(), frames(&replacing.0, &["f"])), (1, 0));
        assert_eq!(left(|| call!(f, 0, 7)), Err(70));
        drop((f, replacing));
        assert_eq!(drops.count(), 2);
    }
}

#[test]
fn a_panic_ends_the_process_at_a_module_that_the_unwinder_does_not_know() {
    let engine = engine!();
    let drops = Drops::new();
    engine.adopt(module(&engine, &calling_back("f", 1), false, &drops)).unwrap();
    let f = calls(&engine, "f");
    let Some(ended) = child("unknown", || drop(left(|| call!(f, 0, 7)))) else { return };
    assert_eq!(ended.signal(), Some(libc::SIGABRT), "{ended:?}");
    assert!(ended.errors.contains("failed to initiate panic"), "{}", ended.errors);
}
