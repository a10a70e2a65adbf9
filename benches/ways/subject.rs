//! The functions that are entered and left.

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa::CallConv;
use lastout::{CallError, Engine, Handle};
use lastout_tests::clif;

use crate::Group;

type Number = fn(i64) -> i64;

/// An engine with functions, each in a unit of its own unless it says otherwise.
pub(crate) struct Subject {
    _engine: Engine,
    handles: Vec<(&'static str, Handle<Number>)>,
}

/// The names of the functions that the host calls.
const CALLED: [&str; 14] = [
    "identity",
    "identity_tail",
    "loop_gate",
    "loop_tail",
    "loop_entry",
    "steps_within",
    "steps_across",
    "raise",
    "raise_through",
    "catch_call",
    "catch_throw",
    "leave_by_throw",
    "leave_by_trap",
    "leave_by_return",
];

extern "C-unwind" fn panic_now(value: i64) -> i64 {
    // Without the message that a panic prints.
    resume_unwind(Box::new(value))
}

extern "C-unwind" fn throw_now(value: i64) -> i64 {
    // SAFETY: there is nothing here that would have to be dropped.
    let uncaught = unsafe { lastout::throw(1, [value as u64, 0]) };
    panic!("{uncaught}");
}

fn panics_in_rust(value: i64) -> i64 {
    panic_now(black_box(value))
}

impl Subject {
    pub(crate) fn new() -> Result<Self, Box<dyn std::error::Error>> {
        type Host = extern "C-unwind" fn(i64) -> i64;
        let engine = Engine::builder()
            .traps(true)
            .host_function("panic_now", panic_now as Host)
            .host_function("throw_now", throw_now as Host)
            .build()?;
        let mut tail = Signature::new(CallConv::Tail);
        tail.params.push(AbiParam::new(types::I64));
        tail.returns.push(AbiParam::new(types::I64));
        engine.declare("step_b", &tail)?;
        for text in texts() {
            let mut unit = engine.unit();
            clif::define(&mut unit, &text)?;
            engine.install(unit)?;
        }
        let handle = |name| Ok::<_, lastout::Error>((name, engine.function::<Number>(name)?));
        let handles = CALLED.into_iter().map(handle).collect::<Result<_, _>>()?;
        Ok(Self { _engine: engine, handles })
    }

    fn call(&self, name: &str, argument: i64) -> Result<i64, CallError> {
        let found = self.handles.iter().find(|(known, _)| *known == name);
        let (_, handle) = found.expect("it is one of those that are called");
        // SAFETY: the functions are sound for every argument.
        unsafe { handle.call(argument) }
    }

    /// Runs a function of the engine so many times, whatever it returns.
    fn many(&self, name: &'static str) -> crate::Way<'_> {
        let found = self.handles.iter().find(|(known, _)| *known == name);
        let handle = &found.expect("it is one of those that are called").1;
        Box::new(move |times| {
            for number in 0..times {
                // SAFETY: as above.
                if let Ok(result) = unsafe { handle.call(black_box(number)) } {
                    black_box(result);
                }
            }
        })
    }

    /// Calls a function of the engine that does so many rounds itself.
    fn rounds(&self, name: &'static str) -> crate::Way<'_> {
        Box::new(move |times| {
            black_box(self.call(name, times)).ok();
        })
    }

    /// Calls one that panics, and catches that.
    fn caught<'a>(&'a self, call: impl Fn(i64) + 'a) -> crate::Way<'a> {
        Box::new(move |times| {
            for number in 0..times {
                let caught = catch_unwind(AssertUnwindSafe(|| call(number)));
                assert!(caught.is_err(), "it panics");
            }
        })
    }

    pub(crate) fn groups(&self) -> Vec<Group<'_>> {
        vec![
            Group {
                title: "a call from generated code, in a loop",
                times: 50_000,
                ways: vec![
                    ("by a gate", self.rounds("loop_gate")),
                    ("by the gate of a tail-calling function", self.rounds("loop_tail")),
                    ("by a stable address", self.rounds("loop_entry")),
                ],
            },
            Group {
                title: "a call from the host",
                times: 50_000,
                ways: vec![
                    ("through a handle", self.many("identity")),
                    ("of a tail-calling function", self.many("identity_tail")),
                ],
            },
            Group {
                title: "a tail call",
                times: 50_000,
                ways: vec![
                    ("within a unit", self.rounds("steps_within")),
                    ("between two units, through gates", self.rounds("steps_across")),
                ],
            },
            Group {
                title: "a panic, to the `catch_unwind` around the call",
                times: 500,
                ways: vec![
                    (
                        "in Rust only",
                        self.caught(|number| {
                            black_box(panics_in_rust(number));
                        }),
                    ),
                    (
                        "through a function",
                        self.caught(|number| {
                            self.call("raise", number).ok();
                        }),
                    ),
                    (
                        "through ten functions and gates",
                        self.caught(|number| {
                            self.call("raise_through", number).ok();
                        }),
                    ),
                ],
            },
            Group {
                title: "leaving a function",
                times: 2_000,
                ways: vec![
                    ("by return", self.many("leave_by_return")),
                    ("by a `try_call` that returns", self.many("catch_call")),
                    ("by an exception that the caller catches", self.many("catch_throw")),
                    ("by an exception that nobody catches", self.many("leave_by_throw")),
                    ("by a trap", self.many("leave_by_trap")),
                ],
            },
        ]
    }
}

/// The functions, in an order in which they can be installed.
fn texts() -> Vec<String> {
    let identity = |name: &str, call_conv: &str| {
        format!("function %{name}(i64) -> i64 {call_conv} {{ block0(v0: i64): return v0 }}")
    };
    let looping = |name: &str, declared: &str, get: &str, call: &str| {
        format!(
            "function %{name}(i64) -> i64 system_v {{
                {declared}
             block0(v0: i64):
                v9 = iconst.i64 -1
                {get}
                jump block1(v0)
             block1(v1: i64):
                v2 = {call}
                v3 = iadd v2, v9
                brif v3, block1(v3), block2(v3)
             block2(v4: i64):
                return v4
             }}"
        )
    };
    let stepping = |name: &str, next: &str| {
        format!(
            "function %{name}(i64) -> i64 tail {{
                fn0 = %{next}(i64) -> i64 tail
             block0(v0: i64):
                brif v0, block1, block2
             block1:
                v1 = iconst.i64 -1
                v2 = iadd v0, v1
                return_call fn0(v2)
             block2:
                return v0
             }}"
        )
    };
    let calling = |name: &str, callee: &str| {
        format!(
            "function %{name}(i64) -> i64 system_v {{
                fn0 = %{callee}(i64) -> i64 system_v
             block0(v0: i64):
                v1 = call fn0(v0)
                return v1
             }}"
        )
    };
    let catching = |name: &str, callee: &str| {
        format!(
            "function %{name}(i64) -> i64 system_v {{
                sig0 = (i64) -> i64 system_v
                fn0 = %{callee}(i64) -> i64 system_v
             block0(v0: i64):
                try_call fn0(v0), sig0, block1(ret0), [ tag1: block2(exn0, exn1) ]
             block1(v1: i64):
                return v1
             block2(v2: i64, v3: i64):
                return v2
             }}"
        )
    };
    let mut texts = vec![
        identity("identity", "system_v"),
        identity("identity_tail", "tail"),
        looping("loop_gate", "fn0 = %identity(i64) -> i64 system_v", "", "call fn0(v1)"),
        looping("loop_tail", "fn0 = %identity_tail(i64) -> i64 tail", "", "call fn0(v1)"),
        looping(
            "loop_entry",
            "sig0 = (i64) -> i64 system_v
             fn0 = %identity(i64) -> i64 system_v",
            "v8 = func_addr.i64 fn0",
            "call_indirect sig0, v8(v1)",
        ),
        stepping("steps_within", "within_b") + "\n" + &stepping("within_b", "steps_within"),
        stepping("steps_across", "step_b"),
        stepping("step_b", "steps_across"),
        calling("raise", "panic_now"),
        calling("leave_by_throw", "throw_now"),
        catching("catch_throw", "leave_by_throw"),
        catching("catch_call", "identity"),
        calling("leave_by_return", "identity"),
        "function %trap(i64) -> i64 system_v { block0(v0: i64): trap user1 }".to_owned(),
        calling("leave_by_trap", "trap"),
    ];
    let mut last = "raise".to_owned();
    for number in 1..9 {
        let next = format!("raise{number}");
        texts.push(calling(&next, &last));
        last = next;
    }
    texts.push(calling("raise_through", &last));
    texts
}
