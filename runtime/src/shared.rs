//! What an engine, its units and its functions have in common, and keep for as long as any of
//! them lives.

use std::collections::HashMap;
use std::sync::Arc;

use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use lastout_instrument::{Dispatch, Symbol, machine_tails};

use crate::code_map::Description;
use crate::fork::Lock;
use crate::function::{LANE_LAYOUT, Seat, SeatPool, Valets};
use crate::in_place::Holds;
use crate::memory::{Block, Memory};
use crate::payload::Disposal;
use crate::relocation::Object;
use crate::retirement::Retirement;
use crate::sites::AllCalls;
use crate::template::{Kind, Templates, instantiate};
use crate::{Result, context};

pub(crate) struct Shared {
    /// For units.
    pub(crate) isa: OwnedTargetIsa,
    pub(crate) templates: Templates,
    pub(crate) stubs: Stubs,
    pub(crate) memory: Arc<Memory>,
    pub(crate) disposal: Arc<Disposal>,
    pub(crate) host: HashMap<String, HostSymbol>,
    pub(crate) dispatch: Dispatch,
    /// How many calls are patched, and how.
    pub(crate) calls: AllCalls,
    pub(crate) retirement: Retirement,
    pub(crate) host_entries: HostEntries,
    pub(crate) seats: SeatPool,
    pub(crate) valets: Valets,
    pub(crate) holds: Holds,
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

    /// The stub's call.
    pub(crate) unsafe extern "C" fn step(
        _lane: *const Seat,
        ledger: *const u32,
        hooks: *const Self,
    ) {
        // SAFETY: the stub has the address of those that the engine keeps beside it.
        let hooks = unsafe { &*hooks };
        if hooks.checked && !context::counts_in(ledger) {
            eprintln!(
                "lastout: a call goes on where the calling thread does not count it: it was \
                 suspended, and resumed on another thread or by another fiber than it began with. \
                 Whatever is resumed elsewhere needs a `lastout::Fiber` of its own."
            );
            std::process::abort();
        }
        if let Some(interleave) = hooks.interleave {
            interleave();
        }
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
        entry.describe(Arc::new(Description::Entry { frame: template.frame, typed: true }));
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
    /// Of functions that can be tail-called, where there are any.
    tail_gate: Option<Block>,
    /// What is done between any two steps, if anything is.
    hooks: Option<Box<Hooks>>,
}

impl Stubs {
    pub(crate) fn new(
        templates: &Templates,
        memory: &Arc<Memory>,
        isa: &dyn TargetIsa,
        hooks: Hooks,
    ) -> Result<Self> {
        let described = |block: Block| {
            block.describe(Arc::new(Description::Helper));
            block
        };
        let hooks = hooks.any().then(|| Box::new(hooks));
        let stub = |target| stub(target, hooks.as_deref(), templates, memory);
        let leave = stub(Seat::leave as *const () as usize)?;
        let removed = stub(Seat::removed as *const () as usize)?;
        let tail = |code| {
            let tail =
                instantiate(&Object::from_machine_code(code), memory, |symbol| match symbol {
                    Symbol::Leave => leave.address(),
                    Symbol::Removed => removed.address(),
                    _ => unreachable!("a tail refers to nothing else"),
                });
            tail.map(described)
        };
        let tails = match machine_tails(LANE_LAYOUT, isa) {
            Some([leave, bail]) => Some([tail(leave)?, tail(bail)?]),
            None => None,
        };
        let step = || stub(Hooks::step as *const () as usize);
        let interleave = hooks.is_some().then(step).transpose()?;
        let mut stubs = Self { leave, removed, interleave, tails, tail_gate: None, hooks };
        if let Some(code) = templates.shared_tail_gate() {
            let code = Object::from_machine_code(code);
            let gate = instantiate(&code, memory, |symbol| stubs.address(symbol))?;
            gate.describe(Arc::new(Description::TailGate(code.frame)));
            stubs.tail_gate = Some(gate);
        }
        Ok(stubs)
    }

    /// Another stub, of what is not called by gates.
    pub(crate) fn another(
        &self,
        target: usize,
        templates: &Templates,
        memory: &Arc<Memory>,
    ) -> Result<Block> {
        stub(target, self.hooks.as_deref(), templates, memory)
    }

    /// The address of the stub that a gate refers to.
    pub(crate) fn address(&self, symbol: Symbol) -> usize {
        match symbol {
            Symbol::Leave => self.leave.address(),
            Symbol::Removed => self.removed.address(),
            Symbol::LeaveTail => self.tails.as_ref().map_or(0, |[leave, _]| leave.address()),
            Symbol::BailTail => self.tails.as_ref().map_or(0, |[_, bail]| bail.address()),
            Symbol::TailGate => self.tail_gate.as_ref().map_or(0, Block::address),
            Symbol::Interleave => self.interleave.as_ref().map_or(0, Block::address),
            _ => unreachable!("gates refer to no other stub"),
        }
    }
}

/// A stub that calls `target` with what it is given, the ledger, and the hooks.
fn stub(
    target: usize,
    hooks: Option<&Hooks>,
    templates: &Templates,
    memory: &Arc<Memory>,
) -> Result<Block> {
    let template = templates.get(Kind::Stub)?;
    let data = hooks.map_or(0, |hooks| std::ptr::from_ref(hooks).expose_provenance());
    let stub = instantiate(&template, memory, |symbol| match symbol {
        Symbol::StubTarget => target,
        Symbol::StubData => data,
        _ => unreachable!("a stub refers to nothing else"),
    })?;
    stub.describe(Arc::new(Description::Helper));
    Ok(stub)
}
