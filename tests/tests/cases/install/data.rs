//! Data objects of a unit, and data of the host.

use std::sync::atomic::{AtomicI64, Ordering};

use lastout::cranelift_codegen::Context;
use lastout::cranelift_module::{DataDescription, DataId, Linkage, Module};
use lastout::{Engine, Unit};
use lastout_tests::support::{Drops, constant, handle, install_counted};
use lastout_tests::{builder, call, engine};

/// Defines the functions of a text and exports them, under their names. Data is `u1:N` there.
fn define(unit: &mut Unit, text: &str) {
    for mut function in cranelift_reader::parse_functions(text).unwrap() {
        let name = function.name.to_string();
        let name = name.trim_start_matches('%');
        let id = unit.declare_function(name, Linkage::Export, &function.signature).unwrap();
        function.name = Default::default();
        unit.define_function(id, &mut Context::for_function(function)).unwrap();
    }
}

/// Declares `data.name`: names of data and of functions are the same names.
fn declare(unit: &mut Unit, name: &str, writable: bool) -> DataId {
    unit.declare_data(&format!("data.{name}"), Linkage::Local, writable, false).unwrap()
}

fn define_words(unit: &mut Unit, id: DataId, words: &[i64]) {
    let mut description = DataDescription::new();
    description.define(words.iter().flat_map(|word| word.to_ne_bytes()).collect());
    unit.define_data(id, &description).unwrap();
}

/// Returns the address of `u1:data`.
fn address_of(name: &str, data: u32) -> String {
    format!(
        "function %{name}() -> i64 system_v {{
            gv0 = symbol u1:{data}
         block0:
            v0 = symbol_value.i64 gv0
            return v0
         }}\n"
    )
}

/// Adds 1 to the word at `u1:data`, and returns it.
fn count_up(name: &str, data: u32) -> String {
    format!(
        "function %{name}() -> i64 system_v {{
            gv0 = symbol u1:{data}
         block0:
            v0 = symbol_value.i64 gv0
            v1 = load.i64 v0
            v2 = iconst.i64 1
            v3 = iadd v1, v2
            store v3, v0
            return v3
         }}\n"
    )
}

/// What lies at the address that a function returns.
fn word_at(engine: &Engine, name: &str) -> i64 {
    let address = call!(handle(engine, name)).unwrap() as usize;
    // SAFETY: the functions return addresses of words that their current version keeps.
    unsafe { std::ptr::with_exposed_provenance::<i64>(address).read() }
}

/// The views of the memory at an address, as the system prints what may be done with each: that of
/// the address first, then, if the memory is a file's, the others.
fn views(address: usize) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let lines: Vec<Vec<&str>> =
        maps.lines().map(|line| line.split_whitespace().collect()).collect();
    let holds = |line: &&Vec<&str>| {
        let (start, end) = line[0].split_once('-').unwrap();
        let bound = |text| usize::from_str_radix(text, 16).unwrap();
        (bound(start)..bound(end)).contains(&address)
    };
    let here = lines.iter().find(holds).unwrap();
    let (range, inode) = (here[0], here[4]);
    let others = lines.iter().filter(|line| inode != "0" && line[4] == inode && line[0] != range);
    [here].into_iter().chain(others).map(|line| line[1].to_owned()).collect()
}

#[test]
fn initialised_and_zeroed_data_are_what_they_were_defined_as() {
    let engine = engine!();
    let mut unit = engine.unit();
    let words = declare(&mut unit, "words", false);
    let zeros = declare(&mut unit, "zeros", true);
    let anonymous = unit.declare_anonymous_data(false, false).unwrap();
    define_words(&mut unit, words, &[0x0123_4567_89ab_cdef]);
    define_words(&mut unit, anonymous, &[-5]);
    let mut description = DataDescription::new();
    description.define_zeroinit(100_000);
    unit.define_data(zeros, &description).unwrap();
    define(&mut unit, &(address_of("words", 0) + &address_of("zeros", 1) + &address_of("anon", 2)));
    engine.install(unit).unwrap();
    assert_eq!(word_at(&engine, "words"), 0x0123_4567_89ab_cdef);
    assert_eq!(word_at(&engine, "anon"), -5);
    assert_eq!(word_at(&engine, "zeros"), 0);
    let zeros = call!(handle(&engine, "zeros")).unwrap() as usize;
    // SAFETY: the object has this many bytes, and nobody writes to them.
    let zeros = unsafe {
        std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(zeros), 100_000)
    };
    assert!(zeros.iter().all(|&byte| byte == 0));
}

#[test]
fn nothing_is_writable_and_executable() {
    for strict in [false, true] {
        let engine = builder!().strict(strict).build().unwrap();
        let mut unit = engine.unit();
        let read_only = declare(&mut unit, "read_only", false);
        let writable = declare(&mut unit, "writable", true);
        define_words(&mut unit, read_only, &[1]);
        define_words(&mut unit, writable, &[2]);
        define(&mut unit, &(address_of("read_only", 0) + &address_of("writable", 1)));
        // The address of a function of the unit's own is that of its code.
        define(
            &mut unit,
            "function %code() -> i64 system_v {
                fn0 = colocated u0:0() -> i64 system_v
             block0:
                v0 = func_addr.i64 fn0
                return v0
             }",
        );
        engine.install(unit).unwrap();
        let views = |name: &str| views(call!(handle(&engine, name)).unwrap() as usize);
        assert_eq!(views("writable"), ["rw-p"]);
        if strict {
            assert_eq!(views("read_only"), ["r--s"]);
            assert_eq!(views("code"), ["r-xs"]);
        } else {
            assert_eq!(views("read_only"), ["r--s", "rw-s"]);
            assert_eq!(views("code"), ["r-xs", "rw-s"]);
        }
    }
}

#[test]
fn a_strict_engine_replaces_and_frees_like_any() {
    let engine = builder!().strict(true).build().unwrap();
    let drops = Drops::new();
    for value in 0..100 {
        install_counted(&engine, &constant("f", value), &drops);
        assert_eq!(call!(handle(&engine, "f")).unwrap(), value);
        assert_eq!(drops.count() as i64, value);
    }
    engine.remove("f").unwrap();
    assert_eq!(drops.count(), 100);
}

#[test]
fn writable_data_is_each_versions_own() {
    let engine = engine!();
    let install = |start: i64| {
        let mut unit = engine.unit();
        let counter = declare(&mut unit, "counter", true);
        define_words(&mut unit, counter, &[start]);
        define(&mut unit, &(count_up("count", 0) + &count_up("count_too", 0)));
        engine.install(unit).unwrap();
    };
    install(0);
    let (count, count_too) = (handle(&engine, "count"), handle(&engine, "count_too"));
    assert_eq!(call!(count).unwrap(), 1);
    assert_eq!(call!(count_too).unwrap(), 2);
    assert_eq!(call!(count).unwrap(), 3);
    install(100);
    assert_eq!(call!(count).unwrap(), 101);
    assert_eq!(call!(count_too).unwrap(), 102);
}

#[test]
fn data_can_point_into_data() {
    let engine = engine!();
    let mut unit = engine.unit();
    let words = declare(&mut unit, "words", false);
    define_words(&mut unit, words, &[1, 2, 3]);
    let pointer = declare(&mut unit, "pointer", true);
    let mut description = DataDescription::new();
    description.define_zeroinit(8);
    let target = unit.declare_data_in_data(words, &mut description);
    description.write_data_addr(0, target, 16);
    unit.define_data(pointer, &description).unwrap();
    define(
        &mut unit,
        "function %third() -> i64 system_v {
            gv0 = symbol u1:1
         block0:
            v0 = symbol_value.i64 gv0
            v1 = load.i64 v0
            v2 = load.i64 v1
            return v2
         }",
    );
    engine.install(unit).unwrap();
    assert_eq!(call!(handle(&engine, "third")).unwrap(), 3);
}

#[test]
fn data_is_aligned_as_asked() {
    let engine = engine!();
    let mut unit = engine.unit();
    let mut text = String::new();
    for power in 0..=12 {
        for writable in [false, true] {
            let name = format!("a{power}_{writable}");
            let id = declare(&mut unit, &name, writable);
            let mut description = DataDescription::new();
            description.define(Box::new([1]));
            description.set_align(1 << power);
            unit.define_data(id, &description).unwrap();
            text += &address_of(&name, id.as_u32());
        }
    }
    define(&mut unit, &text);
    engine.install(unit).unwrap();
    let mut seen = std::collections::HashSet::new();
    for power in 0..=12 {
        for writable in [false, true] {
            let address = call!(handle(&engine, &format!("a{power}_{writable}"))).unwrap();
            assert_eq!(address % (1 << power), 0, "alignment {}", 1 << power);
            assert!(seen.insert(address), "two objects at one address");
        }
    }
}

#[test]
fn data_without_contents_has_an_address_of_its_own() {
    let engine = engine!();
    let mut unit = engine.unit();
    for name in ["a", "b"] {
        let id = declare(&mut unit, name, false);
        define_words(&mut unit, id, &[]);
    }
    define(&mut unit, &(address_of("a", 0) + &address_of("b", 1)));
    engine.install(unit).unwrap();
    let address = |name| call!(handle(&engine, name)).unwrap();
    assert_ne!(address("a"), address("b"));
}

#[test]
fn data_of_the_host_can_be_imported() {
    static COUNTER: AtomicI64 = AtomicI64::new(40);
    let engine = builder!().host_symbol("counter", COUNTER.as_ptr().cast()).build().unwrap();
    let mut unit = engine.unit();
    unit.declare_data("counter", Linkage::Import, true, false).unwrap();
    define(&mut unit, &count_up("count", 0));
    engine.install(unit).unwrap();
    assert_eq!(call!(handle(&engine, "count")).unwrap(), 41);
    assert_eq!(call!(handle(&engine, "count")).unwrap(), 42);
    assert_eq!(COUNTER.load(Ordering::Relaxed), 42);
}

#[test]
fn code_that_cranelift_keeps_beside_a_function_is_found() {
    let engine = engine!();
    let mut unit = engine.unit();
    // A jump table, and constants from a pool.
    define(
        &mut unit,
        "function %pick(i32) -> f64 system_v {
         block0(v0: i32):
            br_table v0, block4, [block1, block2, block3]
         block1:
            v1 = f64const 0x1.8p3
            return v1
         block2:
            v2 = vconst.f64x2 [0x1.0 0x1.9p5]
            v3 = extractlane v2, 1
            return v3
         block3:
            v4 = f64const -0x1.0p-3
            return v4
         block4:
            v5 = f64const 0.0
            return v5
         }",
    );
    engine.install(unit).unwrap();
    let pick = engine.function::<fn(i32) -> f64>("pick").unwrap();
    let picked: Vec<f64> = (0..4).map(|number| call!(pick, number).unwrap()).collect();
    assert_eq!(picked, [12.0, 50.0, -0.125, 0.0]);
}
