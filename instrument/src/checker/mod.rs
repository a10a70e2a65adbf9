//! Proves of a gate that it follows the protocol, whatever code emitted it.
//!
//! The checker may know CLIF, symbols and the signatures of what they stand for. It must not know
//! the passes that make gates, nor the lists of steps that gates are made from: else it would prove
//! that a pass does what it does.
//!
//! It reads CLIF and finds every path from the entry to a return; there are no loops. On each path
//! it interprets the instructions over symbolic values (a parameter, the address of a symbol, the
//! cell's count as it was when loaded, a result of the body) and so sees a word of *events*. It
//! proves:
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
//!   loads from the lane what a gate has as [`Symbol::CellOffset`], and finds at a distance from
//!   the function what a gate has as [`Symbol::Current`];
//! - the parameters after those two are passed on, by the signature of the function;
//! - the lane, and what the pinned register held at first, are stored to the words of the frame
//!   that [`GateFrame`](crate::GateFrame) finds, before anything is called with the parameters.
//!
//! An entry of functions that [can be tail-called](crate::can_be_tail_called) is no gate, but calls
//! one:
//!
//! > ```text
//! > entry = load(slot) · call(slot) · return(results of slot)
//! >       | same · load(slot) · tail call(slot)
//! > ```
//!
//! - `load(slot)` is of the word where the function begins.
//! - `same` is the edge of a `brif` on which an `icmp` has found the ledger in the pinned register:
//!   the call leaves no frame there. A stable entry has that test, and on the other edge a call.
//!
//! The function must be valid CLIF for the instruction set, as Cranelift's verifier has it. What
//! the proof does not cover is what Cranelift makes of that CLIF.

mod calls;
mod language;
mod memory;
mod rule;

use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    Block, BlockArg, BlockCall, ExternalName, Function, GlobalValue, GlobalValueData, Inst,
    InstructionData, Opcode, Signature, Type, Value, types,
};
use cranelift_codegen::isa::TargetIsa;
use target_lexicon::Architecture;

use self::language::{Event, Fence, Phase, Source};
pub use self::rule::{Rule, Violation};
use crate::frame::Word;
use crate::signature::{current_ledger_signature, preserving_signature};
use crate::{LaneLayout, Symbol, can_be_tail_called};

/// Proves that `func` is a gate for `isa`, without knowing how it was made: every path counts in,
/// calls the body only if it may, counts out, and lets the runtime know if it has to. The top of
/// `checker/mod.rs` states the property in full.
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
        forwards: layout.is_some() && can_be_tail_called(called, isa),
        pointer: isa.pointer_type(),
        stub: preserving_signature(isa),
        asking: current_ledger_signature(isa),
        strong: matches!(isa.triple().architecture, Architecture::X86_64),
    };
    let mut start = Path::at(entry, layout.is_some(), checker.forwards);
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
    /// Whether the pinned register held the ledger at first.
    Inside,
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
    /// Whether the pinned register held the ledger at first, where a path must know that.
    is_inside: Option<bool>,
    /// Advances with everything that may change the count.
    time: u32,
}

impl Path {
    fn at(block: Block, entry: bool, forwards: bool) -> Self {
        Self {
            block,
            visited: vec![block],
            values: SecondaryMap::new(),
            phase: if forwards { Phase::Outside } else { Phase::Before },
            pinned: if entry { Meaning::Outer } else { Meaning::Ledger },
            has_lane: !entry,
            keeps_lane: !entry || forwards,
            keeps_outer: !entry,
            is_inside: Some(false),
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
    /// Whether it is an entry that is no gate.
    forwards: bool,
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
                let meaning = self.meaning(path, arg)?;
                return [false, true]
                    .into_iter()
                    .zip(blocks)
                    .map(|(zero, destination)| {
                        let mut path = path.clone();
                        match meaning {
                            Meaning::Loaded(_, loaded) => {
                                path.event(Event::Test { loaded, zero })?;
                            }
                            Meaning::Inside => path.is_inside = Some(!zero),
                            _ => return Err(Rule::Foreign),
                        }
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
            InstructionData::CallIndirect {
                opcode: Opcode::ReturnCallIndirect, sig_ref, ..
            } => self.tail_call(path, inst, sig_ref)?,
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

    /// What an instruction without effects computes.
    fn compute(&self, path: &Path, inst: Inst) -> Result<Meaning, Rule> {
        use Meaning::{Address, Cell, Count, Inside, Integer, Kept, Ledger, Outer, Zero};
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
            InstructionData::IntCompare {
                opcode: Opcode::Icmp,
                cond: IntCC::Equal,
                args: [left, right],
            } => match (self.meaning(path, left)?, self.meaning(path, right)?) {
                (Outer, Ledger) | (Ledger, Outer) => Inside,
                _ => return Err(Rule::Foreign),
            },
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

    fn meaning(&self, path: &Path, value: Value) -> Result<Meaning, Rule> {
        path.values[self.func.dfg.resolve_aliases(value)].ok_or(Rule::Foreign)
    }
}

fn require(kept: bool, rule: Rule) -> Result<(), Rule> {
    if kept { Ok(()) } else { Err(rule) }
}
