//! Every way in which Cranelift has code trap.

use std::sync::atomic::AtomicU64;

use lastout::cranelift_codegen::ir::TrapCode;
use lastout::{CallError, Part, TrapCause};
use lastout_tests::layers::{KINDS, Text, engines, frames};
use lastout_tests::registers::keeps;
use lastout_tests::support::{Drops, calls, install};
use lastout_tests::{builder, call};

use super::trap_in;

/// A way to trap.
struct Way {
    /// What takes `v1`, of type `i64`, and traps or gives `v2`, an `i64`.
    instructions: &'static str,
    /// What it does not trap with.
    fine: i64,
    /// What it traps with, and the code.
    traps: &'static [(i64, TrapCode)],
}

const ZERO: TrapCode = TrapCode::INTEGER_DIVISION_BY_ZERO;
const OVERFLOW: TrapCode = TrapCode::INTEGER_OVERFLOW;
const NO_INTEGER: TrapCode = TrapCode::BAD_CONVERSION_TO_INTEGER;
const OUTSIDE: TrapCode = TrapCode::HEAP_OUT_OF_BOUNDS;
const MINE: TrapCode = TrapCode::unwrap_user(9);

/// An address that cannot be one on x86-64, for which the processor has another exception than
/// for those that nothing is mapped at.
const NO_ADDRESS: i64 = 0x1234_5678_9abc_def0;

static WORD: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn ways() -> Vec<Way> {
    let word = std::ptr::from_ref(&WORD).expose_provenance() as i64;
    let way = |instructions, fine, traps| Way { instructions, fine, traps };
    vec![
        way("trapnz v1, user9\nv2 = iconst.i64 1", 0, &[(1, MINE), (-1, MINE)]),
        way("trapz v1, user9\nv2 = iconst.i64 1", 1, &[(0, MINE)]),
        // A table with four entries.
        way(
            "v3 = iconst.i64 4\nv4 = icmp uge v1, v3\ntrapnz v4, user9\nv2 = iconst.i64 1",
            3,
            &[(4, MINE), (-1, MINE)],
        ),
        way("v3 = iconst.i64 7\nv2 = sdiv v3, v1", 2, &[(0, ZERO)]),
        way("v3 = iconst.i64 7\nv2 = udiv v3, v1", 2, &[(0, ZERO)]),
        way("v3 = iconst.i64 7\nv2 = srem v3, v1", 2, &[(0, ZERO)]),
        way("v3 = iconst.i64 7\nv2 = urem v3, v1", 2, &[(0, ZERO)]),
        way(
            "v3 = ireduce.i8 v1\nv4 = iconst.i8 100\nv5 = sdiv v4, v3\nv2 = sextend.i64 v5",
            2,
            &[(0, ZERO), (256, ZERO)],
        ),
        way(
            "v3 = ireduce.i32 v1\nv4 = iconst.i32 0x8000_0000\nv5 = sdiv v4, v3\nv2 = sextend.i64 v5",
            2,
            &[(0, ZERO), (-1, OVERFLOW)],
        ),
        way(
            "v3 = iconst.i64 0x8000_0000_0000_0000\nv2 = sdiv v3, v1",
            2,
            &[(0, ZERO), (-1, OVERFLOW)],
        ),
        way("v3 = iconst.i64 -1\nv2 = uadd_overflow_trap v1, v3, user9", 0, &[(1, MINE)]),
        // The bits of a float.
        way(
            "v3 = bitcast.f64 little v1\nv2 = fcvt_to_sint.i64 v3",
            0,
            &[(0x7ff8_0000_0000_0000, NO_INTEGER), (0x7fef_ffff_ffff_ffff, OVERFLOW)],
        ),
        way(
            "v3 = bitcast.f64 little v1\nv4 = fcvt_to_uint.i32 v3\nv2 = uextend.i64 v4",
            0,
            &[(0x7ff8_0000_0000_0000, NO_INTEGER), (-0x4010_0000_0000_0000, OVERFLOW)],
        ),
        // Memory.
        way("v2 = load.i64 v1", word, &[(0, OUTSIDE), (NO_ADDRESS, OUTSIDE)]),
        way("v2 = load.i64 user9 v1+8", word, &[(0, MINE), (-8, MINE)]),
        way("v3 = load.i8x16 v1\nv2 = extractlane.i64x2 v4, 0", word, &[(0, OUTSIDE)]),
        way("v3 = load.i64 v1\nv2 = iadd v3, v1", word, &[(0, OUTSIDE)]),
        way("v2 = uload8.i64 v1", word, &[(0, OUTSIDE), (NO_ADDRESS, OUTSIDE)]),
        way("v2 = iconst.i64 0\nstore v2, v1", word, &[(0, OUTSIDE), (NO_ADDRESS, OUTSIDE)]),
        way("v2 = iconst.i64 0\nv3 = load.i32 v1\nstore v3, v1+4", word, &[(0, OUTSIDE)]),
        way("v3 = iconst.i64 0\nv2 = atomic_rmw.i64 add v1, v3", word, &[(0, OUTSIDE)]),
        way("v3 = iconst.i64 0\nv2 = atomic_cas.i64 v1, v3, v3", word, &[(0, OUTSIDE)]),
        way("v2 = atomic_load.i64 v1", word, &[(0, OUTSIDE)]),
    ]
}

#[test]
fn each_trap_has_its_code_in_functions_of_every_convention() {
    for (name, engine) in engines(|| builder!().traps(true)) {
        for (number, way) in ways().into_iter().enumerate() {
            let instructions = way.instructions.replace(
                "\nv2 = extractlane.i64x2 v4",
                "\nv4 = bitcast.i64x2 little v3\nv2 = extractlane v4",
            );
            for convention in ["system_v", "tail", "fast", "windows_fastcall"] {
                for live in [0, 8] {
                    let mut text = Text::default();
                    text.hold(live);
                    let hold = text.take();
                    text.check();
                    let check = text.take();
                    install(
                        &engine,
                        &format!(
                            "function %f(i64, i64) -> i64 {convention} {{
                             block0(v0: i64, v1: i64):
                                {hold}
                                {instructions}
                                {check}
                                return v2
                             }}"
                        ),
                    );
                    let f = calls(&engine, "f");
                    let what = format!("{name}, {convention}, {live} live, way {number}");
                    for (argument, code) in way.traps {
                        let result = keeps(|| call!(f, 0, *argument));
                        assert_eq!(trap_in(result, "f"), Some(*code), "{what}: {argument:#x}");
                        assert_eq!(frames(&engine, &["f"]), 0, "{what}");
                    }
                    assert!(call!(f, 0, way.fine).is_ok(), "{what}: {}", way.instructions);
                    drop(f);
                    engine.remove("f").unwrap();
                }
            }
        }
    }
}

#[test]
fn a_trap_passes_frames_of_every_kind() {
    for (name, engine) in engines(|| builder!().traps(true)) {
        for live in [0, 8] {
            install(&engine, &super::trapping_at_seven("f"));
            let mut below = "f";
            for (height, kind) in (1..).zip(&KINDS) {
                kind.install(&engine, kind.name, below, live, &Drops::new());
                below = kind.name;
                let top = calls(&engine, below);
                let result = keeps(|| call!(top, 0, 7));
                assert_eq!(trap_in(result, "f"), Some(super::SEVEN), "{name}, {height} layers");
                assert_eq!(keeps(|| call!(top, 0, 5)), Ok(5 + height), "{name}");
                let inner = format!("{}_inner", kind.name);
                assert_eq!(frames(&engine, &["f", kind.name, &inner]), 0, "{name}");
            }
        }
    }
}

#[test]
fn a_function_whose_stack_limit_is_too_low_traps_before_it_has_saved_anything() {
    let mut text = Text::default();
    text.hold(8);
    let hold = text.take();
    text.check();
    let check = text.take();
    let limited = format!(
        "function %limited(i64 vmctx, i64) -> i64 system_v {{
            gv0 = vmctx
            gv1 = load.i64 notrap aligned gv0
            stack_limit = gv1
            fn0 = %limited(i64 vmctx, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            {hold}
            brif v1, block1, block2
         block1:
            v2 = iconst.i64 -1
            v3 = iadd v1, v2
            v4 = call fn0(v0, v3)
            {check}
            v5 = iconst.i64 1
            v6 = iadd v4, v5
            return v6
         block2:
            return v1
         }}"
    );
    for (name, engine) in engines(|| builder!().traps(true)) {
        install(&engine, &limited);
        let limited = calls(&engine, "limited");
        let run = |limit: usize, deep| {
            let limit = std::ptr::from_ref(&limit).expose_provenance();
            keeps(|| call!(limited, limit, deep))
        };
        assert_eq!(run(0, 100), Ok(100), "{name}");
        let result = run(isize::MAX as usize, 0);
        assert_eq!(trap_in(result, "limited"), Some(TrapCode::STACK_OVERFLOW), "{name}");
        // Somewhere on the way.
        let here = std::ptr::from_ref(&engine).expose_provenance();
        let result = run(here - (64 << 10), 100_000);
        assert_eq!(trap_in(result, "limited"), Some(TrapCode::STACK_OVERFLOW), "{name}");
        assert_eq!(frames(&engine, &["limited"]), 0);
    }
}

#[test]
fn an_error_says_where() {
    let engine = builder!().traps(true).build().unwrap();
    install(&engine, &super::trapping_at_seven("g"));
    install(&engine, &super::trapping_at_seven("f"));
    let f = calls(&engine, "f");
    let Err(CallError::Trap(trap)) = call!(f, 0, 7) else { panic!("no trap") };
    assert_eq!(trap.cause, TrapCause::Code(super::SEVEN));
    let Part::Body { function, version } = &trap.location.part else { panic!("{trap}") };
    assert_eq!((&**function, *version), ("f", 2));
    let expected = format!("trap in `f`#2+{:#x}: user7", trap.location.offset);
    assert_eq!(trap.to_string(), expected);
    assert_eq!(CallError::Trap(trap).to_string(), expected);
}
