//! What benches measure with, and what figures were measured on.

use std::sync::mpsc::{RecvError, Sender, channel};
use std::thread;

/// The name of the processor, and how many of them the process may use.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model =
        model.map_or("unknown processor", |model| model.trim_start_matches([' ', '\t', ':']));
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    format!("{model}, {processors} processors")
}

/// The one in the middle.
///
/// # Panics
///
/// If there are none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How much memory this process has, in bytes; 0 if the system does not tell.
pub fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * rustix::param::page_size()
}

/// A thread that has done something, such as call a function, and then waits, with what it has got,
/// until what is returned is dropped. Without one, a heavy fence would cost less than in any
/// program that has a use for it.
///
/// # Errors
///
/// If the thread has panicked.
pub fn idle_thread<T>(first: impl FnOnce() -> T + Send + 'static) -> Result<Sender<()>, RecvError> {
    let (stop, stopped) = channel();
    let (ready, is_ready) = channel();
    thread::spawn(move || {
        let kept = first();
        ready.send(()).ok();
        stopped.recv().ok();
        drop(kept);
    });
    is_ready.recv()?;
    Ok(stop)
}
