//! Programs from random bytes.

use arbitrary::{Arbitrary, Unstructured};
use lastout::{Counting, DropPolicy};

use super::{
    Action, Call, Carried, Condition, Convention, Entry, Event, FloatOp, Function, IntOp, Kind,
    Linkage, Operand, Options, Points, Program, Replacement, Signature, Statement, Visit, Way,
    WayIn,
};

impl Options {
    /// Everything that there is on this host.
    pub const ALL: Self = Self {
        tail_calls: cfg!(target_arch = "x86_64"),
        failures: cfg!(all(target_arch = "x86_64", target_env = "gnu")),
        moving: cfg!(target_arch = "x86_64"),
        in_place: cfg!(target_arch = "x86_64"),
    };
}

impl<'a> Arbitrary<'a> for Program {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Self::generate(u, Options::ALL)
    }
}

/// How many tags exceptions can have.
const TAGS: u32 = 3;

const CONVENTIONS: [Convention; 3] = [Convention::SystemV, Convention::Fast, Convention::Tail];

/// Where frames move: only those of one convention do.
const MOSTLY_TAIL: [Convention; 6] = [
    Convention::Tail,
    Convention::Tail,
    Convention::Tail,
    Convention::Tail,
    Convention::SystemV,
    Convention::Fast,
];

const POINTS: [Points; 14] = [
    Points::Plain,
    Points::Plain,
    Points::Plain,
    Points::Plain,
    Points::Plain,
    Points::Loops,
    Points::Loops,
    Points::Loops,
    Points::Without,
    Points::Without,
    Points::Carrying(Carried::I8),
    Points::Carrying(Carried::I128),
    Points::Carrying(Carried::F32),
    Points::Carrying(Carried::I32X4),
];

const INT_OPS: [IntOp; 9] = [
    IntOp::Iadd,
    IntOp::Isub,
    IntOp::Imul,
    IntOp::Bxor,
    IntOp::Band,
    IntOp::Ishl,
    IntOp::Ushr,
    IntOp::Sshr,
    IntOp::Rotl,
];

const FLOAT_OPS: [FloatOp; 4] = [FloatOp::Fadd, FloatOp::Fsub, FloatOp::Fmul, FloatOp::Fdiv];

impl Program {
    /// A program of what the options allow.
    ///
    /// # Errors
    ///
    /// As `arbitrary` has them.
    pub fn generate(u: &mut Unstructured<'_>, options: Options) -> arbitrary::Result<Self> {
        let options = Options { moving: options.moving && u.arbitrary()?, ..options };
        let conventions: &[_] = if options.moving { &MOSTLY_TAIL } else { &CONVENTIONS };
        let mut signatures = vec![entry_signature(u, conventions)?];
        for _ in 0..u.int_in_range(0..=3)? {
            signatures.push(signature(u, conventions)?);
        }
        let units = u.int_in_range(1..=4)?;
        let mut functions = Vec::new();
        for index in 0..u.int_in_range(2..=8)? {
            functions.push(function(u, index == 0, &signatures, units, options)?);
        }
        let counting = *u.choose(&[Counting::Plain, Counting::Atomic])?;
        let drop_policy = *u.choose(&[DropPolicy::Leaver, DropPolicy::Collector])?;
        // Most programs come to more without.
        let options = Options { failures: options.failures && u.arbitrary()?, ..options };
        let mut program = Self {
            counting,
            drop_policy,
            interleave: u.arbitrary()?,
            signatures,
            functions,
            first: points(u, options)?,
            entries: Vec::new(),
            script: Vec::new(),
            replacements: Vec::new(),
            failures: options.failures,
        };
        // Bodies come last, so that they and not these become empty if there are few bytes.
        for _ in 0..u.int_in_range(1..=3)? {
            program.entries.push(entry(u, &program)?);
        }
        for _ in 0..u.int_in_range(4..=24)? {
            let skip = u.int_in_range(0..=2)?;
            program.script.push(Event { skip, action: action(u, &program, options)? });
        }
        for _ in 0..u.int_in_range(1..=4)? {
            program.replacements.push(replacement(u, &program, options)?);
        }
        let mut sites = 0;
        for function in 0..program.functions.len() {
            let body = Body { program: &program, options, function };
            let first_site = sites;
            let body = body.statements(u, 2, &mut sites)?;
            let function = &mut program.functions[function];
            (function.first_site, function.body) = (first_site, body);
        }
        Ok(program)
    }
}

fn entry_signature(
    u: &mut Unstructured<'_>,
    conventions: &[Convention],
) -> arbitrary::Result<Signature> {
    Ok(Signature { convention: *u.choose(conventions)?, params: vec![Kind::Int], float: false })
}

fn signature(u: &mut Unstructured<'_>, conventions: &[Convention]) -> arbitrary::Result<Signature> {
    let convention = *u.choose(conventions)?;
    // As many as do not fit into registers, of one kind or of both.
    let most = *u.choose(&[2, 4, 4, 12, 20])?;
    let floats = *u.choose(&[0, 1, 4])?;
    let mut params = Vec::new();
    for _ in 0..u.int_in_range(0..=most)? {
        let float = u.int_in_range(1..=5)? <= floats;
        params.push(if float { Kind::Float } else { Kind::Int });
    }
    Ok(Signature { convention, params, float: u.arbitrary()? })
}

/// A function without a body.
fn function(
    u: &mut Unstructured<'_>,
    first: bool,
    signatures: &[Signature],
    units: usize,
    options: Options,
) -> arbitrary::Result<Function> {
    let signature = if first { 0 } else { u.int_in_range(0..=signatures.len() - 1)? };
    let linkages = [Linkage::Export, Linkage::Export, Linkage::Preemptible, Linkage::Local];
    let linkage = *u.choose(if first { &linkages[..3] } else { &linkages })?;
    Ok(Function {
        signature,
        linkage,
        unit: u.int_in_range(0..=units - 1)?,
        moves: options.moving && u.int_in_range(0..=3)? > 0,
        first_site: 0,
        body: Vec::new(),
    })
}

fn entry(u: &mut Unstructured<'_>, program: &Program) -> arbitrary::Result<Entry> {
    let callable: Vec<_> =
        program.named().filter(|&function| program.functions[function].signature == 0).collect();
    let by_address = program.signatures[0].convention == Convention::SystemV && u.arbitrary()?;
    Ok(Entry {
        function: *u.choose(&callable)?,
        way: if by_address { WayIn::Address } else { WayIn::Handle },
        fuel: u.int_in_range(8..=64)?,
        argument: u.arbitrary::<i16>()?.into(),
        catches: u.arbitrary()?,
    })
}

fn action(
    u: &mut Unstructured<'_>,
    program: &Program,
    options: Options,
) -> arbitrary::Result<Action> {
    Ok(match u.int_in_range(0..=if options.failures { 9 } else { 7 })? {
        0..=2 => Action::Look,
        3..=5 => Action::Replace(replacement(u, program, options)?),
        6..=7 => Action::Enter(entry(u, program)?),
        8 => Action::Throw(u.int_in_range(0..=TAGS - 1)?),
        _ => Action::Panic,
    })
}

fn points(u: &mut Unstructured<'_>, options: Options) -> arbitrary::Result<Points> {
    if options.moving { Ok(*u.choose(&POINTS)?) } else { Ok(Points::Without) }
}

fn replacement(
    u: &mut Unstructured<'_>,
    program: &Program,
    options: Options,
) -> arbitrary::Result<Replacement> {
    let mut functions: Vec<_> = program.named().collect();
    let some = u.arbitrary::<u8>()?;
    let kept = functions.remove(u.int_in_range(0..=functions.len() - 1)?);
    functions.retain(|function| some & 1 << function != 0);
    functions.push(kept);
    if options.in_place && u.int_in_range(0..=4)? == 0 {
        return Ok(Replacement { functions: vec![kept], points: Points::Without, in_place: true });
    }
    Ok(Replacement { functions, points: points(u, options)?, in_place: false })
}

/// The number of a new site.
fn next(sites: &mut u32) -> u32 {
    *sites += 1;
    *sites - 1
}

/// What a function's body is made with.
struct Body<'a> {
    program: &'a Program,
    options: Options,
    function: usize,
}

impl Body<'_> {
    /// Statements with so many levels of others in them.
    fn statements(
        &self,
        u: &mut Unstructured<'_>,
        levels: usize,
        sites: &mut u32,
    ) -> arbitrary::Result<Vec<Statement>> {
        let mut statements = Vec::new();
        let (least, most) = if levels == 2 { (4, 10) } else { (1, 4) };
        for _ in 0..u.int_in_range(least..=most)? {
            let statement = self.statement(u, levels, sites)?;
            let last = matches!(statement, Statement::Return | Statement::Tail(_));
            statements.push(statement);
            if last {
                break;
            }
        }
        Ok(statements)
    }

    fn statement(
        &self,
        u: &mut Unstructured<'_>,
        levels: usize,
        sites: &mut u32,
    ) -> arbitrary::Result<Statement> {
        if self.options.failures && u.int_in_range(0..=23)? == 23 {
            return self.failing(u);
        }
        let kinds = if levels > 0 { 25 } else { 21 };
        Ok(match u.int_in_range(0..=kinds)? {
            0..=3 => {
                let constant = Operand::Const(u.arbitrary::<i8>()?.into());
                let right = if u.arbitrary()? { constant } else { Operand::Var(self.int(u)?) };
                Statement::Int(self.int(u)?, *u.choose(&INT_OPS)?, self.int(u)?, right)
            }
            4 => {
                let (left, right) = (self.float(u)?, self.float(u)?);
                Statement::Float(self.float(u)?, *u.choose(&FLOAT_OPS)?, left, right)
            }
            5 => Statement::ToFloat(self.float(u)?, self.int(u)?),
            6 => Statement::ToInt(self.int(u)?, self.float(u)?),
            7..=13 => {
                let callee = u.int_in_range(0..=self.program.functions.len() - 1)?;
                Statement::Call(self.call(u, callee, sites)?)
            }
            14..=19 => {
                let site = next(sites);
                Statement::Visit(Visit { site, value: self.int(u)?, to: self.int(u)? })
            }
            20 => match self.tail(u, sites)? {
                Some(call) => Statement::Tail(call),
                None => Statement::ToInt(self.int(u)?, self.float(u)?),
            },
            21 if levels < 2 => Statement::Return,
            21 => Statement::ToFloat(self.float(u)?, self.int(u)?),
            22..=23 => {
                let then = self.statements(u, levels - 1, sites)?;
                Statement::If(self.condition(u)?, then, self.statements(u, levels - 1, sites)?)
            }
            _ => {
                let (site, times) = (next(sites), u.int_in_range(1..=4)?);
                Statement::Repeat(site, times, self.statements(u, levels - 1, sites)?)
            }
        })
    }

    /// A statement that may trap.
    fn failing(&self, u: &mut Unstructured<'_>) -> arbitrary::Result<Statement> {
        if u.arbitrary()? {
            return Ok(Statement::Divide(self.int(u)?, self.int(u)?, self.int(u)?));
        }
        let rare = Condition::NoneSet(self.int(u)?, *u.choose(&[7, 63, 3])?);
        Ok(Statement::Trap(rare, u.int_in_range(1..=9)?))
    }

    fn condition(&self, u: &mut Unstructured<'_>) -> arbitrary::Result<Condition> {
        if u.arbitrary()? {
            return Ok(Condition::Less(self.int(u)?, self.int(u)?));
        }
        Ok(Condition::NoneSet(self.int(u)?, *u.choose(&[1, 2, 6])?))
    }

    /// A call that this function can end with.
    fn tail(&self, u: &mut Unstructured<'_>, sites: &mut u32) -> arbitrary::Result<Option<Call>> {
        let own = self.program.signature(self.function);
        let fits = |&callee: &usize| {
            let callee = self.program.signature(callee);
            callee.convention == Convention::Tail && callee.float == own.float
        };
        let callees: Vec<_> = (0..self.program.functions.len()).filter(fits).collect();
        if !self.options.tail_calls || own.convention != Convention::Tail || callees.is_empty() {
            return Ok(None);
        }
        let callee = *u.choose(&callees)?;
        Ok(Some(Call { catches: Vec::new(), ..self.call(u, callee, sites)? }))
    }

    fn call(
        &self,
        u: &mut Unstructured<'_>,
        callee: usize,
        sites: &mut u32,
    ) -> arbitrary::Result<Call> {
        let site = next(sites);
        let way = match u.int_in_range(0..=4)? {
            0..=2 => Way::Name,
            3 => Way::Address,
            _ => Way::Table(self.int(u)?),
        };
        let arguments = self.program.signature(callee).params.iter().map(|param| match param {
            Kind::Int => self.int(u),
            Kind::Float => self.float(u),
        });
        let arguments = arguments.collect::<arbitrary::Result<_>>()?;
        // The last keeps nothing: that is how stacks become deep.
        let keep = *u.choose(&[1, 2, 3, 63])?;
        let (to, float_to) = (self.int(u)?, self.float(u)?);
        let mut catches = Vec::new();
        // Cranelift has no handlers for others.
        let catching = self.program.signature(callee).convention != Convention::Fast;
        if self.options.failures && catching && u.arbitrary()? {
            for _ in 0..u.int_in_range(1..=2)? {
                let tag = u.int_in_range(0..=TAGS)?;
                catches.push((tag < TAGS).then_some(tag));
            }
        }
        Ok(Call { site, callee, way, keep, arguments, to, float_to, catches })
    }

    fn int(&self, u: &mut Unstructured<'_>) -> arbitrary::Result<usize> {
        u.int_in_range(0..=self.program.variables(self.function, Kind::Int) - 1)
    }

    fn float(&self, u: &mut Unstructured<'_>) -> arbitrary::Result<usize> {
        u.int_in_range(0..=self.program.variables(self.function, Kind::Float) - 1)
    }
}
