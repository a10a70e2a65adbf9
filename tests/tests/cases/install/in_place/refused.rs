//! What cannot be replaced in its place, and what cannot be written there.

use lastout::cranelift_module::{DataDescription, Linkage, Module};
use lastout::{Adopted, FunctionType, Unit};
use lastout_tests::clif;

use super::*;

extern "C" fn hundred() -> i64 {
    100
}

fn why(replaced: Result<Installed, Error>) -> (String, &'static str) {
    match replaced {
        Err(Error::NotInPlace { function, why }) => (function, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn functions_that_others_may_call_into() {
    let engine = engine!();
    install(&engine, &(constant("f", 1) + &constant("g", 2)));
    let (name, reason) = why(try_replace(&engine, &constant("f", 3), LIMIT));
    assert_eq!((&*name, reason), ("f", "its unit has several functions that can be replaced"));
    let two = constant("f", 1) + &constant("g", 2);
    let (names, _) = why(try_replace(&engine, &two, LIMIT));
    assert_eq!(names, "f`, `g");
    assert_eq!(why(engine.replace_in_place(engine.unit(), LIMIT)).0, "");
    // As it is with one in a unit of its own.
    install(&engine, &constant("f", 4));
    replace(&engine, &constant("f", 5));
    assert_eq!(call!(engine.function::<fn() -> i64>("f").unwrap()).unwrap(), 5);
    assert_eq!(call!(engine.function::<fn() -> i64>("g").unwrap()).unwrap(), 2);
}

#[test]
fn code_of_others() {
    let engine = engine!();
    let mut adopted = Adopted::new(|| {});
    let signature = <fn() -> i64>::signature(engine.isa());
    // SAFETY: the function is of this signature, and stays.
    unsafe { adopted.export("f", &signature, hundred as *const u8) };
    engine.adopt(adopted).unwrap();
    let (_, reason) = why(try_replace(&engine, &constant("f", 3), LIMIT));
    assert_eq!(reason, "its code is not a unit's");
    assert_eq!(call!(engine.function::<fn() -> i64>("f").unwrap()).unwrap(), 100);
}

#[test]
fn functions_that_there_are_not() {
    let engine = engine!();
    let unknown = |error| matches!(error, Err(Error::UnknownFunction(name)) if name == "f");
    assert!(unknown(try_replace(&engine, &constant("f", 1), LIMIT)));
    assert_eq!(engine.stats().functions, 0);
    engine.declare("f", &<fn() -> i64>::signature(engine.isa())).unwrap();
    let (_, reason) = why(try_replace(&engine, &constant("f", 1), LIMIT));
    assert_eq!(reason, "it has no version");
    install(&engine, &constant("f", 1));
    let other = engine!();
    let foreign = other.replace_in_place(unit(&engine, &constant("f", 2)), LIMIT);
    assert!(matches!(foreign, Err(Error::ForeignUnit)));
    let mismatch = try_replace(&engine, &calling_back("f", 2), LIMIT);
    assert!(matches!(mismatch, Err(Error::SignatureMismatch { .. })));
    let missing = try_replace(&engine, &caller("f", "nowhere", 2), LIMIT);
    assert!(matches!(missing, Err(Error::MissingImport(_))));
    assert_eq!(engine.stats().heavy_fences, 0, "nobody was held");
    assert_eq!(call!(engine.function::<fn() -> i64>("f").unwrap()).unwrap(), 1);
}

/// A function that adds three so many times, and words in its data.
fn large(engine: &Engine, adds: usize, data: &[(bool, i64)]) -> Unit {
    let mut unit = engine.unit();
    let mut text = "function %f() -> i64 system_v {\n".to_owned();
    for (index, (writable, word)) in data.iter().enumerate() {
        let id = unit.declare_data(&format!("d{index}"), Linkage::Local, *writable, false).unwrap();
        let mut description = DataDescription::new();
        description.define(i64::to_ne_bytes(*word).into());
        unit.define_data(id, &description).unwrap();
        text += &format!("gv{index} = symbol u1:{index}\n");
    }
    text += "ss0 = explicit_slot 8\nblock0:\nv0 = iconst.i64 0\n";
    text += "v2000 = stack_addr.i64 ss0\nv2001 = iconst.i64 3\n";
    let mut last = 0;
    for index in 0..data.len() {
        let next = last + 3;
        text += &format!(
            "v{} = symbol_value.i64 gv{index}\nv{} = load.i64 v{}\nv{next} = iadd v{last}, v{}\n",
            last + 1,
            last + 2,
            last + 1,
            last + 2,
        );
        last = next;
    }
    // Through memory, lest the optimizer does it all.
    for _ in 0..adds {
        text += &format!(
            "store v{last}, v2000\nv{} = load.i64 v2000\nv{} = iadd v{}, v2001\n",
            last + 1,
            last + 2,
            last + 1,
        );
        last += 2;
    }
    text += &format!("return v{last}\n}}\n");
    clif::define(&mut unit, &text).unwrap();
    unit
}

#[test]
fn what_does_not_fit() {
    let engine = engine!();
    install(&engine, &constant("f", 7));
    let f: Nullary = engine.function("f").unwrap();
    let too_large = |unit, expected| match engine.replace_in_place(unit, LIMIT) {
        Err(Error::DoesNotFit { what, needed, room }) => {
            assert!(needed > room);
            assert_eq!(what, expected);
        }
        other => panic!("{other:?}"),
    };
    too_large(large(&engine, 300, &[]), "code");
    too_large(large(&engine, 0, &[(false, 1)]), "read-only data");
    too_large(large(&engine, 0, &[(true, 1)]), "writable data");
    assert_eq!(call!(f).unwrap(), 7);
    let mut roomy = large(&engine, 0, &[]);
    roomy.reserve(4096, 64);
    engine.install(roomy).unwrap();
    assert_eq!(call!(f).unwrap(), 0);
    for (adds, data, expected) in [
        (100, &[(false, 1), (true, 2)][..], 303),
        (0, &[(true, 5)], 5),
        (1, &[(false, 6), (false, 7), (true, 8)], 24),
        (0, &[], 0),
    ] {
        engine.replace_in_place(large(&engine, adds, data), LIMIT).unwrap();
        assert_eq!(call!(f).unwrap(), expected);
    }
    too_large(large(&engine, 0, &[(true, 0); 9]), "writable data");
    engine.remove("f").unwrap();
    let stats = engine.stats();
    assert_eq!((stats.alive(), stats.data_bytes), (0, 0));
}
