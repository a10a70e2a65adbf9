//! Random programs of several functions, run with and without gates and compared with a plain
//! interpreter.
//!
//! A [`Program`] is data: it can be generated, printed, and shrunk. Its functions have calling
//! conventions and parameters of their own, on the stack too; they compute, branch, loop, trap,
//! call and tail-call each other by name, by address and through tables, catch exceptions, and
//! visit the host. Some have points in their loops, calls and visits, at which their frames move.
//! What the host does in a visit is part of the program: it looks at the stack, replaces functions
//! under the frames that are inside of them, or in their place if there are none, calls back into
//! the program, throws an exception or panics.
//!
//! [`check`] says what a program comes to by walking its tree, and has the same from generated
//! code: from a `JITModule` without any gates, and from an engine, for each [`Dispatch`]. Every
//! version of a function knows its number and tells it the host, so the results differ if any call
//! reaches another version than it should, or a frame moves that should not. Whenever the host
//! looks, the frames that are found by following frame pointers have to be those that the program
//! has, and as many as the ledger says; those of parked calls, which are in no version, among them.
//! [`check_shared`] runs a program on two threads while a third replaces its functions.
//!
//! Everything ends: a function is called with some *fuel*, and every call and visit takes of it.

mod generate;
mod host;
mod lower;
mod model;
mod plain;
mod run;
mod shared;
mod stack;
mod units;
pub mod ways;

use lastout::{Counting, Dispatch, DropPolicy};

pub use self::model::{Moves, moves};
pub use self::run::check;
pub use self::shared::check_shared;

/// What programs are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether functions of the tail convention end with calls of others.
    pub tail_calls: bool,
    /// Whether functions trap, and the host throws and panics.
    pub failures: bool,
    /// Whether frames of functions of the tail convention move.
    pub moving: bool,
    /// Whether functions are replaced in their place.
    pub in_place: bool,
}

/// Functions that call each other, and what the host does with them.
#[derive(Clone, Debug)]
pub struct Program {
    /// How gates count.
    pub counting: Counting,
    /// Where payloads are dropped.
    pub drop_policy: DropPolicy,
    /// Whether gates, where threads share them, have others run between their steps.
    pub interleave: bool,
    /// The signatures of functions. The first is that of functions that the host calls: one
    /// integer, and no float in the result.
    pub signatures: Vec<Signature>,
    /// The functions. The first has the first signature and is known by name.
    pub functions: Vec<Function>,
    /// What points there are in the units that are installed first.
    pub first: Points,
    /// What the host calls, one after the other.
    pub entries: Vec<Entry>,
    /// What the host does when it is visited, in this order.
    pub script: Vec<Event>,
    /// What another thread replaces meanwhile, where there is one.
    pub replacements: Vec<Replacement>,
    /// Whether there are traps, exceptions or panics in it.
    pub failures: bool,
}

/// How functions are called that have the same signature.
///
/// The fuel, an integer, comes before the parameters. All functions return an integer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The calling convention.
    pub convention: Convention,
    /// The parameters.
    pub params: Vec<Kind>,
    /// Whether functions return a float, too.
    pub float: bool,
}

/// A calling convention of Cranelift's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Cranelift's")]
pub enum Convention {
    SystemV,
    Fast,
    Tail,
}

/// What a variable holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An `i64`.
    Int,
    /// An `f64`.
    Float,
}

/// A function.
#[derive(Clone, Debug)]
pub struct Function {
    /// Which of the program's signatures it has.
    pub signature: usize,
    /// What can call it, and whether what its own unit calls is this version.
    pub linkage: Linkage,
    /// Which unit defines it at first, counted from 0. If it is local, all units do that need it.
    pub unit: usize,
    /// Whether its frames move, in units that have points.
    pub moves: bool,
    /// Its sites have this number and those after it, until the next function's.
    pub first_site: u32,
    /// What it does. At the end it returns what all its variables come to.
    pub body: Vec<Statement>,
}

/// What points functions have in a unit. Frames move between versions that have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Points {
    /// None: frames stay.
    Without,
    /// At each loop. Variables are alive there.
    Loops,
    /// The same, and others at each visit and call that can be left.
    Plain,
    /// At all of these places, and with something else alive, too.
    Carrying(Carried),
}

/// What functions carry along from their beginning to their end, and look at only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are Cranelift's")]
pub enum Carried {
    I8,
    I128,
    F32,
    I32X4,
}

/// The linkage of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// Its own unit calls this version, others the current one.
    Export,
    /// All call the version that is current.
    Preemptible,
    /// Others do not know it.
    Local,
}

/// A step of a function. Numbers of variables are counted for each [`Kind`]. The parameters are the
/// first of them, and what is no parameter starts as 0.
#[derive(Clone, Debug)]
pub enum Statement {
    /// `to = left op right`, of integers.
    Int(usize, IntOp, usize, Operand),
    /// `to = left op right`, of floats.
    Float(usize, FloatOp, usize, usize),
    /// Makes an integer a float: the first is the float.
    ToFloat(usize, usize),
    /// Makes a float an integer, saturating: the first is the integer.
    ToInt(usize, usize),
    /// Either this or that.
    If(Condition, Vec<Statement>, Vec<Statement>),
    /// At a site, so many times.
    Repeat(u32, u8, Vec<Statement>),
    /// A call, if there is fuel.
    Call(Call),
    /// The host's function is called, if there is fuel.
    Visit(Visit),
    /// Traps with a code of the user's if the condition holds.
    Trap(Condition, u8),
    /// `to = left / right`, of integers. It traps if there is no result.
    Divide(usize, usize, usize),
    /// Returns.
    Return,
    /// Ends with a call, if there is fuel, and else returns.
    Tail(Call),
}

/// An operator of integers, all of them wrapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Cranelift's")]
pub enum IntOp {
    Iadd,
    Isub,
    Imul,
    Bxor,
    Band,
    Ishl,
    Ushr,
    Sshr,
    Rotl,
}

/// An operator of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Cranelift's")]
pub enum FloatOp {
    Fadd,
    Fsub,
    Fmul,
    Fdiv,
}

/// The right side of an operation of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A variable.
    Var(usize),
    /// A number.
    Const(i64),
}

/// Something about integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// One is less than the other.
    Less(usize, usize),
    /// One and a mask are 0: no bit of the mask is set in it.
    NoneSet(usize, i64),
}

/// A call of another function, or of the same.
#[derive(Clone, Debug)]
pub struct Call {
    /// Tells it from all other sites in the program.
    pub site: u32,
    /// What is called, or, through a table, has the signature of what is called.
    pub callee: usize,
    /// How.
    pub way: Way,
    /// The caller keeps its fuel, less 1, shifted to the right by so much; the callee gets the
    /// rest.
    pub keep: u8,
    /// The variables that are the arguments, of the kinds of the callee's parameters.
    pub arguments: Vec<usize>,
    /// The variable for the integer that is returned.
    pub to: usize,
    /// The variable for the float, if there is one.
    pub float_to: usize,
    /// The tags of the exceptions that are caught, each by a handler of its own; `None` is any.
    pub catches: Vec<Option<u32>>,
}

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By its name.
    Name,
    /// By its address.
    Address,
    /// By an address from a table of all functions of its signature: that of which the variable is
    /// the number, counted around.
    Table(usize),
}

/// A call of the host's function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Tells it from all other sites in the program.
    pub site: u32,
    /// The variable that the host is told.
    pub value: usize,
    /// The variable for what it returns.
    pub to: usize,
}

/// A call by the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A function that has the first signature and is known by name.
    pub function: usize,
    /// How it is called.
    pub way: WayIn,
    /// How much fuel there is.
    pub fuel: i64,
    /// The argument.
    pub argument: i64,
    /// Whether a host function that calls catches panics. The outermost call is always caught.
    pub catches: bool,
}

/// How the host calls a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayIn {
    /// Through a handle.
    Handle,
    /// By the stable address that C code is given. Only if the function has C's convention.
    Address,
}

/// Something that the host does in a visit.
#[derive(Clone, Debug)]
pub struct Event {
    /// How many visits pass before that in which it is done.
    pub skip: u8,
    /// What it is.
    pub action: Action,
}

/// What the host does in a visit.
#[derive(Clone, Debug)]
pub enum Action {
    /// It looks how many frames are inside of what.
    Look,
    /// It replaces functions.
    Replace(Replacement),
    /// It calls a function.
    Enter(Entry),
    /// It throws an exception with a tag.
    Throw(u32),
    /// It panics.
    Panic,
}

/// Functions that a new unit defines, which are known by name. They do the same as before, but have
/// another number.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// Which.
    pub functions: Vec<usize>,
    /// Where their frames move.
    pub points: Points,
    /// Whether a function that comes alone is written over the version that is current, if it fits
    /// there and nobody is inside.
    pub in_place: bool,
}

/// All ways of dispatch.
const DISPATCHES: [Dispatch; 2] = [Dispatch::Slot, Dispatch::PatchedSites];

impl Program {
    /// How often each function has a variable of a kind.
    fn variables(&self, function: usize, kind: Kind) -> usize {
        self.signatures[self.functions[function].signature].variables(kind)
    }

    fn signature(&self, function: usize) -> &Signature {
        &self.signatures[self.functions[function].signature]
    }

    /// The functions that others know by name.
    fn named(&self) -> impl Iterator<Item = usize> {
        let named = |&function: &usize| self.functions[function].linkage != Linkage::Local;
        (0..self.functions.len()).filter(named)
    }

    /// Whether a function can have points.
    fn can_move(&self, function: usize) -> bool {
        let Function { linkage, moves, .. } = self.functions[function];
        let tail = self.signature(function).convention == Convention::Tail;
        moves && tail && linkage != Linkage::Local
    }

    /// The functions in a table of those that have a signature.
    fn table(&self, signature: usize) -> Vec<usize> {
        let fits = |&function: &usize| self.functions[function].signature == signature;
        (0..self.functions.len()).filter(fits).collect()
    }

    /// The function that a site is in.
    fn function_of(&self, site: u32) -> usize {
        self.functions.partition_point(|function| function.first_site <= site) - 1
    }
}

impl Signature {
    /// How many variables of a kind a function has: some more than parameters, if these are few.
    fn variables(&self, kind: Kind) -> usize {
        let params = self.params.iter().filter(|&&param| param == kind).count();
        params.max(if kind == Kind::Int { 3 } else { 1 })
    }
}

impl Call {
    /// The fuel that the callee gets of the caller's, and what is left.
    fn share(&self, fuel: i64) -> (i64, i64) {
        let left = (fuel - 1) >> self.keep;
        (fuel - 1 - left, left)
    }
}

/// The name of a function.
fn name(function: usize) -> String {
    format!("f{function}")
}
