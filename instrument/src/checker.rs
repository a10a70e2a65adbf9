//! Proves of a gate that it follows the protocol, whatever code emitted it.
//!
//! The checker knows nothing of the step lists that gates are made from. It reads CLIF and finds
//! every path from the entry to a return; there are no loops. On each it interprets the
//! instructions over symbolic values (a parameter, the address of a symbol, the cell's count as
//! it was when loaded, a result of the body) and so sees a word of *events*. It proves:
//!
//! > **Every path's word is in this language,** with `interleave` anywhere between two events:
//! >
//! > ```text
//! > gate    = in · fence · body≠0 · call(body) · out · fence · check · return(results of body)
//! >         | in · fence · body=0              · out · fence · check · restart
//! > check   = body≠0
//! >         | body=0 · leave(lane)
//! > restart = current≠0 · call(current) · return(results of current)
//! >         | current=0 · removed(lane) · return(zeros)
//! > ```
//! >
//! > and nothing else has an effect: no other load, store, call or trap.
//!
//! The events:
//! - `in`, `out`: the `i32` at the pinned register plus [`Symbol::CellOffset`] goes up, down, by
//!   one. Either a load, an addition, and a store with nothing in between that might change the
//!   count, or an `atomic_rmw`. Where plain stores are not releases, `out` stores with
//!   `atomic_store`.
//! - `fence`: after a plain count at least a `sequence_point`. After an atomic one nothing where
//!   that is a full fence already (x86-64), else a `fence`. It may be stronger than asked for.
//! - `body≠0`, `body=0`, and the same for `current`: a load of the word at [`Symbol::Lane`] or
//!   [`Symbol::Current`] and the edge of a `brif` on it. Where plain loads are not acquires, an
//!   `atomic_load`.
//! - `call(x)`: an indirect call of *that* loaded value, by the signature of the gate, with the
//!   gate's parameters in their order.
//! - `leave(lane)`, `removed(lane)`, `interleave(lane)`: an indirect call of that symbol, by the
//!   signature of a preserving stub, with the address of the lane.
//!
//! An entry is a gate, too, but
//! - the pinned register is first set to the ledger: the first parameter of one for typed calls,
//!   what [`Symbol::CurrentLedger`] returns in a stable one. It holds that wherever something is
//!   called, and in the end what it held at first;
//! - it loads the lane, once, from the function: the second parameter, or [`Symbol::OwnSlot`]. It
//!   loads what is [`Symbol::CellOffset`] to gates from the lane, and [`Symbol::Current`] is a
//!   distance from the function;
//! - what comes after those two parameters is passed on, by the signature of the function;
//! - the lane, and what the pinned register held at first, are stored to the words of the frame
//!   that [`GateFrame`](crate::GateFrame) finds, before anything is called with the parameters.
//!
//! The function must be valid CLIF for the instruction set, as Cranelift's verifier has it. What
//! the proof does not cover is what Cranelift makes of that CLIF.

mod language;
mod rule;

use std::mem;

use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir::{
    AtomicRmwOp, Block, BlockArg, BlockCall, ExternalName, Function, GlobalValue, GlobalValueData,
    Inst, InstructionData, MemFlags, MemFlagsData, Opcode, SigRef, Signature, Type, Value, types,
};
use cranelift_codegen::isa::TargetIsa;
use target_lexicon::Architecture;

use self::language::{Event, Fence, Phase, Returned, Source};
pub use self::rule::{Rule, Violation};
use crate::entry::asking_signature;
use crate::frame::Word;
use crate::stub::preserving_signature;
use crate::{LaneLayout, Symbol};

/// Proves that `func` is a gate for `isa`, without knowing how it was made: every path counts in,
/// calls the body only if it may, counts out, and lets the runtime know if it has to. The top of
/// `checker.rs` states the property in full.
///
/// `func` has to be valid CLIF.
///
/// # Errors
///
/// The [`Rule`] that is broken, and where.
pub fn check_gate(func: &Function, isa: &dyn TargetIsa) -> Result<(), Violation> {
    check(func, &func.signature, None, isa)
}

/// Proves that `func` is an [entry](crate::host_entry) of functions with the signature `inner`, or
/// the [stable entry](crate::c_entry) of one, in the same way.
///
/// # Errors
///
/// As [`check_gate`].
pub fn check_entry(
    func: &Function,
    inner: &Signature,
    layout: LaneLayout,
    isa: &dyn TargetIsa,
) -> Result<(), Violation> {
    check(func, inner, Some(layout), isa)
}

fn check(
    func: &Function,
    called: &Signature,
    layout: Option<LaneLayout>,
    isa: &dyn TargetIsa,
) -> Result<(), Violation> {
    let Some(entry) = func.layout.entry_block() else {
        return Err(Violation { rule: Rule::CountIn, instruction: String::new() });
    };
    let checker = Checker {
        func,
        called,
        layout,
        pointer: isa.pointer_type(),
        stub: preserving_signature(isa),
        asking: asking_signature(isa),
        strong: matches!(isa.triple().architecture, Architecture::X86_64),
    };
    let mut start = Path::at(entry, layout.is_some());
    let params = func.dfg.block_params(entry);
    let before = params.len().saturating_sub(called.params.len());
    let before = [Meaning::Ledger, Meaning::Address(Symbol::OwnSlot)].into_iter().take(before);
    for (&param, meaning) in params.iter().zip(before.chain((0..).map(Meaning::Param))) {
        start.values[param] = Some(meaning);
    }
    let mut paths = vec![start];
    while let Some(path) = paths.pop() {
        paths.extend(checker.walk_block(path)?);
    }
    Ok(())
}

/// What a value is known to be, on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// A parameter that is passed on.
    Param(usize),
    Ledger,
    /// What the pinned register held before an entry changed it.
    Outer,
    Address(Symbol),
    /// The address of the count.
    Cell,
    /// What the count was at a time, and a constant.
    Count {
        time: u32,
        plus: i32,
    },
    /// An integer of at most 64 bits.
    Integer(i64),
    /// All bits 0, in another type.
    Zero,
    /// What an instruction loaded from one of the words that are tested and called.
    Loaded(Source, Inst),
    /// A result of a call.
    Result(Source, usize),
    /// The address of a word in the frame that an unwinder looks for.
    Kept(Word),
}

/// The beginning of a path.
#[derive(Clone)]
struct Path {
    block: Block,
    visited: Vec<Block>,
    values: SecondaryMap<Value, Option<Meaning>>,
    phase: Phase,
    /// What is in the pinned register.
    pinned: Meaning,
    /// Whether an entry has its lane: another load might find another one.
    has_lane: bool,
    /// Whether an unwinder would find the lane in the frame, and what was in the pinned register.
    keeps_lane: bool,
    keeps_outer: bool,
    /// Advances with everything that may change the count.
    time: u32,
}

impl Path {
    fn at(block: Block, entry: bool) -> Self {
        Self {
            block,
            visited: vec![block],
            values: SecondaryMap::new(),
            phase: Phase::Before,
            pinned: if entry { Meaning::Outer } else { Meaning::Ledger },
            has_lane: !entry,
            keeps_lane: !entry,
            keeps_outer: !entry,
            time: 0,
        }
    }

    fn event(&mut self, event: Event) -> Result<(), Rule> {
        self.phase = self.phase.after(event)?;
        Ok(())
    }
}

struct Checker<'a> {
    func: &'a Function,
    /// The signature of what is called with the parameters.
    called: &'a Signature,
    /// Where an entry finds things.
    layout: Option<LaneLayout>,
    pointer: Type,
    /// The signature of preserving stubs.
    stub: Signature,
    /// The signature of [`Symbol::CurrentLedger`].
    asking: Signature,
    /// Whether plain accesses acquire and release, and atomic ones are full fences.
    strong: bool,
}

impl Checker<'_> {
    /// Goes on with a path to the end of its block, and returns the paths that go on from there.
    fn walk_block(&self, mut path: Path) -> Result<Vec<Path>, Violation> {
        let mut next = Vec::new();
        for inst in self.func.layout.block_insts(path.block) {
            next = self.step(&mut path, inst).map_err(|rule| Violation {
                rule,
                instruction: self.func.dfg.display_inst(inst).to_string().trim_end().to_owned(),
            })?;
        }
        Ok(next)
    }

    /// Interprets one instruction, and returns the paths that go on from it if it ends its block.
    fn step(&self, path: &mut Path, inst: Inst) -> Result<Vec<Path>, Rule> {
        let dfg = &self.func.dfg;
        match dfg.insts[inst] {
            InstructionData::Jump { destination, .. } => {
                return Ok(vec![self.follow(path.clone(), destination)?]);
            }
            InstructionData::Brif { arg, blocks, .. } => {
                let Meaning::Loaded(_, loaded) = self.meaning(path, arg)? else {
                    return Err(Rule::Foreign);
                };
                return [false, true]
                    .into_iter()
                    .zip(blocks)
                    .map(|(zero, destination)| {
                        let mut path = path.clone();
                        path.event(Event::Test { loaded, zero })?;
                        self.follow(path, destination)
                    })
                    .collect();
            }
            InstructionData::MultiAry { opcode: Opcode::Return, .. } => {
                self.check_return(path, dfg.inst_args(inst))?;
            }
            InstructionData::CallIndirect { opcode: Opcode::CallIndirect, sig_ref, .. } => {
                self.call(path, inst, sig_ref)?;
            }
            InstructionData::NullAry { opcode: Opcode::SequencePoint } => {
                path.event(Event::Fence(Fence::Light))?;
            }
            InstructionData::NullAry { opcode: Opcode::Fence } => {
                path.event(Event::Fence(Fence::Full))?;
            }
            InstructionData::Store { opcode: Opcode::Store, args, flags, offset } => {
                require(offset == 0.into(), Rule::Foreign)?;
                self.store(path, args, flags, false)?;
            }
            InstructionData::StoreNoOffset { opcode: Opcode::AtomicStore, args, flags } => {
                self.store(path, args, flags, true)?;
            }
            InstructionData::AtomicRmw { args, flags, op, .. } => {
                require(dfg.value_type(args[1]) == types::I32, Rule::Foreign)?;
                self.count_atomically(path, args, flags, op)?;
            }
            InstructionData::Unary { opcode: Opcode::SetPinnedReg, arg } => {
                path.pinned = self.meaning(path, arg)?;
            }
            InstructionData::Load { opcode: Opcode::Load, arg, flags, offset } => {
                self.load(path, inst, (arg, offset.into()), flags, false)?;
            }
            InstructionData::LoadNoOffset { opcode: Opcode::AtomicLoad, arg, flags } => {
                self.load(path, inst, (arg, 0), flags, true)?;
            }
            _ => {
                let meaning = self.compute(path, inst)?;
                path.values[dfg.first_result(inst)] = Some(meaning);
            }
        }
        Ok(Vec::new())
    }

    /// Takes a path along an edge of the graph.
    fn follow(&self, mut path: Path, destination: BlockCall) -> Result<Path, Rule> {
        let dfg = &self.func.dfg;
        let block = destination.block(&dfg.value_lists);
        require(!path.visited.contains(&block), Rule::Acyclic)?;
        for (arg, &param) in destination.args(&dfg.value_lists).zip(dfg.block_params(block)) {
            let BlockArg::Value(value) = arg else { return Err(Rule::Foreign) };
            path.values[param] = Some(self.meaning(&path, value)?);
        }
        path.visited.push(block);
        path.block = block;
        Ok(path)
    }

    fn load(
        &self,
        path: &mut Path,
        inst: Inst,
        (at, offset): (Value, i32),
        flags: MemFlags,
        atomic: bool,
    ) -> Result<(), Rule> {
        self.check_access(flags)?;
        let result = self.func.dfg.first_result(inst);
        let ty = self.func.dfg.value_type(result);
        let meaning = match (self.meaning(path, at)?, self.layout) {
            (Meaning::Address(Symbol::OwnSlot), Some(layout)) if offset == layout.lane => {
                require(!mem::replace(&mut path.has_lane, true), Rule::Foreign)?;
                Meaning::Address(Symbol::Lane)
            }
            (Meaning::Address(Symbol::Lane), Some(layout)) if offset == layout.cell_offset => {
                Meaning::Address(Symbol::CellOffset)
            }
            _ if offset != 0 => return Err(Rule::Foreign),
            (Meaning::Cell, _) if ty == types::I32 => Meaning::Count { time: path.time, plus: 0 },
            (Meaning::Address(symbol), _) if ty == self.pointer => {
                let source = match symbol {
                    Symbol::Lane => Source::Body,
                    Symbol::Current => Source::Current,
                    _ => return Err(Rule::Foreign),
                };
                require(atomic || self.strong, Rule::Ordering)?;
                path.event(Event::Load(source, inst))?;
                Meaning::Loaded(source, inst)
            }
            _ => return Err(Rule::Foreign),
        };
        path.values[result] = Some(meaning);
        Ok(())
    }

    /// A store, which can only be the second half of a plain count.
    fn store(
        &self,
        path: &mut Path,
        [value, at]: [Value; 2],
        flags: MemFlags,
        atomic: bool,
    ) -> Result<(), Rule> {
        if let Meaning::Kept(word) = self.meaning(path, at)? {
            let meaning = self.meaning(path, value)?;
            let kept = match word {
                Word::Lane => (&mut path.keeps_lane, Meaning::Address(Symbol::Lane)),
                Word::Outer => (&mut path.keeps_outer, Meaning::Outer),
            };
            *kept.0 = true;
            return require(meaning == kept.1 && !atomic, Rule::Frame);
        }
        self.check_access(flags)?;
        require(self.meaning(path, at)? == Meaning::Cell, Rule::Foreign)?;
        let event = match self.meaning(path, value)? {
            Meaning::Count { time, plus: 1 } if time == path.time => Event::CountIn(Fence::Light),
            Meaning::Count { time, plus: -1 } if time == path.time => {
                require(atomic || self.strong, Rule::Ordering)?;
                Event::CountOut(Fence::Light)
            }
            _ => return Err(Rule::ByOne),
        };
        path.time += 1;
        path.event(event)
    }

    fn count_atomically(
        &self,
        path: &mut Path,
        [at, by]: [Value; 2],
        flags: MemFlags,
        op: AtomicRmwOp,
    ) -> Result<(), Rule> {
        self.check_access(flags)?;
        require(self.meaning(path, at)? == Meaning::Cell, Rule::Foreign)?;
        let due = if self.strong { Fence::None } else { Fence::Full };
        let event = match (op, self.meaning(path, by)?) {
            (AtomicRmwOp::Add, Meaning::Integer(1)) => Event::CountIn(due),
            (AtomicRmwOp::Sub, Meaning::Integer(1)) => Event::CountOut(due),
            _ => return Err(Rule::ByOne),
        };
        path.time += 1;
        path.event(event)
    }

    /// A call: of what was loaded, with the parameters, or of a stub, with the lane.
    fn call(&self, path: &mut Path, inst: Inst, sig_ref: SigRef) -> Result<(), Rule> {
        let dfg = &self.func.dfg;
        let [callee, ref arguments @ ..] = *dfg.inst_args(inst) else { return Err(Rule::Foreign) };
        let signature = &dfg.signatures[sig_ref];
        let arguments = arguments.iter().map(|&argument| self.meaning(path, argument));
        let arguments = arguments.collect::<Result<Vec<_>, Rule>>()?;
        path.time += 1;
        let callee = self.meaning(path, callee)?;
        if self.layout.is_some() && callee == Meaning::Address(Symbol::CurrentLedger) {
            require(path.pinned == Meaning::Outer, Rule::Foreign)?;
            require(*signature == self.asking, Rule::Arguments)?;
            path.values[dfg.first_result(inst)] = Some(Meaning::Ledger);
            return Ok(());
        }
        match callee {
            Meaning::Loaded(source, loaded) => {
                path.event(Event::Call(source, loaded))?;
                require(path.keeps_lane && path.keeps_outer, Rule::Frame)?;
                let params = (0..self.called.params.len()).map(Meaning::Param);
                require(signature == self.called, Rule::Arguments)?;
                require(arguments.into_iter().eq(params), Rule::Arguments)?;
                for (number, &result) in dfg.inst_results(inst).iter().enumerate() {
                    path.values[result] = Some(Meaning::Result(source, number));
                }
            }
            Meaning::Address(stub) => {
                match stub {
                    Symbol::Leave => path.event(Event::Leave)?,
                    Symbol::Removed => path.event(Event::Removed)?,
                    Symbol::Interleave => {}
                    _ => return Err(Rule::Foreign),
                }
                require(*signature == self.stub, Rule::Arguments)?;
                require(arguments == [Meaning::Address(Symbol::Lane)], Rule::Arguments)?;
            }
            _ => return Err(Rule::Foreign),
        }
        require(path.pinned == Meaning::Ledger, Rule::Pinned)
    }

    fn check_return(&self, path: &Path, values: &[Value]) -> Result<(), Rule> {
        let returned = path.phase.returns()?;
        let held = if self.layout.is_some() { Meaning::Outer } else { Meaning::Ledger };
        require(path.pinned == held, Rule::Pinned)?;
        for (number, &value) in values.iter().enumerate() {
            let meaning = self.meaning(path, value)?;
            let kept = match returned {
                Returned::Results(source) => meaning == Meaning::Result(source, number),
                Returned::Zeros => matches!(meaning, Meaning::Zero | Meaning::Integer(0)),
            };
            require(kept, Rule::Return)?;
        }
        Ok(())
    }

    /// What an instruction without effects computes.
    fn compute(&self, path: &Path, inst: Inst) -> Result<Meaning, Rule> {
        use Meaning::{Address, Cell, Count, Integer, Kept, Ledger, Zero};
        let dfg = &self.func.dfg;
        Ok(match dfg.insts[inst] {
            InstructionData::NullAry { opcode: Opcode::GetPinnedReg } => path.pinned,
            InstructionData::UnaryGlobalValue { opcode: Opcode::SymbolValue, global_value } => {
                let symbol = self.symbol(global_value).ok_or(Rule::Foreign)?;
                let of_lane = matches!(symbol, Symbol::Lane | Symbol::CellOffset | Symbol::Current);
                require(self.layout.is_none() || !of_lane, Rule::Foreign)?;
                Address(symbol)
            }
            InstructionData::StackAddr { opcode: Opcode::StackAddr, stack_slot, offset } => {
                let key = self.func.sized_stack_slots[stack_slot].key;
                let word = Word::with_key(key).ok_or(Rule::Foreign)?;
                require(offset == 0.into(), Rule::Frame)?;
                Kept(word)
            }
            InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } => Integer(imm.bits()),
            InstructionData::UnaryIeee16 { imm, .. } if imm.bits() == 0 => Zero,
            InstructionData::UnaryIeee32 { imm, .. } if imm.bits() == 0 => Zero,
            InstructionData::UnaryIeee64 { imm, .. } if imm.bits() == 0 => Zero,
            InstructionData::UnaryConst {
                opcode: Opcode::Vconst | Opcode::F128const,
                constant_handle,
            } if dfg.constants.get(constant_handle).iter().all(|&byte| byte == 0) => Zero,
            InstructionData::Binary { opcode, args: [left, right] } => {
                match (opcode, self.meaning(path, left)?, self.meaning(path, right)?) {
                    (Opcode::Iadd, Ledger, Address(Symbol::CellOffset)) => Cell,
                    (Opcode::Iadd, Address(Symbol::OwnSlot), Integer(by))
                        if self.layout.is_some_and(|layout| by == i64::from(layout.current)) =>
                    {
                        Address(Symbol::Current)
                    }
                    (Opcode::Iadd, Count { time, plus: 0 }, Integer(by)) => {
                        // As the addition sees it: in 32 bits.
                        Count { time, plus: by as i32 }
                    }
                    (Opcode::Iconcat, Integer(0), Integer(0)) => Zero,
                    _ => return Err(Rule::Foreign),
                }
            }
            _ => return Err(Rule::Foreign),
        })
    }

    /// The symbol that a global value is the address of.
    fn symbol(&self, global: GlobalValue) -> Option<Symbol> {
        let GlobalValueData::Symbol { name, offset, tls: false, .. } =
            &self.func.global_values[global]
        else {
            return None;
        };
        let ExternalName::User(name) = name else { return None };
        let name = &self.func.params.user_named_funcs()[*name];
        Symbol::from_name(name.namespace, name.index).filter(|_| offset.bits() == 0)
    }

    /// An access must not trap, and the optimizer must not take the word for one that never
    /// changes: no flags but these.
    fn check_access(&self, flags: MemFlags) -> Result<(), Rule> {
        require(self.func.dfg.mem_flags[flags] == MemFlagsData::trusted(), Rule::Foreign)
    }

    fn meaning(&self, path: &Path, value: Value) -> Result<Meaning, Rule> {
        path.values[self.func.dfg.resolve_aliases(value)].ok_or(Rule::Foreign)
    }
}

fn require(kept: bool, rule: Rule) -> Result<(), Rule> {
    if kept { Ok(()) } else { Err(rule) }
}
