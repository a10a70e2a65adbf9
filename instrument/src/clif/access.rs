//! Accesses of memory in CLIF, with the orderings that a gate needs.
//!
//! Processors differ in which of these orderings plain accesses have already.

use cranelift_codegen::cursor::FuncCursor;
use cranelift_codegen::ir::{AtomicRmwOp, InstBuilder, MemFlagsData, Type, Value};
use cranelift_codegen::isa::TargetIsa;
use target_lexicon::Architecture;

/// Emits the memory accesses of a gate for one processor.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    /// Whether every load is an acquire, every store a release, and an atomic read-modify-write a
    /// full fence (x86-64). If not, CLIF's atomic accesses are used, which are sequentially
    /// consistent: more than a gate needs, at one instruction each.
    strong: bool,
}

impl Access {
    pub(crate) fn of(isa: &dyn TargetIsa) -> Self {
        Self { strong: matches!(isa.triple().architecture, Architecture::X86_64) }
    }

    /// A load with acquire ordering.
    pub(crate) fn load_acquire(self, pos: &mut FuncCursor<'_>, ty: Type, at: Value) -> Value {
        if self.strong {
            pos.ins().load(ty, MemFlagsData::trusted(), at, 0)
        } else {
            pos.ins().atomic_load(ty, MemFlagsData::trusted(), at)
        }
    }

    /// A store with release ordering.
    pub(crate) fn store_release(self, pos: &mut FuncCursor<'_>, value: Value, at: Value) {
        if self.strong {
            pos.ins().store(MemFlagsData::trusted(), value, at, 0);
        } else {
            pos.ins().atomic_store(MemFlagsData::trusted(), value, at);
        }
    }

    /// `*at op= by`, atomically, and a full fence.
    pub(crate) fn rmw_fenced(
        self,
        pos: &mut FuncCursor<'_>,
        ty: Type,
        op: AtomicRmwOp,
        at: Value,
        by: Value,
    ) {
        pos.ins().atomic_rmw(ty, MemFlagsData::trusted(), op, at, by);
        if !self.strong {
            pos.ins().fence();
        }
    }
}
