use std::ffi::c_void;
use std::sync::atomic::{AtomicIsize, Ordering};

use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa::CallConv;
use cranelift_module::{Linkage, Module};

use crate::host::process::{alone, among_others};
use crate::{Engine, Unit};

/// How many tables are registered.
static REGISTERED: AtomicIsize = AtomicIsize::new(0);

/// How many tables have been registered since the process began.
static EVER: AtomicIsize = AtomicIsize::new(0);

pub(super) fn count(more: isize) {
    REGISTERED.fetch_add(more, Ordering::Relaxed);
    EVER.fetch_add(more.max(0), Ordering::Relaxed);
}

fn counts() -> (isize, isize) {
    (REGISTERED.load(Ordering::Relaxed), EVER.load(Ordering::Relaxed))
}

/// The unwinder's answer for an address: the table's entry, and where its range starts.
fn known(address: usize) -> Option<(usize, usize)> {
    #[repr(C)]
    struct Bases {
        text: usize,
        data: usize,
        function: usize,
    }

    unsafe extern "C" {
        fn _Unwind_Find_FDE(address: *const c_void, bases: *mut Bases) -> *const c_void;
    }

    let mut bases = Bases { text: 0, data: 0, function: 0 };
    let address = std::ptr::without_provenance(address);
    // SAFETY: it may be asked for any address, and writes to the bases only.
    let entry = unsafe { _Unwind_Find_FDE(address, &mut bases) };
    (!entry.is_null()).then_some((entry.addr(), bases.function))
}

/// A unit with a function that returns at once.
fn unit(engine: &Engine) -> Unit {
    let mut unit = engine.unit();
    let mut signature = Signature::new(CallConv::SystemV);
    signature.returns.push(AbiParam::new(types::I64));
    let id = unit.declare_function("f", Linkage::Export, &signature).unwrap();
    unit.define_function_bytes(id, 16, &[0x31, 0xc0, 0xc3], &[]).unwrap(); // xor eax, eax; ret
    unit
}

#[test]
fn an_engine_registers_one_table_and_nothing_else_does() {
    let _alone = alone();
    let (before, ever) = counts();
    let engine = Engine::new().unwrap();
    assert_eq!(counts(), (before + 1, ever + 1));
    for _ in 0..1000 {
        engine.install(unit(&engine)).unwrap();
    }
    let f = engine.function::<fn() -> i64>("f").unwrap();
    // SAFETY: the function returns zero.
    assert_eq!(unsafe { f.call() }, Ok(0));
    f.c_address().unwrap();
    engine.remove("f").unwrap();
    assert_eq!(counts(), (before + 1, ever + 1));
    let other = Engine::new().unwrap();
    assert_eq!(counts(), (before + 2, ever + 2));
    drop(engine);
    // A handle keeps its engine's table.
    assert_eq!(counts(), (before + 2, ever + 2));
    drop(f);
    assert_eq!(counts(), (before + 1, ever + 2));
    drop(other);
    assert_eq!(counts(), (before, ever + 2));
}

#[test]
fn the_table_is_for_all_code_that_there_can_be() {
    let _others = among_others();
    let size = 1 << 20;
    let engine = Engine::builder().code_memory(size).build().unwrap();
    let start = engine.units.memory().code_start();
    let first = known(start).unwrap();
    assert_eq!(first.1, start);
    for address in [start + 1, start + size / 2, start + size - 1] {
        assert_eq!(known(address), Some(first));
    }
    assert_eq!([start - 1, start + size].map(known), [None; 2]);
    drop(engine);
    assert_ne!(known(start), Some(first));
}
