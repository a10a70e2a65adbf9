//! Callers that wait have their arguments, and what they keep in registers, as they were.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use lastout_tests::support::{OnDrop, step};

use super::*;

/// How many integers, floats and vectors a function takes.
const EACH: usize = 12;

/// Functions `f` of a calling convention, which mixes its arguments into a number, and `g`, which
/// calls it with arguments that it makes of its own, and afterwards uses all of those once more.
fn mixing(convention: &str, seed: i64) -> [String; 2] {
    let params = ["i64", "f64", "i64x2"].map(|ty| [ty; EACH].join(", ")).join(", ");
    let signature = format!("({params}) -> i64, f64 {convention}");
    let mut f = format!("function %f{signature} {{\nblock0(");
    let names: Vec<_> = (0..3 * EACH).map(|index| format!("v{index}")).collect();
    for (index, name) in names.iter().enumerate() {
        let ty = ["i64", "f64", "i64x2"][index / EACH];
        write!(f, "{}{name}: {ty}", if index > 0 { ", " } else { "" }).unwrap();
    }
    f += "):\nv5000 = iconst.i64 31\n";
    let mut next = 3 * EACH;
    let mut mix = |text: &mut String, mut sum: String| {
        for (index, name) in names.iter().enumerate() {
            let word = match index / EACH {
                0 => name.clone(),
                1 => {
                    writeln!(text, "v{next} = bitcast.i64 {name}").unwrap();
                    next += 1;
                    format!("v{}", next - 1)
                }
                _ => {
                    writeln!(text, "v{next} = extractlane.i64x2 {name}, 1").unwrap();
                    next += 1;
                    format!("v{}", next - 1)
                }
            };
            writeln!(text, "v{next} = imul {sum}, v5000").unwrap();
            writeln!(text, "v{} = bxor v{next}, {word}", next + 1).unwrap();
            sum = format!("v{}", next + 1);
            next += 2;
        }
        sum
    };
    let sum = mix(&mut f, "v0".to_owned());
    writeln!(f, "v1001 = iconst.i64 {seed}\nv1000 = iadd {sum}, v1001").unwrap();
    writeln!(f, "return v1000, v{EACH}\n}}").unwrap();

    let mut g = format!("function %g(i64) -> i64 system_v {{\nfn0 = %f{signature}\n");
    g += "block0(v2000: i64):\nv5000 = iconst.i64 31\n";
    for (index, name) in names.iter().enumerate() {
        let constant = (index as i64 + 3) * 0x0123_4567_89ab;
        let (own, sum) = (3000 + index, if index < EACH { index } else { 3500 + index });
        writeln!(g, "v{own} = iconst.i64 {constant}\nv{sum} = iadd v2000, v{own}").unwrap();
        match index / EACH {
            0 => {}
            1 => writeln!(g, "{name} = bitcast.f64 v{sum}").unwrap(),
            _ => writeln!(g, "{name} = splat.i64x2 v{sum}").unwrap(),
        }
    }
    writeln!(g, "v4000, v4001 = call fn0({})", names.join(", ")).unwrap();
    let sum = mix(&mut g, "v2000".to_owned());
    writeln!(g, "v4002 = bitcast.i64 v4001\nv4003 = bxor v4000, v4002").unwrap();
    writeln!(g, "v4004 = imul {sum}, v5000\nv4005 = iadd v4003, v4004").unwrap();
    g += "return v4005\n}\n";
    [f, g]
}

fn waiting(convention: &str, build: impl Fn() -> Engine) {
    let engine = build();
    let expected = [0, 1].map(|seed| {
        let [f, g] = mixing(convention, seed);
        install_roomy(&engine, &f);
        install(&engine, &g);
        let g = engine.function::<fn(i64) -> i64>("g").unwrap();
        call!(g, 9).unwrap()
    });
    assert_ne!(expected[0], expected[1]);
    let g = engine.function::<fn(i64) -> i64>("g").unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = OnDrop(|| over.store(true, Ordering::Relaxed));
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let result = call!(g, 9).unwrap();
                    assert!(expected.contains(&result), "{convention}");
                }
            });
        }
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end {
            for seed in [0, 1] {
                replace(&engine, &mixing(convention, seed)[0]);
                assert_eq!(call!(g, 9).unwrap(), expected[seed as usize], "{convention}");
            }
        }
    });
}

#[test]
fn of_every_calling_convention() {
    for convention in ["system_v", "fast", "tail", "windows_fastcall"] {
        waiting(convention, || engine!());
    }
}

#[test]
fn with_atomic_counts_and_hooks() {
    for convention in ["system_v", "tail"] {
        waiting(convention, || builder!().counting(Counting::Atomic).build().unwrap());
        waiting(convention, || builder!().checked(true).interleave(step).build().unwrap());
    }
}
