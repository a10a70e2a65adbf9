//! What loads, stores and atomic operations do on a path.

use std::mem;

use cranelift_codegen::ir::{AtomicRmwOp, Inst, MemFlags, MemFlagsData, Value, types};

use super::language::{Event, Fence, Source};
use super::{Checker, Meaning, Path, Rule, require};
use crate::Symbol;
use crate::frame::Word;

impl Checker<'_> {
    pub(super) fn load(
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
            (Meaning::Address(Symbol::OwnSlot), Some(layout))
                if offset == layout.lane && !self.forwards =>
            {
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
                    Symbol::OwnSlot if self.forwards => Source::Slot,
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

    /// A store: the second half of a plain count, or one for an unwinder to find.
    pub(super) fn store(
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

    pub(super) fn count_atomically(
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

    /// An access must not trap, and the optimizer must not take the word for one that never
    /// changes: no flags but these.
    fn check_access(&self, flags: MemFlags) -> Result<(), Rule> {
        require(self.func.dfg.mem_flags[flags] == MemFlagsData::trusted(), Rule::Foreign)
    }
}
