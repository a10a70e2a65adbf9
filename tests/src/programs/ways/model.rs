//! Where threads should be, in plain words: a list of frames for each.

use super::super::WayIn;
use super::super::host::Outcome;
use super::super::stack::{Frame, Ledger, Stack, Version};
use super::unit::{TRAP, arguments, result, told};
use super::worker::{Report, payload, told_at_first};
use super::{By, CAUGHT, Entrance, Function, Move, Thread, UnitPlan};

/// No stack has more levels than this.
const DEEPEST: usize = 60;

#[derive(Default)]
pub(super) struct Model {
    /// What has been installed; the first has the number 1.
    installs: Vec<UnitPlan>,
    threads: [Vec<Level>; Thread::ALL.len()],
}

/// Something on a thread's stack.
enum Level {
    /// A call by the host, and whether it catches panics.
    Host(WayIn, bool),
    /// A gate or an entry.
    Frame(Frame),
    /// A function, which is in a visit, or in a call that it may catch exceptions of.
    Body(Function, u64, Catches),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Catches {
    Nothing,
    One,
    All,
}

impl Model {
    pub(super) fn install(&mut self, plan: &UnitPlan) {
        self.installs.push(plan.clone());
    }

    pub(super) fn is_outside(&self, thread: Thread) -> bool {
        self.threads[thread as usize].is_empty()
    }

    /// The version of a function that is current.
    fn current(&self, function: Function) -> Version {
        let has = |plan: &UnitPlan| plan.0.iter().any(|export| export.function == function);
        let index = self.installs.iter().rposition(has).expect("all were installed at first");
        (function as usize, index as u64 + 1)
    }

    /// Whether a call within an install is of its own version.
    fn stays(&self, install: u64, callee: Function) -> bool {
        let plan = &self.installs[install as usize - 1];
        plan.0.iter().any(|export| export.function == callee && !export.preemptible)
    }

    /// Has a thread go on, and says where it should come to; `None` if it cannot go on like that.
    pub(super) fn go_on(&mut self, thread: Thread, move_: &Move) -> Option<Report> {
        let mut stack = std::mem::take(&mut self.threads[thread as usize]);
        let report = self.go(&mut stack, move_);
        self.threads[thread as usize] = stack;
        report
    }

    fn go(&self, stack: &mut Vec<Level>, move_: &Move) -> Option<Report> {
        if let &Move::Enter(entrance, way, catches) = move_ {
            return self.enter(stack, entrance, way, catches);
        }
        let &Level::Body(function, number, _) = stack.last()? else { return None };
        match *move_ {
            Move::Return => {
                stack.pop();
                Some(Self::come_back(stack, result(function, number)))
            }
            Move::Call(callee, by) if stack.len() < DEEPEST => {
                let Some(Level::Body(_, _, catches)) = stack.last_mut() else { return None };
                *catches = match by {
                    By::Name | By::Address => Catches::Nothing,
                    By::NameCatchingOne => Catches::One,
                    By::AddressCatchingAll => Catches::All,
                };
                let by_address = matches!(by, By::Address | By::AddressCatchingAll);
                Some(self.call(stack, number, callee, by_address))
            }
            Move::TailCall(callee, by_address) if function.is_tail() && callee.is_tail() => {
                stack.pop();
                if !self.stays(number, callee) {
                    // The gate that it was called through, if it was, is the callee's then.
                    stack.pop_if(|level| matches!(level, Level::Frame(Frame::Gate(_))));
                }
                Some(self.call(stack, number, callee, by_address))
            }
            Move::Trap => {
                let host = Self::told_of(stack, |_| false)?;
                stack.truncate(host);
                let (function, number) = (function as usize, number);
                Some(Report::Back(Outcome::Trapped(TRAP, function, number)))
            }
            Move::Throw(tag) => Some(Self::throw(stack, tag, payload((function as usize, number)))),
            Move::Panic => {
                let catches = |level: &Level| matches!(level, Level::Host(_, true));
                let host = stack.iter().rposition(catches).expect("the outermost does");
                stack.truncate(host);
                Some(Report::Back(Outcome::Panicked))
            }
            Move::Call(..) | Move::TailCall(..) | Move::Enter(..) => None,
            Move::Install(_) | Move::End => None,
        }
    }

    fn enter(
        &self,
        stack: &mut Vec<Level>,
        entrance: Entrance,
        way: WayIn,
        catches: bool,
    ) -> Option<Report> {
        let function = entrance.function();
        // A stable entry has the convention of its function.
        if stack.len() >= DEEPEST || way == WayIn::Address && function.is_tail() {
            return None;
        }
        // The outermost call has to.
        stack.push(Level::Host(way, catches || stack.is_empty()));
        let version = self.current(function);
        if function.is_tail() {
            stack.push(Level::Frame(Frame::Entry(None)));
            stack.push(Level::Frame(Frame::Gate(version.into())));
        } else {
            stack.push(Level::Frame(Frame::Entry(Some(version))));
        }
        Some(Self::arrive(stack, function, version.1, told_at_first()))
    }

    fn call(
        &self,
        stack: &mut Vec<Level>,
        from: u64,
        callee: Function,
        by_address: bool,
    ) -> Report {
        let told = told(arguments(from, callee));
        if self.stays(from, callee) {
            return Self::arrive(stack, callee, from, told);
        }
        let version = self.current(callee);
        let entry = by_address && !callee.is_tail();
        let frame = if entry { Frame::Entry(Some(version)) } else { Frame::Gate(version.into()) };
        stack.push(Level::Frame(frame));
        Self::arrive(stack, callee, version.1, told)
    }

    fn arrive(stack: &mut Vec<Level>, function: Function, number: u64, told: i64) -> Report {
        stack.push(Level::Body(function, number, Catches::Nothing));
        Self::inside(stack, told)
    }

    /// The report of the function that is innermost, in no call.
    fn inside(stack: &mut [Level], told: i64) -> Report {
        let Some(Level::Body(function, number, catches)) = stack.last_mut() else {
            unreachable!("only functions visit")
        };
        let (function, number) = (*function, *number);
        *catches = Catches::Nothing;
        let frames = Self::frames(stack);
        let (walked, traced) = (frames.walked(), frames.traced());
        Report::Inside { version: (function as usize, number), told, walked, traced }
    }

    /// Returns from the function that was innermost.
    fn come_back(stack: &mut Vec<Level>, result: i64) -> Report {
        while stack.pop_if(|level| matches!(level, Level::Frame(_))).is_some() {}
        if stack.pop_if(|level| matches!(level, Level::Host(..))).is_some() {
            return Report::Back(Outcome::Returned(result));
        }
        Self::inside(stack, result)
    }

    /// The call by the host that is told of an error, unless a frame within it catches
    /// it; `None` if that is of a stable entry, and cannot be told.
    fn told_of(stack: &[Level], catches: impl Fn(&Level) -> bool) -> Option<usize> {
        let decides = |level: &Level| matches!(level, Level::Host(..)) || catches(level);
        let index = stack.iter().rposition(decides).expect("the host has called");
        (!matches!(stack[index], Level::Host(WayIn::Address, _))).then_some(index)
    }

    fn throw(stack: &mut Vec<Level>, tag: u32, payload: [u64; 2]) -> Report {
        let catches = |level: &Level| match level {
            Level::Body(_, _, catches) => {
                *catches == Catches::All || *catches == Catches::One && tag == CAUGHT
            }
            _ => false,
        };
        let Some(index) = Self::told_of(stack, catches) else { return Report::Uncaught };
        if let Level::Host(..) = stack[index] {
            stack.truncate(index);
            return Report::Back(Outcome::Thrown(tag, payload));
        }
        stack.truncate(index + 1);
        Self::inside(stack, payload[0] as i64)
    }

    fn frames(stack: &[Level]) -> Stack {
        let frames = stack.iter().filter_map(|level| match *level {
            Level::Host(..) => None,
            Level::Frame(frame) => Some(frame),
            Level::Body(function, number, _) => {
                Some(Frame::Body((function as usize, number).into()))
            }
        });
        Stack(frames.collect())
    }

    /// For each version that should not be freed, how many frames each thread has in it.
    pub(super) fn ledgers(&self) -> [Ledger; Thread::ALL.len()] {
        let current: Ledger =
            Function::ALL.into_iter().map(|function| (self.current(function), 0)).collect();
        let stacks = self.threads.each_ref().map(|stack| Self::frames(stack));
        let inside = stacks.iter().flat_map(Stack::counted).map(|version| (version, 0));
        let alive: Ledger = current.into_iter().chain(inside).collect();
        stacks.map(|stack| {
            let mut ledger = alive.clone();
            for version in stack.counted() {
                *ledger.entry(version).or_default() += 1;
            }
            ledger
        })
    }
}
