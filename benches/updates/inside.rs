//! How long an old version stays when threads are inside that leave at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_utils::Backoff;
use lastout::{Dispatch, Engine, Handle, Unit};
use lastout_tests::clif;

use crate::Result;
use crate::figures::{Both, Quartiles, in_turn};
use crate::subject::WAYS;

/// How many threads are inside.
pub(crate) const THREADS: [usize; 3] = [0, 1, 2];

const ROUNDS: usize = 101;

/// When the old version was freed, in microseconds.
pub(crate) struct Freed {
    /// After the install that replaced it had returned: 0 if it was freed before that.
    pub(crate) after_install: Both,
    /// After the last thread inside had seen that it may leave; `None` if there was none.
    pub(crate) after_leaving: Option<Both>,
    /// Of how many rounds, in how many it was freed before the install had returned.
    pub(crate) within_install: Both<(usize, usize)>,
}

/// By the number of threads that are inside.
pub(crate) fn freed() -> Result<Vec<(usize, Freed)>> {
    let of = |threads| {
        let [slot, patched] = WAYS.map(|(_, dispatch)| subject(dispatch));
        let engines = [slot?, patched?];
        let what = format!("freed, {threads} inside");
        let samples = in_turn(&what, ROUNDS, |way| round(&engines[way], threads))?;
        let after_install = samples.each_ref().map(|rounds| {
            Quartiles::of(rounds.iter().map(|round| round.after_install.unwrap_or(0.0)).collect())
        });
        let after_leaving = samples
            .each_ref()
            .map(|rounds| Quartiles::of(rounds.iter().map(|round| round.after_leaving).collect()));
        let within_install = samples.each_ref().map(|rounds| {
            let within = rounds.iter().filter(|round| round.after_install.is_none());
            (within.count(), rounds.len())
        });
        let after_leaving = (threads > 0).then_some(after_leaving);
        Ok((threads, Freed { after_install, after_leaving, within_install }))
    };
    THREADS.into_iter().map(of).collect()
}

/// A function that waits, and one that calls it.
const CALLER: &str = "function %caller(i64) -> i64 system_v {
        fn0 = %waiting(i64) -> i64 system_v
    block0(v0: i64):
        v1 = call fn0(v0)
        return v1
    }";
const WAITING: &str = "function %waiting(i64) -> i64 system_v {
        fn0 = %wait(i64) system_v
    block0(v0: i64):
        call fn0(v0)
        return v0
    }";

fn subject(dispatch: Dispatch) -> Result<Engine> {
    let wait: extern "C" fn(i64) = wait;
    let engine = Engine::builder().dispatch(dispatch).host_function("wait", wait).build()?;
    for text in [WAITING, CALLER] {
        let mut unit = engine.unit();
        clif::define(&mut unit, text)?;
        engine.install(unit)?;
    }
    Ok(engine)
}

/// What threads wait for inside.
#[derive(Default)]
struct Door {
    inside: AtomicUsize,
    open: AtomicBool,
    /// When the last of them has seen that it is open.
    seen: Mutex<Option<Instant>>,
}

/// Called by the function that waits, with the address of a door.
///
/// Threads stay runnable, so that no time to wake them is measured, but let others run: there may
/// be fewer processors than threads.
extern "C" fn wait(door: i64) {
    let door = std::ptr::with_exposed_provenance::<Door>(door as usize);
    // SAFETY: the function is called with the address of a door that outlives the call.
    let door = unsafe { &*door };
    door.inside.fetch_add(1, Ordering::SeqCst);
    while !door.open.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    if let Ok(mut seen) = door.seen.lock() {
        *seen = (*seen).max(Some(Instant::now()));
    }
}

/// Says when it was dropped.
struct Payload(Sender<Instant>);

impl Drop for Payload {
    fn drop(&mut self) {
        // The last one has no receiver any more.
        self.0.send(Instant::now()).ok();
    }
}

/// What one round has found, in microseconds.
struct Round {
    /// `None` if it was freed before the install had returned.
    after_install: Option<f64>,
    after_leaving: f64,
}

/// Replaces a version that so many threads are inside of, and has them leave.
fn round(engine: &Engine, threads: usize) -> Result<Round> {
    let new_unit = || -> Result<Unit> {
        let mut unit = engine.unit();
        clif::define(&mut unit, WAITING)?;
        Ok(unit)
    };
    // The version to wait for.
    let (payload, freed) = channel();
    let mut unit = new_unit()?;
    unit.attach(Payload(payload));
    engine.install(unit)?;

    let unit = new_unit()?;
    let door = Door::default();
    let address = std::ptr::from_ref(&door).expose_provenance() as i64;
    let caller: Handle<fn(i64) -> i64> = engine.function("caller")?;
    let (returned, freed) = thread::scope(|scope| -> Result<_> {
        for _ in 0..threads {
            // SAFETY: the door stays until the threads have ended.
            scope.spawn(|| unsafe { caller.call(address) });
        }
        let backoff = Backoff::new();
        while door.inside.load(Ordering::SeqCst) < threads {
            backoff.snooze();
        }
        let installed = engine.install(unit);
        let returned = Instant::now();
        door.open.store(true, Ordering::SeqCst);
        installed?;
        let freed = freed.recv_timeout(Duration::from_secs(60))?;
        Ok((returned, freed))
    })?;
    let seen = *door.seen.lock().map_err(|_| "a thread has panicked")?;
    let micros = |from: Instant| {
        freed.checked_duration_since(from).map(|duration| duration.as_secs_f64() * 1e6)
    };
    let after_leaving = seen.and_then(micros).unwrap_or(0.0);
    Ok(Round { after_install: micros(returned), after_leaving })
}
