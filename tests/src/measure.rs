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

/// How much memory this process has been given by the C library's allocator, which is Rust's too, in
/// bytes.
pub fn allocated() -> usize {
    // SAFETY: there is nothing to uphold.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// Checks that doing `round` again and again, as often as `rounds` says, takes no more memory.
///
/// What is lost each time is lost in all parts of this. An allocator that finds no room between
/// others that are small and stay takes more once, in one of them.
///
/// # Panics
///
/// If more is taken in every part.
pub fn leaves_nothing(rounds: i64, mut round: impl FnMut(i64)) {
    const PARTS: i64 = 4;
    (0..rounds / PARTS).for_each(&mut round);
    let grown = (0..PARTS).map(|_| {
        let before = (allocated(), resident());
        (0..rounds / PARTS).for_each(&mut round);
        let more = |before: usize, after: usize| after.saturating_sub(before);
        (more(before.0, allocated()), more(before.1, resident()))
    });
    let grown: Vec<_> = grown.collect();
    let least = |of: fn(&(usize, usize)) -> usize| grown.iter().map(of).min();
    assert!(least(|part| part.0) < Some(1 << 14), "bytes allocated and resident: {grown:?}");
    assert!(least(|part| part.1) < Some(1 << 16), "bytes allocated and resident: {grown:?}");
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
