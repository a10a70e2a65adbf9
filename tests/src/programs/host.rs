//! The host of a program: what it is told, and what it does.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;

use cranelift_codegen::ir::TrapCode;

use super::stack::{Inside, Ledger, Seen, Segment};
use super::{Action, Entry, Program, Replacement};

/// Where a program's functions are.
pub(super) trait Place {
    /// Calls one.
    fn enter(&self, entry: &Entry) -> Outcome;

    /// Replaces some; whether that was in their place.
    fn replace(&self, replacement: &Replacement) -> bool;

    /// What has a return address in it, if that can be known.
    fn locate(&self, returned: usize) -> Option<Inside>;

    /// How many frames are inside of what, if that can be known.
    fn look(&self, segments: &[Segment]) -> Option<Seen>;
}

/// What there is to see of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// What the entries have come to.
    pub(super) outcomes: Vec<Outcome>,
    /// What the host was told.
    pub(super) visits: Vec<Visited>,
    /// How many frames are left inside of what, if versions are told apart.
    pub(super) left: Option<Ledger>,
}

/// What a call by the host has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Returned(i64),
    /// The function and the number of its version.
    Trapped(TrapCode, usize, u64),
    Thrown(u32, [u64; 2]),
    Panicked,
}

/// A visit: what the host was told, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Visited {
    pub(super) site: u32,
    /// The number of the version, or 0 if versions are not told apart.
    pub(super) number: u64,
    pub(super) value: i64,
    pub(super) came: Came,
}

/// What comes of a visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It does not return.
    Left,
    /// What concerns the host only.
    Nothing,
    ReplacedInPlace,
    Seen(Seen),
    Entered(Outcome),
    /// Nobody catches what was to be thrown.
    Uncaught,
}

/// What the host returns to a function.
pub(super) fn answer(visited: &Visited) -> i64 {
    let came = match visited.came {
        Came::Left | Came::Nothing | Came::ReplacedInPlace | Came::Seen(_) => 0,
        Came::Entered(Outcome::Returned(result)) => result,
        Came::Entered(Outcome::Trapped(code, ..)) => code.as_raw().get().into(),
        Came::Entered(Outcome::Thrown(tag, [first, _])) => i64::from(tag) ^ first as i64,
        Came::Entered(Outcome::Panicked) => -1,
        Came::Uncaught => -2,
    };
    let words = [i64::from(visited.site), visited.number as i64, visited.value, came];
    words
        .into_iter()
        .fold(0, |mixed: i64, word| (mixed ^ word).wrapping_mul(0x0010_0000_01b3).rotate_left(23))
}

/// What the host throws.
pub(super) fn payload(visited: &Visited) -> [u64; 2] {
    [visited.value as u64, u64::from(visited.site) << 32 | visited.number]
}

/// How far a run has come in the script.
#[derive(Default)]
pub(super) struct Script {
    event: usize,
    skipped: u8,
}

impl Script {
    /// What is done in the next visit.
    pub(super) fn next<'a>(&mut self, program: &'a Program) -> Option<&'a Action> {
        let event = program.script.get(self.event)?;
        if self.skipped < event.skip {
            self.skipped += 1;
            return None;
        }
        self.event += 1;
        self.skipped = 0;
        Some(&event.action)
    }
}

/// What the host panics with.
struct Panicked;

struct Host {
    program: Arc<Program>,
    place: Arc<dyn Place>,
    numbered: bool,
    script: RefCell<Script>,
    visits: RefCell<Vec<Visited>>,
    /// For each visit that has not returned, outermost first.
    segments: RefCell<Vec<Segment>>,
}

thread_local! {
    /// The host of the program that this thread runs.
    static HOST: RefCell<Option<Rc<Host>>> = const { RefCell::new(None) };
}

/// Has a thread do all that the host of a program does, and says what there was to see.
pub(super) fn run(program: &Arc<Program>, place: Arc<dyn Place>, numbered: bool) -> Observed {
    let host = Rc::new(Host {
        program: Arc::clone(program),
        place,
        numbered,
        script: RefCell::default(),
        visits: RefCell::default(),
        segments: RefCell::default(),
    });
    HOST.set(Some(Rc::clone(&host)));
    let outcomes = program.entries.iter().map(|entry| host.enter(entry, true)).collect();
    let left = host.look().map(|seen| seen.ledger);
    HOST.set(None);
    Observed { outcomes, visits: host.visits.take(), left }
}

/// How a visit ends.
enum Answer {
    Return(i64),
    /// With what is thrown, and the number of the visit.
    Throw(u32, [u64; 2], usize),
    Panic,
}

/// What the functions of programs call: goes on as [`visited`], with the caller's frame pointer and
/// the return address. They are taken here, since the caller may be a parked call, which passes on
/// what it is given.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub(super) extern "C-unwind" fn visit(site: i64, number: i64, value: i64) -> i64 {
    std::arch::naked_asm!("mov rcx, rbp", "mov r8, [rsp]", "jmp {}", sym visited)
}

/// The same.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub(super) extern "C-unwind" fn visit(site: i64, number: i64, value: i64) -> i64 {
    std::arch::naked_asm!("mov x3, x29", "mov x4, x30", "b {}", sym visited)
}

extern "C-unwind" fn visited(
    site: i64,
    number: i64,
    value: i64,
    frame: usize,
    returned: usize,
) -> i64 {
    // When something is thrown, there is nothing here to be dropped.
    let answer = with_host(|host| host.visit(frame, returned, site as u32, number as u64, value));
    match answer {
        Answer::Return(value) => value,
        Answer::Panic => resume_unwind(Box::new(Panicked)),
        Answer::Throw(tag, payload, visit) => {
            // SAFETY: this is called by generated code, and what it has left to do is for the case
            // that nobody catches the exception.
            let lastout::Uncaught = unsafe { lastout::throw(tag, payload) };
            with_host(|host| host.uncaught(visit))
        }
    }
}

fn with_host<T>(f: impl FnOnce(&Host) -> T) -> T {
    f(&HOST.with_borrow(Option::clone).expect("a program runs"))
}

impl Host {
    /// Calls a function. If panics are caught, they are an outcome.
    fn enter(&self, entry: &Entry, catches: bool) -> Outcome {
        let outcome = if catches {
            let depth = self.segments.borrow().len();
            let caught = catch_unwind(AssertUnwindSafe(|| self.place.enter(entry)));
            caught.unwrap_or_else(|panic| {
                self.segments.borrow_mut().truncate(depth);
                if panic.is::<Panicked>() { Outcome::Panicked } else { resume_unwind(panic) }
            })
        } else {
            self.place.enter(entry)
        };
        match outcome {
            Outcome::Trapped(code, function, _) if !self.numbered => {
                Outcome::Trapped(code, function, 0)
            }
            outcome => outcome,
        }
    }

    fn visit(&self, frame: usize, returned: usize, site: u32, number: u64, value: i64) -> Answer {
        let visitor = self.place.locate(returned);
        let visitor = visitor.unwrap_or((self.program.function_of(site), number).into());
        let number = if self.numbered { number } else { 0 };
        let index = self.visits.borrow().len();
        let mut visited = Visited { site, number, value, came: Came::Left };
        self.visits.borrow_mut().push(visited.clone());
        self.segments.borrow_mut().push(Segment { frame, visitor });
        let action = self.script.borrow_mut().next(&self.program);
        let ended = match action {
            None => Ok(Came::Nothing),
            Some(Action::Look) => Ok(self.look().map_or(Came::Nothing, Came::Seen)),
            Some(Action::Replace(replacement)) => {
                let in_place = self.place.replace(replacement) && self.numbered;
                Ok(if in_place { Came::ReplacedInPlace } else { Came::Nothing })
            }
            Some(Action::Enter(entry)) => Ok(Came::Entered(self.enter(entry, entry.catches))),
            Some(&Action::Throw(tag)) => Err(Answer::Throw(tag, payload(&visited), index)),
            Some(Action::Panic) => Err(Answer::Panic),
        };
        self.segments.borrow_mut().pop();
        match ended {
            Ok(came) => {
                visited.came = came;
                let value = answer(&visited);
                self.visits.borrow_mut()[index] = visited;
                Answer::Return(value)
            }
            Err(answer) => answer,
        }
    }

    fn uncaught(&self, visit: usize) -> i64 {
        let visited = &mut self.visits.borrow_mut()[visit];
        visited.came = Came::Uncaught;
        answer(visited)
    }

    /// How many frames are inside of what, if versions are told apart. Otherwise it is only looked
    /// at.
    fn look(&self) -> Option<Seen> {
        self.place.look(&self.segments.borrow()).filter(|_| self.numbered)
    }
}
