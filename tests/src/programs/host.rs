//! The host of a program: what it is told, and what it does.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::model::{Ledger, Observed};
use super::{Action, Entry, Program, Replacement};

/// Where a program's functions are.
pub(super) trait Place {
    /// Calls one.
    fn enter(&self, entry: &Entry) -> i64;

    /// Replaces some.
    fn replace(&self, replacement: &Replacement);

    /// Who is inside of what, if that is known.
    fn look(&self) -> Option<Ledger>;
}

/// A visit: what the host was told, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Visited {
    pub(super) site: u32,
    /// The number of the version, or 0 if versions are not told apart.
    pub(super) number: u64,
    pub(super) value: i64,
    /// What the host has seen, if it has looked.
    pub(super) seen: Option<Ledger>,
    /// What the host's call has returned, if it has made one.
    pub(super) returned: Option<i64>,
}

/// What the host returns to a function.
pub(super) fn answer(visited: &Visited) -> i64 {
    let words = [i64::from(visited.site), visited.number as i64, visited.value];
    words
        .into_iter()
        .chain(visited.returned)
        .fold(0, |mixed: i64, word| (mixed ^ word).wrapping_mul(0x0010_0000_01b3).rotate_left(23))
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

struct Host {
    program: Arc<Program>,
    place: Arc<dyn Place>,
    numbered: bool,
    script: RefCell<Script>,
    visits: RefCell<Vec<Visited>>,
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
    });
    HOST.set(Some(Rc::clone(&host)));
    let returned = program.entries.iter().map(|entry| host.place.enter(entry)).collect();
    let left = host.look();
    HOST.set(None);
    Observed { returned, visits: host.visits.take(), left }
}

/// What the functions of programs call.
pub(super) extern "C" fn visit(site: i64, number: i64, value: i64) -> i64 {
    HOST.with_borrow(Option::clone).expect("a program runs").visit(site, number, value)
}

impl Host {
    fn visit(&self, site: i64, number: i64, value: i64) -> i64 {
        let number = if self.numbered { number as u64 } else { 0 };
        let index = self.visits.borrow().len();
        let mut visited = Visited { site: site as u32, number, value, ..Visited::default() };
        self.visits.borrow_mut().push(visited.clone());
        let action = self.script.borrow_mut().next(&self.program);
        match action {
            None => {}
            Some(Action::Look) => visited.seen = self.look(),
            Some(Action::Replace(replacement)) => self.place.replace(replacement),
            Some(Action::Enter(entry)) => visited.returned = Some(self.place.enter(entry)),
        }
        let answer = answer(&visited);
        self.visits.borrow_mut()[index] = visited;
        answer
    }

    fn look(&self) -> Option<Ledger> {
        self.place.look().filter(|_| self.numbered)
    }
}
