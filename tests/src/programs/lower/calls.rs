//! Calls of a program's functions as CLIF.

use std::collections::BTreeMap;

use cranelift_codegen::ir::{
    self, BlockArg, BlockCall, ExceptionTableData, ExceptionTableItem, ExceptionTag, InstBuilder,
    MemFlagsData, Value, types,
};
use cranelift_module::{self as module, DataDescription, DataId, Module};

use super::super::{Call, Kind, Program, Way};
use super::{Body, declare};

/// The tables of a unit, by the signature of the functions in them.
#[derive(Default)]
pub(super) struct Tables(BTreeMap<usize, DataId>);

impl Tables {
    fn get(&mut self, module: &mut impl Module, program: &Program, signature: usize) -> DataId {
        *self.0.entry(signature).or_insert_with(|| {
            let table = program.table(signature);
            let mut description = DataDescription::new();
            description.define(vec![0; 8 * table.len()].into());
            for (index, &function) in table.iter().enumerate() {
                let id = declare(module, program, function, module::Linkage::Import);
                let function = module.declare_func_in_data(id, &mut description);
                description.write_function_addr(8 * index as u32, function);
            }
            let data = module.declare_anonymous_data(false, false).unwrap();
            module.define_data(data, &description).unwrap();
            data
        })
    }
}

/// What a call instruction is given.
enum Target {
    Name(ir::FuncRef),
    Address(ir::SigRef, Value),
}

impl<M: Module> Body<'_, '_, M> {
    pub(super) fn call(&mut self, call: &Call) {
        let arguments = self.arguments(call);
        let target = self.target(call);
        if !call.catches.is_empty() {
            return self.try_call(call, target, &arguments);
        }
        let inst = match target {
            Target::Name(callee) => {
                let inst = self.builder.ins().call(callee, &arguments);
                // It would have to stay for its own.
                if !self.builder.func.dfg.ext_funcs[callee].colocated {
                    self.mark_call(call.site, inst);
                }
                inst
            }
            Target::Address(signature, address) => {
                self.builder.ins().call_indirect(signature, address, &arguments)
            }
        };
        let results = self.builder.inst_results(inst).to_vec();
        self.set_results(call, &results);
    }

    fn set_results(&mut self, call: &Call, results: &[Value]) {
        self.set_int(call.to, results[0]);
        if let Some(&float) = results.get(1) {
            self.set_float(call.float_to, float);
        }
    }

    /// A call with handlers. Each sets the variable for the result to what
    /// [`caught`](super::super::model::caught) says.
    fn try_call(&mut self, call: &Call, target: Target, arguments: &[Value]) {
        let signature = match target {
            Target::Name(callee) => self.builder.func.dfg.ext_funcs[callee].signature,
            Target::Address(signature, _) => signature,
        };
        let [returned, behind] = std::array::from_fn(|_| self.builder.create_block());
        let results = self.builder.func.dfg.signatures[signature].returns.clone();
        for result in &results {
            self.builder.append_block_param(returned, result.value_type);
        }
        let handlers: Vec<_> = call.catches.iter().map(|_| self.builder.create_block()).collect();
        let pool = &mut self.builder.func.dfg.value_lists;
        let normal = (0..results.len()).map(|result| BlockArg::TryCallRet(result as u32));
        let normal = BlockCall::new(returned, normal, pool);
        let items = call.catches.iter().zip(&handlers).map(|(tag, &handler)| {
            let payload = [BlockArg::TryCallExn(0), BlockArg::TryCallExn(1)];
            let handler = BlockCall::new(handler, payload, pool);
            match tag {
                Some(tag) => ExceptionTableItem::Tag(ExceptionTag::from_u32(*tag), handler),
                None => ExceptionTableItem::Default(handler),
            }
        });
        let items: Vec<_> = items.collect();
        let table = ExceptionTableData::new(signature, normal, items);
        let table = self.builder.func.dfg.exception_tables.push(table);
        match target {
            Target::Name(callee) => self.builder.ins().try_call(callee, arguments, table),
            Target::Address(_, address) => {
                self.builder.ins().try_call_indirect(address, arguments, table)
            }
        };
        for (index, &handler) in handlers.iter().enumerate() {
            self.builder.switch_to_block(handler);
            let [first, second] =
                std::array::from_fn(|_| self.builder.append_block_param(handler, types::I64));
            let scaled = self.builder.ins().imul_imm_s(second, 31);
            let mixed = self.builder.ins().bxor(first, scaled);
            let result = self.builder.ins().iadd_imm_s(mixed, index as i64);
            self.set_int(call.to, result);
            self.builder.ins().jump(behind, &[]);
        }
        self.builder.switch_to_block(returned);
        let results = self.builder.block_params(returned).to_vec();
        self.set_results(call, &results);
        self.builder.ins().jump(behind, &[]);
        self.builder.switch_to_block(behind);
    }

    /// Ends with a call, and so does not go on.
    pub(super) fn tail(&mut self, call: &Call) -> bool {
        self.check_carried();
        let arguments = self.arguments(call);
        match self.target(call) {
            Target::Name(callee) => self.builder.ins().return_call(callee, &arguments),
            Target::Address(signature, address) => {
                self.builder.ins().return_call_indirect(signature, address, &arguments)
            }
        };
        false
    }

    /// The arguments of a call, its share of the fuel among them.
    fn arguments(&mut self, call: &Call) -> Vec<Value> {
        let fuel = self.builder.use_var(self.frame.fuel);
        let less = self.builder.ins().iadd_imm_s(fuel, -1);
        let left = self.builder.ins().ushr_imm_u(less, i64::from(call.keep));
        let given = self.builder.ins().isub(less, left);
        self.builder.def_var(self.frame.fuel, left);
        let params = self.program.signature(call.callee).params.iter().zip(&call.arguments);
        let mut arguments = vec![given];
        for (param, &var) in params {
            arguments.push(match param {
                Kind::Int => self.int(var),
                Kind::Float => self.float(var),
            });
        }
        arguments
    }

    fn target(&mut self, call: &Call) -> Target {
        let id = declare(self.module, self.program, call.callee, module::Linkage::Import);
        let callee = self.module.declare_func_in_func(id, self.builder.func);
        let signature = self.builder.func.dfg.ext_funcs[callee].signature;
        let var = match call.way {
            Way::Name => return Target::Name(callee),
            Way::Address => {
                let address = self.builder.ins().func_addr(types::I64, callee);
                return Target::Address(signature, address);
            }
            Way::Table(var) => self.int(var),
        };
        let index = self.program.functions[call.callee].signature;
        let count = self.program.table(index).len() as i64;
        let table = self.tables.get(self.module, self.program, index);
        let table = self.module.declare_data_in_func(table, self.builder.func);
        let table = self.builder.ins().symbol_value(types::I64, table);
        let count = self.builder.ins().iconst(types::I64, count);
        let index = self.builder.ins().urem(var, count);
        let offset = self.builder.ins().imul_imm_s(index, 8);
        let place = self.builder.ins().iadd(table, offset);
        let address = self.builder.ins().load(types::I64, MemFlagsData::trusted(), place, 0);
        Target::Address(signature, address)
    }
}
