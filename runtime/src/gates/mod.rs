//! The code that is made for the functions of a signature: gates, entries, and the stubs that these
//! call. This layer may know signatures and symbols; it must not know which function a gate is for:
//! its callers say where the lane is, and what to call when a version is gone.

mod entries;
pub(crate) mod hooks;
mod stubs;
pub(crate) mod template;

use std::ptr;
use std::sync::Arc;

use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use lastout_instrument::{GateOptions, LaneLayout, Symbol, machine_detour};

use crate::Result;
use crate::code::object::Object;
use crate::code::{Block, Memory};
use crate::gates::entries::HostEntries;
use crate::gates::hooks::Hooks;
use crate::gates::stubs::Stubs;
use crate::gates::template::{Kind, ParkedCallSignatures, Prototype, Templates, instantiate};
use crate::unwind::code_map::Description;

/// Facts of functions that gates need: where things are in a lane and a function, and what to call
/// when a version is gone.
pub(crate) struct SlowPath {
    pub(crate) layout: LaneLayout,
    /// Called with the lane that a caller has left, after its version was closed.
    pub(crate) leave: usize,
    /// Called with the lane of a caller that has found no version.
    pub(crate) removed: usize,
    /// Called with the data of a [detour](Gates::detour), by a caller that is to wait.
    pub(crate) wait: usize,
}

/// The gates and entries of an engine, in the memory where they are.
pub(crate) struct Gates {
    memory: Arc<Memory>,
    templates: Templates,
    stubs: Stubs,
    slow_path: SlowPath,
    pub(crate) host_entries: HostEntries,
}

/// The addresses that differ from the gate of one lane to that of another.
pub(crate) struct LaneAddresses {
    pub(crate) lane: usize,
    /// From the start of any ledger to the lane's cell, in bytes.
    pub(crate) cell_offset: usize,
    /// The word that holds the gate of the lane that is current.
    pub(crate) current: usize,
}

impl Gates {
    /// Neither ISA may optimize, and `unprobed` does not probe the stack: see [`Templates`].
    pub(crate) fn new(
        memory: Arc<Memory>,
        isa: OwnedTargetIsa,
        unprobed: OwnedTargetIsa,
        options: GateOptions,
        hooks: Hooks,
        slow_path: SlowPath,
    ) -> Result<Self> {
        let templates = Templates::new(isa, unprobed, options, slow_path.layout);
        let stubs = Stubs::new(&templates, &memory, &slow_path, hooks)?;
        Ok(Self { memory, templates, stubs, slow_path, host_entries: HostEntries::default() })
    }

    /// The memory in which the code of the engine is.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The target of gates and entries: types and calling conventions are those of units.
    pub(crate) fn isa(&self) -> &dyn TargetIsa {
        self.templates.isa()
    }

    /// The code that functions of this signature have in common.
    pub(crate) fn prototype(&self, signature: &Signature) -> Result<Arc<Prototype>> {
        self.templates.prototype(signature, &self.memory)
    }

    /// Puts a template into memory of its own, and returns it with the layout of its frame.
    pub(crate) fn instantiate(
        &self,
        kind: Kind,
        resolve: impl Fn(Symbol) -> usize,
    ) -> Result<(Block, Arc<Object>)> {
        let template = self.templates.get(kind)?;
        let resolve = |symbol| match symbol {
            Symbol::Leave
            | Symbol::Removed
            | Symbol::LeaveTail
            | Symbol::BailTail
            | Symbol::TailGate
            | Symbol::Interleave => self.stubs.address(symbol),
            symbol => resolve(symbol),
        };
        Ok((instantiate(&template, &self.memory, resolve)?, template))
    }

    /// Makes the gate of a lane. The lane must already have its final address.
    pub(crate) fn gate(&self, prototype: &Prototype, lane: &LaneAddresses) -> Result<Block> {
        instantiate(&prototype.gate, &self.memory, |symbol| match symbol {
            Symbol::Lane => lane.lane,
            Symbol::CellOffset => lane.cell_offset,
            Symbol::Current => lane.current,
            symbol => self.stubs.address(symbol),
        })
    }

    /// Makes the code to which calls of a point's function go while it has no version: it calls the
    /// address in its last argument with the other arguments.
    pub(crate) fn call_fallback(&self, signature: &Signature) -> Result<Block> {
        let resolve = |_| unreachable!("it refers to nothing");
        let (code, _) = self.instantiate(Kind::CallFallback(signature.clone()), resolve)?;
        code.describe(Arc::new(Description::Helper));
        Ok(code)
    }

    /// Makes the code of a parked call, and returns it with its template.
    pub(crate) fn parked_call(
        &self,
        signatures: ParkedCallSignatures,
        resolve: impl Fn(Symbol) -> usize,
    ) -> Result<(Block, Arc<Object>)> {
        self.instantiate(Kind::ParkedCall(signatures), resolve)
    }

    /// Makes the detour of a lane, if this host has detours, and what `held` makes for it: the
    /// detour makes callers wait, and goes on to the address in the first word of that.
    pub(crate) fn detour<H>(
        &self,
        held: impl FnOnce() -> Result<Box<H>>,
    ) -> Result<Option<(Block, Box<H>)>> {
        let Some(code) = machine_detour(self.isa()) else { return Ok(None) };
        let held = held()?;
        let address = ptr::from_ref(&*held).expose_provenance();
        let stub = self.stubs.wait(&self.slow_path, &self.templates, &self.memory)?;
        let code = Object::from_machine_code(code);
        let code = instantiate(&code, &self.memory, |symbol| match symbol {
            Symbol::Hold => stub,
            Symbol::Held => address,
            _ => unreachable!("a detour refers to nothing else"),
        })?;
        code.describe(Arc::new(Description::Helper));
        Ok(Some((code, held)))
    }
}
