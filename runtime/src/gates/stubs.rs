//! Stubs, by which gates call the slow path without losing a register.

use std::sync::{Arc, OnceLock};

use lastout_instrument::Symbol;

use crate::Result;
use crate::code::object::Object;
use crate::code::{Block, Memory};
use crate::gates::SlowPath;
use crate::gates::hooks::Hooks;
use crate::gates::template::{Kind, Templates, instantiate};
use crate::host::fork::Pass;
use crate::unwind::code_map::Description;

/// The code that gates, their tails and detours call.
pub(crate) struct Stubs {
    leave: Block,
    removed: Block,
    interleave: Option<Block>,
    /// The tails of gates in machine code, if this host has such gates: to leave and to bail.
    tails: Option<[Block; 2]>,
    /// The gate that all tail-callable functions share, if this host has one.
    tail_gate: Option<Block>,
    /// The stub of detours, once there is a detour.
    wait: OnceLock<Box<Block>>,
    /// The hooks that run between any two steps of a gate, if the engine has any.
    hooks: Option<Box<Hooks>>,
}

impl Stubs {
    pub(crate) fn new(
        templates: &Templates,
        memory: &Arc<Memory>,
        slow_path: &SlowPath,
        hooks: Hooks,
    ) -> Result<Self> {
        let described = |block: Block| {
            block.describe(Arc::new(Description::Helper));
            block
        };
        let hooks = hooks.any().then(|| Box::new(hooks));
        let stub = |target| stub(target, hooks.as_deref(), templates, memory);
        let leave = stub(slow_path.leave)?;
        let removed = stub(slow_path.removed)?;
        let tail = |code| {
            let tail =
                instantiate(&Object::from_machine_code(code), memory, |symbol| match symbol {
                    Symbol::Leave => leave.address(),
                    Symbol::Removed => removed.address(),
                    _ => unreachable!("a tail refers to nothing else"),
                });
            tail.map(described)
        };
        let tails = match templates.machine_tails() {
            Some([leave, bail]) => Some([tail(leave)?, tail(bail)?]),
            None => None,
        };
        let step = || stub(Hooks::step as *const () as usize);
        let interleave = hooks.is_some().then(step).transpose()?;
        let (tail_gate, wait) = (None, OnceLock::new());
        let mut stubs = Self { leave, removed, interleave, tails, tail_gate, wait, hooks };
        if let Some(code) = templates.shared_tail_gate() {
            let code = Object::from_machine_code(code);
            let gate = instantiate(&code, memory, |symbol| stubs.address(symbol))?;
            gate.describe(Arc::new(Description::TailGate(code.frame)));
            stubs.tail_gate = Some(gate);
        }
        Ok(stubs)
    }

    /// The stub that detours call, made when it is first asked for.
    pub(crate) fn wait(
        &self,
        slow_path: &SlowPath,
        templates: &Templates,
        memory: &Arc<Memory>,
    ) -> Result<usize> {
        if let Some(stub) = self.wait.get() {
            return Ok(stub.address());
        }
        let stub = Box::new(stub(slow_path.wait, self.hooks.as_deref(), templates, memory)?);
        // If another thread was faster, its stub is used.
        let _pass = Pass::new();
        Ok(self.wait.get_or_init(|| stub).address())
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

/// A stub that calls `target` with its argument, the ledger, and the hooks.
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
