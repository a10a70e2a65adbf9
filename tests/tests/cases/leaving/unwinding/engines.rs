//! Frames of several engines on one stack, which call each other by stable addresses, and entries of
//! functions with many arguments.

use lastout::{Counting, Engine};
use lastout_tests::layers::{Text, engines, frames};
use lastout_tests::registers::keeps;
use lastout_tests::support::{COUNTINGS, Drops, calls, install_counted};
use lastout_tests::{builder, call};

use super::ends::{PANIC, THROW, TRAP, ending, ends};

/// A function that calls what is at an address, or if there is none, `call_back`, and traps if that
/// returns zero.
fn passing_on(name: &str, address: usize) -> String {
    let mut text = Text::default();
    text.hold(8);
    let hold = text.take();
    text.check();
    let check = text.take();
    let call = match address {
        0 => "call fn0(v0, v1)".to_owned(),
        _ => "call_indirect sig0, v3(v0, v1)".to_owned(),
    };
    format!(
        "function %{name}(i64, i64) -> i64 system_v {{
            sig0 = (i64, i64) -> i64 system_v
            fn0 = %call_back(i64, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            {hold}
            v3 = iconst.i64 {address}
            v2 = {call}
            {check}
            trapz v2, user2
            return v2
         }}"
    )
}

#[test]
fn engines_that_count_differently_are_passed_one_after_the_other() {
    for (inner_counting, outer_counting) in
        [(COUNTINGS[0], COUNTINGS[1]), (COUNTINGS[1], COUNTINGS[0])]
    {
        let engine = |counting: Counting| -> Engine {
            builder!().traps(true).counting(counting).build().unwrap()
        };
        // `one` of the first engine is called by `two` of the other, and that by `three` of the
        // first.
        let (first, second) = (engine(inner_counting), engine(outer_counting));
        let drops = Drops::new();
        let entry = |engine: &Engine, name: &str| {
            calls(engine, name).c_address().unwrap().expose_provenance()
        };
        install_counted(&first, &passing_on("one", 0), &drops);
        let one = entry(&first, "one");
        install_counted(&second, &passing_on("two", one), &drops);
        let two = entry(&second, "two");
        install_counted(&first, &passing_on("three", two), &drops);
        let three = calls(&first, "three");
        for number in [PANIC, THROW, TRAP] {
            let before = drops.count();
            let callback = ending(|| {
                assert_eq!((frames(&first, &["one", "three"]), frames(&second, &["two"])), (2, 1));
                install_counted(&first, &passing_on("one", 0), &drops);
                install_counted(&second, &passing_on("two", one), &drops);
                install_counted(&first, &passing_on("three", two), &drops);
                assert_eq!(drops.count(), before);
            });
            ends(number, || call!(three, callback.address(), number));
            assert_eq!(drops.count(), before + 3, "{number}");
            assert_eq!((frames(&first, &["one", "three"]), frames(&second, &["two"])), (0, 0));
            let passing = ending(|| {});
            assert_eq!(keeps(|| call!(three, passing.address(), 7)), Ok(7));
        }
    }
}

#[test]
fn entries_with_arguments_on_the_stack_are_passed() {
    type Many = fn(usize, i64, f64, i64, i64, i64, i64, i64, i64, f64, i64) -> i64;

    let types = "i64, i64, f64, i64, i64, i64, i64, i64, i64, f64, i64";
    for convention in ["system_v", "tail", "windows_fastcall"] {
        let text = format!(
            "function %many({types}) -> i64 {convention} {{
                fn0 = %call_back(i64, i64) -> i64 system_v
             block0(v0: i64, v1: i64, v2: f64, v3: i64, v4: i64, v5: i64, v6: i64, v7: i64, v8: i64, v9: f64, v10: i64):
                v11 = call fn0(v0, v1)
                trapz v11, user2
                v12 = iadd v11, v10
                return v12
             }}"
        );
        for (name, engine) in engines(|| builder!().traps(true)) {
            let drops = Drops::new();
            install_counted(&engine, &text, &drops);
            let many = engine.function::<Many>("many").unwrap();
            for number in [PANIC, THROW, TRAP] {
                let before = drops.count();
                let callback = ending(|| {
                    install_counted(&engine, &text, &drops);
                    assert_eq!(drops.count(), before);
                });
                let run = |number| {
                    call!(many, callback.address(), number, 0.5, 3, 4, 5, 6, 7, 8, 9.5, 10)
                };
                ends(number, || run(number));
                assert_eq!(drops.count(), before + 1, "{name}, {convention}");
                assert_eq!(frames(&engine, &["many"]), 0, "{name}, {convention}");
            }
            let passing = ending(|| {});
            let result =
                keeps(|| call!(many, passing.address(), 7, 0.5, 3, 4, 5, 6, 7, 8, 9.5, 10));
            assert_eq!(result, Ok(17), "{name}, {convention}");
        }
    }
}
