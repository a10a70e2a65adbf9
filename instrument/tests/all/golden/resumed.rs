//! All that is made of a function with points, for the golden files.

use cranelift_codegen::ir::{
    AbiParam, Block, Function, Inst, Opcode, Signature, UserExternalName, Value,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_reader::parse_functions;
use lastout_instrument::Callee;
use lastout_instrument::resume::{
    Mark, PointNames, PointPosition, PositionNames, Resumable, ResumePoint, call_fallback,
    parked_call,
};

use super::{Header, with_symbols};
use crate::support;

/// What a point's functions are called: these, and its number. Its flag is `u1` and its number.
const RESUME_ENTRY: u32 = 100;
const CODE: u32 = 200;
const PARKED_CALL: u32 = 300;
const FALLBACK: u32 = 400;
const CONVERTER: u32 = 500;

pub(crate) fn resumed(
    name: &str,
    header: &Header<'_>,
    functions: &[Function],
    isa: &dyn TargetIsa,
) -> String {
    let marks = |func: &Function| -> Vec<_> {
        let points = header.all("point");
        points.map(|point| mark(func, point).unwrap_or_else(|| panic!("{name}: {point}"))).collect()
    };
    let outputs = functions.iter().map(|func| match Resumable::new(func, &marks(func), isa) {
        Ok(resumable) => everything(&resumable, header, isa),
        Err(error) => format!("; refused: {error}\n"),
    });
    outputs.collect::<Vec<_>>().join("\n")
}

/// A line such as `1 block2 v3=7`.
fn mark(func: &Function, point: &str) -> Option<Mark> {
    let mut words = point.split(' ');
    let id = words.next()?.parse().ok()?;
    let position = words.next()?;
    let position = match position.strip_prefix("block") {
        Some(block) => PointPosition::Block(Block::from_u32(block.parse().ok()?)),
        None => {
            let number: usize = position.strip_prefix("call")?.parse().ok()?;
            PointPosition::Call(calls(func).nth(number)?)
        }
    };
    let label = |word: &str| {
        let (value, label) = word.strip_prefix('v')?.split_once('=')?;
        Some((label.parse().ok()?, Value::from_u32(value.parse().ok()?)))
    };
    let labels = words.map(label).collect::<Option<_>>()?;
    Some(Mark { id, position, labels })
}

fn calls(func: &Function) -> impl Iterator<Item = Inst> {
    let insts = func.layout.blocks().flat_map(|block| func.layout.block_insts(block));
    insts.filter(|&inst| func.dfg.insts[inst].opcode() == Opcode::Call)
}

fn everything(resumable: &Resumable<'_>, header: &Header<'_>, isa: &dyn TargetIsa) -> String {
    let points = resumable.points();
    let names: Vec<_> = points.iter().map(names).collect();
    let mut output = part("start", &resumable.start(&names), isa);
    for (point, own) in points.iter().zip(&names) {
        let id = point.id;
        let mut add = |what: &str, func: &Function| {
            output += &format!("\n{}", part(&format!("{id}: {what}"), func, isa));
        };
        add("code", &resumable.code(point, &names));
        add("resume entry", &resumable.resume_entry(point, own));
        let converters = header.all("converter").filter_map(|line| line.split_once(' '));
        for (_, types) in converters.filter(|(of, _)| of.parse() == Ok(id)) {
            let converted = converter(point, types);
            let name = name(CONVERTER + id);
            let resume_entry = resumable.converting_resume_entry(point, own, &name, &converted);
            assert_eq!(resume_entry.signature, resumable.converting_signature(point, &converted));
            add("converting resume entry", &resume_entry);
        }
        let (Some(fallback), Some(call)) = (resumable.fallback(point, own), &point.call) else {
            assert!(
                matches!(own.position, PositionNames::Block { .. }),
                "there is something else to call"
            );
            continue;
        };
        add("fallback", &fallback);
        let signature = resumable.parked_call_signature(point);
        let resume_entry = resumable.resume_entry_signature(point);
        let parked = |callee| parked_call(signature.clone(), call, callee, &resume_entry, isa);
        add("parked call", &parked(Callee::Replaceable));
        add("parked call for the host", &parked(Callee::Fixed));
        add("call fallback", &call_fallback(&signature));
    }
    output
}

fn name(index: u32) -> UserExternalName {
    UserExternalName { namespace: 0, index }
}

fn names(point: &ResumePoint) -> PointNames {
    let id = point.id;
    let position = match point.position {
        PointPosition::Block(_) => {
            PositionNames::Block { flag: UserExternalName { namespace: 1, index: id } }
        }
        PointPosition::Call(_) => PositionNames::Call {
            parked_call: name(PARKED_CALL + id),
            fallback: name(FALLBACK + id),
        },
    };
    PointNames { resume_entry: name(RESUME_ENTRY + id), code: name(CODE + id), position }
}

/// What makes of values of these types what is alive at the point.
fn converter(point: &ResumePoint, types: &str) -> Signature {
    let text = format!("function u0:0({types}) tail {{}}");
    let mut signature = parse_functions(&text).expect("types")[0].signature.clone();
    assert_eq!(signature.call_conv, CallConv::Tail);
    signature.returns.extend(point.live.iter().map(|live| AbiParam::new(live.ty)));
    assert!(point.accepts(&signature.returns));
    signature
}

fn part(what: &str, func: &Function, isa: &dyn TargetIsa) -> String {
    support::verify(func, isa);
    format!("; {what}\n{}", with_symbols(func, func.display().to_string()))
}
