//! What a program comes to, by walking its tree.
//!
//! Nothing here knows of machine code, slots or counters. An install is a set of functions with a
//! number; a function that is not called within its unit is called in the last of them; a version
//! is there while it is current or on the stack.

use std::collections::{BTreeMap, BTreeSet};

use super::host::{Script, Visited, answer};
use super::{
    Action, Call, Condition, Entry, FloatOp, IntOp, Kind, Linkage, Operand, Program, Replacement,
    Statement, Visit, Way,
};

/// How many frames there are in each version that is not freed, by function and number.
pub(super) type Ledger = BTreeMap<(usize, u64), u32>;

/// What there is to see of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// What the entries have returned.
    pub(super) returned: Vec<i64>,
    /// What the host was told.
    pub(super) visits: Vec<Visited>,
    /// Who is left inside of what, if versions are told apart.
    pub(super) left: Option<Ledger>,
}

/// What is to be seen of a run. Unless it is `numbered`, it is what can be said if nobody knows
/// when functions are replaced.
pub(super) fn expected(program: &Program, numbered: bool) -> Observed {
    let mut model = Model {
        program,
        numbered,
        installs: Vec::new(),
        current: vec![0; program.functions.len()],
        stack: Vec::new(),
        script: Script::default(),
        visits: Vec::new(),
    };
    for unit in program.first_units() {
        model.install(&unit);
    }
    let returned = program.entries.iter().map(|entry| model.enter(entry)).collect();
    let left = model.look();
    Observed { returned, visits: model.visits, left }
}

/// The functions that a unit defines: those that it exports, and the local ones that it needs.
pub(super) fn defines(program: &Program, exports: &Replacement) -> BTreeSet<usize> {
    let mut defined = BTreeSet::new();
    let mut wanted = exports.0.clone();
    while let Some(function) = wanted.pop() {
        if defined.insert(function) {
            let local = |&callee: &usize| program.functions[callee].linkage == Linkage::Local;
            let callees = callees(program, &program.functions[function].body);
            wanted.extend(callees.into_iter().filter(local));
        }
    }
    defined
}

/// What statements refer to.
fn callees(program: &Program, statements: &[Statement]) -> Vec<usize> {
    let of = |statement: &Statement| match statement {
        Statement::Call(call) | Statement::Tail(call) => match call.way {
            Way::Name | Way::Address => vec![call.callee],
            Way::Table(_) => program.table(program.functions[call.callee].signature),
        },
        Statement::If(_, then, otherwise) => {
            [callees(program, then), callees(program, otherwise)].concat()
        }
        Statement::Repeat(_, body) => callees(program, body),
        _ => Vec::new(),
    };
    statements.iter().flat_map(of).collect()
}

struct Model<'a> {
    program: &'a Program,
    numbered: bool,
    /// What each unit defines. Their numbers start with 1.
    installs: Vec<BTreeSet<usize>>,
    /// The number of each function's current version.
    current: Vec<u64>,
    /// The versions that were entered from outside of their unit, outermost first.
    stack: Vec<(usize, u64)>,
    script: Script,
    visits: Vec<Visited>,
}

/// The state of a function's frame.
struct Frame {
    number: u64,
    fuel: i64,
    ints: Vec<i64>,
    floats: Vec<f64>,
}

/// The arguments of a call.
struct Arguments {
    fuel: i64,
    ints: Vec<i64>,
    floats: Vec<f64>,
}

/// What a function returns.
#[derive(Clone, Copy)]
struct Results {
    int: i64,
    float: f64,
}

/// Where a function goes on after a statement.
enum Flow {
    Next,
    Return,
    /// Elsewhere.
    Tail(usize, Arguments),
}

impl Model<'_> {
    fn install(&mut self, exports: &Replacement) {
        self.installs.push(defines(self.program, exports));
        for &function in &exports.0 {
            self.current[function] = self.installs.len() as u64;
        }
    }

    fn enter(&mut self, entry: &Entry) -> i64 {
        let arguments = Arguments { fuel: entry.fuel, ints: vec![entry.argument], floats: vec![] };
        self.call_current(entry.function, arguments).int
    }

    fn call_current(&mut self, function: usize, arguments: Arguments) -> Results {
        let number = self.current[function];
        self.stack.push((function, number));
        let results = self.run(function, number, arguments);
        self.stack.pop();
        results
    }

    /// Calls a function from one of the install with a number.
    fn call(&mut self, from: u64, callee: usize, arguments: Arguments) -> Results {
        if self.stays(from, callee) {
            return self.run(callee, from, arguments);
        }
        self.call_current(callee, arguments)
    }

    /// Whether a call within an install is of its own version.
    fn stays(&self, install: u64, callee: usize) -> bool {
        match self.program.functions[callee].linkage {
            Linkage::Local => true,
            Linkage::Export => self.installs[install as usize - 1].contains(&callee),
            Linkage::Preemptible => false,
        }
    }

    fn run(&mut self, function: usize, number: u64, arguments: Arguments) -> Results {
        let Arguments { fuel, mut ints, mut floats } = arguments;
        ints.resize(self.program.variables(function, Kind::Int), 0);
        floats.resize(self.program.variables(function, Kind::Float), 0.0);
        let mut frame = Frame { number, fuel, ints, floats };
        match self.statements(&mut frame, &self.program.functions[function].body) {
            Flow::Next | Flow::Return => {
                let float = frame.floats.iter().fold(0.0, |sum, float| sum + float);
                let ints = frame.ints.iter();
                let int = ints.fold(0i64, |sum, &int| sum.wrapping_mul(31).wrapping_add(int));
                Results { int: int.wrapping_add(float as i64), float }
            }
            Flow::Tail(callee, arguments) => self.call(number, callee, arguments),
        }
    }

    fn statements(&mut self, frame: &mut Frame, statements: &[Statement]) -> Flow {
        for statement in statements {
            match self.statement(frame, statement) {
                Flow::Next => {}
                elsewhere => return elsewhere,
            }
        }
        Flow::Next
    }

    fn statement(&mut self, frame: &mut Frame, statement: &Statement) -> Flow {
        match *statement {
            Statement::Int(to, op, left, right) => {
                let right = match right {
                    Operand::Var(var) => frame.ints[var],
                    Operand::Const(constant) => constant,
                };
                frame.ints[to] = op.apply(frame.ints[left], right);
            }
            Statement::Float(to, op, left, right) => {
                frame.floats[to] = op.apply(frame.floats[left], frame.floats[right]);
            }
            Statement::ToFloat(to, from) => frame.floats[to] = frame.ints[from] as f64,
            Statement::ToInt(to, from) => frame.ints[to] = frame.floats[from] as i64,
            Statement::If(condition, ref then, ref otherwise) => {
                let holds = match condition {
                    Condition::Less(left, right) => frame.ints[left] < frame.ints[right],
                    Condition::NoneSet(var, mask) => frame.ints[var] & mask == 0,
                };
                return self.statements(frame, if holds { then } else { otherwise });
            }
            Statement::Repeat(times, ref body) => {
                for _ in 0..times {
                    match self.statements(frame, body) {
                        Flow::Next => {}
                        elsewhere => return elsewhere,
                    }
                }
            }
            Statement::Call(ref call) if frame.fuel > 0 => {
                let (callee, arguments) = self.resolve(frame, call);
                let results = self.call(frame.number, callee, arguments);
                frame.ints[call.to] = results.int;
                if self.program.signature(callee).float {
                    frame.floats[call.float_to] = results.float;
                }
            }
            Statement::Visit(visit) if frame.fuel > 0 => {
                frame.fuel -= 1;
                frame.ints[visit.to] = self.visit(frame.number, visit, frame.ints[visit.value]);
            }
            Statement::Call(_) | Statement::Visit(_) => {}
            Statement::Tail(ref call) if frame.fuel > 0 => {
                let (callee, arguments) = self.resolve(frame, call);
                return Flow::Tail(callee, arguments);
            }
            Statement::Return | Statement::Tail(_) => return Flow::Return,
        }
        Flow::Next
    }

    /// What a call in a frame is of, and with what.
    fn resolve(&self, frame: &mut Frame, call: &Call) -> (usize, Arguments) {
        let callee = match call.way {
            Way::Name | Way::Address => call.callee,
            Way::Table(var) => {
                let table = self.program.table(self.program.functions[call.callee].signature);
                table[(frame.ints[var] as u64 % table.len() as u64) as usize]
            }
        };
        let (fuel, left) = call.share(frame.fuel);
        frame.fuel = left;
        let mut arguments = Arguments { fuel, ints: Vec::new(), floats: Vec::new() };
        for (param, &var) in self.program.signature(callee).params.iter().zip(&call.arguments) {
            match param {
                Kind::Int => arguments.ints.push(frame.ints[var]),
                Kind::Float => arguments.floats.push(frame.floats[var]),
            }
        }
        (callee, arguments)
    }

    fn visit(&mut self, number: u64, visit: Visit, value: i64) -> i64 {
        let number = if self.numbered { number } else { 0 };
        let index = self.visits.len();
        let mut visited = Visited { site: visit.site, number, value, ..Visited::default() };
        self.visits.push(visited.clone());
        match self.script.next(self.program) {
            None => {}
            Some(Action::Look) => visited.seen = self.look(),
            Some(Action::Replace(replacement)) => self.install(replacement),
            Some(Action::Enter(entry)) => visited.returned = Some(self.enter(entry)),
        }
        let answer = answer(&visited);
        self.visits[index] = visited;
        answer
    }

    fn look(&self) -> Option<Ledger> {
        let current = self.program.named().map(|function| (function, self.current[function]));
        let mut ledger: Ledger = current.map(|version| (version, 0)).collect();
        for &version in &self.stack {
            *ledger.entry(version).or_default() += 1;
        }
        self.numbered.then_some(ledger)
    }
}

impl IntOp {
    fn apply(self, left: i64, right: i64) -> i64 {
        match self {
            Self::Iadd => left.wrapping_add(right),
            Self::Isub => left.wrapping_sub(right),
            Self::Imul => left.wrapping_mul(right),
            Self::Bxor => left ^ right,
            Self::Band => left & right,
            Self::Ishl => left.wrapping_shl(right as u32),
            Self::Ushr => (left as u64).wrapping_shr(right as u32) as i64,
            Self::Sshr => left.wrapping_shr(right as u32),
            Self::Rotl => left.rotate_left(right as u32 % 64),
        }
    }
}

impl FloatOp {
    fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Fadd => left + right,
            Self::Fsub => left - right,
            Self::Fmul => left * right,
            Self::Fdiv => left / right,
        }
    }
}
