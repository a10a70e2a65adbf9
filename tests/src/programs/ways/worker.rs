//! Threads that do one step at a time, when they are told to.

use std::cell::RefCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use lastout::{CallError, Engine, Handle, Installed, TrapCause, Unit};

use super::super::WayIn;
use super::super::host::Outcome;
use super::super::stack::{self, Inside, Segment, Traced, Version};
use super::unit::told;

/// After how long a thread is taken for stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the host calls functions with.
pub(super) const ARGUMENT: i64 = 1000;

/// The type of functions that the host calls.
pub(super) type Entered = fn(i64) -> i64;

/// What a thread is told.
pub(super) enum Order {
    /// To call a function, and whether it is to catch panics.
    Enter(Handle<Entered>, WayIn, bool),
    /// To have the function go on.
    GoOn(i64),
    Throw(u32),
    Panic,
    /// To install a unit, and where to send what that has installed.
    Install(Box<Unit>, Sender<Installed>),
}

/// Where a thread has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// To a visit: of which version, what that tells, and what is on the stack.
    Inside { version: Version, told: i64, walked: Vec<Option<Inside>>, traced: Vec<Traced> },
    /// Out of a call by the host, to what has called.
    Back(Outcome),
    /// Nowhere: nobody catches what was thrown.
    Uncaught,
}

/// A thread, as its driver sees it.
pub(super) struct Worker {
    pub(super) thread_id: u64,
    /// Dropped before the thread is joined: then it leaves everything.
    orders: Option<Sender<Order>>,
    reports: Receiver<Report>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(super) fn spawn(engine: &Arc<Engine>, code: &Range<usize>) -> Self {
        let (orders, receiver) = channel();
        let (sender, reports) = channel();
        let (id_sender, ids) = channel();
        let (engine, code) = (Arc::clone(engine), code.clone());
        let thread = std::thread::spawn(move || {
            id_sender.send(rustix::thread::gettid().as_raw_nonzero().get() as u64).unwrap();
            let segments = RefCell::default();
            let desk = Rc::new(Desk { orders: receiver, reports: sender, engine, code, segments });
            DESK.set(Some(Rc::clone(&desk)));
            desk.obey();
            DESK.set(None);
        });
        let thread_id = ids.recv().unwrap();
        Self { thread_id, orders: Some(orders), reports, thread: Some(thread) }
    }

    /// Has the thread do something, and waits for it to come to where it is told again.
    pub(super) fn order(&self, order: Order) -> Report {
        self.send(order);
        self.reports.recv_timeout(PATIENCE).expect("a thread is stuck")
    }

    pub(super) fn install(&self, unit: Unit) -> Installed {
        let (sender, installed) = channel();
        self.send(Order::Install(Box::new(unit), sender));
        installed.recv_timeout(PATIENCE).expect("a thread is stuck")
    }

    fn send(&self, order: Order) {
        let orders = self.orders.as_ref().expect("it is there until the end");
        orders.send(order).expect("a thread has ended before its time");
    }
}

impl Worker {
    /// Has the thread leave everything and end, if it has not.
    pub(super) fn end(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let joined = thread.join();
            if !std::thread::panicking() {
                joined.unwrap();
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a worker has of its driver.
struct Desk {
    orders: Receiver<Order>,
    reports: Sender<Report>,
    engine: Arc<Engine>,
    code: Range<usize>,
    /// For each visit that has not returned, outermost first.
    segments: RefCell<Vec<Segment>>,
}

thread_local! {
    static DESK: RefCell<Option<Rc<Desk>>> = const { RefCell::new(None) };
}

/// What a worker panics with.
struct Panicked;

/// How a visit ends.
enum Answer {
    Return(i64),
    Throw(u32),
    Panic,
}

/// What functions call to be told how to go on.
pub(super) extern "C-unwind" fn visit(frame: i64, function: i64, number: i64, told: i64) -> i64 {
    let visitor = (function as usize, number as u64);
    let segment = Segment { frame: frame as usize, visitor: visitor.into() };
    with_desk(|desk| desk.arrive(segment, visitor, told));
    loop {
        // When something is thrown, there is nothing here to be dropped.
        match with_desk(Desk::obey) {
            Answer::Return(way) => {
                with_desk(Desk::depart);
                return way;
            }
            Answer::Panic => resume_unwind(Box::new(Panicked)),
            Answer::Throw(tag) => {
                with_desk(Desk::depart);
                // SAFETY: this is called by generated code, and what it has left to do is for the
                // case that nobody catches the exception.
                let lastout::Uncaught = unsafe { lastout::throw(tag, payload(visitor)) };
                with_desk(|desk| desk.stay(segment));
            }
        }
    }
}

/// What the host throws from a visit of a version.
pub(super) fn payload((function, number): Version) -> [u64; 2] {
    [number * 100 + function as u64, 1]
}

fn with_desk<T>(f: impl FnOnce(&Desk) -> T) -> T {
    f(&DESK.with_borrow(Option::clone).expect("a worker has a desk"))
}

impl Desk {
    fn report(&self, report: Report) {
        // Nobody listens if the driver has given up; then this only has to come to an end.
        let _ = self.reports.send(report);
    }

    fn arrive(&self, segment: Segment, version: Version, told: i64) {
        self.segments.borrow_mut().push(segment);
        // SAFETY: these are the frames of visits that have not returned, of this engine.
        let walked = unsafe { stack::walk(&self.engine, &self.code, &self.segments.borrow()) };
        let traced = stack::trace(&self.engine);
        self.report(Report::Inside { version, told, walked, traced });
    }

    fn depart(&self) {
        self.segments.borrow_mut().pop();
    }

    fn stay(&self, segment: Segment) {
        self.segments.borrow_mut().push(segment);
        self.report(Report::Uncaught);
    }

    /// Does what is to be done here, until it is to go on otherwise.
    fn obey(&self) -> Answer {
        loop {
            match self.orders.recv() {
                Ok(Order::Enter(handle, way, catches)) => {
                    let outcome = self.enter(&handle, way, catches);
                    // What the handle keeps is to be gone before anybody looks.
                    drop(handle);
                    self.report(Report::Back(outcome));
                }
                Ok(Order::GoOn(way)) => return Answer::Return(way),
                Ok(Order::Throw(tag)) => return Answer::Throw(tag),
                Ok(Order::Install(unit, sender)) => {
                    sender.send(self.engine.install(*unit).unwrap()).unwrap();
                }
                Ok(Order::Panic) => return Answer::Panic,
                Err(_) => return Answer::Return(0),
            }
        }
    }

    fn enter(&self, handle: &Handle<Entered>, way: WayIn, catches: bool) -> Outcome {
        let depth = self.segments.borrow().len();
        if !catches {
            return call(handle, way);
        }
        let caught = catch_unwind(AssertUnwindSafe(|| call(handle, way)));
        caught.unwrap_or_else(|panic| {
            self.segments.borrow_mut().truncate(depth);
            if panic.is::<Panicked>() { Outcome::Panicked } else { resume_unwind(panic) }
        })
    }
}

fn call(handle: &Handle<Entered>, way: WayIn) -> Outcome {
    let called = match way {
        // SAFETY: the functions do nothing but what they are told, and are told only what is sound.
        WayIn::Handle => unsafe { handle.call(ARGUMENT) },
        WayIn::Address => {
            let address = handle.c_address().unwrap();
            // SAFETY: the function has this type and C's convention, and the handle keeps it.
            let call: extern "C-unwind" fn(i64) -> i64 = unsafe { std::mem::transmute(address) };
            Ok(call(ARGUMENT))
        }
    };
    match called {
        Ok(result) => Outcome::Returned(result),
        Err(CallError::Exception(thrown)) => Outcome::Thrown(thrown.tag, thrown.payload),
        Err(CallError::Trap(trap)) => match (trap.cause, stack::version(trap.location)) {
            (TrapCause::Code(code), Some((function, number))) => {
                Outcome::Trapped(code, function, number)
            }
            (cause, _) => panic!("a call has trapped: {cause:?}"),
        },
        Err(error) => panic!("a call has failed: {error}"),
    }
}

/// What a function that the host has called tells first.
pub(super) fn told_at_first() -> i64 {
    told(std::iter::once(ARGUMENT))
}
