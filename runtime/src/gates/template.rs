//! Code that is compiled once for a signature and linked for each function or lane that has it.

use std::collections::HashMap;
use std::sync::Arc;

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{Function, Signature};
use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use cranelift_module::{FuncId, ModuleRelocTarget};
use lastout_instrument::resume::{call_fallback, parked_call};
use lastout_instrument::{
    Callee, GateOptions, LaneLayout, MachineCode, Symbol, c_entry, can_be_tail_called, gate,
    host_entry, machine_entry, machine_gate, machine_tails, preserving_stub, stack_bytes,
    tail_gate, tail_gate_head, zeros,
};

use crate::code::libcalls;
use crate::code::object::Object;
use crate::code::relocation;
use crate::code::{Block, Memory, Room, Sizes};
use crate::host::fork::ForkSafeMutex;
use crate::unwind::Saved;
use crate::unwind::code_map::Description;
use crate::{Error, Result};

/// What the functions of a signature have in common.
pub(crate) struct Prototype {
    pub(crate) signature: Signature,
    /// The gate of each of their lanes.
    pub(crate) gate: Object,
    /// What kind of gate that is.
    pub(crate) kind: GateKind,
}

/// What kind of gate functions of a signature have.
pub(crate) enum GateKind {
    /// A gate that Cranelift has compiled.
    Compiled,
    /// The plain gate in machine code.
    Machine,
    /// The head of the gate that all functions share that can be tail-called; and what a call goes
    /// to if there is no version.
    Tail { zeros: Block },
}

/// What else can be compiled ahead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A function's stable entry.
    CEntry(Signature),
    /// The entry for typed calls: how the host calls, and how the function wants to be called.
    HostEntry(Signature, Signature),
    /// What gates call on the slow path.
    Stub,
    /// What has frames stay where there is no function of this signature to move by.
    CallFallback(Signature),
    /// A parked call.
    ParkedCall(ParkedCallSignatures),
}

/// What the code of a parked call depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ParkedCallSignatures {
    pub(crate) parked_call: Signature,
    pub(crate) call: Signature,
    pub(crate) callee: Callee,
    pub(crate) resume_entry: Signature,
}

/// Compiles templates, each once, and keeps them: there are as many as there are signatures.
pub(crate) struct Templates {
    isa: OwnedTargetIsa,
    /// For stubs.
    unprobed: OwnedTargetIsa,
    options: GateOptions,
    layout: LaneLayout,
    prototypes: ForkSafeMutex<HashMap<Signature, Arc<Prototype>>>,
    compiled: ForkSafeMutex<HashMap<Kind, Arc<Object>>>,
}

impl Templates {
    /// Neither ISA may optimize: see [`gate`]. With `unprobed`, code does not touch the stack that
    /// it is about to use: Cranelift does that before it has saved any register, with one of them,
    /// and a stub has to keep them all.
    pub(crate) fn new(
        isa: OwnedTargetIsa,
        unprobed: OwnedTargetIsa,
        options: GateOptions,
        layout: LaneLayout,
    ) -> Self {
        let (prototypes, compiled) = Default::default();
        Self { isa, unprobed, options, layout, prototypes, compiled }
    }

    /// What templates are compiled for.
    pub(crate) fn isa(&self) -> &dyn TargetIsa {
        &*self.isa
    }

    // In both of these two threads may compile the same at the same time. That is better than
    // waiting for each other over different ones.

    /// What functions of this signature have in common.
    pub(crate) fn prototype(
        &self,
        signature: &Signature,
        memory: &Arc<Memory>,
    ) -> Result<Arc<Prototype>> {
        if let Some(prototype) = self.prototypes.lock().get(signature) {
            return Ok(Arc::clone(prototype));
        }
        let (gate, kind) = if can_be_tail_called(signature, &*self.isa) {
            self.tail_gate(signature, memory)?
        } else {
            match machine_gate(signature, self.options, &*self.isa) {
                Some(code) => (Object::from_machine_code(code), GateKind::Machine),
                None => {
                    let gate = gate(signature, self.options, &*self.isa)?;
                    (compile(gate, &*self.isa)?, GateKind::Compiled)
                }
            }
        };
        let signature = signature.clone();
        let prototype = Arc::new(Prototype { signature: signature.clone(), gate, kind });
        Ok(Arc::clone(self.prototypes.lock().entry(signature).or_insert(prototype)))
    }

    fn tail_gate(&self, signature: &Signature, memory: &Arc<Memory>) -> Result<(Object, GateKind)> {
        let zeros = compile(zeros(signature, &*self.isa)?, &*self.isa)?;
        let bytes = stack_bytes(&zeros.bytes, &*self.isa);
        let head = bytes.and_then(|bytes| tail_gate_head(bytes, &*self.isa)).ok_or_else(|| {
            let why = "its code does not end as expected";
            lastout_instrument::Error::Signature { signature: signature.to_string(), why }
        })?;
        let zeros = instantiate(&zeros, memory, |_| unreachable!("zeros refer to nothing"))?;
        zeros.describe(Arc::new(Description::Helper));
        Ok((Object::from_machine_code(head), GateKind::Tail { zeros }))
    }

    /// The compiled template.
    pub(crate) fn get(&self, kind: Kind) -> Result<Arc<Object>> {
        if let Some(object) = self.compiled.lock().get(&kind) {
            return Ok(Arc::clone(object));
        }
        let isa = &*self.isa;
        let func = match &kind {
            Kind::CEntry(signature) => c_entry(signature, self.layout, self.options, isa)?,
            Kind::HostEntry(outer, inner) => {
                match machine_entry(outer, inner, self.layout, self.options, isa) {
                    Some(code) => {
                        let mut object = Object::from_machine_code(code);
                        object.frame.saved = Saved::MACHINE_ENTRY;
                        return Ok(self.keep(kind, object));
                    }
                    None => host_entry(outer, inner, self.layout, self.options, isa)?,
                }
            }
            Kind::CallFallback(signature) => call_fallback(signature),
            Kind::ParkedCall(ParkedCallSignatures {
                parked_call: signature,
                call,
                callee,
                resume_entry,
            }) => parked_call(signature.clone(), call, *callee, resume_entry, isa),
            Kind::Stub => {
                let stub = compile(preserving_stub(&*self.unprobed), &*self.unprobed)?;
                return Ok(self.keep(kind, stub));
            }
        };
        let object = compile(func, isa)?;
        Ok(self.keep(kind, object))
    }

    /// The gate that all functions share that can be tail-called, where there is one.
    pub(crate) fn shared_tail_gate(&self) -> Option<MachineCode> {
        tail_gate(self.layout, self.options, &*self.isa)
    }

    /// What gates in machine code jump to when they leave and when they bail, where there are any.
    pub(crate) fn machine_tails(&self) -> Option<[MachineCode; 2]> {
        machine_tails(self.layout, &*self.isa)
    }

    fn keep(&self, kind: Kind, object: Object) -> Arc<Object> {
        let mut compiled = self.compiled.lock();
        Arc::clone(compiled.entry(kind).or_insert_with(|| Arc::new(object)))
    }
}

fn compile(func: Function, isa: &dyn TargetIsa) -> Result<Object> {
    let mut context = Context::for_function(func);
    let unnamed = FuncId::from_u32(0);
    Ok(Object::compile(unnamed, &mut context, isa, &mut ControlPlane::default())?)
}

/// A template in memory of its own, ready to run, with `resolve` saying what its symbols are.
pub(crate) fn instantiate(
    template: &Object,
    memory: &Arc<Memory>,
    resolve: impl Fn(Symbol) -> usize,
) -> Result<Block> {
    let code = Room { len: template.bytes.len(), align: template.align };
    let mut draft = memory.allocate(Sizes { code, ..Sizes::default() })?;
    let (code, address) = draft.code();
    code.copy_from_slice(&template.bytes);
    let resolve = |target: &ModuleRelocTarget| match *target {
        ModuleRelocTarget::User { namespace, index } => Symbol::from_name(namespace, index)
            .map(&resolve)
            .ok_or_else(|| Error::MissingImport(target.to_string())),
        ModuleRelocTarget::LibCall(libcall) => libcalls::address(libcall),
        ModuleRelocTarget::FunctionOffset(_, offset) => Ok(address + offset as usize),
        ModuleRelocTarget::KnownSymbol(_) => Err(Error::MissingImport(target.to_string())),
    };
    let near = |_| unreachable!("templates refer to everything by its full address");
    let name = ToString::to_string;
    relocation::relocate(code, address, &template.relocs, resolve, near, name)?;
    draft.publish()
}
