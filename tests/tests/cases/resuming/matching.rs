//! Which points are the same, and what happens at those that are not.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use cranelift_codegen::Context;
use cranelift_codegen::ir::Function;
use cranelift_module::{FuncId, Linkage, Module};
use lastout::{
    Engine, Handle, Installed, Live, ResumePoint, ResumePoints, Unit, Version, VersionState,
};
use lastout_tests::moving::{CALLS, asking, calls, install_counted, loop_headers, ty};
use lastout_tests::support::{Door, Drops, wait_until};
use lastout_tests::{builder, call, clif, engine};

const A_WHILE: Duration = Duration::from_secs(60);

/// `(words) -> i64`: counts rounds in the first word for as long as the second is 0, and returns
/// the third, which it has read before, plus `plus`: with what is alive in the loop of type `ty`.
fn holding(ty: &str, plus: i64) -> String {
    let (narrow, widen) = match ty {
        "i64" => ("bor v1, v1".to_owned(), "bor v2, v2".to_owned()),
        ty => (format!("ireduce.{ty} v1"), "sextend.i64 v2".to_owned()),
    };
    format!(
        "function %hold(i64) -> i64 tail {{
         block0(v0: i64):
            v1 = load.i64 v0+16
            v2 = {narrow}
            jump block1
         block1:
            v3 = load.i64 v0
            v4 = iconst.i64 1
            v5 = iadd v3, v4
            store v5, v0
            v6 = load.i64 v0+8
            brif v6, block2, block1
         block2:
            v7 = {widen}
            v8 = iconst.i64 {plus}
            v9 = iadd v7, v8
            return v9
         }}\n"
    )
}

/// Installs a function with one point, of this number, at its only loop.
fn install(engine: &Engine, text: &str, id: u32) -> Installed {
    install_with(engine, text, |func, points| {
        points.block(id, loop_headers(func)[0]);
    })
}

fn install_with(
    engine: &Engine,
    text: &str,
    mark: impl Fn(&Function, &mut ResumePoints),
) -> Installed {
    let mut unit = engine.unit();
    define(&mut unit, text, mark);
    engine.install(unit).unwrap()
}

/// Defines the functions of a text, with the points that `mark` adds, and returns these.
fn define(
    unit: &mut Unit,
    text: &str,
    mark: impl Fn(&Function, &mut ResumePoints),
) -> Vec<ResumePoint> {
    let mut found = Vec::new();
    clif::define_by(unit, text, |unit, id, func| {
        let mut points = ResumePoints::new();
        mark(&func, &mut points);
        let mut context = Context::for_function(func);
        found.extend(unit.define_resumable_function(id, &mut context, &points)?);
        Ok(())
    })
    .unwrap();
    found
}

/// A thread in a loop.
struct Spinning<'scope> {
    words: &'scope [AtomicI64; 3],
    thread: Option<ScopedJoinHandle<'scope, i64>>,
}

/// Also if the test has failed, which waits for the thread.
impl Drop for Spinning<'_> {
    fn drop(&mut self) {
        self.words[1].store(1, Ordering::SeqCst);
    }
}

impl<'scope> Spinning<'scope> {
    fn start(
        scope: &'scope Scope<'scope, '_>,
        engine: &Engine,
        words: &'scope [AtomicI64; 3],
    ) -> Self {
        let handle: Handle<fn(usize) -> i64> = engine.function("hold").unwrap();
        let address = words.as_ptr().expose_provenance();
        let thread = scope.spawn(move || call!(handle, address).unwrap());
        let spinning = Self { words, thread: Some(thread) };
        spinning.go_round();
        spinning
    }

    /// Waits for some rounds to pass.
    fn go_round(&self) {
        let now = self.words[0].load(Ordering::SeqCst);
        wait_until(|| self.words[0].load(Ordering::SeqCst) >= now + 1000);
    }

    fn stop(mut self) -> i64 {
        let thread = self.thread.take().unwrap();
        drop(self);
        thread.join().unwrap()
    }
}

fn words() -> [AtomicI64; 3] {
    [0, 0, 40].map(AtomicI64::new)
}

fn version(installed: &Installed) -> Version {
    installed.version("hold").unwrap().clone()
}

/// How many frames there are in each version that is not freed, oldest first.
fn frames(engine: &Engine) -> Vec<u64> {
    engine.versions("hold").unwrap().iter().map(lastout::VersionInfo::frames).collect()
}

#[test]
fn a_frame_stays_where_the_new_version_has_no_such_point_and_moves_to_one_that_has() {
    for other in [("i64", 8), ("i32", 7)] {
        let engine = engine!();
        let first = version(&install(&engine, &holding("i64", 1), 7));
        let words = words();
        std::thread::scope(|scope| {
            let spinning = Spinning::start(scope, &engine, &words);
            let (ty, id) = other;
            let second = version(&install(&engine, &holding(ty, 2), id));
            spinning.go_round();
            assert_eq!(frames(&engine), [1, 0], "{other:?}");
            assert!(!first.wait_freed(Duration::ZERO));
            let third = version(&install(&engine, &holding("i64", 3), 7));
            assert!(first.wait_freed(A_WHILE));
            assert!(second.wait_freed(Duration::ZERO));
            assert_eq!(frames(&engine), [1]);
            assert_eq!(spinning.stop(), 43);
            assert!(!third.wait_freed(Duration::ZERO));
        });
        assert_eq!(engine.stats().alive(), 1);
    }
}

#[test]
fn a_frame_that_stays_leaves_by_returning() {
    let engine = engine!();
    let first = version(&install(&engine, &holding("i64", 1), 7));
    let words = words();
    std::thread::scope(|scope| {
        let spinning = Spinning::start(scope, &engine, &words);
        engine.remove("hold").unwrap();
        spinning.go_round();
        assert!(!first.wait_freed(Duration::ZERO));
        assert_eq!(spinning.stop(), 41);
    });
    assert!(first.wait_freed(Duration::ZERO));
    assert_eq!(engine.stats().alive(), 0);
}

#[test]
fn values_are_matched_by_their_labels_and_else_by_their_order() {
    // Two values of a type, defined in this order.
    let holding = |first: i32, second: i32, plus: i64| {
        format!(
            "function %hold(i64) -> i64 tail {{
             block0(v0: i64):
                v1 = load.i64 v0+{first}
                v2 = load.i64 v0+{second}
                jump block1
             block1:
                v3 = load.i64 v0
                v4 = iconst.i64 1
                v5 = iadd v3, v4
                store v5, v0
                v6 = load.i64 v0+8
                brif v6, block2, block1
             block2:
                v20 = iconst.i64 1000
                v7 = imul v1, v20
                v21 = iconst.i64 1000000
                v8 = imul v2, v21
                v9 = iadd v7, v8
                v10 = iconst.i64 {plus}
                v11 = iadd v9, v10
                return v11
             }}\n"
        )
    };
    for (labels, expected) in [([1, 2], 40_000_002), ([2, 1], 40_002)] {
        let engine = engine!();
        let mark = |labels: [u32; 2]| {
            move |func: &Function, points: &mut ResumePoints| {
                points.block(7, loop_headers(func)[0]);
                let loads = func.layout.entry_block().unwrap();
                let loads: Vec<_> = func.layout.block_insts(loads).take(2).collect();
                for (load, label) in loads.into_iter().zip(labels) {
                    points.label(label, func.dfg.first_result(load));
                }
            }
        };
        install_with(&engine, &holding(8, 16, 1), mark([1, 2]));
        let words = words();
        std::thread::scope(|scope| {
            let spinning = Spinning::start(scope, &engine, &words);
            let old = engine.versions("hold").unwrap()[0].version.clone();
            install_with(&engine, &holding(16, 8, 2), mark(labels));
            assert!(old.wait_freed(A_WHILE));
            // The first of the old ones was 0, the second 40.
            assert_eq!(spinning.stop(), expected, "{labels:?}");
        });
    }
}

/// Installs a function, and what converts for it.
fn install_converting(
    engine: &Engine,
    converter: &str,
    text: &str,
    mark: impl Fn(&Function, &mut ResumePoints, FuncId),
) -> (Installed, Vec<ResumePoint>) {
    let mut unit = engine.unit();
    let converter = cranelift_reader::parse_functions(converter).unwrap().remove(0);
    let id = unit.declare_function("convert", Linkage::Local, &converter.signature).unwrap();
    let mut converter = Context::for_function(converter);
    clif::resolve_callees(&mut unit, &mut converter.func).unwrap();
    unit.define_function(id, &mut converter).unwrap();
    let found = define(&mut unit, text, |func, points| mark(func, points, id));
    (engine.install(unit).unwrap(), found)
}

fn live<const N: usize>(types: [&str; N]) -> [Live; N] {
    types.map(|name| Live { label: None, ty: ty(name) })
}

#[test]
fn a_converter_makes_what_is_alive_of_what_was() {
    let engine = engine!();
    let first = version(&install(&engine, &holding("i32", 1), 7));
    let words = words();
    std::thread::scope(|scope| {
        let spinning = Spinning::start(scope, &engine, &words);
        let convert = "function %convert(i64, i32) -> i64, i64 tail {
             block0(v0: i64, v1: i32):
                v2 = sextend.i64 v1
                v4 = iconst.i64 10
                v3 = imul v2, v4
                return v0, v3
             }";
        let (_, points) =
            install_converting(&engine, convert, &holding("i64", 2), |func, points, convert| {
                points.block(7, loop_headers(func)[0]).convert(7, &live(["i64", "i32"]), convert);
            });
        assert_eq!(points[0].live.len(), 2);
        assert!(first.wait_freed(A_WHILE));
        assert_eq!(spinning.stop(), 402);
    });
}

/// [`asking`], but that it makes an `i32` of the argument before it calls back.
fn asking_narrow(plus: i64) -> String {
    format!(
        "function %ask(i64, i64) -> i64 tail {{
            fn0 = %call_back(i64, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            v2 = ireduce.i32 v1
            v3 = call fn0(v0, v1)
            v4 = iconst.i64 {plus}
            v5 = sextend.i64 v2
            v6 = iadd v3, v4
            v7 = iadd v6, v5
            return v7
         }}\n"
    )
}

#[test]
fn a_converter_is_called_when_a_call_has_returned() {
    // Multiplies, after it has called the host, which may panic.
    let convert = "function %convert(i64) -> i32 tail {
            fn0 = %look() system_v
         block0(v0: i64):
            call fn0()
            v1 = ireduce.i32 v0
            v2 = iconst.i32 3
            v3 = imul v1, v2
            return v3
         }";
    for panics in [false, true] {
        let look: extern "C-unwind" fn() = if panics { panicking } else { looking };
        let engine = builder!().host_function("look", look).build().unwrap();
        let drops = Drops::new();
        let door = Door::default();
        let callback = door.callback();
        let address = callback.address();
        install_counted(&engine, &asking(100), &drops);
        let handle = engine.function::<fn(usize, i64) -> i64>("ask").unwrap();
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                catch_unwind(AssertUnwindSafe(|| call!(handle, address, 7).unwrap())).ok()
            });
            door.arrived();
            let (installed, points) =
                install_converting(&engine, convert, &asking_narrow(200), |func, points, id| {
                    points.call(CALLS, calls(func)[0]).convert(CALLS, &live(["i64"]), id);
                });
            assert_eq!(points[0].live, live(["i32"]));
            assert_eq!(drops.count(), 1);
            door.open();
            assert_eq!(asking.join().unwrap(), (!panics).then_some(7 + 21 + 200));
            // Nobody is left in what has converted.
            let second = installed.version("ask").unwrap().clone();
            engine.remove("ask").unwrap();
            assert_eq!(second.state(), VersionState::Freed);
        });
        assert_eq!(engine.stats().alive(), 0);
    }
}

extern "C-unwind" fn looking() {}

extern "C-unwind" fn panicking() {
    resume_unwind(Box::new(()));
}
