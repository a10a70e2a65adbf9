//! Code that is compiled once for a signature and linked for each function or lane that has it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_module::{FuncId, ModuleRelocTarget};
use lastout_instrument::{GateOptions, Symbol, c_entry, gate, host_entry, preserving_stub};

use crate::memory::{Block, Memory, Sizes};
use crate::relocation::{self, Object};
use crate::{Error, Result};

/// What can be compiled ahead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A lane's gate.
    Gate(Signature),
    /// A function's stable entry.
    CEntry(Signature),
    /// The entry for typed calls: how the host calls, and how the function wants to be called.
    HostEntry(Signature, Signature),
    /// What gates call on the slow path.
    Stub,
}

/// Compiles templates, each once.
pub(crate) struct Templates {
    isa: OwnedTargetIsa,
    options: GateOptions,
    compiled: Mutex<HashMap<Kind, Arc<Object>>>,
}

impl Templates {
    /// `isa` must not optimize: see [`gate`].
    pub(crate) fn new(isa: OwnedTargetIsa, options: GateOptions) -> Self {
        Self { isa, options, compiled: Mutex::default() }
    }

    /// The compiled template, compiled by this call if need be.
    pub(crate) fn get(&self, kind: Kind) -> Result<Arc<Object>> {
        let lock = || self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(object) = lock().get(&kind) {
            return Ok(Arc::clone(object));
        }
        // Two threads may compile the same at the same time; better than waiting for each other
        // over different ones.
        let object = Arc::new(self.compile(&kind)?);
        Ok(Arc::clone(lock().entry(kind).or_insert(object)))
    }

    fn compile(&self, kind: &Kind) -> Result<Object> {
        let isa = &*self.isa;
        let func = match kind {
            Kind::Gate(signature) => gate(signature, self.options, isa)?,
            Kind::CEntry(signature) => c_entry(signature, isa)?,
            Kind::HostEntry(outer, inner) => host_entry(outer, inner, isa)?,
            Kind::Stub => preserving_stub(isa),
        };
        let mut context = Context::for_function(func);
        let unnamed = FuncId::from_u32(0);
        Ok(Object::compile(unnamed, &mut context, isa, &mut ControlPlane::default())?)
    }
}

/// A template in memory of its own, ready to run, with `resolve` saying what its symbols are.
pub(crate) fn instantiate(
    template: &Object,
    memory: &Arc<Memory>,
    resolve: impl Fn(Symbol) -> usize,
) -> Result<Block> {
    let mut draft = memory.allocate(Sizes { code: template.bytes.len(), ..Sizes::default() })?;
    let (code, address) = draft.code();
    code.copy_from_slice(&template.bytes);
    let resolve = |target: &ModuleRelocTarget| match *target {
        ModuleRelocTarget::User { namespace, index } => Symbol::from_name(namespace, index)
            .map(&resolve)
            .ok_or_else(|| Error::MissingImport(target.to_string())),
        ModuleRelocTarget::LibCall(libcall) => relocation::libcall(libcall),
        ModuleRelocTarget::FunctionOffset(_, offset) => Ok(address + offset as usize),
        ModuleRelocTarget::KnownSymbol(_) => Err(Error::MissingImport(target.to_string())),
    };
    relocation::relocate(code, address, &template.relocs, resolve, ToString::to_string)?;
    draft.publish()
}
