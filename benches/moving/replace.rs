//! How long it takes from the beginning of a replacement until the new version runs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_utils::Backoff;
use lastout::cranelift_codegen::ir::Function;
use lastout::{Dispatch, Engine, ResumePoints, Unit};
use lastout_tests::measure::median;
use lastout_tests::moving;
use serde_json::json;

use crate::{Error, Figures, at_loops, looping, rounded};

/// How many times each is replaced.
const TIMES: i64 = 400;

/// One way of replacing a function that is running.
struct Technique {
    name: &'static str,
    dispatch: Dispatch,
    /// The function `work(i64)`, whose versions tell `tick` their numbers.
    text: fn(i64) -> String,
    points: fn(&Function) -> ResumePoints,
    install: fn(&Engine, Unit) -> Result<(), Error>,
    /// Whether the thread is held in a call until the version is installed.
    suspended: bool,
}

/// Called once by the function for each time that it goes round.
fn calls(version: i64) -> String {
    format!(
        "function %work(i64) -> i64 tail {{
            fn0 = %tick(i64) -> i64 system_v
         block0(v0: i64):
            v1 = iconst.i64 {version}
            v2 = call fn0(v1)
            return v2
         }}"
    )
}

/// Waits in a call, and then goes round once.
fn waits(version: i64) -> String {
    format!(
        "function %work(i64) -> i64 tail {{
            fn0 = %hold() -> i64 system_v
            fn1 = %tick(i64) -> i64 system_v
         block0(v0: i64):
            v1 = call fn0()
            v2 = iconst.i64 {version}
            v3 = call fn1(v2)
            return v3
         }}"
    )
}

fn install(engine: &Engine, unit: Unit) -> Result<(), Error> {
    engine.install(unit)?;
    Ok(())
}

/// Writes the new version over the old, once no thread is inside.
fn in_place(engine: &Engine, unit: Unit) -> Result<(), Error> {
    engine.replace_in_place(unit, Duration::from_secs(10))?;
    Ok(())
}

fn unmarked(_: &Function) -> ResumePoints {
    ResumePoints::new()
}

/// At the first call only.
fn at_call(func: &Function) -> ResumePoints {
    let mut points = ResumePoints::new();
    points.call(moving::CALLS, moving::calls(func)[0]);
    points
}

const TECHNIQUES: [Technique; 5] = [
    Technique {
        name: "trampoline: a gate by slot",
        dispatch: Dispatch::Slot,
        text: calls,
        points: unmarked,
        install,
        suspended: false,
    },
    Technique {
        name: "patched call sites",
        dispatch: Dispatch::PatchedSites,
        text: calls,
        points: unmarked,
        install,
        suspended: false,
    },
    Technique {
        name: "safe point: in place",
        dispatch: Dispatch::Slot,
        text: calls,
        points: unmarked,
        install: in_place,
        suspended: false,
    },
    Technique {
        name: "a loop that moves",
        dispatch: Dispatch::Slot,
        text: looping,
        points: at_loops,
        install,
        suspended: false,
    },
    Technique {
        name: "a suspended frame that moves",
        dispatch: Dispatch::Slot,
        text: waits,
        points: at_call,
        install,
        suspended: true,
    },
];

/// What the thread has seen last.
#[derive(Clone, Copy)]
struct Seen {
    version: i64,
    /// When it was in that for the first time.
    since: Instant,
    /// How long before that it was in another one for the last time.
    gap: Duration,
    /// When it was here for the last time.
    last: Instant,
}

static SEEN: Mutex<Option<Seen>> = Mutex::new(None);
static STOP: AtomicBool = AtomicBool::new(false);
/// How many times the thread has been held, and released.
static HELD: AtomicI64 = AtomicI64::new(0);
static RELEASED: AtomicI64 = AtomicI64::new(0);

extern "C" fn tick(version: i64) -> i64 {
    let now = Instant::now();
    let mut seen = SEEN.lock().expect("no thread panics with it");
    match &mut *seen {
        Some(seen) if seen.version == version => seen.last = now,
        Some(Seen { last, .. }) => {
            let gap = now - *last;
            *seen = Some(Seen { version, since: now, gap, last: now });
        }
        None => *seen = Some(Seen { version, since: now, gap: Duration::ZERO, last: now }),
    }
    i64::from(STOP.load(Ordering::Relaxed))
}

extern "C" fn hold() -> i64 {
    let number = HELD.fetch_add(1, Ordering::SeqCst) + 1;
    while RELEASED.load(Ordering::SeqCst) < number && !STOP.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
    // The frame goes on from here.
    if let Some(seen) = &mut *SEEN.lock().expect("no thread panics with it") {
        seen.last = Instant::now();
    }
    0
}

/// Microseconds.
struct Times {
    /// How long the replacement itself took.
    install: f64,
    /// From its beginning until the new version ran.
    until: f64,
    /// From the last that was seen of the old version until then: what moving takes, and a round.
    gap: f64,
}

impl Technique {
    fn measure(&self) -> Result<Times, Error> {
        type Tick = extern "C" fn(i64) -> i64;
        type Hold = extern "C" fn() -> i64;
        let engine = Engine::builder()
            .dispatch(self.dispatch)
            .host_function("tick", tick as Tick)
            .host_function("hold", hold as Hold)
            .build()?;
        STOP.store(false, Ordering::SeqCst);
        *SEEN.lock().expect("no thread panics with it") = None;
        engine.install(self.unit(&engine, 0)?)?;
        let mut unit = engine.unit();
        let driver = "function %drive(i64) -> i64 system_v {
                fn0 = %work(i64) -> i64 tail
             block0(v0: i64):
                jump block1
             block1:
                v1 = call fn0(v0)
                brif v1, block2, block1
             block2:
                return v1
             }";
        moving::define(&mut unit, driver, unmarked)?;
        engine.install(unit)?;
        let drive = engine.function::<fn(i64) -> i64>("drive")?;
        let times = thread::scope(|scope| {
            // SAFETY: the function is sound for every argument.
            scope.spawn(move || unsafe { drive.call(0) });
            let times = self.replace_many(&engine);
            STOP.store(true, Ordering::SeqCst);
            times
        })?;
        let all = |figure: fn(&Times) -> f64| median(times.iter().map(figure).collect());
        Ok(Times {
            install: all(|it| it.install),
            until: all(|it| it.until),
            gap: all(|it| it.gap),
        })
    }

    fn unit(&self, engine: &Engine, version: i64) -> Result<Unit, Error> {
        let mut unit = engine.unit();
        // Not all numbers take as many bytes.
        unit.reserve(256, 0);
        moving::define(&mut unit, &(self.text)(version), self.points)?;
        Ok(unit)
    }

    fn replace_many(&self, engine: &Engine) -> Result<Vec<Times>, Error> {
        let seen = || *SEEN.lock().expect("no thread panics with it");
        let mut times = Vec::new();
        HELD.store(0, Ordering::SeqCst);
        RELEASED.store(0, Ordering::SeqCst);
        for version in 1..=TIMES {
            let unit = self.unit(engine, version)?;
            // The other thread is where it is to be found.
            let backoff = Backoff::new();
            let arrived = || match self.suspended {
                true => HELD.load(Ordering::SeqCst) >= version,
                false => seen().is_some_and(|seen| seen.version == version - 1),
            };
            while !arrived() {
                backoff.snooze();
            }
            let began = Instant::now();
            (self.install)(engine, unit)?;
            let installed = began.elapsed();
            let mut released = began;
            if self.suspended {
                released = Instant::now();
                RELEASED.store(version, Ordering::SeqCst);
            }
            let first = loop {
                match seen() {
                    Some(seen) if seen.version == version => break seen,
                    _ => std::hint::spin_loop(),
                }
            };
            let us = |time: Duration| time.as_nanos() as f64 / 1000.0;
            let until = us(first.since.saturating_duration_since(released))
                + if self.suspended { us(installed) } else { 0.0 };
            times.push(Times { install: us(installed), until, gap: us(first.gap) });
        }
        Ok(times)
    }
}

pub(crate) fn measure() -> Result<Figures, Error> {
    println!("\nus to replace a function that another thread is running, {TIMES} times: median");
    println!("{:<34}{:>12}{:>16}{:>12}", "", "install", "until it runs", "gap");
    let mut figures = Figures::new();
    for technique in &TECHNIQUES {
        let Times { install, until, gap } = technique.measure()?;
        println!("{:<34}{install:>12.2}{until:>16.2}{gap:>12.2}", technique.name);
        let figure = json!({
            "install_us": rounded(install), "until_us": rounded(until), "gap_us": rounded(gap),
        });
        figures.insert(technique.name.to_owned(), figure);
    }
    Ok(figures)
}
