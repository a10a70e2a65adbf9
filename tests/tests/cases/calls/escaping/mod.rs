//! Addresses that generated code hands out: of code, which are good while the version lives, and
//! stable ones.

mod freed;

use std::collections::HashMap;

use cranelift_codegen::Context;
use lastout::cranelift_module::{DataDescription, FuncId, Linkage, Module};
use lastout::{Engine, FunctionType, Part, Unit};
use lastout_tests::support::{COUNTINGS, constant, handle, install};
use lastout_tests::{builder, call, engine};

type Nullary = extern "C" fn() -> i64;

/// A function `() -> i64` that returns the address of another of that type.
fn address_of(name: &str, callee: &str) -> String {
    format!(
        "function %{name}() -> i64 system_v {{
            fn0 = {callee}() -> i64 system_v
         block0:
            v0 = func_addr.i64 fn0
            return v0
         }}\n"
    )
}

fn result(engine: &Engine, name: &str) -> usize {
    call!(handle(engine, name)).unwrap() as usize
}

/// Calls what is at an address.
fn call_at(address: usize) -> i64 {
    // SAFETY: it is one of a function of this type, and something keeps that.
    unsafe { std::mem::transmute::<usize, Nullary>(address)() }
}

/// What a function's address is to the host.
fn entry(engine: &Engine, name: &str) -> usize {
    handle(engine, name).c_address().unwrap().expose_provenance()
}

/// Which function, of which version, has code at an address, at its start.
fn starts_at(engine: &Engine, address: usize) -> Option<(String, u64)> {
    let location = engine.locate(address)?;
    assert_eq!(location.offset, 0);
    match location.part {
        Part::Body { function, version } => Some((function.to_string(), version)),
        other => panic!("{other:?}"),
    }
}

extern "C" fn of_the_host() -> i64 {
    1234
}

#[test]
fn an_imported_function_has_one_address_for_all_and_for_good() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        install(&engine, &constant("f", 1));
        install(&engine, &address_of("one", "%f"));
        install(&engine, &address_of("other", "%f"));
        // Preemptible: it is called from afar by its own unit.
        install(&engine, &(address_of("own", "%g") + &constant("g", 10)));
        let stable = entry(&engine, "f");
        let own = entry(&engine, "g");
        assert_ne!(stable, own);
        assert_eq!(engine.locate(stable), None);
        for version in 2..10 {
            let of_f = [result(&engine, "one"), result(&engine, "other"), entry(&engine, "f")];
            assert_eq!(of_f, [stable; 3]);
            assert_eq!([result(&engine, "own"), entry(&engine, "g")], [own; 2]);
            assert_eq!((call_at(stable), call_at(own)), (version - 1, 10 * (version - 1)));
            install(&engine, &constant("f", version));
            install(&engine, &(address_of("own", "%g") + &constant("g", 10 * version)));
            install(&engine, &address_of("one", "%f"));
        }
        engine.remove("f").unwrap();
        assert_eq!(call_at(stable), 0);
        install(&engine, &constant("f", 99));
        assert_eq!(call_at(stable), 99);
    }
}

#[test]
fn an_address_in_its_own_unit_is_that_of_the_version() {
    let engine = engine!();
    let unit = |number| address_of("give", "colocated %f") + &constant("f", number);
    install(&engine, &unit(1));
    let first = result(&engine, "give");
    assert_eq!((call_at(first), starts_at(&engine, first)), (1, Some(("f".to_owned(), 1))));
    // The other function of the unit keeps it.
    install(&engine, &constant("f", 2));
    assert_eq!((result(&engine, "give"), call_at(first)), (first, 1));
    install(&engine, &unit(3));
    let third = result(&engine, "give");
    assert_ne!(third, first);
    assert_eq!((call_at(third), starts_at(&engine, third)), (3, Some(("f".to_owned(), 3))));
    assert_eq!(starts_at(&engine, first), None, "that is freed, and nothing else is there yet");
    assert_ne!(third, entry(&engine, "f"));
}

#[test]
fn a_function_of_the_host_has_its_own_address() {
    let function = of_the_host as Nullary;
    let engine = builder!().host_function("host", function).build().unwrap();
    install(&engine, &address_of("give", "%host"));
    assert_eq!(result(&engine, "give"), function as usize);
}

/// Defines the function of a text.
fn define(unit: &mut Unit, text: &str, linkage: Linkage) -> FuncId {
    let mut function = cranelift_reader::parse_functions(text).unwrap().remove(0);
    let name = function.name.to_string();
    let name = name.trim_start_matches('%').to_owned();
    let id = unit.declare_function(&name, linkage, &function.signature).unwrap();
    function.name = Default::default();
    unit.define_function(id, &mut Context::for_function(function)).unwrap();
    id
}

#[test]
fn tables_have_the_addresses_that_functions_have_in_their_unit() {
    const NAMES: [&str; 6] = ["local", "hidden", "exported", "preemptible", "imported", "host"];

    let function = of_the_host as Nullary;
    let engine = builder!().host_function("host", function).build().unwrap();
    let signature = Nullary::signature(engine.isa());
    install(&engine, &constant("imported", 10));
    let build = |number: i64| {
        let mut unit = engine.unit();
        let mut functions = HashMap::new();
        for (name, linkage) in [
            ("local", Linkage::Local),
            ("hidden", Linkage::Hidden),
            ("exported", Linkage::Export),
            ("preemptible", Linkage::Preemptible),
        ] {
            functions.insert(name, define(&mut unit, &constant(name, number), linkage));
        }
        for name in ["imported", "host"] {
            functions
                .insert(name, unit.declare_function(name, Linkage::Import, &signature).unwrap());
        }
        for (name, writable) in [("read_only", false), ("writable", true)] {
            let table = unit.declare_data(name, Linkage::Local, writable, false).unwrap();
            let mut description = DataDescription::new();
            description.define_zeroinit(8 * NAMES.len());
            for (index, name) in NAMES.into_iter().enumerate() {
                let function = unit.declare_func_in_data(functions[name], &mut description);
                description.write_function_addr(8 * index as u32, function);
            }
            unit.define_data(table, &description).unwrap();
            let table = table.as_u32();
            let text = format!(
                "function %{name}_table() -> i64 system_v {{
                    gv0 = symbol u1:{table}
                 block0:
                    v0 = symbol_value.i64 gv0
                    return v0
                 }}"
            );
            define(&mut unit, &text, Linkage::Export);
        }
        engine.install(unit).unwrap()
    };
    for number in 1..5 {
        let installed = build(number);
        let version = installed.versions()[0].number();
        install(&engine, &constant("imported", 10 * number));
        for table in ["read_only_table", "writable_table"] {
            let address = std::ptr::with_exposed_provenance(result(&engine, table));
            // SAFETY: the table is there for as long as the version.
            let words: &[usize; NAMES.len()] = unsafe { &*address };
            let code = |index: usize| starts_at(&engine, words[index]);
            for (index, name) in NAMES.into_iter().enumerate().take(3) {
                assert_eq!(code(index), Some((name.to_owned(), version)), "{table}");
            }
            let stable = [entry(&engine, "preemptible"), entry(&engine, "imported")];
            assert_eq!((words[3..5].to_vec(), words[5]), (stable.to_vec(), function as usize));
            let results = words.map(call_at);
            assert_eq!(results, [number, number, number, number, 10 * number, 1234], "{table}");
        }
    }
}

#[test]
fn code_is_only_found_where_it_is() {
    let engine = engine!();
    let mut starts = Vec::new();
    for number in 0..40 {
        let name = format!("f{number}");
        install(
            &engine,
            &(address_of(&format!("give{number}"), &format!("colocated %{name}"))
                + &constant(&name, number)),
        );
        starts.push((name, result(&engine, &format!("give{number}"))));
    }
    // Every other one goes.
    for number in (0..40).step_by(2) {
        engine.remove(&format!("f{number}")).unwrap();
        engine.remove(&format!("give{number}")).unwrap();
    }
    let lowest = starts.iter().map(|(_, start)| *start).min().unwrap() & !4095;
    let highest = starts.iter().map(|(_, start)| *start).max().unwrap() + 4096;
    let mut found: HashMap<String, usize> = HashMap::new();
    for address in lowest..highest {
        let Some(location) = engine.locate(address) else { continue };
        let Part::Body { function, .. } = location.part else { panic!("{location}") };
        *found.entry(function.to_string()).or_default() += 1;
        if let Some((_, start)) = starts.iter().find(|(name, _)| **name == *function) {
            assert_eq!(address - location.offset, *start);
        }
    }
    for (number, (name, start)) in starts.iter().enumerate() {
        let alive = number % 2 == 1;
        assert_eq!(found.contains_key(name), alive, "{name}");
        assert_eq!(starts_at(&engine, *start).is_some(), alive, "{name}");
        // It is a few instructions, and what is between it and the next thing.
        assert!(found.get(name).is_none_or(|bytes| *bytes < 128), "{name}: {found:?}");
    }
}
