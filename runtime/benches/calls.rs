//! What a call costs: ratios to a bare slot call, which is what leaks when it is replaced.
//!
//! ```text
//! cargo bench -p lastout --bench calls [-- --json]
//! ```
//!
//! Every way is timed in every round, one after the other, so that a machine whose speed drifts
//! treats all alike; the figures are medians over the rounds, and the ratios medians of the ratios
//! within a round.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, default_libcall_names};
use lastout::{Engine, Handle};
use lastout_tests::clif;
use lastout_tests::machine::machine;
use serde_json::{Value, json};

/// Rounds, and the calls of each way in each.
const ROUNDS: usize = 41;
const CALLS: i64 = 400_000;

/// The bodies that are measured, by what they are to take, in nanoseconds.
const BODIES: [u32; 2] = [0, 5];

/// The ways in which the same callee is called, in the order of the table.
const WAYS: [(&str, &str); 5] = [
    ("slot", "through a pointer in memory: no counting, never freed"),
    ("direct", "direct, in a module of cranelift-jit"),
    ("within_unit", "direct, within a unit of lastout"),
    ("gate", "from another unit, through slot and gate"),
    ("handle", "from Rust, through a typed handle"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let json = std::env::args().any(|arg| arg == "--json");
    let per_step = time_of_a_step()?;
    println!("{}, {ROUNDS} rounds of {CALLS} calls", machine());
    println!("ns per call, and in brackets the ratio to a slot call\n");
    println!("{:12} {:>16} {:>16}", "", "empty body", "body of 5 ns");
    let mut measured = BTreeMap::new();
    for body in BODIES {
        let steps = (f64::from(body) / per_step).round() as usize;
        measured.insert(body, measure(&Subject::new(steps)?));
    }
    for (way, what) in WAYS {
        print!("{way:12}");
        for body in BODIES {
            let [ns, ratio] = measured[&body][way];
            print!(" {ns:8.2} ({ratio:4.2}x)");
        }
        println!("   {what}");
    }
    if json {
        println!("{}", report(&measured));
    }
    Ok(())
}

/// Nanoseconds a call, by way.
type Round = BTreeMap<&'static str, f64>;

/// Medians over the rounds, by way: nanoseconds a call, and the ratio to a slot call.
type Measured = BTreeMap<&'static str, [f64; 2]>;

fn report(measured: &BTreeMap<u32, Measured>) -> Value {
    let of = |index: usize| -> Value {
        let bodies = measured.iter().map(|(body, ways)| {
            let ways = ways.iter().map(|(way, figures)| (way.to_string(), json!(figures[index])));
            (body.to_string(), Value::Object(ways.collect()))
        });
        Value::Object(bodies.collect())
    };
    json!({ "machine": machine(), "ns": of(0), "ratio_to_slot": of(1) })
}

/// The same callee, and a loop around each way of calling it.
struct Subject {
    loops: Vec<(&'static str, Loop)>,
    handle: Handle<fn(i64) -> i64>,
    _module: JITModule,
    _engine: Engine,
}

/// Calls the callee as often as the first argument says, each time with what it returned last.
enum Loop {
    Baseline(extern "C" fn(i64, i64) -> i64),
    Lastout(Handle<fn(i64, i64) -> i64>),
}

impl Loop {
    /// A loop that does `load` and then makes `call` with what the last one returned, `v3`.
    fn text(declaration: &str, load: &str, call: &str) -> String {
        format!(
            "function %loop(i64, i64) -> i64 system_v {{
                {declaration}
            block0(v0: i64, v1: i64):
                jump block1(v0, v1)
            block1(v2: i64, v3: i64):
                {load}
                v4 = {call}
                v5 = iconst.i64 -1
                v6 = iadd v2, v5
                brif v6, block1(v6, v4), block2
            block2:
                return v4
            }}
            "
        )
    }

    fn run(&self, calls: i64) -> i64 {
        match self {
            Self::Baseline(function) => function(calls, 1),
            // SAFETY: the loops are sound for all arguments.
            Self::Lastout(handle) => unsafe { handle.call(calls, 1) }.expect("nothing is removed"),
        }
    }
}

impl Subject {
    fn new(steps: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let callee = callee(steps);
        let direct = Loop::text("fn0 = colocated %callee(i64) -> i64 system_v", "", "call fn0(v3)");

        // The slot of the bare slot call, at an address that the text can name.
        let slot: &'static mut usize = Box::leak(Box::new(0));
        let address = std::ptr::from_mut(slot).expose_provenance();
        let load = format!("v8 = iconst.i64 {address}\nv9 = load.i64 notrap aligned v8");
        let through_slot =
            Loop::text("sig0 = (i64) -> i64 system_v", &load, "call_indirect sig0, v9(v3)");
        let flags = [("opt_level", "speed")];
        let mut module = JITModule::new(JITBuilder::with_flags(&flags, default_libcall_names())?);
        let text = format!("{callee}\n{direct}\n{}", through_slot.replace("%loop", "%slot_loop"));
        let ids = clif::define(&mut module, &text)?;
        module.finalize_definitions()?;
        *slot = module.get_finalized_function(ids[0]).expose_provenance();
        let baseline = |id: FuncId| {
            let address = module.get_finalized_function(id);
            // SAFETY: the loops were compiled with this signature.
            Loop::Baseline(unsafe {
                std::mem::transmute::<*const u8, extern "C" fn(i64, i64) -> i64>(address)
            })
        };
        let (direct_loop, slot_loop) = (baseline(ids[1]), baseline(ids[2]));

        let engine = Engine::new()?;
        let install = |text: &str| -> Result<(), Box<dyn std::error::Error>> {
            let mut unit = engine.unit();
            clif::define(&mut unit, text)?;
            engine.install(unit)?;
            Ok(())
        };
        let within = direct.replace("%loop", "%within").replace("%callee", "%fixed");
        install(&format!("{}\n{within}", callee.replace("%callee", "%fixed")))?;
        install(&callee)?;
        install(&direct.replace("colocated ", "").replace("%loop", "%gate"))?;
        let lastout = |name| Ok::<_, lastout::Error>(Loop::Lastout(engine.function(name)?));
        let loops = vec![
            ("slot", slot_loop),
            ("direct", direct_loop),
            ("within_unit", lastout("within")?),
            ("gate", lastout("gate")?),
        ];
        let handle = engine.function("callee")?;
        Ok(Self { loops, handle, _module: module, _engine: engine })
    }

    /// Times every way once, in nanoseconds a call.
    fn round(&self) -> Round {
        let mut times = BTreeMap::new();
        for (way, subject) in &self.loops {
            times.insert(*way, time(|| subject.run(CALLS)));
        }
        let from_rust = || {
            let mut value = 1;
            for _ in 0..CALLS {
                // SAFETY: the callee is sound for all arguments.
                value = unsafe { self.handle.call(value) }.expect("nothing is removed");
            }
            value
        };
        times.insert("handle", time(from_rust));
        times
    }
}

fn time(run: impl FnOnce() -> i64) -> f64 {
    let began = Instant::now();
    black_box(run());
    began.elapsed().as_nanos() as f64 / CALLS as f64
}

fn measure(subject: &Subject) -> Measured {
    subject.round();
    let rounds: Vec<Round> = (0..ROUNDS).map(|_| subject.round()).collect();
    let of = |way| {
        let ns = rounds.iter().map(|round| round[way]);
        let ratios = rounds.iter().map(|round| round[way] / round["slot"]);
        [median(ns.collect()), median(ratios.collect())]
    };
    WAYS.map(|(way, _)| (way, of(way))).into()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How long one step of a body takes, from bodies that are long enough to tell.
fn time_of_a_step() -> Result<f64, Box<dyn std::error::Error>> {
    const STEPS: [usize; 2] = [32, 96];
    let mut fastest = [f64::INFINITY; 2];
    let subjects = [Subject::new(STEPS[0])?, Subject::new(STEPS[1])?];
    for _ in 0..ROUNDS / 4 {
        for (fastest, subject) in fastest.iter_mut().zip(&subjects) {
            let (_, slot) = &subject.loops[0];
            *fastest = fastest.min(time(|| slot.run(CALLS)));
        }
    }
    Ok((fastest[1] - fastest[0]) / (STEPS[1] - STEPS[0]) as f64)
}

/// A function of so many steps, each of which waits for the one before and none of which can be
/// folded into it.
fn callee(steps: usize) -> String {
    let mut text = "function %callee(i64) -> i64 system_v {
        block0(v0: i64):
            v1 = iconst.i64 1
            v2 = iadd v0, v1
            v3 = iconst.i64 7
        "
    .to_owned();
    let mut last = 2;
    for step in 0..steps {
        let [shifted, next] = [10 + 2 * step, 11 + 2 * step];
        text += &format!("v{shifted} = ushr v{last}, v3\nv{next} = iadd v{shifted}, v{last}\n");
        last = next;
    }
    text + &format!("return v{last}\n}}\n")
}
