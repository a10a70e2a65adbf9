//! Where a function has points, what is alive there, and what there is for each.

use cranelift_codegen::ir::{
    AbiParam, Block, Function, Inst, Signature, Type, UserExternalName, Value,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};

/// A position in a function at which its frames can move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Points of different versions are the same if they have the same number. No two points of a
    /// function have.
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

/// A value that is alive at a point: it is passed to the code that goes on there.
///
/// Constants, addresses of functions and data, and what is computed from such alone, are not alive:
/// they belong to the code, and a frame that has moved has those of its new version.
///
/// The values of two versions are taken to be the same if they are of the same number and types, in
/// the order in which they come: first those with a label, by their labels, which have to be the
/// same too; then the parameters of the block; then the others, in the order of their definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Live {
    /// The number that the front end has given it, if any.
    pub label: Option<u32>,
    /// Its type.
    pub ty: Type,
}

/// A point, and what a frame takes along that resumes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// As in the [`Mark`].
    pub id: u32,
    /// As in the [`Mark`].
    pub position: PointPosition,
    /// What is alive there, without what the call returns.
    pub live: Vec<Live>,
    /// The signature of the call, if the point is at one.
    pub call: Option<Signature>,
    pub(super) values: Vec<Value>,
}

/// What the code of a function with points refers to for one of the points: names as
/// [`cranelift_module`](https://docs.rs/cranelift-module) has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointNames {
    /// The [resume entry](super::Resumable::resume_entry): a replaceable function.
    pub resume_entry: UserExternalName,
    /// The [code](super::Resumable::code): a function of the unit.
    pub code: UserExternalName,
    /// The names that there are at a block only, or at a call only.
    pub position: PositionNames,
}

/// What the code refers to at a block, or at a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PositionNames {
    /// At a block: the flag, a word of data.
    Block {
        /// The word.
        flag: UserExternalName,
    },
    /// At a call.
    Call {
        /// The [parked call](super::parked_call): a replaceable function.
        parked_call: UserExternalName,
        /// [`Resumable::fallback`](super::Resumable::fallback): a function of the unit.
        fallback: UserExternalName,
    },
}

impl ResumePoint {
    /// From a converter's signature, whether it makes what is alive here of what is alive at
    /// another version's point.
    pub fn accepts(&self, converted: &[AbiParam]) -> bool {
        let types = converted.iter().map(|result| result.value_type);
        types.eq(self.live.iter().map(|live| live.ty))
    }

    pub(super) fn code_signature(&self, function: &Signature) -> Signature {
        let mut signature = Signature::new(CallConv::Tail);
        signature.params.extend(self.live.iter().map(|live| AbiParam::new(live.ty)));
        let results = self.call.iter().flat_map(|call| &call.returns);
        signature.params.extend(results.map(|result| AbiParam::new(result.value_type)));
        signature.returns.clone_from(&function.returns);
        signature
    }

    pub(super) fn resume_entry_signature(&self, func: &Function, isa: &dyn TargetIsa) -> Signature {
        let mut signature = self.code_signature(&func.signature);
        signature.params.push(AbiParam::new(isa.pointer_type()));
        signature
    }

    pub(super) fn fallback_signature(&self, function: &Signature) -> Signature {
        let mut signature = Signature::new(CallConv::Tail);
        let arguments = self.call.iter().flat_map(|call| &call.params);
        signature.params.extend(arguments.map(|argument| AbiParam::new(argument.value_type)));
        signature.params.extend(self.live.iter().map(|live| AbiParam::new(live.ty)));
        signature.returns.clone_from(&function.returns);
        signature
    }

    pub(super) fn parked_call_signature(&self, func: &Function, isa: &dyn TargetIsa) -> Signature {
        let mut signature = self.fallback_signature(&func.signature);
        signature.params.push(AbiParam::new(isa.pointer_type()));
        signature
    }
}
