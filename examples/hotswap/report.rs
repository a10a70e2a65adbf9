//! What happened: while it runs, and in the end.

use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lastout::{Engine, Stats};
use serde_json::json;

use crate::workers::Shared;

pub(crate) struct Report {
    pub(crate) started: Instant,
    seconds: f64,
    calls: u64,
    wrong_results: u64,
    stats: Stats,
    max_alive: u64,
    code_bytes_start: usize,
    code_bytes_peak: usize,
    status: Option<Status>,
}

/// A line that is written over and over.
struct Status {
    shown: Instant,
    calls: u64,
}

impl Report {
    /// A report that starts now, with the first version installed.
    pub(crate) fn new(engine: &Engine) -> Self {
        let stats = engine.stats();
        let started = Instant::now();
        Self {
            started,
            seconds: 0.0,
            calls: 0,
            wrong_results: 0,
            stats,
            max_alive: stats.alive(),
            code_bytes_start: stats.code_bytes,
            code_bytes_peak: stats.code_bytes,
            status: stderr().is_terminal().then_some(Status { shown: started, calls: 0 }),
        }
    }

    /// Notes where the engine stands, and shows it if there is a terminal to show it on.
    pub(crate) fn observe(&mut self, engine: &Engine, shared: &Shared) {
        self.stats = engine.stats();
        self.max_alive = self.max_alive.max(self.stats.alive());
        self.code_bytes_peak = self.code_bytes_peak.max(self.stats.code_bytes);
        let Some(status) = &mut self.status else { return };
        let since = status.shown.elapsed();
        if since < Duration::from_millis(100) {
            return;
        }
        let calls = shared.calls.load(Ordering::Relaxed);
        let rate = (calls - status.calls) as f64 / since.as_secs_f64() / 1e6;
        let Stats { installed, freed, code_bytes, .. } = self.stats;
        eprint!(
            "\r{rate:7.1} M calls/s  {installed} installed  {freed} freed  {} alive  {code_bytes} \
             bytes of code   ",
            self.stats.alive(),
        );
        // It is only a status line.
        let _ = stderr().flush();
        *status = Status { shown: Instant::now(), calls };
    }

    /// Takes the final figures, with no thread calling any more.
    pub(crate) fn finish(&mut self, engine: &Engine, shared: &Shared) {
        if self.status.take().is_some() {
            eprintln!();
        }
        self.seconds = self.started.elapsed().as_secs_f64();
        self.calls = shared.calls.load(Ordering::Relaxed);
        self.wrong_results = shared.wrong.load(Ordering::Relaxed);
        self.stats = engine.stats();
    }

    /// Whether all results were right, and everything but the current versions is freed.
    pub(crate) fn is_sound(&self) -> bool {
        self.wrong_results == 0 && self.stats.alive() as usize == self.stats.functions
    }

    pub(crate) fn print(&self, as_json: bool) {
        let Stats { installed, freed, code_bytes, .. } = self.stats;
        let (calls, seconds) = (self.calls, self.seconds);
        println!("{calls} calls in {seconds:.1} s, {} of them wrong", self.wrong_results);
        println!("{installed} versions installed, {freed} freed, {} alive", self.stats.alive());
        println!("never more than {} alive at a time", self.max_alive);
        println!(
            "{} bytes of code at the start, {} at most, {code_bytes} in the end",
            self.code_bytes_start, self.code_bytes_peak,
        );
        if as_json {
            let report = json!({
                "seconds": seconds,
                "calls": calls,
                "wrong_results": self.wrong_results,
                "installed": installed,
                "freed": freed,
                "alive": self.stats.alive(),
                "max_alive": self.max_alive,
                "code_bytes_start": self.code_bytes_start,
                "code_bytes_peak": self.code_bytes_peak,
                "code_bytes_end": code_bytes,
            });
            println!("{report}");
        }
    }
}
