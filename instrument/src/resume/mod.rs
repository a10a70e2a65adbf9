//! Points at which a frame goes on in another version.
//!
//! What this does not do: it makes and rewrites CLIF, and says which functions it takes. The runtime
//! declares and compiles them, and sees to it that a frame that moves finds what it moves to.
//!
//! A frame of a version cannot be made one of another, but a call can be handed on: with a tail
//! call. So a point at which a function can be resumed is a function, whose parameters are what is
//! *alive* at the point, and which is replaceable like any other. A frame moves by tail-calling it,
//! through its gate, which counts it in there and out where it was. That takes no stack, however
//! often it is done, and whatever holds for tail calls holds for it.
//!
//! For each point there is, besides the function itself with its points in it ([`Resumable::start`]):
//!
//! - the *code* ([`Resumable::code`]): a copy of the function that begins at the point;
//! - the *resume entry* ([`Resumable::resume_entry`]), the replaceable function: it tail-calls the code of its
//!   own version.
//!
//! # Loops
//!
//! At the header of a marked loop the function looks at a word, the *flag*. It is 0 as a rule; else
//! the function tail-calls the resume entry, which by then is another version's.
//!
//! # Calls that may never return
//!
//! A marked call is not made by the function but by its *parked call* ([`parked_call`]), a
//! replaceable function of one version that outlives those of the function. It is tail-called with
//! the arguments of the call and what is alive after it; it makes the call, and then tail-calls
//! the resume entry. So while the call is in progress there is no frame of any version on the stack.
//!
//! # Why not by return addresses
//!
//! The other way to have a suspended frame go on elsewhere is to overwrite the address that its
//! callee will return to, with that of code that turns the old frame into a new one. Beside it, this
//! way
//!
//! - costs something for each marked call, where the other costs nothing until a version is
//!   replaced: `cargo bench -p lastout --bench moving` says how much;
//! - has no need to find the frame, on the stack of another thread, while that thread runs: it would
//!   have to be stopped, or to change its own stack at a safe point, which a thread that never
//!   returns from a call does not come to;
//! - works where the processor keeps a second copy of return addresses and traps when they differ
//!   (CET on x86-64, GCS on aarch64), and is unwound by the same tables as everything else: every
//!   return address is one that a call has put there;
//! - needs no map of what is in which register and stack slot at the return: what is alive are the
//!   arguments of a call, and the compiler moves them. So old and new code may be compiled in
//!   whatever way, and the old code's memory need not be there any more when the frame moves.
//!
//! # Points that are gone
//!
//! The resume entry and the parked call are taken away where the version that is current does not have
//! the point. A frame may be on the way there, and goes on where it was. So the last argument of
//! both is the address of the frame's *fallback*, which does the same in the version that the frame
//! is of, and is still counted in by: the code, or [`Resumable::fallback`], which makes the call
//! itself. [`call_fallback`] takes the place of what is not there.

mod liveness;
mod parked;
mod rebuild;

use std::collections::{BTreeMap, BTreeSet};

use cranelift_codegen::ir::{
    AbiParam, ArgumentPurpose, Block, ExtFuncData, ExternalName, FuncRef, Function,
    GlobalValueData, Inst, InstructionData, Opcode, Signature, Type, UserExternalName, Value,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};

use crate::machine::has_tail_gates;
use crate::{Error, check_signature};
use liveness::Segments;
pub use parked::{call_fallback, parked_call};

/// A position in a function at which its frames can move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// By this, points of different versions are the same. No two of a function have the same.
    pub id: u32,
    /// Where it is.
    pub position: PointPosition,
    /// Numbers for values that may be alive there: see [`Live`].
    pub labels: Vec<(u32, Value)>,
}

/// Where a point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PointPosition {
    /// At the start of this block, such as the header of a loop.
    Block(Block),
    /// At the return of this call.
    Call(Inst),
}

/// A value that is alive at a point: it is passed to who resumes there.
///
/// Constants, addresses of functions and data, and what is computed from such alone, are not: they
/// belong to the code, and who resumes has those of the new version.
///
/// Those of two versions are taken to be the same values if they are of the same number and types,
/// in the order in which they come: first those with a label, by their labels, which have to be the
/// same too; then the parameters of the block; then the others, in the order of their definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Live {
    /// The number that the front end has given it, if any.
    pub label: Option<u32>,
    /// Its type.
    pub ty: Type,
}

/// A point, and what it takes to resume there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// As in the [`Mark`].
    pub id: u32,
    /// As in the [`Mark`].
    pub position: PointPosition,
    /// What is alive there, without what the call returns.
    pub live: Vec<Live>,
    /// At a call, its signature.
    pub call: Option<Signature>,
    values: Vec<Value>,
}

/// What the code of a function with points refers to, for one of them: names as
/// [`cranelift_module`](https://docs.rs/cranelift-module) has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointNames {
    /// The [resume entry](Resumable::resume_entry): a replaceable function.
    pub resume_entry: UserExternalName,
    /// The [code](Resumable::code): a function of the unit.
    pub code: UserExternalName,
    /// What depends on where the point is.
    pub position: PositionNames,
}

/// What the code refers to by where the point is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PositionNames {
    /// At a block: the flag, a word of data.
    Block {
        /// The word.
        flag: UserExternalName,
    },
    /// At a call.
    Call {
        /// The [parked call](parked_call): a replaceable function.
        parked_call: UserExternalName,
        /// [`Resumable::fallback`]: a function of the unit.
        fallback: UserExternalName,
    },
}

/// A function with points.
pub struct Resumable<'a> {
    func: &'a Function,
    isa: &'a dyn TargetIsa,
    entry: Block,
    segments: Segments,
    points: Vec<ResumePoint>,
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

    /// The points, in the order of their marks. What names there are for them is given in the same
    /// order to the other methods.
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

    /// The signature of the [parked call](parked_call) of a point at a call: the arguments of
    /// the call, what is alive after it, and the fallback.
    pub fn parked_call_signature(&self, point: &ResumePoint) -> Signature {
        point.parked_call_signature(self.func, self.isa)
    }

    /// The signature of [`fallback`](Self::fallback): the arguments of the call, and what is alive after
    /// it.
    pub fn fallback_signature(&self, point: &ResumePoint) -> Signature {
        point.fallback_signature(&self.func.signature)
    }

    /// What is called at a point at a call.
    pub fn callee(&self, point: &ResumePoint) -> Option<&'a ExtFuncData> {
        callee(self.func, point.position)
    }

    /// The function, with its points in it.
    pub fn start(&self, names: &[PointNames]) -> Function {
        let values = self.func.dfg.block_params(self.entry).to_vec();
        let segment = self.segments.of_block(self.entry);
        self.rebuild(self.func.signature.clone(), segment, &values, names)
    }

    /// The function from a point on.
    pub fn code(&self, point: &ResumePoint, names: &[PointNames]) -> Function {
        let segment = self.segments.of_position(point.position);
        let mut values = point.values.clone();
        if let PointPosition::Call(call) = point.position {
            values.extend(self.func.dfg.inst_results(call));
        }
        self.rebuild(self.code_signature(point), segment, &values, names)
    }
}

impl ResumePoint {
    /// From a converter's signature, whether it makes what is alive here of what is alive at
    /// another version's point.
    pub fn accepts(&self, converted: &[AbiParam]) -> bool {
        let types = converted.iter().map(|result| result.value_type);
        types.eq(self.live.iter().map(|live| live.ty))
    }

    fn code_signature(&self, function: &Signature) -> Signature {
        let mut signature = Signature::new(CallConv::Tail);
        signature.params.extend(self.live.iter().map(|live| AbiParam::new(live.ty)));
        let results = self.call.iter().flat_map(|call| &call.returns);
        signature.params.extend(results.map(|result| AbiParam::new(result.value_type)));
        signature.returns.clone_from(&function.returns);
        signature
    }

    fn resume_entry_signature(&self, func: &Function, isa: &dyn TargetIsa) -> Signature {
        let mut signature = self.code_signature(&func.signature);
        signature.params.push(AbiParam::new(isa.pointer_type()));
        signature
    }

    fn fallback_signature(&self, function: &Signature) -> Signature {
        let mut signature = Signature::new(CallConv::Tail);
        let arguments = self.call.iter().flat_map(|call| &call.params);
        signature.params.extend(arguments.map(|argument| AbiParam::new(argument.value_type)));
        signature.params.extend(self.live.iter().map(|live| AbiParam::new(live.ty)));
        signature.returns.clone_from(&function.returns);
        signature
    }

    fn parked_call_signature(&self, func: &Function, isa: &dyn TargetIsa) -> Signature {
        let mut signature = self.fallback_signature(&func.signature);
        signature.params.push(AbiParam::new(isa.pointer_type()));
        signature
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
fn import(
    func: &mut Function,
    name: &UserExternalName,
    signature: Signature,
    local: bool,
) -> FuncRef {
    let name = ExternalName::user(func.declare_imported_user_function(name.clone()));
    let signature = func.import_signature(signature);
    func.import_function(ExtFuncData { name, signature, colocated: local, patchable: false })
}
