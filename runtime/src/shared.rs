//! What an engine, its units and its functions have in common, and keep for as long as any of
//! them lives.

use std::collections::HashMap;
use std::sync::Arc;

use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use lastout_instrument::{Dispatch, Symbol, machine_tails};

use crate::Result;
use crate::fork::Lock;
use crate::function::{LANE_LAYOUT, Seat};
use crate::memory::{Block, Memory};
use crate::payload::Disposal;
use crate::relocation::Object;
use crate::retirement::Retirement;
use crate::sites::AllCalls;
use crate::template::{Kind, Templates, instantiate};

pub(crate) struct Shared {
    /// For units.
    pub(crate) isa: OwnedTargetIsa,
    pub(crate) templates: Templates,
    pub(crate) stubs: Stubs,
    pub(crate) hooks: Hooks,
    pub(crate) memory: Arc<Memory>,
    pub(crate) disposal: Arc<Disposal>,
    pub(crate) host: HashMap<String, HostSymbol>,
    pub(crate) dispatch: Dispatch,
    /// How many calls are patched, and how.
    pub(crate) calls: AllCalls,
    pub(crate) retirement: Retirement,
    pub(crate) host_entries: HostEntries,
}

/// Entries for typed calls, one for each pair of signatures.
#[derive(Default)]
pub(crate) struct HostEntries(Lock<HashMap<(Signature, Signature), Arc<Block>>>);

/// What is done at each step of a gate besides.
#[derive(Clone, Copy)]
pub(crate) struct Hooks {
    /// See [`EngineBuilder::checked`](crate::EngineBuilder::checked).
    pub(crate) checked: bool,
    /// See [`EngineBuilder::interleave`](crate::EngineBuilder::interleave).
    pub(crate) interleave: Option<extern "C" fn()>,
}

impl Hooks {
    pub(crate) fn any(self) -> bool {
        self.checked || self.interleave.is_some()
    }
}

/// Something of the host that units may import.
pub(crate) struct HostSymbol {
    pub(crate) address: usize,
    /// For a function whose type the host has given; checked when a unit imports it.
    pub(crate) signature: Option<Signature>,
}

impl Shared {
    /// The entry through which the host calls functions of the signature `inner` as if it was
    /// `outer`.
    pub(crate) fn host_entry(&self, outer: Signature, inner: Signature) -> Result<Arc<Block>> {
        let key = (outer, inner);
        if let Some(entry) = self.host_entries.0.lock().get(&key) {
            return Ok(Arc::clone(entry));
        }
        let template = self.templates.get(Kind::HostEntry(key.0.clone(), key.1.clone()))?;
        let entry = instantiate(&template, &self.memory, |symbol| self.stubs.address(symbol))?;
        Ok(Arc::clone(self.host_entries.0.lock().entry(key).or_insert_with(|| Arc::new(entry))))
    }
}

/// The slow path, as gates call it: without losing a register.
pub(crate) struct Stubs {
    leave: Block,
    removed: Block,
    interleave: Option<Block>,
    /// Of gates in machine code, where there are any: leave and bail.
    tails: Option<[Block; 2]>,
}

impl Stubs {
    pub(crate) fn new(
        templates: &Templates,
        memory: &Arc<Memory>,
        isa: &dyn TargetIsa,
        hooks: Hooks,
    ) -> Result<Self> {
        let template = templates.get(Kind::Stub)?;
        let stub = |target: usize| {
            instantiate(&template, memory, |symbol| match symbol {
                Symbol::StubTarget => target,
                _ => unreachable!("a stub refers to nothing else"),
            })
        };
        let leave = stub(Seat::leave as *const () as usize)?;
        let removed = stub(Seat::removed as *const () as usize)?;
        let tail = |code| {
            instantiate(&Object::from_machine_code(code), memory, |symbol| match symbol {
                Symbol::Leave => leave.address(),
                Symbol::Removed => removed.address(),
                _ => unreachable!("a tail refers to nothing else"),
            })
        };
        let tails = match machine_tails(LANE_LAYOUT, isa) {
            Some([leave, bail]) => Some([tail(leave)?, tail(bail)?]),
            None => None,
        };
        let step = || stub(Seat::step as *const () as usize);
        let interleave = hooks.any().then(step).transpose()?;
        Ok(Self { leave, removed, interleave, tails })
    }

    /// The address of the stub that a gate refers to.
    pub(crate) fn address(&self, symbol: Symbol) -> usize {
        match symbol {
            Symbol::Leave => self.leave.address(),
            Symbol::Removed => self.removed.address(),
            Symbol::LeaveTail => self.tails.as_ref().map_or(0, |[leave, _]| leave.address()),
            Symbol::BailTail => self.tails.as_ref().map_or(0, |[_, bail]| bail.address()),
            Symbol::Interleave => self.interleave.as_ref().map_or(0, Block::address),
            _ => unreachable!("gates refer to no other stub"),
        }
    }
}
