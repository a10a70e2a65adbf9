//! Which handler gets an exception, and whether it finds its frame as it was.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lastout_tests::layers::{KINDS, Text, engines, frames};
use lastout_tests::registers::keeps;
use lastout_tests::support::{Callback, Drops, calls, install, install_counted};
use lastout_tests::{builder, call};

use super::{Catching, caught, throwing};

#[test]
fn handlers_are_asked_by_tag_in_their_order() {
    let callback = throwing();
    for (name, engine) in engines(|| builder!()) {
        let catching = |tags| Catching { tags, ..Catching::default() };
        install(&engine, &catching(&[3, 1, 2]).function("three"));
        install(&engine, &catching(&[2, 0]).function("any_other"));
        install(&engine, &catching(&[0]).function("any"));
        install(&engine, &catching(&[0, 1]).function("any_first"));
        let catches = |function: &str, number| {
            let function = calls(&engine, function);
            keeps(|| call!(function, callback.address(), number))
        };
        for (function, number, handler) in [
            ("three", 107, 2),
            ("three", 207, 3),
            ("three", 307, 1),
            ("any_other", 207, 1),
            ("any_other", 107, 2),
            ("any_other", 400_000_000_003, 2),
            ("any", 107, 1),
            ("any", 207, 1),
            ("any_first", 107, 1),
        ] {
            assert_eq!(
                catches(function, number),
                Ok(caught(handler, number)),
                "{name}: {function}"
            );
            assert_eq!(catches(function, 7), Ok(7), "{name}: {function}");
        }
        assert_eq!(frames(&engine, &["three", "any_other", "any", "any_first"]), 0);
    }
}

#[test]
fn an_exception_passes_frames_of_every_kind_to_its_handler() {
    let callback = throwing();
    for (name, engine) in engines(|| builder!()) {
        for live in [0, 8] {
            let drops = Drops::new();
            let mut below = "call_back";
            for (height, kind) in (1..).zip(&KINDS) {
                kind.install(&engine, kind.name, below, live, &drops);
                below = kind.name;
                for convention in ["system_v", "tail", "fast", "windows_fastcall"] {
                    let catching =
                        Catching { convention, callee: below, live, ..Catching::default() };
                    let catcher = format!("{convention}_catcher");
                    install(&engine, &catching.function(&catcher));
                    let catches = calls(&engine, &catcher);
                    let run = |number| keeps(|| call!(catches, callback.address(), number));
                    let what = format!("{name}, {height} layers below {catcher}, {live} live");
                    assert_eq!(run(5), Ok(5 + height), "{what}");
                    assert_eq!(run(107), Ok(caught(1, 107)), "{what}");
                    let inner = format!("{}_inner", kind.name);
                    assert_eq!(frames(&engine, &[&catcher, kind.name, &inner]), 0, "{what}");
                    drop(catches);
                    engine.remove(&catcher).unwrap();
                }
            }
        }
    }
}

/// Functions that tail-call each other with few and with many arguments, the last of which calls
/// `callee`: `few_N`, of two, and `many_N`, of twelve.
fn chain(callee: &str) -> Vec<String> {
    let many_types = "i64, i64".to_owned() + &", i64".repeat(10);
    let many_params = "v0: i64, v1: i64".to_owned()
        + &(2..12).map(|index| format!(", v{index}: i64")).collect::<String>();
    let many_arguments = "v0, v1".to_owned() + &", v1".repeat(10);
    let few = format!(
        "function %few_0(i64, i64) -> i64 tail {{
            fn0 = %{callee}(i64, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            v2 = call fn0(v0, v1)
            v3 = iconst.i64 1
            v4 = iadd v2, v3
            return v4
         }}"
    );
    let mut texts = vec![few];
    for index in 0..3 {
        texts.push(format!(
            "function %many_{index}({many_types}) -> i64 tail {{
                fn0 = %few_{index}(i64, i64) -> i64 tail
             block0({many_params}):
                return_call fn0(v0, v1)
             }}"
        ));
        texts.push(format!(
            "function %few_{}(i64, i64) -> i64 tail {{
                fn0 = %many_{index}({many_types}) -> i64 tail
             block0(v0: i64, v1: i64):
                return_call fn0({many_arguments})
             }}",
            index + 1
        ));
    }
    texts
}

#[test]
fn a_handler_has_its_stack_back_whatever_was_tail_called_from_there() {
    let callback = throwing();
    for (name, engine) in engines(|| builder!()) {
        for text in chain("call_back") {
            install(&engine, &text);
        }
        for tail_called in ["few_0", "few_1", "few_2", "few_3"] {
            for more in [0, 5, 12] {
                for convention in ["system_v", "tail"] {
                    let catching = Catching {
                        convention,
                        more,
                        callee: tail_called,
                        callee_convention: "tail",
                        ..Catching::default()
                    };
                    install(&engine, &catching.function("catcher"));
                    // Its own caller holds something on the stack, too.
                    let more_types = ", i64".repeat(more);
                    let arguments = ", v1".repeat(more);
                    install(
                        &engine,
                        &format!(
                            "function %above(i64, i64) -> i64 system_v {{
                                ss0 = explicit_slot 64
                                fn0 = %catcher(i64, i64{more_types}) -> i64 {convention}
                             block0(v0: i64, v1: i64):
                                v10 = stack_addr.i64 ss0
                                store notrap aligned v1, v10
                                store notrap aligned v0, v10+56
                                v2 = call fn0(v0, v1{arguments})
                                v3 = load.i64 notrap aligned v10
                                v4 = load.i64 notrap aligned v10+56
                                v5 = isub v3, v1
                                v6 = isub v4, v0
                                v7 = bor v5, v6
                                trapnz v7, user42
                                return v2
                             }}"
                        ),
                    );
                    let above = calls(&engine, "above");
                    let run = |number| keeps(|| call!(above, callback.address(), number));
                    let what = format!("{name}: {convention}, {more} more, {tail_called}");
                    for _ in 0..3 {
                        assert_eq!(run(107), Ok(caught(1, 107)), "{what}");
                        assert_eq!(run(5), Ok(6), "{what}");
                    }
                    drop(above);
                    for gone in ["above", "catcher"] {
                        engine.remove(gone).unwrap();
                    }
                }
            }
        }
        assert_eq!(frames(&engine, &["few_0", "many_0", "few_1", "many_1", "few_2", "many_2"]), 0);
    }
}

#[test]
fn of_nested_handlers_the_inner_one_that_wants_it_gets_it() {
    let callback = throwing();
    for (name, engine) in engines(|| builder!()) {
        // 1 and 2 are wanted inside, 2 and 3 in the middle, all outside.
        let inner = Catching { tags: &[1, 2], ..Catching::default() };
        let middle = Catching { tags: &[2, 3], callee: "inner", ..Catching::default() };
        let outer = Catching { tags: &[4, 0], callee: "middle", ..Catching::default() };
        install(&engine, &inner.function("inner"));
        install(&engine, &middle.function("middle"));
        install(&engine, &outer.function("outer"));
        let function = calls(&engine, "outer");
        for (number, handler) in [(101, 1), (201, 2), (301, 2), (401, 1), (501, 2)] {
            let result = keeps(|| call!(function, callback.address(), number));
            assert_eq!(result, Ok(caught(handler, number)), "{name}: {number}");
            assert_eq!(frames(&engine, &["inner", "middle", "outer"]), 0);
        }
    }
}

#[test]
fn a_handler_may_throw_again() {
    const RETHROWING: &str = "function %rethrowing(i64, i64) -> i64 system_v {
        sig0 = (i64, i64) -> i64 system_v
        fn0 = %call_back(i64, i64) -> i64 system_v
     block0(v0: i64, v1: i64):
        try_call fn0(v0, v1), sig0, block1(ret0), [ tag1: block2(exn0), tag2: block3(exn0) ]
     block1(v2: i64):
        return v2
     block2(v3: i64):
        v4 = iconst.i64 100
        v5 = iadd v3, v4
        try_call fn0(v0, v5), sig0, block1(ret0), [ tag2: block3(exn0) ]
     block3(v6: i64):
        v7 = iconst.i64 100
        v8 = iadd v6, v7
        v9 = call fn0(v0, v8)
        return v9
     }";

    let callback = throwing();
    for (name, engine) in engines(|| builder!()) {
        install(&engine, RETHROWING);
        let outer = Catching { tags: &[3, 4], callee: "rethrowing", ..Catching::default() };
        install(&engine, &outer.function("outer"));
        let function = calls(&engine, "outer");
        for (number, expected) in
            [(7, 7), (107, caught(1, 307)), (207, caught(1, 307)), (407, caught(2, 407))]
        {
            let result = keeps(|| call!(function, callback.address(), number));
            assert_eq!(result, Ok(expected), "{name}: {number}");
            assert_eq!(frames(&engine, &["outer", "rethrowing"]), 0);
        }
    }
}

#[test]
fn handlers_are_found_through_functions_of_the_same_unit() {
    // `outer` catches what `local` throws, by way of `between`, without any gate.
    let local = Catching { tags: &[9], ..Catching::default() }.function("local");
    let between = "function %between(i64, i64) -> i64 tail {
        fn0 = colocated %local(i64, i64) -> i64 system_v
     block0(v0: i64, v1: i64):
        v2 = call fn0(v0, v1)
        v3 = iconst.i64 10
        v4 = iadd v2, v3
        return v4
     }";
    let outer = Catching {
        tags: &[2, 1],
        callee: "between",
        callee_convention: "tail",
        ..Catching::default()
    };
    let outer = outer.function("outer").replace("= %between", "= colocated %between");
    let callback = throwing();
    for (name, engine) in engines(|| builder!()) {
        install(&engine, &format!("{outer}{between}{local}"));
        let function = calls(&engine, "outer");
        let run = |number| keeps(|| call!(function, callback.address(), number));
        assert_eq!(run(7), Ok(17), "{name}");
        assert_eq!(run(107), Ok(caught(2, 107)), "{name}");
        assert_eq!(run(207), Ok(caught(1, 207)), "{name}");
        assert_eq!(run(907), Ok(caught(1, 907) + 10), "{name}");
        assert_eq!(frames(&engine, &["outer", "between", "local"]), 0);
    }
}

#[test]
fn a_handler_finds_its_values_where_the_callee_was_to_keep_everything() {
    // A caller of a `preserve_all` function counts on every register after it has returned, and on
    // none in a handler.
    let mut text = Text::default();
    text.hold(8);
    let hold = text.take();
    text.check();
    let after = text.take();
    text.check();
    let caught = text.take();
    let catcher = format!(
        "function %catcher(i64, i64) -> i64 system_v {{
            sig0 = (i64, i64) preserve_all
            fn0 = %f(i64, i64) preserve_all
         block0(v0: i64, v1: i64):
            {hold}
            try_call fn0(v0, v1), sig0, block1, [ tag1: block2(exn0) ]
         block1:
            {after}
            return v1
         block2(v2: i64):
            {caught}
            v3 = ineg v2
            return v3
         }}"
    );
    const F: &str = "function %f(i64, i64) preserve_all {
        fn0 = %call_back(i64, i64) -> i64 system_v
     block0(v0: i64, v1: i64):
        v2 = call fn0(v0, v1)
        return
     }";

    let callback = throwing();
    for (name, engine) in engines(|| builder!()) {
        install(&engine, F);
        install(&engine, &catcher);
        let catcher = calls(&engine, "catcher");
        for _ in 0..3 {
            assert_eq!(keeps(|| call!(catcher, callback.address(), 107)), Ok(-107), "{name}");
            assert_eq!(keeps(|| call!(catcher, callback.address(), 7)), Ok(7), "{name}");
            assert_eq!(frames(&engine, &["catcher", "f"]), 0);
        }
    }
}

#[test]
fn calls_by_address_can_catch() {
    // Of a function of the same unit, whose address is that of its code, and of one that is
    // replaceable, whose address is its stable entry.
    let indirect = |name: &str, callee: &str, convention: &str| {
        format!(
            "function %{name}(i64, i64) -> i64 system_v {{
                sig0 = (i64, i64) -> i64 {convention}
                fn0 = {callee}(i64, i64) -> i64 {convention}
             block0(v0: i64, v1: i64):
                v2 = func_addr.i64 fn0
                try_call_indirect v2(v0, v1), sig0, block1(ret0), [ tag1: block2(exn0) ]
             block1(v3: i64):
                return v3
             block2(v4: i64):
                v5 = ineg v4
                return v5
             }}"
        )
    };
    let callback = throwing();
    for (name, engine) in engines(|| builder!()) {
        for (kind, convention) in [("plain", "system_v"), ("tail", "tail")] {
            let kind = KINDS.into_iter().find(|other| other.name == kind).unwrap();
            let drops = Drops::new();
            let callee = kind.inner("f", "call_back", 8).replace("f_inner", "callee");
            let local = callee.replace("%callee", "%local");
            install_counted(&engine, &callee, &drops);
            install(&engine, &indirect("by_entry", "%callee", convention));
            install(&engine, &(indirect("by_code", "colocated %local", convention) + &local));
            for function in ["by_entry", "by_code"] {
                let called = calls(&engine, function);
                let run = |number| keeps(|| call!(called, callback.address(), number));
                assert_eq!(run(7), Ok(8), "{name}, {function}, {convention}");
                assert_eq!(run(107), Ok(-107), "{name}, {function}, {convention}");
                assert_eq!(frames(&engine, &["callee", "local", function]), 0);
            }
            // The entry's frame is one that is counted in.
            let called = calls(&engine, "by_entry");
            let replacing = Callback::new(|number| {
                install(&engine, &callee);
                assert_eq!(drops.count(), 0);
                super::pass_or_throw(number)
            });
            assert_eq!(call!(called, replacing.address(), 107), Ok(-107), "{name}, {convention}");
            assert_eq!(drops.count(), 1, "{name}, {convention}");
            drop(called);
            for gone in ["by_entry", "by_code", "callee", "local"] {
                engine.remove(gone).unwrap();
            }
        }
    }
}

#[test]
fn panics_pass_handlers() {
    for (name, engine) in engines(|| builder!()) {
        let catching = Catching { tags: &[1, 0], ..Catching::default() };
        install(&engine, &catching.function("f"));
        let f = calls(&engine, "f");
        let callback = Callback::new(|_| std::panic::resume_unwind(Box::new(1)));
        let call = || keeps(|| call!(f, callback.address(), 1));
        let panic = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&1), "{name}");
        assert_eq!(frames(&engine, &["f"]), 0);
    }
}
