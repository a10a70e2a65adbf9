//! Which values are alive where.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cranelift_codegen::ir::{Block, Function, Inst, Opcode, Value};

use super::point::{Mark, PointPosition};

/// A function in pieces: blocks, of which those with marked calls in them are several.
pub(super) struct Segments {
    segments: Vec<Segment>,
    by_block: HashMap<Block, usize>,
    by_call: HashMap<Inst, usize>,
    /// Values that are the same however often a version computes them: constants, addresses, and
    /// what is computed from these alone. Such a value belongs to the code. It is never alive, but
    /// computed anew where it is used: with the constants, and the addresses, of the version that
    /// uses it.
    of_code: BTreeMap<Value, u32>,
}

/// Instructions that follow each other.
pub(super) struct Segment {
    /// The block that it is a part of. The first segment of a block has the block's parameters.
    pub(super) block: Block,
    /// The marked call that comes before it, whose results are what it is entered with.
    pub(super) after: Option<Inst>,
    pub(super) insts: Vec<Inst>,
    /// The marked call that comes after it, which is not one of them.
    pub(super) before: Option<Inst>,
    /// The number of the point at the start of the block.
    pub(super) point: Option<u32>,
    /// What is alive at its start, without what it is entered with.
    pub(super) alive: BTreeSet<Value>,
}

impl Segments {
    /// Cuts the function up at the positions of points, which have these numbers.
    pub(super) fn new(func: &Function, positions: &BTreeMap<PointPosition, u32>) -> Self {
        let mut this = Self {
            segments: Vec::new(),
            by_block: HashMap::new(),
            by_call: HashMap::new(),
            of_code: of_code(func),
        };
        for block in func.layout.blocks() {
            this.by_block.insert(block, this.segments.len());
            let segment = |after, point| Segment {
                block,
                after,
                insts: Vec::new(),
                before: None,
                point,
                alive: BTreeSet::new(),
            };
            let mut current = segment(None, positions.get(&PointPosition::Block(block)).copied());
            for inst in func.layout.block_insts(block) {
                if !positions.contains_key(&PointPosition::Call(inst)) {
                    current.insts.push(inst);
                    continue;
                }
                current.before = Some(inst);
                this.segments.push(std::mem::replace(&mut current, segment(Some(inst), None)));
                this.by_call.insert(inst, this.segments.len());
            }
            this.segments.push(current);
        }
        this.find_alive(func);
        this
    }

    /// The segment that starts with a block.
    pub(super) fn of_block(&self, block: Block) -> usize {
        self.by_block[&block]
    }

    /// The segment that starts at the position of a point.
    pub(super) fn of_position(&self, position: PointPosition) -> usize {
        match position {
            PointPosition::Block(block) => self.by_block[&block],
            PointPosition::Call(call) => self.by_call[&call],
        }
    }

    /// Whether a value belongs to the code.
    pub(super) fn is_of_code(&self, value: Value) -> bool {
        self.of_code.contains_key(&value)
    }

    pub(super) fn get(&self, index: usize) -> &Segment {
        &self.segments[index]
    }

    /// What is alive at a point, without the results of the call there: parameters of the block,
    /// and then the rest in the order of their definitions.
    pub(super) fn alive(&self, func: &Function, mark: &Mark) -> Vec<Value> {
        let segment = &self.segments[self.of_position(mark.position)];
        let mut alive = match mark.position {
            PointPosition::Block(block) => func.dfg.block_params(block).to_vec(),
            PointPosition::Call(_) => Vec::new(),
        };
        let mut rest = segment.alive.clone();
        for block in func.layout.blocks() {
            let of_insts = func.layout.block_insts(block);
            let of_insts = of_insts.flat_map(|inst| func.dfg.inst_results(inst));
            let defined = func.dfg.block_params(block).iter().chain(of_insts);
            alive.extend(defined.copied().filter(|value| rest.remove(value)));
        }
        alive
    }

    /// The values that are used in another segment than the one that defines them.
    pub(super) fn crossing(&self) -> BTreeSet<Value> {
        self.segments.iter().flat_map(|segment| &segment.alive).copied().collect()
    }

    /// The segments that control may go to from the end of this one, by itself.
    fn successors<'a>(&'a self, func: &'a Function, index: usize) -> impl Iterator<Item = usize> {
        let insts = &self.segments[index].insts;
        insts.last().into_iter().flat_map(move |&inst| {
            let dfg = &func.dfg;
            let targets =
                dfg.insts[inst].branch_destination(&dfg.jump_tables, &dfg.exception_tables);
            targets.iter().map(|target| self.by_block[&target.block(&dfg.value_lists)])
        })
    }

    /// The segments that are reached from one, without moving to another version.
    pub(super) fn reached(&self, func: &Function, from: usize) -> Vec<usize> {
        let mut reached = BTreeSet::from([from]);
        let mut pending = vec![from];
        while let Some(index) = pending.pop() {
            for successor in self.successors(func, index) {
                if reached.insert(successor) {
                    pending.push(successor);
                }
            }
        }
        reached.into_iter().collect()
    }

    /// The usual data flow, backwards until nothing changes.
    fn find_alive(&mut self, func: &Function) {
        let dfg = &func.dfg;
        let mut changed = true;
        while changed {
            changed = false;
            for index in (0..self.segments.len()).rev() {
                let segment = &self.segments[index];
                let mut alive: BTreeSet<Value> = BTreeSet::new();
                for successor in self.successors(func, index) {
                    alive.extend(&self.segments[successor].alive);
                }
                if let Some(call) = segment.before {
                    alive.extend(&self.segments[self.by_call[&call]].alive);
                }
                for &inst in segment.before.iter().chain(segment.insts.iter().rev()) {
                    for result in dfg.inst_results(inst) {
                        alive.remove(result);
                    }
                    let used = dfg.inst_values(inst).map(|value| dfg.resolve_aliases(value));
                    alive.extend(used.filter(|value| !self.is_of_code(*value)));
                }
                let entered_with = match segment.after {
                    Some(call) => dfg.inst_results(call),
                    None => dfg.block_params(segment.block),
                };
                for value in entered_with {
                    alive.remove(value);
                }
                if alive != segment.alive {
                    self.segments[index].alive = alive;
                    changed = true;
                }
            }
        }
    }
}

/// How many instructions, each of which needs the one before, are computed anew where their result
/// is used. What takes more is passed on like what is not constant.
const LONGEST: u32 = 64;

/// The values of a function that belong to its code, with how many instructions they take in a row.
fn of_code(func: &Function) -> BTreeMap<Value, u32> {
    let mut of_code = BTreeMap::new();
    // What is defined by what comes later in the layout takes another turn.
    let mut before = None;
    while before != Some(of_code.len()) {
        before = Some(of_code.len());
        for inst in func.layout.blocks().flat_map(|block| func.layout.block_insts(block)) {
            if !is_pure(func.dfg.insts[inst].opcode()) {
                continue;
            }
            let used = func.dfg.inst_values(inst);
            let used = used.map(|value| of_code.get(&func.dfg.resolve_aliases(value)).copied());
            let taken: Option<Vec<u32>> = used.collect();
            if let Some(taken) = taken
                && let takes = 1 + taken.into_iter().max().unwrap_or(0)
                && takes <= LONGEST
            {
                let results = func.dfg.inst_results(inst);
                results.iter().for_each(|&result| {
                    of_code.entry(result).or_insert(takes);
                });
            }
        }
    }
    of_code
}

/// Whether what an instruction computes depends on its arguments alone, and it does nothing else.
fn is_pure(opcode: Opcode) -> bool {
    !(opcode.can_load()
        || opcode.can_store()
        || opcode.can_trap()
        || opcode.other_side_effects()
        || opcode.is_call()
        || opcode.is_branch()
        || opcode.is_terminator())
}
