//! The function with its points in it, begun at its entry or at a point.

use std::collections::{BTreeMap, HashMap};

use cranelift_codegen::ir::instructions::InstructionMapper;
use cranelift_codegen::ir::{
    self, Block, BlockArg, BlockCall, ExceptionTable, ExceptionTableData, ExceptionTableItem,
    ExternalName, FuncRef, Function, GlobalValueData, Inst, InstBuilder, InstBuilderBase,
    JumpTable, JumpTableData, MemFlagsData, Signature, UserExternalName, Value, ValueDef,
    ValueList,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};

use super::liveness::Segment;
use super::point::{PointNames, PointPosition, PositionNames, ResumePoint};
use super::resumable::{Resumable, import};

impl Resumable<'_> {
    /// The function, with its points in it.
    pub fn start(&self, names: &[PointNames]) -> Function {
        let values = self.func.dfg.block_params(self.entry).to_vec();
        let segment = self.segments.of_block(self.entry);
        self.rebuild(self.func.signature.clone(), segment, &values, names)
    }

    /// The function from a point on.
    pub fn code(&self, point: &ResumePoint, names: &[PointNames]) -> Function {
        let segment = self.segments.of_position(point.position);
        let mut values = point.values.clone();
        if let PointPosition::Call(call) = point.position {
            values.extend(self.func.dfg.inst_results(call));
        }
        self.rebuild(self.code_signature(point), segment, &values, names)
    }

    /// A copy of the function that takes `values` and begins with a segment, which with what that
    /// is entered with, and with what is alive at its start, they are.
    ///
    /// What is used across segments becomes a variable, since with another beginning another
    /// definition may be the one that reaches a use.
    fn rebuild(
        &self,
        signature: Signature,
        from: usize,
        values: &[Value],
        names: &[PointNames],
    ) -> Function {
        // It shares the tables of the original, of constants, signatures and so on, by number.
        let mut func = self.func.clone();
        func.layout.clear();
        func.signature = signature;
        let mut context = FunctionBuilderContext::new();
        let mut builder = FunctionBuilder::new(&mut func, &mut context);
        let crossing = self.segments.crossing();
        let old = &self.func.dfg;
        let variables: BTreeMap<_, _> = crossing
            .into_iter()
            .map(|value| (value, builder.declare_var(old.value_type(value))))
            .collect();

        let start = builder.create_block();
        builder.append_block_params_for_function_params(start);
        let reached = self.segments.reached(self.func, from);
        let blocks: HashMap<_, _> =
            reached.iter().map(|&segment| (segment, builder.create_block())).collect();
        builder.switch_to_block(start);
        let params = builder.block_params(start).to_vec();
        let given: HashMap<_, _> = values.iter().copied().zip(params).collect();
        for (value, &param) in &given {
            if let Some(&variable) = variables.get(value) {
                builder.def_var(variable, param);
            }
        }
        let entered_with = self.entered_with(self.segments.get(from));
        let arguments: Vec<BlockArg> =
            entered_with.iter().map(|value| given[value].into()).collect();
        builder.ins().jump(blocks[&from], &arguments);

        for &index in &reached {
            let mut copy = Copy {
                resumable: self,
                names,
                builder: &mut builder,
                variables: &variables,
                blocks: &blocks,
                local: HashMap::new(),
            };
            copy.segment(index);
        }
        builder.seal_all_blocks();
        builder.finalize(self.isa.frontend_config());
        func
    }

    /// The parameters of a segment.
    fn entered_with(&self, segment: &Segment) -> &[Value] {
        match segment.after {
            Some(call) => self.func.dfg.inst_results(call),
            None => self.func.dfg.block_params(segment.block),
        }
    }
}

/// Copies segments.
struct Copy<'a, 'b> {
    resumable: &'a Resumable<'a>,
    names: &'a [PointNames],
    builder: &'a mut FunctionBuilder<'b>,
    variables: &'a BTreeMap<Value, Variable>,
    blocks: &'a HashMap<usize, Block>,
    /// The copies of what the segment defines.
    local: HashMap<Value, Value>,
}

impl<'a> Copy<'a, '_> {
    fn old(&self) -> &'_ Function {
        self.resumable.func
    }

    fn segment(&mut self, index: usize) {
        let resumable = self.resumable;
        let old = resumable.func;
        let segment = resumable.segments.get(index);
        let block = self.blocks[&index];
        self.builder.switch_to_block(block);
        if old.layout.is_cold(segment.block) {
            self.builder.set_cold_block(block);
        }
        for &value in resumable.entered_with(segment) {
            let param = self.builder.append_block_param(block, old.dfg.value_type(value));
            self.define(value, param);
        }
        if let Some(id) = segment.point {
            self.look(id);
        }
        for &inst in &segment.insts {
            self.builder.set_srcloc(old.srcloc(inst));
            self.copy(inst);
        }
        if let Some(call) = segment.before {
            self.builder.set_srcloc(old.srcloc(call));
            self.wait(PointPosition::Call(call));
        }
    }

    fn copy(&mut self, inst: Inst) {
        let old = self.resumable.func;
        let data = old.dfg.insts[inst].map(&mut *self);
        let ty = old.dfg.ctrl_typevar(inst);
        let (copy, _) = self.builder.ins().build(data, ty);
        let results = self.builder.func.dfg.inst_results(copy).to_vec();
        for (&value, result) in old.dfg.inst_results(inst).iter().zip(results) {
            self.define(value, result);
        }
    }

    fn define(&mut self, value: Value, copy: Value) {
        self.local.insert(value, copy);
        if let Some(&variable) = self.variables.get(&value) {
            self.builder.def_var(variable, copy);
        }
    }

    fn copies(&mut self, values: &[Value]) -> Vec<Value> {
        values.iter().map(|&value| self.map_value(value)).collect()
    }

    fn point(&self, is: impl Fn(&ResumePoint) -> bool) -> (&'a ResumePoint, &'a PointNames) {
        let point = self.resumable.points.iter().zip(self.names).find(|(point, _)| is(point));
        point.expect("segments are cut where there are points")
    }

    /// Leaves for the resume entry of the version that is current, if the flag says so.
    fn look(&mut self, id: u32) {
        let (point, names) = self.point(|point| point.id == id);
        let PositionNames::Block { flag } = &names.position else {
            unreachable!("the point is at a block")
        };
        let pointer = self.resumable.isa.pointer_type();
        let name = self.builder.func.declare_imported_user_function(flag.clone());
        let flag = self.builder.create_global_value(GlobalValueData::Symbol {
            name: ExternalName::user(name),
            offset: 0.into(),
            colocated: true,
            tls: false,
        });
        let flag = self.builder.ins().symbol_value(pointer, flag);
        let set = self.builder.ins().load(pointer, MemFlagsData::trusted(), flag, 0);
        let (leave, go_on) = (self.builder.create_block(), self.builder.create_block());
        self.builder.ins().brif(set, leave, &[], go_on, &[]);

        self.builder.switch_to_block(leave);
        self.builder.set_cold_block(leave);
        let arguments = self.copies(&point.values);
        let to = (&names.resume_entry, self.resumable.resume_entry_signature(point));
        self.leave(to, arguments, (&names.code, self.resumable.code_signature(point)));
        self.builder.switch_to_block(go_on);
    }

    /// Leaves for the parked call, which makes the call.
    fn wait(&mut self, position: PointPosition) {
        let (point, names) = self.point(|point| point.position == position);
        let (PositionNames::Call { parked_call, fallback }, PointPosition::Call(call)) =
            (&names.position, position)
        else {
            unreachable!("the point is at a call")
        };
        let mut arguments = self.copies(self.old().dfg.inst_args(call).to_vec().as_slice());
        arguments.extend(self.copies(&point.values));
        let to = (parked_call, self.resumable.parked_call_signature(point));
        self.leave(to, arguments, (fallback, self.resumable.fallback_signature(point)));
    }

    /// Tail-calls `to` with the arguments and the address of the fallback.
    fn leave(
        &mut self,
        (to, signature): (&UserExternalName, Signature),
        mut arguments: Vec<Value>,
        (fallback, fallback_signature): (&UserExternalName, Signature),
    ) {
        let pointer = self.resumable.isa.pointer_type();
        let fallback = import(self.builder.func, fallback, fallback_signature, true);
        arguments.push(self.builder.ins().func_addr(pointer, fallback));
        let to = import(self.builder.func, to, signature, false);
        self.builder.ins().return_call(to, &arguments);
    }
}

/// What instructions refer to stays what it is, but for values and blocks.
impl InstructionMapper for Copy<'_, '_> {
    fn map_value(&mut self, value: Value) -> Value {
        let value = self.old().dfg.resolve_aliases(value);
        if let Some(&copy) = self.local.get(&value) {
            return copy;
        }
        match self.old().dfg.value_def(value) {
            ValueDef::Result(inst, _) if self.resumable.segments.is_of_code(value) => {
                self.copy(inst);
                self.local[&value]
            }
            _ => self.builder.use_var(self.variables[&value]),
        }
    }

    fn map_value_list(&mut self, values: ValueList) -> ValueList {
        let values = values.as_slice(&self.old().dfg.value_lists).to_vec();
        let copies = self.copies(&values);
        ValueList::from_iter(copies, &mut self.builder.func.dfg.value_lists)
    }

    fn map_block(&mut self, block: Block) -> Block {
        self.blocks[&self.resumable.segments.of_block(block)]
    }

    fn map_block_call(&mut self, call: BlockCall) -> BlockCall {
        let old = self.old();
        let block = call.block(&old.dfg.value_lists);
        let arguments: Vec<_> = call.args(&old.dfg.value_lists).collect();
        let arguments: Vec<_> = arguments
            .into_iter()
            .map(|argument| match argument {
                BlockArg::Value(value) => self.map_value(value).into(),
                BlockArg::TryCallRet(_) | BlockArg::TryCallExn(_) => argument,
            })
            .collect();
        let block = self.map_block(block);
        BlockCall::new(block, arguments, &mut self.builder.func.dfg.value_lists)
    }

    fn map_jump_table(&mut self, table: JumpTable) -> JumpTable {
        let table = self.old().dfg.jump_tables[table].clone();
        let default = self.map_block_call(table.default_block());
        let table: Vec<_> =
            table.as_slice().iter().map(|target| self.map_block_call(*target)).collect();
        self.builder.create_jump_table(JumpTableData::new(default, &table))
    }

    fn map_exception_table(&mut self, table: ExceptionTable) -> ExceptionTable {
        let table = self.old().dfg.exception_tables[table].clone();
        let normal = self.map_block_call(*table.normal_return());
        let items: Vec<_> = table
            .items()
            .map(|item| match item {
                ExceptionTableItem::Tag(tag, target) => {
                    ExceptionTableItem::Tag(tag, self.map_block_call(target))
                }
                ExceptionTableItem::Default(target) => {
                    ExceptionTableItem::Default(self.map_block_call(target))
                }
                ExceptionTableItem::Context(value) => {
                    ExceptionTableItem::Context(self.map_value(value))
                }
            })
            .collect();
        let table = ExceptionTableData::new(table.signature(), normal, items);
        self.builder.func.dfg.exception_tables.push(table)
    }

    fn map_global_value(&mut self, value: ir::GlobalValue) -> ir::GlobalValue {
        value
    }

    fn map_func_ref(&mut self, func_ref: FuncRef) -> FuncRef {
        func_ref
    }

    fn map_sig_ref(&mut self, sig_ref: ir::SigRef) -> ir::SigRef {
        sig_ref
    }

    fn map_stack_slot(&mut self, slot: ir::StackSlot) -> ir::StackSlot {
        slot
    }

    fn map_dynamic_stack_slot(&mut self, slot: ir::DynamicStackSlot) -> ir::DynamicStackSlot {
        slot
    }

    fn map_constant(&mut self, constant: ir::Constant) -> ir::Constant {
        constant
    }

    fn map_immediate(&mut self, immediate: ir::Immediate) -> ir::Immediate {
        immediate
    }
}
