//! Small functions at random, with any control flow that there can be.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Block, BlockArg, BlockCall, ExtFuncData, ExternalName, FuncRef, Function, Inst,
    InstBuilder, InstructionData, JumpTableData, MemFlagsData, Opcode, Signature, UserExternalName,
    Value, types::*,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use proptest::collection::vec;
use proptest::prelude::*;

/// How many integers a function works with; the first are its parameters.
const INTEGERS: usize = 4;
pub(crate) const PARAMS: usize = 3;

/// What a function calls, and twice its version.
pub(crate) const TICK: u32 = 0;
pub(crate) const ASK: u32 = 1;

/// A function, with variables that are set again and again. It ends when it has gone through so
/// many blocks, if not before.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) fuel: u8,
    pub(crate) blocks: Vec<(Vec<Op>, End)>,
}

/// Numbers of variables, and of blocks, are taken modulo how many there are.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Add(usize, usize, usize),
    Multiply(usize, usize, i8),
    /// By way of the variable that is a narrow integer.
    Narrow(usize, usize),
    /// By way of the one that is a float.
    Float(usize, usize),
    /// Tells the host.
    Tick(usize),
    /// Asks the host, with a result.
    Ask(usize, usize),
}

#[derive(Clone, Debug)]
pub(crate) enum End {
    Jump(usize),
    /// Which of the two depends on whether one variable is less than the other.
    Branch(usize, usize, usize, usize),
    Table(usize, Vec<usize>, usize),
    Return,
}

pub(crate) fn programs() -> impl Strategy<Value = Program> {
    let number = || 0..64_usize;
    let op = prop_oneof![
        (number(), number(), number()).prop_map(|(to, one, other)| Op::Add(to, one, other)),
        (number(), number(), any::<i8>()).prop_map(|(to, from, by)| Op::Multiply(to, from, by)),
        (number(), number()).prop_map(|(to, from)| Op::Narrow(to, from)),
        (number(), number()).prop_map(|(to, from)| Op::Float(to, from)),
        number().prop_map(Op::Tick),
        (number(), number()).prop_map(|(to, from)| Op::Ask(to, from)),
    ];
    let end = prop_oneof![
        3 => number().prop_map(End::Jump),
        4 => (number(), number(), number(), number())
            .prop_map(|(one, other, less, not)| End::Branch(one, other, less, not)),
        2 => (number(), vec(number(), 0..4), number())
            .prop_map(|(by, targets, default)| End::Table(by, targets, default)),
        1 => Just(End::Return),
    ];
    let blocks = vec((vec(op, 0..5), end), 1..6);
    (2..14_u8, blocks).prop_map(|(fuel, blocks)| Program { fuel, blocks })
}

/// The signatures of what is called.
pub(crate) fn host_signatures() -> [Signature; 2] {
    let mut tick = Signature::new(CallConv::SystemV);
    tick.params.push(AbiParam::new(I64));
    let mut ask = tick.clone();
    ask.returns.push(AbiParam::new(I64));
    [tick, ask]
}

/// The signature of every function.
pub(crate) fn signature() -> Signature {
    let mut signature = Signature::new(CallConv::Tail);
    signature.params = vec![AbiParam::new(I64); PARAMS];
    signature.returns.push(AbiParam::new(I64));
    signature
}

/// The calls with which the function asks the host.
pub(crate) fn asks(func: &Function) -> Vec<Inst> {
    let insts = func.layout.blocks().flat_map(|block| func.layout.block_insts(block));
    let asks = insts.filter(|&inst| match func.dfg.insts[inst] {
        InstructionData::Call { opcode: Opcode::Call, func_ref, .. } => {
            let callee = &func.dfg.ext_funcs[func_ref];
            !func.dfg.signatures[callee.signature].returns.is_empty()
        }
        _ => false,
    });
    asks.collect()
}

struct Build<'a> {
    builder: FunctionBuilder<'a>,
    integers: [Variable; INTEGERS],
    narrow: Variable,
    float: Variable,
    fuel: Variable,
    blocks: Vec<Block>,
    tick: FuncRef,
    ask: FuncRef,
}

impl Program {
    pub(crate) fn function(&self, version: u32, isa: &dyn TargetIsa) -> Function {
        let mut func = Function::new();
        func.signature = signature();
        let mut context = FunctionBuilderContext::new();
        let mut builder = FunctionBuilder::new(&mut func, &mut context);
        let entry = builder.create_block();
        builder.append_block_params_for_function_params(entry);
        builder.switch_to_block(entry);
        let integers = [(); INTEGERS].map(|()| builder.declare_var(I64));
        let [narrow, float, fuel] = [I32, F64, I64].map(|ty| builder.declare_var(ty));
        for (number, &variable) in integers.iter().enumerate() {
            let value = match builder.block_params(entry).get(number) {
                Some(&param) => param,
                None => builder.ins().iconst(I64, 1),
            };
            builder.def_var(variable, value);
        }
        let value = builder.ins().iconst(I32, 7);
        builder.def_var(narrow, value);
        let value = builder.ins().f64const(0.5);
        builder.def_var(float, value);
        let value = builder.ins().iconst(I64, i64::from(self.fuel));
        builder.def_var(fuel, value);
        let [tick, ask] = [TICK, ASK].map(|index| {
            let name = UserExternalName { namespace: 0, index: index + 2 * version };
            let name = ExternalName::user(builder.func.declare_imported_user_function(name));
            let signature = builder.import_signature(host_signatures()[index as usize].clone());
            let (colocated, patchable) = (false, false);
            builder.import_function(ExtFuncData { name, signature, colocated, patchable })
        });
        let blocks: Vec<_> = self.blocks.iter().map(|_| builder.create_block()).collect();
        builder.ins().jump(blocks[0], &[]);
        let mut build = Build { builder, integers, narrow, float, fuel, blocks, tick, ask };
        for (number, (ops, end)) in self.blocks.iter().enumerate() {
            build.block(number, ops, end);
        }
        build.builder.seal_all_blocks();
        build.builder.finalize(isa.frontend_config());
        func
    }
}

impl Build<'_> {
    fn block(&mut self, number: usize, ops: &[Op], end: &End) {
        let [go_on, out] = [(); 2].map(|()| self.builder.create_block());
        self.builder.switch_to_block(self.blocks[number]);
        let fuel = self.builder.use_var(self.fuel);
        let [one, few] = [1, 16].map(|bound| self.builder.ins().iconst(I64, bound));
        let left = self.builder.ins().isub(fuel, one);
        self.builder.def_var(self.fuel, left);
        // A function that is wrong may lose it, and is to end all the same.
        let is_left = self.builder.ins().icmp(IntCC::UnsignedLessThan, left, few);
        self.builder.ins().brif(is_left, go_on, &[], out, &[]);
        self.builder.switch_to_block(go_on);
        ops.iter().for_each(|op| self.op(op));
        self.end(end);
        self.builder.switch_to_block(out);
        self.end(&End::Return);
    }

    fn integer(&mut self, number: usize) -> Value {
        self.builder.use_var(self.integers[number % INTEGERS])
    }

    fn op(&mut self, op: &Op) {
        let (to, value) = match *op {
            Op::Add(to, one, other) => {
                let (one, other) = (self.integer(one), self.integer(other));
                (to, self.builder.ins().iadd(one, other))
            }
            Op::Multiply(to, from, by) => {
                let from = self.integer(from);
                let by = self.builder.ins().iconst(I64, i64::from(by));
                (to, self.builder.ins().imul(from, by))
            }
            Op::Narrow(to, from) => {
                let from = self.integer(from);
                let from = self.builder.ins().ireduce(I32, from);
                let before = self.builder.use_var(self.narrow);
                let now = self.builder.ins().bxor(from, before);
                self.builder.def_var(self.narrow, now);
                (to, self.builder.ins().sextend(I64, before))
            }
            Op::Float(to, from) => {
                let from = self.integer(from);
                let from = self.builder.ins().fcvt_from_sint(F64, from);
                let before = self.builder.use_var(self.float);
                let now = self.builder.ins().fadd(from, before);
                self.builder.def_var(self.float, now);
                (to, self.builder.ins().bitcast(I64, MemFlagsData::new(), before))
            }
            Op::Tick(from) => {
                let from = self.integer(from);
                self.builder.ins().call(self.tick, &[from]);
                return;
            }
            Op::Ask(to, from) => {
                let from = self.integer(from);
                let call = self.builder.ins().call(self.ask, &[from]);
                (to, self.builder.inst_results(call)[0])
            }
        };
        self.builder.def_var(self.integers[to % INTEGERS], value);
    }

    fn end(&mut self, end: &End) {
        let blocks = self.blocks.clone();
        let to = |number: usize| blocks[number % blocks.len()];
        match end {
            End::Jump(target) => {
                self.builder.ins().jump(to(*target), &[]);
            }
            End::Branch(one, other, less, not) => {
                let (one, other) = (self.integer(*one), self.integer(*other));
                let is_less = self.builder.ins().icmp(IntCC::SignedLessThan, one, other);
                self.builder.ins().brif(is_less, to(*less), &[], to(*not), &[]);
            }
            End::Table(by, targets, default) => {
                let by = self.integer(*by);
                let by = self.builder.ins().ireduce(I32, by);
                let three = self.builder.ins().iconst(I32, 3);
                let by = self.builder.ins().band(by, three);
                let mut target = |number: usize| {
                    let none: [BlockArg; 0] = [];
                    BlockCall::new(to(number), none, &mut self.builder.func.dfg.value_lists)
                };
                let targets: Vec<_> = targets.iter().map(|number| target(*number)).collect();
                let table = JumpTableData::new(target(*default), &targets);
                let table = self.builder.create_jump_table(table);
                self.builder.ins().br_table(by, table);
            }
            End::Return => {
                let mut result = self.integer(0);
                for number in 1..INTEGERS {
                    let other = self.integer(number);
                    let five = self.builder.ins().iconst(I64, 5);
                    let rotated = self.builder.ins().rotl(result, five);
                    result = self.builder.ins().bxor(rotated, other);
                }
                self.builder.ins().return_(&[result]);
            }
        }
    }
}
