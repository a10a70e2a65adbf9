//! What a program comes to, by walking its tree.
//!
//! Nothing here knows of machine code, slots or counters. An install is a set of functions with a
//! number; a function that is not called within its unit is called in the last of them; a version
//! is there while it is current or on the stack, or while a parked frame will resume in it.

mod points;
mod values;

pub use self::points::{Moves, moves};

use std::collections::{BTreeMap, BTreeSet};

use cranelift_codegen::ir::TrapCode;

use self::values::{Results, Variables};
use super::host::{Came, Observed, Outcome, Script, Visited, answer, payload};
use super::stack::{Frame, Ledger, Point, Seen, Stack};
use super::units::{defines, first_units};
use super::{
    Action, Call, Convention, Entry, Kind, Linkage, Operand, Program, Replacement, Statement,
    Visit, Way, WayIn,
};

/// What there is to be seen of a run, and what is to be known before.
pub(super) struct Expected {
    pub(super) observed: Observed,
    /// Whether something was thrown, or has trapped.
    pub(super) failed: bool,
    /// Whether the process would die.
    pub(super) dies: bool,
}

/// What is to be seen of a run. Unless it is `numbered`, it is what can be said if nobody knows
/// when functions are replaced.
pub(super) fn expected(program: &Program, numbered: bool) -> Expected {
    let (model, outcomes) = Model::run_through(program, numbered);
    let left = numbered.then(|| model.ledger());
    let Model { visits, failed, dies, .. } = model;
    Expected { observed: Observed { outcomes, visits, left }, failed, dies }
}

/// What a handler makes of what it has caught.
pub(super) fn caught(handler: usize, payload: [u64; 2]) -> i64 {
    (payload[0] ^ payload[1].wrapping_mul(31)).wrapping_add(handler as u64) as i64
}

struct Model<'a> {
    program: &'a Program,
    numbered: bool,
    /// What has been installed. Their numbers start with 1.
    installs: Vec<Install>,
    /// The number of each function's current version.
    current: Vec<u64>,
    /// The number of the last version that has each point.
    resume_entries: BTreeMap<Point, u64>,
    stack: Stack,
    /// What catches, outermost first.
    catchers: Vec<Catcher>,
    script: Script,
    visits: Vec<Visited>,
    moves: Moves,
    failed: bool,
    dies: bool,
}

/// A unit.
struct Install {
    /// The functions that it defines.
    defines: BTreeSet<usize>,
    /// The points of those that it exports.
    points: BTreeSet<Point>,
    /// Whether only one of the functions can be replaced.
    alone: bool,
}

/// A caller that catches exceptions, or one that could not.
enum Catcher {
    /// A call with handlers.
    Handlers(Vec<Option<u32>>),
    /// A call by the host.
    Host(WayIn),
}

/// Why a function does not return.
enum Ending {
    Trap(TrapCode, usize, u64),
    Thrown(u32, [u64; 2]),
    Panicked,
    /// The process dies.
    Dies,
}

/// A call that is about to be made.
struct Target {
    function: usize,
    by_name: bool,
    fuel: i64,
    ints: Vec<i64>,
    floats: Vec<f64>,
}

/// Where a function goes on after a statement.
enum Flow {
    Next,
    Return,
    /// Elsewhere.
    Tail(Target),
}

impl Model<'_> {
    /// Runs a program, and says what its entries have come to.
    fn run_through(program: &Program, numbered: bool) -> (Model<'_>, Vec<Outcome>) {
        let mut model = Model {
            program,
            numbered,
            installs: Vec::new(),
            current: vec![0; program.functions.len()],
            resume_entries: BTreeMap::new(),
            stack: Stack::default(),
            catchers: Vec::new(),
            script: Script::default(),
            visits: Vec::new(),
            moves: Moves::default(),
            failed: false,
            dies: false,
        };
        for unit in first_units(program) {
            model.install(&unit);
        }
        let mut outcomes = Vec::new();
        for entry in &program.entries {
            outcomes.push(model.enter(entry));
            if model.dies {
                break;
            }
        }
        (model, outcomes)
    }

    fn install(&mut self, exports: &Replacement) {
        let defines = defines(self.program, exports);
        self.installs.push(Install { defines, points: BTreeSet::new(), alone: false });
        let number = self.installs.len() as u64;
        for &function in &exports.functions {
            self.current[function] = number;
        }
        let points = self.points_of(exports, number);
        self.resume_entries.extend(points.iter().map(|&point| (point, number)));
        let install = &mut self.installs[number as usize - 1];
        // Points are functions, too, that are replaced.
        install.alone = exports.functions.len() == 1 && points.is_empty();
        install.points = points;
    }

    /// Whether a replacement takes the place of the version that is current: if it is asked for,
    /// that one was alone, too, and nobody is inside.
    fn is_in_place(&mut self, exports: &Replacement) -> bool {
        let &[function] = &*exports.functions else { return false };
        let version = (function, self.current[function]);
        if !exports.in_place || !self.installs[version.1 as usize - 1].alone {
            return false;
        }
        let held_up = self.stack.counted().any(|inside| inside == version);
        *if held_up { &mut self.moves.held_up } else { &mut self.moves.in_place } += 1;
        !held_up
    }

    /// A call by the host, as a caller sees it that catches panics.
    fn enter(&mut self, entry: &Entry) -> Outcome {
        let target = Target {
            function: entry.function,
            by_name: true,
            fuel: entry.fuel,
            ints: vec![entry.argument],
            floats: Vec::new(),
        };
        let version = (entry.function, self.current[entry.function]);
        let (depth, catchers) = (self.stack.0.len(), self.catchers.len());
        self.catchers.push(Catcher::Host(entry.way));
        if self.is_tail(entry.function) {
            self.stack.0.extend([Frame::Entry(None), Frame::Gate(version.into())]);
        } else {
            self.stack.0.push(Frame::Entry(Some(version)));
        }
        let ended = self.run(version.1, target);
        self.stack.0.truncate(depth);
        self.catchers.truncate(catchers);
        match ended {
            Ok(results) => Outcome::Returned(results.int),
            Err(Ending::Trap(code, function, number)) => Outcome::Trapped(code, function, number),
            Err(Ending::Thrown(tag, payload)) => Outcome::Thrown(tag, payload),
            Err(Ending::Panicked) => Outcome::Panicked,
            Err(Ending::Dies) => {
                self.dies = true;
                Outcome::Panicked
            }
        }
    }

    fn is_tail(&self, function: usize) -> bool {
        self.program.signature(function).convention == Convention::Tail
    }

    /// Whether a call within an install is of its own version.
    fn stays(&self, install: u64, callee: usize) -> bool {
        match self.program.functions[callee].linkage {
            Linkage::Local => true,
            Linkage::Export => self.installs[install as usize - 1].defines.contains(&callee),
            Linkage::Preemptible => false,
        }
    }

    /// Calls a function from one of the install with a number.
    fn call(
        &mut self,
        from: u64,
        target: Target,
        catches: &[Option<u32>],
    ) -> Result<Results, Ending> {
        let (depth, catchers) = (self.stack.0.len(), self.catchers.len());
        if !catches.is_empty() {
            self.catchers.push(Catcher::Handlers(catches.to_vec()));
        }
        let number = self.go_to(from, &target);
        let ended = self.run(number, target);
        self.stack.0.truncate(depth);
        self.catchers.truncate(catchers);
        match ended {
            Err(Ending::Thrown(tag, payload)) => {
                let handler = catches.iter().position(|caught| caught.is_none_or(|it| it == tag));
                let handler = handler.ok_or(Ending::Thrown(tag, payload))?;
                Ok(Results { int: caught(handler, payload), float: None })
            }
            ended => ended,
        }
    }

    /// Says which version a call is of, and pushes what is between it and the caller.
    fn go_to(&mut self, from: u64, target: &Target) -> u64 {
        let function = target.function;
        if self.stays(from, function) {
            return from;
        }
        let version = (function, self.current[function]);
        let by_entry = !target.by_name && !self.is_tail(function);
        let frame =
            if by_entry { Frame::Entry(Some(version)) } else { Frame::Gate(version.into()) };
        self.stack.0.push(frame);
        version.1
    }

    /// Runs a function of the install with a number, and those that it ends with.
    fn run(&mut self, mut number: u64, mut target: Target) -> Result<Results, Ending> {
        loop {
            let Target { function, fuel, mut ints, mut floats, .. } = target;
            self.stack.0.push(Frame::Body((function, number).into()));
            ints.resize(self.program.variables(function, Kind::Int), 0);
            floats.resize(self.program.variables(function, Kind::Float), 0.0);
            let mut variables = Variables { function, number, fuel, ints, floats };
            match self.statements(&mut variables, &self.program.functions[function].body)? {
                Flow::Next | Flow::Return => return Ok(variables.results()),
                Flow::Tail(next) => {
                    self.stack.0.pop();
                    if !self.stays(variables.number, next.function) {
                        // A gate that this function was called through is the next one's then.
                        self.stack.0.pop_if(|frame| matches!(frame, Frame::Gate(_)));
                    }
                    number = self.go_to(variables.number, &next);
                    target = next;
                }
            }
        }
    }

    fn statements(
        &mut self,
        variables: &mut Variables,
        statements: &[Statement],
    ) -> Result<Flow, Ending> {
        for statement in statements {
            match self.statement(variables, statement)? {
                Flow::Next => {}
                elsewhere => return Ok(elsewhere),
            }
        }
        Ok(Flow::Next)
    }

    fn statement(
        &mut self,
        variables: &mut Variables,
        statement: &Statement,
    ) -> Result<Flow, Ending> {
        let Variables { function, number, ref mut ints, ref mut floats, .. } = *variables;
        match *statement {
            Statement::Int(to, op, left, right) => {
                let right = match right {
                    Operand::Var(var) => ints[var],
                    Operand::Const(constant) => constant,
                };
                ints[to] = op.apply(ints[left], right);
            }
            Statement::Float(to, op, left, right) => {
                floats[to] = op.apply(floats[left], floats[right]);
            }
            Statement::ToFloat(to, from) => floats[to] = ints[from] as f64,
            Statement::ToInt(to, from) => ints[to] = floats[from] as i64,
            Statement::If(condition, ref then, ref otherwise) => {
                let holds = condition.holds(ints);
                return self.statements(variables, if holds { then } else { otherwise });
            }
            Statement::Repeat(site, times, ref body) => {
                for _ in 0..times {
                    self.move_on(variables, site);
                    match self.statements(variables, body)? {
                        Flow::Next => {}
                        elsewhere => return Ok(elsewhere),
                    }
                }
            }
            Statement::Call(ref call) if variables.fuel > 0 => {
                let target = self.target(variables, call);
                let call_it = |model: &mut Self| model.call(number, target, &call.catches);
                let results = self.wait_for(variables, call.site, call_it)?;
                variables.ints[call.to] = results.int;
                if let Some(float) = results.float
                    && self.program.signature(call.callee).float
                {
                    variables.floats[call.float_to] = float;
                }
            }
            Statement::Visit(visit) if variables.fuel > 0 => {
                variables.fuel -= 1;
                let value = ints[visit.value];
                let visit_it = |model: &mut Self| model.visit(number, visit, value);
                variables.ints[visit.to] = self.wait_for(variables, visit.site, visit_it)?;
            }
            Statement::Trap(condition, code) if condition.holds(ints) => {
                return Err(self.trap(TrapCode::unwrap_user(code), function, number));
            }
            Statement::Divide(to, left, right) => match ints[left].checked_div(ints[right]) {
                Some(result) => ints[to] = result,
                None => {
                    let code = match ints[right] {
                        0 => TrapCode::INTEGER_DIVISION_BY_ZERO,
                        _ => TrapCode::INTEGER_OVERFLOW,
                    };
                    return Err(self.trap(code, function, number));
                }
            },
            Statement::Call(_) | Statement::Visit(_) | Statement::Trap(..) => {}
            Statement::Tail(ref call) if variables.fuel > 0 => {
                return Ok(Flow::Tail(self.target(variables, call)));
            }
            Statement::Return | Statement::Tail(_) => return Ok(Flow::Return),
        }
        Ok(Flow::Next)
    }

    /// What a call is of, and with what.
    fn target(&self, variables: &mut Variables, call: &Call) -> Target {
        let function = match call.way {
            Way::Name | Way::Address => call.callee,
            Way::Table(var) => {
                let table = self.program.table(self.program.functions[call.callee].signature);
                table[(variables.ints[var] as u64 % table.len() as u64) as usize]
            }
        };
        let (fuel, left) = call.share(variables.fuel);
        variables.fuel = left;
        let by_name = call.way == Way::Name;
        let mut target = Target { function, by_name, fuel, ints: Vec::new(), floats: Vec::new() };
        for (param, &var) in self.program.signature(function).params.iter().zip(&call.arguments) {
            match param {
                Kind::Int => target.ints.push(variables.ints[var]),
                Kind::Float => target.floats.push(variables.floats[var]),
            }
        }
        target
    }

    /// What a trap comes to: the caller of a stable entry cannot be told.
    fn trap(&mut self, code: TrapCode, function: usize, number: u64) -> Ending {
        self.failed = true;
        let host = |catcher: &&Catcher| matches!(catcher, Catcher::Host(_));
        match self.catchers.iter().rev().find(host) {
            Some(Catcher::Host(WayIn::Address)) => Ending::Dies,
            _ => Ending::Trap(code, function, if self.numbered { number } else { 0 }),
        }
    }

    /// Whether a caller catches an exception.
    fn throw(&mut self, tag: u32) -> bool {
        self.failed = true;
        let decides = |catcher: &&Catcher| match catcher {
            Catcher::Handlers(caught) => {
                caught.iter().any(|caught| caught.is_none_or(|it| it == tag))
            }
            Catcher::Host(_) => true,
        };
        let decided = self.catchers.iter().rev().find(decides);
        !matches!(decided, Some(Catcher::Host(WayIn::Address)))
    }

    fn visit(&mut self, number: u64, visit: Visit, value: i64) -> Result<i64, Ending> {
        let number = if self.numbered { number } else { 0 };
        let index = self.visits.len();
        let mut visited = Visited { site: visit.site, number, value, came: Came::Left };
        self.visits.push(visited.clone());
        visited.came = match self.script.next(self.program) {
            None => Came::Nothing,
            Some(Action::Look) if self.numbered => Came::Seen(self.look()),
            Some(Action::Look) => Came::Nothing,
            Some(Action::Replace(replacement)) => {
                let in_place = self.is_in_place(replacement);
                self.install(replacement);
                if in_place && self.numbered { Came::ReplacedInPlace } else { Came::Nothing }
            }
            Some(Action::Enter(entry)) => {
                let outcome = self.enter(entry);
                if self.dies {
                    return Err(Ending::Dies);
                }
                if outcome == Outcome::Panicked && !entry.catches {
                    return Err(Ending::Panicked);
                }
                Came::Entered(outcome)
            }
            Some(&Action::Throw(tag)) => {
                if self.throw(tag) {
                    return Err(Ending::Thrown(tag, payload(&visited)));
                }
                Came::Uncaught
            }
            Some(Action::Panic) => {
                self.failed = true;
                return Err(Ending::Panicked);
            }
        };
        let answer = answer(&visited);
        self.visits[index] = visited;
        Ok(answer)
    }

    fn look(&self) -> Seen {
        let (walked, traced) = (self.stack.walked(), self.stack.traced());
        let mut waiting = BTreeMap::new();
        for point in self.stack.waiting() {
            *waiting.entry(point.function).or_default() += 1;
        }
        Seen { ledger: self.ledger(), waiting, walked, traced }
    }

    /// How many frames are inside of what: of what is current, of what is on the stack, and of
    /// where parked frames will resume.
    fn ledger(&self) -> Ledger {
        let current = self.program.named().map(|function| (function, self.current[function]));
        let resumed_in =
            self.stack.waiting().map(|point| (point.function, self.resume_entries[&point]));
        let mut ledger: Ledger = current.chain(resumed_in).map(|version| (version, 0)).collect();
        for version in self.stack.counted() {
            *ledger.entry(version).or_default() += 1;
        }
        ledger
    }
}
