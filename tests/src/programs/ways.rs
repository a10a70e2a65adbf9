//! Sequences of ways into functions and out of them, checked step by step against a model of the
//! ledger.
//!
//! A [`Sequence`] says for each step what one thread does next: it enters a function by its handle
//! or its stable entry, also from a host function that a function has called; it calls another
//! function, or ends with a call of it; it returns, traps, throws, panics, or ends. Functions are
//! replaced in between, by the thread that is inside or by another. After each step [`check`]
//! compares which threads are inside of what, which versions are freed, what is on the stack of the
//! thread, and where it has come out.
//!
//! There is no race: wherever a function comes to a *visit* of the host, it waits to be told how to
//! go on. So it is the sequence that decides, and what functions compute is of no interest.

mod model;
mod unit;
mod worker;
mod world;

use arbitrary::{Arbitrary, Unstructured};
use lastout::{Counting, Dispatch, DropPolicy};

use super::WayIn;

pub use self::world::check;

/// An engine, and how threads enter and leave its functions.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// How gates count.
    pub counting: Counting,
    /// How functions are called.
    pub dispatch: Dispatch,
    /// Where payloads are dropped.
    pub drop_policy: DropPolicy,
    /// What is installed first. All functions that it has not are in a second unit.
    pub first: UnitPlan,
    /// What is done then.
    pub steps: Vec<Step>,
}

/// One thing that is done.
#[derive(Clone, Debug)]
pub enum Step {
    /// A unit is installed.
    Install(UnitPlan),
    /// A thread goes on, if it can do so in this way.
    Move(Thread, Move),
}

/// A unit: which functions it has, each once.
#[derive(Clone, Debug)]
pub struct UnitPlan(pub Vec<Export>);

/// A function in a unit.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Export {
    /// Which.
    pub function: Function,
    /// Whether the unit itself calls the current version, and not this one.
    pub preemptible: bool,
}

/// A function. They differ in what gates and entries they have.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Function {
    /// `system_v`, with one parameter.
    Plain,
    /// `system_v`, with so many parameters that some are on the stack.
    Wide,
    /// `tail`, with one parameter.
    Tail,
    /// `tail`, with parameters on the stack.
    WideTail,
}

/// One of the threads.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "a number is a number")]
pub enum Thread {
    First,
    Second,
    Third,
}

/// How a thread goes on.
#[derive(Clone, Debug)]
pub enum Move {
    /// The host calls a function. If it does so in a visit, it says whether it catches panics.
    Enter(Entrance, WayIn, bool),
    /// The function calls another.
    Call(Function, By),
    /// The function ends with a call of another, by its name or by its address.
    TailCall(Function, bool),
    /// The function returns.
    Return,
    /// The function traps.
    Trap,
    /// The host function throws an exception with a tag.
    Throw(u32),
    /// The host function panics.
    Panic,
    /// The host function installs a unit.
    Install(UnitPlan),
    /// The thread ends, and there is another in its place.
    End,
}

/// A function that the host can call: one with one parameter.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the functions'")]
pub enum Entrance {
    Plain,
    Tail,
}

/// How a function calls another.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By its name.
    Name,
    /// By its address.
    Address,
    /// By its name, catching exceptions with the tag [`CAUGHT`].
    NameCatchingOne,
    /// By its address, catching all exceptions.
    AddressCatchingAll,
}

/// The tag of exceptions that are caught also by callers that do not catch all of them.
pub const CAUGHT: u32 = 1;

impl Function {
    /// All functions there are.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Wide, Self::Tail, Self::WideTail];

    fn is_tail(self) -> bool {
        matches!(self, Self::Tail | Self::WideTail)
    }

    fn params(self) -> i64 {
        match self {
            Self::Plain | Self::Tail => 1,
            Self::Wide => 8,
            Self::WideTail => 9,
        }
    }
}

impl Thread {
    /// All threads there are.
    pub const ALL: [Self; 3] = [Self::First, Self::Second, Self::Third];
}

impl Entrance {
    /// All of these functions.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Tail];

    fn function(self) -> Function {
        match self {
            Self::Plain => Function::Plain,
            Self::Tail => Function::Tail,
        }
    }
}

impl<'a> Arbitrary<'a> for Sequence {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut sequence = Self {
            counting: *u.choose(&[Counting::Plain, Counting::Atomic])?,
            dispatch: *u.choose(&[Dispatch::Slot, Dispatch::PatchedSites])?,
            drop_policy: *u.choose(&[DropPolicy::Leaver, DropPolicy::Collector])?,
            first: u.arbitrary()?,
            steps: Vec::new(),
        };
        while !u.is_empty() {
            sequence.steps.push(u.arbitrary()?);
        }
        Ok(sequence)
    }
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match u.int_in_range(0..=15)? {
            15 => Self::Install(u.arbitrary()?),
            _ => Self::Move(u.arbitrary()?, u.arbitrary()?),
        })
    }
}

impl<'a> Arbitrary<'a> for UnitPlan {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut exports: Vec<Export> = Vec::new();
        for _ in 0..u.int_in_range(1..=3)? {
            let export: Export = u.arbitrary()?;
            if exports.iter().all(|other| other.function != export.function) {
                exports.push(export);
            }
        }
        Ok(Self(exports))
    }
}

impl<'a> Arbitrary<'a> for Move {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match u.int_in_range(0..=23)? {
            0..=4 => {
                let way = *u.choose(&[WayIn::Handle, WayIn::Address])?;
                Self::Enter(u.arbitrary()?, way, u.arbitrary()?)
            }
            5..=10 => Self::Call(u.arbitrary()?, u.arbitrary()?),
            11..=14 => {
                let callee = *u.choose(&[Function::Tail, Function::WideTail])?;
                Self::TailCall(callee, u.arbitrary()?)
            }
            15..=16 => Self::Return,
            17 => Self::Trap,
            18..=19 => Self::Throw(u.int_in_range(CAUGHT..=CAUGHT + 1)?),
            20 => Self::Panic,
            21..=22 => Self::Install(u.arbitrary()?),
            _ => Self::End,
        })
    }
}
