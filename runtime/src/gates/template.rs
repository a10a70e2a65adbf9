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

/// The code that the functions of a signature have in common.
pub(crate) struct Prototype {
    pub(crate) signature: Signature,
    /// The gate of each of their lanes.
    pub(crate) gate: Object,
    /// The kind of that gate.
    pub(crate) kind: GateKind,
}

/// The kind of gate that functions of a signature have.
pub(crate) enum GateKind {
    /// A gate that Cranelift has compiled.
    Compiled,
    /// The ordinary gate in machine code.
    Machine,
    /// The head of the gate that all tail-callable functions share, and the code to which a call
    /// goes if there is no version.
    Tail { zeros: Block },
}

/// The other code that is compiled once for all its uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A function's stable entry.
    CEntry(Signature),
    /// The entry for typed calls: the signatures of the host's call and of the function.
    HostEntry(Signature, Signature),
    /// The stub that gates call on the slow path.
    Stub,
    /// The code that calls a frame's fallback while a function of this signature has no version.
    CallFallback(Signature),
    /// A parked call.
    ParkedCall(ParkedCallSignatures),
}

/// The signatures on which the code of a parked call depends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ParkedCallSignatures {
    pub(crate) parked_call: Signature,
    pub(crate) call: Signature,
    pub(crate) callee: Callee,
    pub(crate) resume_entry: Signature,
}

/// Compiles templates, each once, and keeps them: their number is that of signatures.
pub(crate) struct Templates {
    isa: OwnedTargetIsa,
    /// The target of stubs.
    unprobed: OwnedTargetIsa,
    options: GateOptions,
    layout: LaneLayout,
    prototypes: ForkSafeMutex<HashMap<Signature, Arc<Prototype>>>,
    compiled: ForkSafeMutex<HashMap<Kind, Arc<Object>>>,
}

impl Templates {
    /// Neither ISA may optimize: see [`gate`]. Code for `unprobed` does not touch the stack that it
    /// is about to use: with a probe Cranelift would do that by a register, before any register is
    /// saved, and a stub has to keep them all.
    pub(crate) fn new(
        isa: OwnedTargetIsa,
        unprobed: OwnedTargetIsa,
        options: GateOptions,
        layout: LaneLayout,
    ) -> Self {
        let (prototypes, compiled) = Default::default();
        Self { isa, unprobed, options, layout, prototypes, compiled }
    }

    /// The target for which templates are compiled.
    pub(crate) fn isa(&self) -> &dyn TargetIsa {
        &*self.isa
    }

    // In both of these functions two threads may compile the same code at the same time. That is
    // better than if they waited for each other over different code.

    /// The code that functions of this signature have in common.
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

    /// The gate that all tail-callable functions share, if this host has one.
    pub(crate) fn shared_tail_gate(&self) -> Option<MachineCode> {
        tail_gate(self.layout, self.options, &*self.isa)
    }

    /// The tails of gates in machine code, to leave and to bail, if this host has such gates.
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

/// Puts a template into memory of its own, ready to run. `resolve` gives the values of its symbols.
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
