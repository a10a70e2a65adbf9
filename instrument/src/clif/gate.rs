//! The gate of a lane, made from the steps of the protocol.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{
    AtomicRmwOp, Block, Function, InstBuilder, MemFlagsData, SigRef, Signature, SourceLoc, Type,
    Value, types,
};
use cranelift_codegen::isa::TargetIsa;
use lastout_reclaim::Step;

use super::access::Access;
use super::function::{at_bottom_of_entry, empty_function};
use super::zero;
use crate::frame::body_call;
use crate::signature::preserving_signature;
use crate::{Error, GateOptions, LaneLayout, Symbol, check_signature, symbol};

/// The gate of a lane of a function with this signature. Where it [can be
/// tail-called](crate::can_be_tail_called), it has a [head](crate::tail_gate_head) instead.
///
/// It refers to [`Symbol::Lane`], [`Symbol::CellOffset`], [`Symbol::Current`], [`Symbol::Leave`],
/// [`Symbol::Removed`] and, if asked for, [`Symbol::Interleave`], so that it is compiled once for
/// all lanes of all functions with the signature.
///
/// Compile it without optimization. The optimizer would share the address of the cell between
/// counting in and counting out, and so keep it in a register that must then be saved around the
/// body's call.
///
/// # Errors
///
/// As [`check_signature`].
///
/// # Example
///
/// The gate of every function that takes and returns an `i64`:
///
/// ```
/// use cranelift_codegen::ir::{AbiParam, Signature, types};
/// use cranelift_codegen::isa::CallConv;
/// use cranelift_codegen::settings::{self, Configurable};
/// use lastout_instrument::{GateOptions, check_gate, gate};
/// use lastout_reclaim::Counting;
///
/// let mut flags = settings::builder();
/// flags.set("enable_pinned_reg", "true")?;
/// flags.set("preserve_frame_pointers", "true")?;
/// let isa = cranelift_native::builder()?.finish(settings::Flags::new(flags))?;
///
/// let mut signature = Signature::new(CallConv::SystemV);
/// signature.params.push(AbiParam::new(types::I64));
/// signature.returns.push(AbiParam::new(types::I64));
///
/// let options = GateOptions { counting: Counting::Plain, interleave: false };
/// let gate = gate(&signature, options, &*isa)?;
/// check_gate(&gate, &*isa)?;
/// println!("{gate}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// `tests/golden/gate-plain.clif` has what it prints, with the symbols named. The call of the body
/// is marked with a source location, by which [`GateFrame`](crate::GateFrame) knows it.
pub fn gate(
    signature: &Signature,
    options: GateOptions,
    isa: &dyn TargetIsa,
) -> Result<Function, Error> {
    check_signature(signature, isa)?;
    let (mut func, arguments) = empty_function(signature.clone());
    let pos = at_bottom_of_entry(&mut func);
    Gate::new(pos, options, isa, signature, arguments, LaneSource::Symbols, None).emit();
    Ok(func)
}

/// Where a gate finds its lane.
#[derive(Clone, Copy)]
pub(crate) enum LaneSource {
    /// By symbols, since it is made for the lane.
    Symbols,
    /// In memory: the lane that is current for a function as the call begins.
    Function {
        /// The function, which starts with its slot.
        function: Value,
        /// The lane.
        lane: Value,
        layout: LaneLayout,
    },
}

/// A gate in the making.
pub(crate) struct Gate<'a> {
    pos: FuncCursor<'a>,
    access: Access,
    pointer: Type,
    options: GateOptions,
    signature: &'a Signature,
    /// The signature, in the function.
    forwarded: SigRef,
    preserving: SigRef,
    arguments: Vec<Value>,
    source: LaneSource,
    /// What the pinned register is to hold again in the end, if it was changed.
    outer: Option<Value>,
    /// What [`Step::LoadBody`] loaded.
    body: Option<Value>,
    /// What [`Step::CallBody`] returned.
    results: Vec<Value>,
    /// Where [`Step::LoadBody`] goes if it loads 0.
    bail: Option<Block>,
}

impl<'a> Gate<'a> {
    pub(crate) fn new(
        pos: FuncCursor<'a>,
        options: GateOptions,
        isa: &dyn TargetIsa,
        signature: &'a Signature,
        arguments: Vec<Value>,
        source: LaneSource,
        outer: Option<Value>,
    ) -> Self {
        let forwarded = pos.func.import_signature(signature.clone());
        let preserving = pos.func.import_signature(preserving_signature(isa));
        Self {
            pos,
            access: Access::of(isa),
            pointer: isa.pointer_type(),
            options,
            signature,
            forwarded,
            preserving,
            arguments,
            source,
            outer,
            body: None,
            results: Vec::new(),
            bail: None,
        }
    }

    /// The rest of the function: everything that the gate does.
    pub(crate) fn emit(mut self) {
        for &step in self.options.counting.gate() {
            self.step(step);
        }
        let results = std::mem::take(&mut self.results);
        self.return_(&results);
        if let Some(bail) = self.bail.take() {
            self.pos.insert_block(bail);
            self.pos.func.layout.set_cold(bail);
            for &step in self.options.counting.bail() {
                self.step(step);
            }
        }
    }

    fn return_(&mut self, results: &[Value]) {
        if let Some(outer) = self.outer {
            self.pos.ins().set_pinned_reg(outer);
        }
        self.pos.ins().return_(results);
    }

    fn step(&mut self, step: Step) {
        if self.options.interleave {
            self.call_preserving(Symbol::Interleave);
        }
        match step {
            Step::CountIn => {
                let cell = self.cell();
                let count = self.pos.ins().load(types::I32, MemFlagsData::trusted(), cell, 0);
                let count = self.pos.ins().iadd_imm_s(count, 1);
                self.pos.ins().store(MemFlagsData::trusted(), count, cell, 0);
            }
            Step::CountOut => {
                let cell = self.cell();
                let count = self.pos.ins().load(types::I32, MemFlagsData::trusted(), cell, 0);
                let count = self.pos.ins().iadd_imm_s(count, -1);
                self.access.store_release(&mut self.pos, count, cell);
            }
            Step::CountInFenced => self.count_fenced(AtomicRmwOp::Add),
            Step::CountOutFenced => self.count_fenced(AtomicRmwOp::Sub),
            Step::LightFence => {
                self.pos.ins().sequence_point();
            }
            Step::LoadBody => {
                let body = self.load_body();
                let enter = self.pos.func.dfg.make_block();
                let bail = self.pos.func.dfg.make_block();
                self.pos.ins().brif(body, enter, &[], bail, &[]);
                self.pos.insert_block(enter);
                self.body = Some(body);
                self.bail = Some(bail);
            }
            Step::CallBody => {
                let body = self.body.expect("a gate loads the body before it calls it");
                self.pos.set_srcloc(body_call());
                let call = self.pos.ins().call_indirect(self.forwarded, body, &self.arguments);
                self.pos.set_srcloc(SourceLoc::default());
                self.results = self.pos.func.dfg.inst_results(call).to_vec();
            }
            Step::CheckBody => {
                let body = self.load_body();
                let leave = self.pos.func.dfg.make_block();
                let done = self.pos.func.dfg.make_block();
                let bailing = self.bail.is_none();
                self.pos.ins().brif(body, done, &[], leave, &[]);
                self.pos.insert_block(leave);
                self.pos.func.layout.set_cold(leave);
                self.call_preserving(Symbol::Leave);
                self.pos.ins().jump(done, &[]);
                self.pos.insert_block(done);
                if bailing {
                    // Code that is not cold would be laid out amid the fast path.
                    self.pos.func.layout.set_cold(done);
                }
            }
            Step::Restart => self.restart(),
            Step::PushLane
            | Step::SwapLane
            | Step::PopLane
            | Step::CountOutTaken
            | Step::CountOutTakenFenced
            | Step::CheckTaken
            | Step::JumpBody => unreachable!("not a step of a gate that is only called"),
        }
    }

    /// Calls the current lane's gate, or, if the function has none, reports that and returns
    /// zeros: the caller's results must be something, and generated code has no other channel.
    fn restart(&mut self) {
        let current = match self.source {
            LaneSource::Symbols => symbol::value(&mut self.pos, self.pointer, Symbol::Current),
            LaneSource::Function { function, layout, .. } => {
                self.pos.ins().iadd_imm_s(function, i64::from(layout.current))
            }
        };
        let gate = self.access.load_acquire(&mut self.pos, self.pointer, current);
        let again = self.pos.func.dfg.make_block();
        let removed = self.pos.func.dfg.make_block();
        self.pos.ins().brif(gate, again, &[], removed, &[]);

        self.pos.insert_block(again);
        self.pos.func.layout.set_cold(again);
        let call = self.pos.ins().call_indirect(self.forwarded, gate, &self.arguments);
        let results = self.pos.func.dfg.inst_results(call).to_vec();
        self.return_(&results);

        self.pos.insert_block(removed);
        self.pos.func.layout.set_cold(removed);
        self.call_preserving(Symbol::Removed);
        let types = self.signature.returns.iter().map(|result| result.value_type);
        let zeros: Vec<Value> = types.map(|ty| zero::value(&mut self.pos, ty)).collect();
        self.return_(&zeros);
    }

    /// The address of the calling thread's count. Computed anew for each use, see [`gate`].
    fn cell(&mut self) -> Value {
        let ledger = self.pos.ins().get_pinned_reg(self.pointer);
        let offset = match self.source {
            LaneSource::Symbols => symbol::value(&mut self.pos, self.pointer, Symbol::CellOffset),
            LaneSource::Function { lane, layout, .. } => {
                self.pos.ins().load(self.pointer, MemFlagsData::trusted(), lane, layout.cell_offset)
            }
        };
        self.pos.ins().iadd(ledger, offset)
    }

    fn count_fenced(&mut self, op: AtomicRmwOp) {
        let cell = self.cell();
        let one = self.pos.ins().iconst(types::I32, 1);
        self.access.rmw_fenced(&mut self.pos, types::I32, op, cell, one);
    }

    fn lane(&mut self) -> Value {
        match self.source {
            LaneSource::Symbols => symbol::value(&mut self.pos, self.pointer, Symbol::Lane),
            LaneSource::Function { lane, .. } => lane,
        }
    }

    fn load_body(&mut self) -> Value {
        let lane = self.lane();
        self.access.load_acquire(&mut self.pos, self.pointer, lane)
    }

    fn call_preserving(&mut self, stub: Symbol) {
        let stub = symbol::value(&mut self.pos, self.pointer, stub);
        let lane = self.lane();
        self.pos.ins().call_indirect(self.preserving, stub, &[lane]);
    }
}
