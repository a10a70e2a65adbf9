//! What the functions call.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lastout::Engine;

use crate::Error;
use crate::program::Rule;

/// What `endless` returns in the end.
pub(crate) const CALLED: i64 = 37;

/// The number of the last rule that may have been installed.
static ALLOWED: AtomicI64 = AtomicI64::new(0);
/// The number of the last rule that was used.
static USED: AtomicI64 = AtomicI64::new(0);
static QUESTIONS: AtomicI64 = AtomicI64::new(0);
static ANSWERS: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);
static RETURN: AtomicBool = AtomicBool::new(false);

/// An engine whose functions may ask, answer, and make a call that does not return.
pub(crate) fn engine() -> Result<Engine, Error> {
    let engine = Engine::builder()
        .host_function("question", question as extern "C" fn() -> i64)
        .host_function("answer", answer as extern "C" fn(i64, i64))
        .host_function("endless", endless as extern "C" fn() -> i64)
        .build()?;
    Ok(engine)
}

/// Makes a rule right from now on. The rules before it stay right until it has been used.
pub(crate) fn allow(rule: Rule) {
    ALLOWED.store(rule.number(), Ordering::SeqCst);
}

/// How many questions have been answered.
pub(crate) fn answers() -> u64 {
    ANSWERS.load(Ordering::SeqCst)
}

/// How many questions have been answered wrongly.
pub(crate) fn wrong_answers() -> u64 {
    WRONG.load(Ordering::SeqCst)
}

/// Waits until so many questions have been answered.
pub(crate) fn wait_for_answers(count: u64) {
    while answers() < count {
        thread::yield_now();
    }
}

/// Waits until a rule is used. Returns how long that took since `started`.
pub(crate) fn wait_for_answer_of(
    rule: Rule,
    started: Instant,
    patience: Duration,
) -> Option<Duration> {
    while USED.load(Ordering::SeqCst) != rule.number() {
        if started.elapsed() > patience {
            return None;
        }
        std::hint::spin_loop();
    }
    Some(started.elapsed())
}

/// Makes the call of `endless` return.
pub(crate) fn end_call() {
    RETURN.store(true, Ordering::SeqCst);
}

extern "C" fn question() -> i64 {
    QUESTIONS.fetch_add(1, Ordering::Relaxed) & 0xffff
}

/// An answer is right by a rule that is no older than the last that was used, and no newer than
/// the last that was allowed. The last version's counts for nothing.
extern "C" fn answer(question: i64, answer: i64) {
    ANSWERS.fetch_add(1, Ordering::Relaxed);
    if answer == Rule::LAST.answer(question) {
        return;
    }
    let number = Rule::of_answer(question, answer).number();
    let used = USED.swap(number, Ordering::SeqCst);
    if number < used || number > ALLOWED.load(Ordering::SeqCst) {
        WRONG.fetch_add(1, Ordering::Relaxed);
    }
}

extern "C" fn endless() -> i64 {
    while !RETURN.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
    CALLED
}
