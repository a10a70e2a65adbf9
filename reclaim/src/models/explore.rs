//! Running loom: every execution of a model, or the first that goes wrong.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Instant;

/// Runs every execution of `model` that takes the processor away from a thread that could go on
/// at most `preemptions` times.
///
/// # Panics
///
/// As soon as one of them does.
pub(super) fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // All of it, so that no environment variable makes a test explore less.
    builder.preemption_bound = Some(preemptions);
    builder.max_threads = 3;
    builder.max_branches = 2_000;
    builder.max_permutations = None;
    builder.max_duration = None;
    builder.checkpoint_file = None;
    builder.expect_explicit_explore = false;
    builder.location = false;
    builder.log = false;

    let executions = Arc::new(AtomicUsize::new(0));
    let _report = Report { executions: Arc::clone(&executions), begun: Instant::now() };
    builder.check(move || {
        executions.fetch_add(1, Ordering::Relaxed);
        model();
    });
}

/// How an execution goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// A thread is in code that is freed.
    UseAfterFree,
    /// Accesses to the same code, one of which writes or frees it, in no order: loom's finding.
    Race,
    /// Nobody frees a version that has drained.
    Leak,
    /// A call runs a version whose replacement was over before the call began.
    StaleCall,
    /// A call of a thread runs an older version than a call that it made before.
    WentBack,
    /// A caller comes to the same closed gate again and again, until another thread goes on.
    Wait,
    /// A tail call leaves a frame.
    Growth,
    /// A version moves in with another.
    Occupied,
    /// A call that has left its version finds none to go on in.
    Lost,
}

impl Fault {
    /// What the panic says.
    fn message(self) -> &'static str {
        match self {
            Self::UseAfterFree => "use after free: ",
            Self::Race => "Causality violation: ",
            Self::Leak => "leak: ",
            Self::StaleCall => "stale call: ",
            Self::WentBack => "went back: ",
            Self::Wait => "wait: ",
            Self::Growth => "growth: ",
            Self::Occupied => "occupied: ",
            Self::Lost => "lost: ",
        }
    }
}

/// Explores `model` until an execution of it panics.
///
/// # Panics
///
/// If none does, or for another reason than `fault`.
pub(super) fn refute(preemptions: usize, fault: Fault, model: impl Fn() + Send + Sync + 'static) {
    let explored = {
        let _quiet = Quiet::new();
        panic::catch_unwind(AssertUnwindSafe(|| explore(preemptions, model)))
    };
    match explored {
        Ok(()) => panic!("every execution is right"),
        Err(panic) => {
            let found = message(&*panic);
            assert!(found.starts_with(fault.message()), "not {fault:?}, but {found}");
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(message), _) => message.clone(),
        (_, Some(message)) => (*message).to_owned(),
        _ => "a panic without a message".to_owned(),
    }
}

/// Says what an exploration took, also one that a panic has ended.
struct Report {
    executions: Arc<AtomicUsize>,
    begun: Instant,
}

impl Drop for Report {
    fn drop(&mut self) {
        println!(
            "{}: {} executions, {:.1?}",
            thread::current().name().unwrap_or("?"),
            self.executions.load(Ordering::Relaxed),
            self.begun.elapsed(),
        );
    }
}

std::thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, panics of this thread are not printed: loom runs all threads of a model on the
/// thread that explores it.
struct Quiet;

impl Quiet {
    fn new() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let print = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                if !QUIET.get() {
                    print(info);
                }
            }));
        });
        QUIET.set(true);
        Self
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.set(false);
    }
}
