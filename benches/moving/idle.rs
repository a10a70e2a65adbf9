//! What points cost while no frame moves at them.

use std::hint::black_box;
use std::time::Instant;

use lastout::cranelift_codegen::ir::Function;
use lastout::{Engine, Handle, ResumePoints};
use lastout_tests::measure::median;
use lastout_tests::moving;
use serde_json::json;

use crate::{Error, Figures, rounded};

/// How many times every way is timed, in turns.
const ROUNDS: usize = 60;

/// How many variants there are of each function, whose loops lie differently.
const PLACES: usize = 8;

/// How long a body is to take, in nanoseconds; the first is as short as it gets.
const BODIES: [f64; 4] = [0.0, 1.0, 5.0, 20.0];

/// How many rounds a loop does each time.
const TIMES: i64 = 20_000;

type Number = fn(i64) -> i64;

/// One function with and without points, in all its places.
struct Pair {
    plain: Vec<Handle<Number>>,
    marked: Vec<Handle<Number>>,
}

/// Nanoseconds a round: plain, marked, and the ratio.
struct Cost {
    plain: f64,
    marked: f64,
    ratio: f64,
}

impl Pair {
    fn install(engine: &Engine, text: impl Fn(&str, usize) -> String) -> Result<Self, Error> {
        let install = |kind: &str, points: fn(&Function) -> ResumePoints| {
            let handles = (0..PLACES).map(|place| {
                let name = format!("{kind}_{place}_{}", engine.stats().functions);
                let mut unit = engine.unit();
                moving::define(&mut unit, &text(&name, place), points)?;
                engine.install(unit)?;
                Ok(engine.function::<Number>(&name)?)
            });
            handles.collect::<Result<Vec<_>, Error>>()
        };
        let plain = install("plain", |_| ResumePoints::new())?;
        Ok(Self { plain, marked: install("marked", moving::all_points)? })
    }

    fn time(handle: &Handle<Number>) -> f64 {
        let began = Instant::now();
        // SAFETY: the functions are sound for every argument.
        let _ = black_box(unsafe { handle.call(black_box(TIMES)) });
        began.elapsed().as_nanos() as f64 / TIMES as f64
    }

    fn measure(&self) -> Cost {
        let pairs = || self.plain.iter().zip(&self.marked);
        let mut rounds = Vec::with_capacity(ROUNDS * PLACES);
        for round in 0..=ROUNDS {
            for (plain, marked) in pairs() {
                // Each goes first as often as the other.
                let times = if round % 2 == 0 {
                    let plain = Self::time(plain);
                    [plain, Self::time(marked)]
                } else {
                    let marked = Self::time(marked);
                    [Self::time(plain), marked]
                };
                // The first round is for warming up.
                if round > 0 {
                    rounds.push(times);
                }
            }
        }
        let all = |figure: fn(&[f64; 2]) -> f64| median(rounds.iter().map(figure).collect());
        Cost {
            plain: all(|[plain, _]| *plain),
            marked: all(|[_, marked]| *marked),
            ratio: all(|[plain, marked]| marked / plain),
        }
    }
}

/// A loop with a body of so many steps, each of which waits for the one before.
fn looping(name: &str, place: usize, steps: usize) -> String {
    // What comes before the loop has it lie somewhere else.
    let before: String =
        (0..place).map(|index| format!("v{} = iadd v{}, v0\n", 901 + index, 900 + index)).collect();
    let mut body = String::new();
    let mut last = 6;
    for step in 0..steps {
        let [shifted, next] = [10 + 2 * step, 11 + 2 * step];
        body += &format!("v{shifted} = ushr v{last}, v2\nv{next} = iadd v{shifted}, v{last}\n");
        last = next;
    }
    format!(
        "function %{name}(i64) -> i64 tail {{
         block0(v0: i64):
            v1 = iconst.i64 -1
            v2 = iconst.i64 7
            v900 = iadd v0, v2
            {before}
            jump block1(v0, v{})
         block1(v5: i64, v6: i64):
            {body}
            v7 = iadd v5, v1
            brif v7, block1(v7, v{last}), block2
         block2:
            return v{last}
         }}",
        900 + place
    )
}

/// A loop that calls a function of another unit in each round.
fn calling(name: &str, place: usize) -> String {
    let before: String =
        (0..place).map(|index| format!("v{} = iadd v{}, v0\n", 901 + index, 900 + index)).collect();
    format!(
        "function %{name}(i64) -> i64 tail {{
            fn0 = %callee(i64) -> i64 tail
         block0(v0: i64):
            v1 = iconst.i64 -1
            v900 = iadd v0, v1
            {before}
            jump block1(v0, v{})
         block1(v5: i64, v6: i64):
            v8 = call fn0(v6)
            v7 = iadd v5, v1
            brif v7, block1(v7, v8), block2
         block2:
            return v8
         }}",
        900 + place
    )
}

/// How many steps take so long.
fn steps_of(engine: &Engine, nanoseconds: f64) -> Result<usize, Error> {
    if nanoseconds == 0.0 {
        return Ok(0);
    }
    let long = 200;
    let pair = Pair::install(engine, |name, place| looping(name, place, long))?;
    let took = (0..ROUNDS).map(|_| Pair::time(&pair.plain[0])).fold(f64::INFINITY, f64::min);
    Ok(((nanoseconds / took * long as f64).round() as usize).max(1))
}

pub(crate) fn measure() -> Result<Figures, Error> {
    let engine = Engine::new()?;
    println!("\nns a round of a loop, {ROUNDS} times in {PLACES} places; and the ratio");
    println!("{:<34}{:>12}{:>12}{:>10}", "", "unmarked", "marked", "");
    let mut figures = Figures::new();
    let mut report = |name: String, cost: Cost| {
        let Cost { plain, marked, ratio } = cost;
        println!("{name:<34}{plain:>12.3}{marked:>12.3}{ratio:>9.3}x");
        let figure = json!({
            "unmarked_ns": rounded(plain), "marked_ns": rounded(marked), "ratio": rounded(ratio),
        });
        figures.insert(name, figure);
    };
    for body in BODIES {
        let steps = steps_of(&engine, body)?;
        let pair = Pair::install(&engine, |name, place| looping(name, place, steps))?;
        report(format!("a loop, body of {body} ns"), pair.measure());
    }
    let mut unit = engine.unit();
    let callee = "function %callee(i64) -> i64 tail { block0(v0: i64): return v0 }";
    moving::define(&mut unit, callee, |_| ResumePoints::new())?;
    engine.install(unit)?;
    let pair = Pair::install(&engine, calling)?;
    report("a call in a loop, both marked".to_owned(), pair.measure());
    Ok(figures)
}
