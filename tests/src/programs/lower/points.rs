//! Points at which frames move, and what is carried past them.

use cranelift_codegen::Context;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, Inst, InstBuilder, MemFlagsData, TrapCode, Type, Value, types};
use cranelift_frontend::{FunctionBuilder, Variable};
use cranelift_jit::JITModule;
use cranelift_module::{FuncId, Module, ModuleResult};
use lastout::{ResumePoints, Unit};

use super::super::{Carried, Points};
use super::Body;

/// The label of what is carried.
pub(in super::super) const CARRIED: u32 = 0;

/// What functions trap with that do not have any more what they should carry.
const LOST: TrapCode = TrapCode::unwrap_user(99);

/// Where functions can be defined.
pub(in super::super) trait Target: Module {
    /// Defines one with points.
    fn define_resumable(
        &mut self,
        id: FuncId,
        context: &mut Context,
        points: &ResumePoints,
    ) -> ModuleResult<()>;
}

impl Target for Unit {
    fn define_resumable(
        &mut self,
        id: FuncId,
        context: &mut Context,
        points: &ResumePoints,
    ) -> ModuleResult<()> {
        self.define_resumable_function(id, context, points)?;
        Ok(())
    }
}

/// Nothing is replaced there, so no frame has a place to move to.
impl Target for JITModule {
    fn define_resumable(
        &mut self,
        id: FuncId,
        context: &mut Context,
        _: &ResumePoints,
    ) -> ModuleResult<()> {
        self.define_function(id, context)
    }
}

/// The points of a function in the making.
pub(super) struct Marks {
    pub(super) points: ResumePoints,
    at_calls: bool,
    carried: Option<(Carried, Variable)>,
}

impl Marks {
    /// None so far, unless there will not be any.
    pub(super) fn new(builder: &mut FunctionBuilder<'_>, points: Points) -> Option<Self> {
        let carried = match points {
            Points::Without => return None,
            Points::Loops | Points::Plain => None,
            Points::Carrying(carried) => {
                let value = carried.value(builder);
                // A constant would not be carried, but made anew; the parameter of a block is.
                let block = builder.create_block();
                builder.ins().jump(block, &[value.into()]);
                builder.switch_to_block(block);
                let value = builder.append_block_param(block, carried.type_());
                let variable = builder.declare_var(carried.type_());
                builder.def_var(variable, value);
                Some((carried, variable))
            }
        };
        Some(Self { points: ResumePoints::new(), at_calls: points != Points::Loops, carried })
    }

    fn label(&mut self, builder: &mut FunctionBuilder<'_>) {
        if let Some((_, variable)) = self.carried {
            self.points.label(CARRIED, builder.use_var(variable));
        }
    }
}

impl Carried {
    pub(in super::super) const ALL: [Self; 4] = [Self::I8, Self::I128, Self::F32, Self::I32X4];

    pub(in super::super) fn type_(self) -> Type {
        match self {
            Self::I8 => types::I8,
            Self::I128 => types::I128,
            Self::F32 => types::F32,
            Self::I32X4 => types::I32X4,
        }
    }

    fn value(self, builder: &mut FunctionBuilder<'_>) -> Value {
        match self {
            Self::I8 => builder.ins().iconst(types::I8, 0x5a),
            Self::F32 => builder.ins().f32const(1.375),
            Self::I128 => {
                let [low, high] = [0x0123_4567_89ab_cdef, -2];
                let low = builder.ins().iconst(types::I64, low);
                let high = builder.ins().iconst(types::I64, high);
                builder.ins().iconcat(low, high)
            }
            Self::I32X4 => {
                let lane = builder.ins().iconst(types::I32, 0x1357_9bdf);
                builder.ins().splat(types::I32X4, lane)
            }
        }
    }

    /// The same bits as an integer.
    fn bits(self, builder: &mut FunctionBuilder<'_>, value: Value) -> Value {
        let flags = MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little);
        match self {
            Self::I8 | Self::I128 => value,
            Self::F32 => builder.ins().bitcast(types::I32, flags, value),
            Self::I32X4 => builder.ins().bitcast(types::I128, flags, value),
        }
    }
}

impl<M: Module> Body<'_, '_, M> {
    /// Frames move at the start of a block, if they do.
    pub(super) fn mark_block(&mut self, site: u32, block: Block) {
        if let Some(marks) = &mut self.marks {
            marks.points.block(site, block);
            marks.label(self.builder);
        }
    }

    /// Frames move as a call returns, if they do.
    pub(super) fn mark_call(&mut self, site: u32, call: Inst) {
        if let Some(marks) = self.marks.as_mut().filter(|marks| marks.at_calls) {
            marks.points.call(site, call);
            marks.label(self.builder);
        }
    }

    /// Where the function ends, what it has carried is to be what it was.
    pub(super) fn check_carried(&mut self) {
        let Some(Marks { carried: Some((carried, variable)), .. }) = self.marks else { return };
        let value = self.builder.use_var(variable);
        let value = carried.bits(self.builder, value);
        let expected = carried.value(self.builder);
        let expected = carried.bits(self.builder, expected);
        let lost = self.builder.ins().icmp(IntCC::NotEqual, value, expected);
        self.builder.ins().trapnz(lost, LOST);
    }
}
