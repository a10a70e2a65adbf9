//! A function with points, and whether it can have them.

use std::collections::{BTreeMap, BTreeSet};

use cranelift_codegen::ir::{
    AbiParam, ArgumentPurpose, Block, ExtFuncData, ExternalName, FuncRef, Function,
    GlobalValueData, InstructionData, Opcode, Signature, UserExternalName, Value,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};

use super::liveness::Segments;
use super::point::{Live, Mark, PointPosition, ResumePoint};
use crate::machine::has_tail_gates;
use crate::{Error, check_signature};

/// A function with points.
pub struct Resumable<'a> {
    pub(super) func: &'a Function,
    pub(super) isa: &'a dyn TargetIsa,
    pub(super) entry: Block,
    pub(super) segments: Segments,
    pub(super) points: Vec<ResumePoint>,
}

impl<'a> Resumable<'a> {
    /// Finds what is alive at the points of a function.
    ///
    /// # Errors
    ///
    /// - [`Error::Signature`] if the function cannot be tail-called on this host: so this is for
    ///   functions of [`CallConv::Tail`], on x86-64.
    /// - [`Error::NotResumable`] if the function has stack slots, or looks at its frame, or has no
    ///   blocks.
    /// - [`Error::Point`] if there is no such block or call, or another point has its number or
    ///   position.
    pub fn new(func: &'a Function, marks: &[Mark], isa: &'a dyn TargetIsa) -> Result<Self, Error> {
        check_function(func, isa)?;
        let no_blocks = Error::NotResumable { why: "it has no blocks" };
        let entry = func.layout.entry_block().ok_or(no_blocks)?;
        let mut positions = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for mark in marks {
            check_mark(func, mark)?;
            let unique = ids.insert(mark.id) && positions.insert(mark.position, mark.id).is_none();
            if !unique {
                return Err(Error::point(mark.id, "another point has its number or its place"));
            }
        }
        let segments = Segments::new(func, &positions);
        let mut points = Vec::with_capacity(marks.len());
        for mark in marks {
            let values = segments.alive(func, mark);
            let label = |value: Value| {
                let labels = mark.labels.iter();
                let mut labels =
                    labels.filter(|(_, labelled)| func.dfg.resolve_aliases(*labelled) == value);
                labels.next().map(|(label, _)| *label)
            };
            let mut values: Vec<_> = values
                .into_iter()
                .map(|value| (Live { label: label(value), ty: func.dfg.value_type(value) }, value))
                .collect();
            // The sort is stable.
            values.sort_by_key(|(live, _)| (live.label.is_none(), live.label));
            let labels: Vec<_> = values.iter().filter_map(|(live, _)| live.label).collect();
            if labels.windows(2).any(|two| two[0] == two[1]) {
                return Err(Error::point(mark.id, "two of its values have the same label"));
            }
            let (live, values) = values.into_iter().unzip();
            let called_as = |callee: &ExtFuncData| func.dfg.signatures[callee.signature].clone();
            let call = callee(func, mark.position).map(called_as);
            let point = ResumePoint { id: mark.id, position: mark.position, live, call, values };
            check_signature(&point.resume_entry_signature(func, isa), isa)?;
            if point.call.is_some() {
                check_signature(&point.parked_call_signature(func, isa), isa)?;
            }
            points.push(point);
        }
        Ok(Self { func, isa, entry, segments, points })
    }

    /// The points, in the order of their marks. The other methods take the names for them in the
    /// same order.
    pub fn points(&self) -> &[ResumePoint] {
        &self.points
    }

    /// The signature of a point's [code](Self::code): what is alive there, and what the call
    /// returns.
    pub fn code_signature(&self, point: &ResumePoint) -> Signature {
        point.code_signature(&self.func.signature)
    }

    /// The signature of a point's [resume entry](Self::resume_entry): what its code takes, and the
    /// fallback.
    pub fn resume_entry_signature(&self, point: &ResumePoint) -> Signature {
        point.resume_entry_signature(self.func, self.isa)
    }

    /// The signature of the [parked call](super::parked_call) of a point at a call: the arguments
    /// of the call, what is alive after it, and the fallback.
    pub fn parked_call_signature(&self, point: &ResumePoint) -> Signature {
        point.parked_call_signature(self.func, self.isa)
    }

    /// The signature of the [fallback](Self::fallback) of a point at a call: the arguments of the
    /// call, and what is alive after it.
    pub fn fallback_signature(&self, point: &ResumePoint) -> Signature {
        point.fallback_signature(&self.func.signature)
    }

    /// The function that is called, if the point is at a call.
    pub fn callee(&self, point: &ResumePoint) -> Option<&'a ExtFuncData> {
        callee(self.func, point.position)
    }
}

impl Error {
    fn point(id: u32, why: &'static str) -> Self {
        Self::Point { id, why }
    }
}

/// What is called at a position, if there is a call.
fn callee(func: &Function, position: PointPosition) -> Option<&ExtFuncData> {
    let PointPosition::Call(call) = position else { return None };
    let InstructionData::Call { opcode: Opcode::Call, func_ref, .. } = func.dfg.insts[call] else {
        return None;
    };
    Some(&func.dfg.ext_funcs[func_ref])
}

fn check_mark(func: &Function, mark: &Mark) -> Result<(), Error> {
    let refuse = |why| Err(Error::point(mark.id, why));
    if mark.labels.iter().any(|(_, value)| !func.dfg.value_is_valid(*value)) {
        return refuse("one of its labels is of a value that does not exist");
    }
    match mark.position {
        PointPosition::Block(block) if func.layout.is_block_inserted(block) => Ok(()),
        PointPosition::Block(_) => refuse("there is no such block"),
        PointPosition::Call(call) if func.layout.inst_block(call).is_none() => {
            refuse("there is no such instruction")
        }
        position => match callee(func, position) {
            None => refuse("the instruction is not a `call`"),
            Some(callee) => {
                let signature = &func.dfg.signatures[callee.signature];
                let normal = |param: &AbiParam| param.purpose == ArgumentPurpose::Normal;
                if signature.params.iter().chain(&signature.returns).all(normal) {
                    return Ok(());
                }
                refuse("an argument or a result of the call has a special purpose")
            }
        },
    }
}

fn check_function(func: &Function, isa: &dyn TargetIsa) -> Result<(), Error> {
    let signature = |why| Error::Signature { signature: func.signature.to_string(), why };
    if func.signature.call_conv != CallConv::Tail {
        return Err(signature("frames move by tail calls, so this takes the `tail` convention"));
    }
    if !has_tail_gates(isa) {
        return Err(signature("on this host no gate can be tail-called"));
    }
    if func.signature.params.iter().any(|param| param.purpose != ArgumentPurpose::Normal) {
        return Err(signature("a parameter has a special purpose, and does not move"));
    }
    let refuse = |why| Err(Error::NotResumable { why });
    if !func.sized_stack_slots.is_empty() || !func.dynamic_stack_slots.is_empty() {
        return refuse("it has stack slots, which do not move");
    }
    if func.global_values.values().any(|value| matches!(value, GlobalValueData::VMContext)) {
        return refuse("it refers to a context parameter, which does not move");
    }
    for block in func.layout.blocks() {
        for inst in func.layout.block_insts(block) {
            if matches!(
                func.dfg.insts[inst].opcode(),
                Opcode::GetFramePointer | Opcode::GetStackPointer | Opcode::GetReturnAddress
            ) {
                return refuse("it looks at its frame, which does not move");
            }
        }
    }
    Ok(())
}

/// Imports a function, which is the same unit's if it is `local`.
pub(super) fn import(
    func: &mut Function,
    name: &UserExternalName,
    signature: Signature,
    local: bool,
) -> FuncRef {
    let name = ExternalName::user(func.declare_imported_user_function(name.clone()));
    let signature = func.import_signature(signature);
    func.import_function(ExtFuncData { name, signature, colocated: local, patchable: false })
}
