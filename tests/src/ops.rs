//! Random sequences of what can be done with an engine, checked step by step against a model.
//!
//! A [`Scenario`] is data: it can be generated, printed, and shrunk. [`check`] does to a real
//! engine what it says, tells a plain single-threaded model the same, and compares all that can be
//! seen of the two after each operation: what calls return, which versions are alive, which
//! threads are inside, what has been dropped.
//!
//! Threads take part without any race: each is driven by the sequence. A thread that is told to
//! enter a function comes to a host function that all bodies call, and stays there, inside, until
//! it is told to go on.

mod model;
mod unit;
mod worker;
mod world;

use arbitrary::{Arbitrary, Unstructured};
use lastout::{Counting, Dispatch, DropPolicy};

pub use self::world::check;

/// An engine, and what is done with it.
#[derive(Arbitrary, Clone, Debug)]
pub struct Scenario {
    /// How gates count.
    #[arbitrary(with = counting)]
    pub counting: Counting,
    /// How functions are called.
    #[arbitrary(with = dispatch)]
    pub dispatch: Dispatch,
    /// Where payloads are dropped.
    #[arbitrary(with = drop_policy)]
    pub drop_policy: DropPolicy,
    /// What is declared at the start, so that it can be imported before it is installed. The
    /// host has a handle to it.
    #[arbitrary(with = mostly_all)]
    pub declared: Vec<Name>,
    /// What is done while there is an engine.
    pub ops: Vec<Op>,
    /// How the engine ends.
    pub end: End,
    /// What is tried after that. Only calls are possible then.
    pub afterwards: Vec<Op>,
}

/// One operation.
#[derive(Clone, Debug)]
pub enum Op {
    /// Installs a unit.
    Install(UnitPlan),
    /// Installs a unit while there are no more than this many lines of code memory.
    InstallSqueezed(UnitPlan, usize),
    /// Replaces a function by a unit in its place, if nobody is inside.
    ReplaceInPlace(UnitPlan),
    /// Declares a function, of two parameters or of one.
    Declare(Name, bool),
    /// Removes a function.
    Remove(Name),
    /// Gets another handle to a function, taking it for one of two parameters or of one.
    GetHandle(Name, bool),
    /// Drops a handle.
    DropHandle(Pick),
    /// Calls a function on this thread.
    Call(Pick, Depth),
    /// Has a thread enter a function, from wherever it is.
    Enter(Thread, Pick, Depth),
    /// Has a thread that is inside a function go on until it is somewhere else.
    Step(Thread),
    /// Drops the payloads that wait for that.
    Collect,
}

/// How an engine ends.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All threads leave and all functions are removed before, so that it can be asked what is
    /// left.
    Orderly,
    /// It is dropped as it is.
    Dropped,
}

/// A function's name.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "a letter is a letter")]
pub enum Name {
    A,
    B,
    C,
    D,
}

impl Name {
    /// All names there are.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::D];

    /// The name in the engine.
    pub fn as_str(self) -> &'static str {
        ["a", "b", "c", "d"][self as usize]
    }
}

/// One of the threads.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "a number is a number")]
pub enum Thread {
    First,
    Second,
    Third,
}

impl Thread {
    /// All threads there are.
    pub const ALL: [Self; 3] = [Self::First, Self::Second, Self::Third];
}

/// One of the handles that there are, counted around.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Pick(pub u8);

/// How many calls may be one within the other.
#[derive(Clone, Copy, Debug)]
pub struct Depth(pub i64);

impl<'a> Arbitrary<'a> for Depth {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        u.int_in_range(0..=3).map(Self)
    }
}

/// A unit to be made.
#[derive(Arbitrary, Clone, Debug)]
pub struct UnitPlan {
    /// The functions that it defines for others, each name once.
    #[arbitrary(with = one_to_three)]
    pub exports: Vec<Export>,
    /// The body of a function of its own that the others call directly.
    pub helper: Option<Body>,
    /// The body of an anonymous function that it exposes.
    pub exposed: Option<Body>,
    /// The names that the unit takes for functions of two parameters.
    #[arbitrary(with = mostly_none)]
    pub wide: Vec<Name>,
    /// Whether it takes so much room that every unit of one function fits there.
    pub roomy: bool,
    /// How many values are attached.
    #[arbitrary(with = up_to_two)]
    pub attached: usize,
    /// What is wrong with the unit.
    #[arbitrary(with = mistake)]
    pub mistake: Option<Mistake>,
}

/// A function that a unit defines by name.
#[derive(Arbitrary, Clone, Debug)]
pub struct Export {
    /// Its name.
    pub name: Name,
    /// Whether the unit itself calls the current version (`Preemptible`) or this one (`Export`).
    pub preemptible: bool,
    /// What it does.
    pub body: Body,
}

/// What a function does: `constant`, and if there is some depth left, the host's `visit`, and
/// then for each callee `result * 31 + callee(depth - 1)`.
#[derive(Arbitrary, Clone, Debug)]
pub struct Body {
    /// Tells it from all others.
    pub constant: i32,
    /// Where the constant is.
    pub place: Place,
    /// What it calls.
    #[arbitrary(with = up_to_three)]
    pub calls: Vec<Call>,
}

/// Where a constant is.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the code.
    Code,
    /// In read-only data of the unit.
    ReadOnly,
    /// In writable data of the unit.
    Writable,
}

/// A call in a body.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Call {
    /// What is called.
    pub callee: Callee,
    /// Whether the call is of the function's address.
    pub by_address: bool,
}

/// What a body calls.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// The function of this name: of this unit or, if it has none, an import.
    Named(Name),
    /// The unit's helper; nothing if it has none.
    Helper,
}

/// What can be wrong with a unit.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// It exports a function that it does not define.
    Undefined,
    /// It exports a function by the name of a host function.
    HostName,
}

impl<'a> Arbitrary<'a> for Op {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match u.int_in_range(0..=38)? {
            0..=3 => Self::Install(u.arbitrary()?),
            4..=7 => Self::Install(mostly_alone(u)?),
            8..=12 => Self::Call(u.arbitrary()?, u.arbitrary()?),
            13..=17 => Self::Enter(u.arbitrary()?, u.arbitrary()?, u.arbitrary()?),
            18..=23 => Self::Step(u.arbitrary()?),
            24..=25 => Self::GetHandle(u.arbitrary()?, rarely(u)?),
            26 => Self::DropHandle(u.arbitrary()?),
            27..=28 => Self::Remove(u.arbitrary()?),
            29 => Self::Declare(u.arbitrary()?, rarely(u)?),
            30 => Self::InstallSqueezed(u.arbitrary()?, u.int_in_range(0..=24)?),
            31..=37 => Self::ReplaceInPlace(mostly_alone(u)?),
            _ => Self::Collect,
        })
    }
}

fn counting(u: &mut Unstructured<'_>) -> arbitrary::Result<Counting> {
    u.choose(&[Counting::Plain, Counting::Atomic]).copied()
}

fn dispatch(u: &mut Unstructured<'_>) -> arbitrary::Result<Dispatch> {
    u.choose(&[Dispatch::Slot, Dispatch::PatchedSites]).copied()
}

fn drop_policy(u: &mut Unstructured<'_>) -> arbitrary::Result<DropPolicy> {
    u.choose(&[DropPolicy::Leaver, DropPolicy::Collector]).copied()
}

fn rarely(u: &mut Unstructured<'_>) -> arbitrary::Result<bool> {
    Ok(u.int_in_range(0..=15)? == 15)
}

fn up_to_two(u: &mut Unstructured<'_>) -> arbitrary::Result<usize> {
    u.int_in_range(0..=2)
}

fn mostly_none(u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<Name>> {
    let mut names = Vec::new();
    for name in Name::ALL {
        if rarely(u)? {
            names.push(name);
        }
    }
    Ok(names)
}

fn mostly_all(u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<Name>> {
    let none = mostly_none(u)?;
    Ok(Name::ALL.into_iter().filter(|name| !none.contains(name)).collect())
}

/// A unit that exports only one function, as a rule.
fn mostly_alone(u: &mut Unstructured<'_>) -> arbitrary::Result<UnitPlan> {
    let mut plan: UnitPlan = u.arbitrary()?;
    if !rarely(u)? {
        plan.exports.truncate(1);
        plan.exposed = None;
    }
    Ok(plan)
}

fn mistake(u: &mut Unstructured<'_>) -> arbitrary::Result<Option<Mistake>> {
    Ok(if rarely(u)? { Some(u.arbitrary()?) } else { None })
}

fn up_to_three(u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<Call>> {
    (0..u.int_in_range(0..=3)?).map(|_| u.arbitrary()).collect()
}

fn one_to_three(u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<Export>> {
    let mut exports: Vec<Export> = Vec::new();
    for _ in 0..u.int_in_range(1..=3)? {
        let export: Export = u.arbitrary()?;
        if exports.iter().all(|other| other.name != export.name) {
            exports.push(export);
        }
    }
    Ok(exports)
}

impl UnitPlan {
    /// A function that returns 0, with room for others.
    fn returning_zero(name: Name) -> Self {
        let body = Body { constant: 0, place: Place::Code, calls: Vec::new() };
        Self {
            exports: vec![Export { name, preemptible: false, body }],
            helper: None,
            exposed: None,
            wide: Vec::new(),
            roomy: true,
            attached: 0,
            mistake: None,
        }
    }

    /// The function that the unit defines by this name.
    fn export(&self, name: Name) -> Option<&Export> {
        self.exports.iter().find(|export| export.name == name)
    }

    /// The functions that it calls through their slots.
    fn callees(&self) -> impl Iterator<Item = Name> {
        let calls = self.bodies().flat_map(|body| &body.calls);
        let names = calls.filter_map(|call| match call.callee {
            Callee::Named(name) => Some(name),
            Callee::Helper => None,
        });
        names.filter(|&name| self.export(name).is_none_or(|export| export.preemptible))
    }

    /// Whether it has a version of one function only.
    fn is_alone(&self) -> bool {
        self.exports.len() == 1 && self.exposed.is_none()
    }

    /// The bodies of all functions, in the order in which they are declared.
    fn bodies(&self) -> impl Iterator<Item = &Body> {
        let exports = self.exports.iter().map(|export| &export.body);
        exports.chain(&self.helper).chain(&self.exposed)
    }
}
