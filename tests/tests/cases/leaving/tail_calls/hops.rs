//! Chains of tail calls, by every way in which a function can be tail-called, with any number of
//! arguments on the stack.

use std::cell::Cell;
use std::sync::Mutex;

use lastout::{CallError, Engine, Handle};
use lastout_tests::layers::{engines, frames};
use lastout_tests::registers::{call_address, keeps};
use lastout_tests::support::{Callback, Drops, install, install_counted};
use lastout_tests::{builder, call};

/// How a function tail-calls the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum By {
    Name,
    Address,
}

pub(super) const WAYS: [By; 2] = [By::Name, By::Address];

/// A function of a chain: `(callback, steps, sum)` and more. It tail-calls the next with one step
/// less and a larger sum, or if there is no step left, calls back with the sum.
#[derive(Clone, Copy)]
pub(super) struct Hop<'a> {
    pub(super) name: &'a str,
    /// How many arguments more it has, each of which is the sum plus its number, or it traps.
    pub(super) more: usize,
    pub(super) next: &'a str,
    pub(super) next_more: usize,
    pub(super) plus: i64,
    pub(super) by: By,
}

fn types(more: usize) -> String {
    format!("(i64, i64, i64{}) -> i64 tail", ", i64".repeat(more))
}

impl Hop<'_> {
    pub(super) fn text(&self) -> String {
        let Self { name, more, next, next_more, plus, by } = *self;
        let params: String = (0..more).map(|index| format!(", v{}: i64", 100 + index)).collect();
        let check = (0..more).map(|index| {
            let [param, number, sum, differ] = [100, 200, 300, 400].map(|base| base + index);
            format!(
                "v{number} = iconst.i64 {index}
                 v{sum} = iadd v2, v{number}
                 v{differ} = icmp ne v{sum}, v{param}
                 trapnz v{differ}, user9
                "
            )
        });
        let check: String = check.collect();
        let make = (0..next_more).map(|index| {
            format!(
                "v{} = iconst.i64 {index}\nv{} = iadd v6, v{}\n",
                500 + index,
                600 + index,
                500 + index
            )
        });
        let make: String = make.collect();
        let arguments: String = (0..next_more).map(|index| format!(", v{}", 600 + index)).collect();
        let tail_call = match by {
            By::Name => format!("return_call fn0(v0, v4, v6{arguments})"),
            By::Address => format!(
                "v7 = func_addr.i64 fn0
                 return_call_indirect sig0, v7(v0, v4, v6{arguments})"
            ),
        };
        format!(
            "function %{name}{} {{
                sig0 = {}
                fn0 = %{next}{}
                fn1 = %call_back(i64, i64) -> i64 system_v
             block0(v0: i64, v1: i64, v2: i64{params}):
                {check}
                brif v1, block1, block2
             block1:
                v3 = iconst.i64 -1
                v4 = iadd v1, v3
                v5 = iconst.i64 {plus}
                v6 = iadd v2, v5
                {make}
                {tail_call}
             block2:
                v9 = call fn1(v0, v2)
                return v9
             }}\n",
            types(more),
            types(next_more),
            types(next_more),
        )
    }
}

/// A ring of functions, `hop_0` and so on, with so many more arguments each.
pub(super) fn ring(mores: &[usize], plus: i64, by: By) -> Vec<String> {
    let names: Vec<_> = (0..mores.len()).map(|index| format!("hop_{index}")).collect();
    let hop = |index: usize| {
        let next = (index + 1) % mores.len();
        let (name, next_name) = (&*names[index], &*names[next]);
        let (more, next_more) = (mores[index], mores[next]);
        Hop { name, more, next: next_name, next_more, plus, by }.text()
    };
    (0..mores.len()).map(hop).collect()
}

/// Makes the functions of a ring known, so that each can be installed before its next.
pub(super) fn declare(engine: &Engine, mores: &[usize]) {
    for (index, more) in mores.iter().enumerate() {
        let text = format!("function %f{} {{\nblock0:\ntrap user1\n}}", types(*more));
        let text = text.replace("block0:", &format!("block0({}):", params(*more)));
        let signature =
            cranelift_reader::parse_functions(&text).unwrap().remove(0).signature.clone();
        engine.declare(&format!("hop_{index}"), &signature).unwrap();
    }
}

fn params(more: usize) -> String {
    let params: Vec<_> = (0..3 + more).map(|index| format!("v{index}: i64")).collect();
    params.join(", ")
}

pub(super) type First = Handle<fn(usize, i64, i64) -> i64>;

/// The function that a ring is entered by, which has no more arguments.
pub(super) fn first(engine: &Engine) -> First {
    engine.function("hop_0").unwrap()
}

/// How many more arguments the functions of rings have: none, all in registers, on the stack, with
/// more and less than those before.
pub(super) const RINGS: [&[usize]; 6] =
    [&[0], &[0, 0], &[0, 4], &[0, 3, 9, 4, 13], &[0, 13], &[0, 13, 0, 4]];

fn here() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&here)).expose_provenance()
}

#[test]
fn chains_of_any_arguments_take_no_stack() {
    for (name, engine) in engines(|| builder!()) {
        for by in WAYS {
            for mores in RINGS {
                let drops = Drops::new();
                declare(&engine, mores);
                for text in ring(mores, 3, by) {
                    install_counted(&engine, &text, &drops);
                }
                let first = first(&engine);
                let stack = Cell::new(0);
                let callback = Callback::new({
                    struct Shared<'a>(&'a Cell<usize>);
                    // SAFETY: one thread uses it.
                    unsafe impl Sync for Shared<'_> {}
                    let stack = Shared(&stack);
                    move |sum| {
                        let stack = &stack;
                        stack.0.set(here());
                        sum + 1
                    }
                });
                let what = format!("{name}, {by:?}, {mores:?}");
                let run = |steps| keeps(|| call!(first, callback.address(), steps, 10));
                assert_eq!(run(0), Ok(11), "{what}");
                let expected = stack.get();
                for steps in [1, 2, 3, 4, 5, 6, 7, 20_000] {
                    assert_eq!(run(steps), Ok(11 + 3 * steps), "{what}");
                    // What differs is how many arguments the last one has and gives.
                    let distance = expected.abs_diff(stack.get());
                    assert!(distance < 512, "{what}: {distance} bytes after {steps} steps");
                }
                // Entered by its address, as by C.
                let address = first.c_address().unwrap().expose_provenance();
                // SAFETY: the entry's function takes the two and finds any number in the third.
                let result = unsafe { call_address(address, callback.address(), 0) };
                assert_ne!(result, 0);
                assert_eq!(drops.count(), 0);
                drop(first);
                for index in 0..mores.len() {
                    assert_eq!(frames(&engine, &[&format!("hop_{index}")]), 0, "{what}");
                }
                for index in 0..mores.len() {
                    engine.remove(&format!("hop_{index}")).unwrap();
                }
                assert_eq!(drops.count(), mores.len(), "{what}");
            }
        }
    }
}

#[test]
fn a_thread_in_a_chain_is_counted_once_where_it_is() {
    for (name, engine) in engines(|| builder!()) {
        for mores in RINGS {
            declare(&engine, mores);
            for text in ring(mores, 1, By::Name) {
                install(&engine, &text);
            }
            let first = first(&engine);
            let counts = Mutex::new(Vec::new());
            let callback = Callback::new(|_| {
                let names: Vec<_> = (0..mores.len()).map(|index| format!("hop_{index}")).collect();
                let frames = names.iter().map(|name| frames(&engine, &[name])).collect::<Vec<_>>();
                *counts.lock().unwrap() = frames;
                0
            });
            for steps in 0..2 * mores.len() {
                call!(first, callback.address(), steps as i64, 0).unwrap();
                let mut expected = vec![0; mores.len()];
                expected[steps % mores.len()] = 1;
                assert_eq!(*counts.lock().unwrap(), expected, "{name}, {mores:?}, {steps} steps");
            }
            drop(first);
            for index in 0..mores.len() {
                engine.remove(&format!("hop_{index}")).unwrap();
            }
        }
    }
}

#[test]
fn a_chain_that_meets_a_removed_function_ends_with_zeros_and_an_error() {
    for (name, engine) in engines(|| builder!()) {
        for by in WAYS {
            for mores in RINGS.into_iter().filter(|mores| mores.len() > 1) {
                declare(&engine, mores);
                let texts = ring(mores, 1, by);
                for text in &texts {
                    install(&engine, text);
                }
                let first = first(&engine);
                let callback = Callback::new(|sum| sum);
                for (removed, text) in texts.iter().enumerate().skip(1) {
                    let gone = format!("hop_{removed}");
                    engine.remove(&gone).unwrap();
                    let what = format!("{name}, {by:?}, {mores:?}, without {gone}");
                    // Not as far as that.
                    let run = |steps| keeps(|| call!(first, callback.address(), steps, 10));
                    let before = removed as i64 - 1;
                    assert_eq!(run(before), Ok(10 + before), "{what}");
                    for steps in [removed as i64, 1000] {
                        let result = run(steps);
                        assert!(
                            matches!(&result, Err(CallError::Removed(it)) if **it == gone),
                            "{what}: {result:?}"
                        );
                    }
                    install(&engine, text);
                    assert_eq!(run(1000), Ok(1010), "{what}");
                }
                drop(first);
                for index in 0..mores.len() {
                    assert_eq!(frames(&engine, &[&format!("hop_{index}")]), 0);
                }
                for index in 0..mores.len() {
                    engine.remove(&format!("hop_{index}")).unwrap();
                }
            }
        }
    }
}
