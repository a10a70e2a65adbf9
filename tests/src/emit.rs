//! Functions for units, written with Cranelift's builder.

use cranelift_codegen::Context;
use cranelift_codegen::ir::{Function, Signature, UserFuncName, Value};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{FuncId, Module, ModuleResult};

/// Compiles functions one after another and keeps its buffers in between.
pub struct Emitter {
    context: Context,
    builder: FunctionBuilderContext,
}

impl Default for Emitter {
    fn default() -> Self {
        Self { context: Context::new(), builder: FunctionBuilderContext::new() }
    }
}

impl Emitter {
    /// Defines `id` in `module`, with `body` emitting its code, from the entry block on. `body`
    /// gets the parameters, and the module to declare what it refers to.
    ///
    /// # Errors
    ///
    /// What the module says.
    pub fn define<M: Module>(
        &mut self,
        module: &mut M,
        id: FuncId,
        body: impl FnOnce(&mut FunctionBuilder<'_>, &mut M, &[Value]),
    ) -> ModuleResult<()> {
        self.define_by(module, id, body, |module, context, ()| module.define_function(id, context))
    }

    /// The same, with `define` to compile what has been emitted. It gets what `body` has returned.
    ///
    /// # Errors
    ///
    /// As [`define`](Self::define).
    pub fn define_by<M: Module, T>(
        &mut self,
        module: &mut M,
        id: FuncId,
        body: impl FnOnce(&mut FunctionBuilder<'_>, &mut M, &[Value]) -> T,
        define: impl FnOnce(&mut M, &mut Context, T) -> ModuleResult<()>,
    ) -> ModuleResult<()> {
        self.context.clear();
        let signature: Signature = module.declarations().get_function_decl(id).signature.clone();
        self.context.func = Function::with_name_signature(UserFuncName::default(), signature);
        let mut builder = FunctionBuilder::new(&mut self.context.func, &mut self.builder);
        let entry = builder.create_block();
        builder.append_block_params_for_function_params(entry);
        builder.switch_to_block(entry);
        let params = builder.block_params(entry).to_vec();
        let result = body(&mut builder, module, &params);
        builder.seal_all_blocks();
        builder.finalize(module.target_config());
        define(module, &mut self.context, result)
    }
}
