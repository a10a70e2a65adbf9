//! Threads that do one step at a time, when they are told to.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use lastout::{CallError, Handle, VersionInfo};

use super::unit::{Narrow, Wide};

/// A handle to a function of one of the two types.
#[derive(Clone)]
pub(super) enum AnyHandle {
    Narrow(Handle<Narrow>),
    Wide(Handle<Wide>),
}

/// The second argument of calls from the host.
pub(super) const NUMBER: i64 = 7;

/// What a call has come to: a result, or the name of a function that was missing.
pub(super) type Returned = Result<i64, String>;

impl AnyHandle {
    pub(super) fn versions(&self) -> Vec<VersionInfo> {
        match self {
            Self::Narrow(handle) => handle.versions(),
            Self::Wide(handle) => handle.versions(),
        }
    }

    pub(super) fn call(&self, depth: i64) -> Returned {
        let result = match self {
            // SAFETY: the functions of a scenario take any numbers and only compute with them.
            // What they call by address they call at once.
            Self::Narrow(handle) => unsafe { handle.call(depth) },
            // SAFETY: as above.
            Self::Wide(handle) => unsafe { handle.call(depth, NUMBER) },
        };
        result.map_err(|error| match error {
            CallError::Removed(name) => name.to_string(),
            error => panic!("a call has failed: {error}"),
        })
    }
}

/// Where a thread is after it has gone on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// In `visit`, called by the function with this constant.
    Inside(i64),
    /// Back from the call that it entered last.
    Returned(Returned),
}

enum Command {
    Enter(AnyHandle, i64),
    GoOn,
}

/// A thread, as its driver sees it.
pub(super) struct Worker {
    pub(super) thread_id: u64,
    /// Dropped before the thread is joined: then it leaves everything.
    commands: Option<Sender<Command>>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(super) fn spawn() -> Self {
        let (commands, orders) = channel();
        let (reports, outcomes) = channel();
        let (sender, ids) = channel();
        let thread = std::thread::spawn(move || {
            let thread_id = std::fs::read_link("/proc/thread-self").unwrap();
            let thread_id = thread_id.file_name().unwrap().to_str().unwrap();
            sender.send(thread_id.parse().unwrap()).unwrap();
            let desk = Rc::new(Desk { orders, reports });
            DESK.set(Some(Rc::clone(&desk)));
            desk.obey();
        });
        let thread_id = ids.recv().unwrap();
        Self { thread_id, commands: Some(commands), outcomes, thread: Some(thread) }
    }

    pub(super) fn enter(&self, handle: AnyHandle, depth: i64) -> Outcome {
        self.command(Command::Enter(handle, depth))
    }

    pub(super) fn go_on(&self) -> Outcome {
        self.command(Command::GoOn)
    }

    fn command(&self, command: Command) -> Outcome {
        self.commands.as_ref().unwrap().send(command).expect("a thread has ended before its time");
        self.outcomes.recv_timeout(Duration::from_secs(60)).expect("a thread is stuck")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.commands = None;
        let joined = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            joined.unwrap().unwrap();
        }
    }
}

/// What a worker has of its driver.
struct Desk {
    orders: Receiver<Command>,
    reports: Sender<Outcome>,
}

thread_local! {
    static DESK: RefCell<Option<Rc<Desk>>> = const { RefCell::new(None) };
}

impl Desk {
    /// Enters functions until told to go on.
    fn obey(&self) {
        while let Ok(Command::Enter(handle, depth)) = self.orders.recv() {
            let returned = handle.call(depth);
            // What the handle keeps is to be gone before anybody looks.
            drop(handle);
            // Nobody listens if the driver has given up; then this only has to come to an end.
            let _ = self.reports.send(Outcome::Returned(returned));
        }
    }
}

/// What every body calls: where workers stay until they are told to go on.
pub(super) extern "C" fn visit(constant: i64) {
    let desk = DESK.with_borrow(Option::clone);
    if let Some(desk) = desk {
        let _ = desk.reports.send(Outcome::Inside(constant));
        desk.obey();
    }
}
