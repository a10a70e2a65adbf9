//! Machine code of a wanted size, compiled once, so that what is timed is not the compiler.

use cranelift_codegen::Context;
use cranelift_codegen::ir::{AbiParam, InstBuilder, Signature, types};
use cranelift_codegen::isa::TargetIsa;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};
use lastout::{Engine, Unit};
use lastout_tests::emit::Emitter;

use crate::Result;

/// A function `(i64) -> i64` in machine code, which needs nothing but itself.
#[derive(Clone)]
pub(crate) struct Code {
    pub(crate) bytes: Vec<u8>,
    signature: Signature,
}

impl Code {
    /// Code of at least `size` bytes, and hardly more.
    pub(crate) fn new(isa: &dyn TargetIsa, size: usize) -> Result<Self> {
        let mut code = None;
        for steps in 0.. {
            let function = cranelift_reader::parse_functions(&text(steps))?.remove(0);
            let signature = function.signature.clone();
            let mut context = Context::for_function(function);
            let compiled = context.compile(isa, &mut Default::default());
            let bytes = compiled.map_err(|error| error.inner)?.code_buffer().to_vec();
            let enough = bytes.len() >= size;
            code = Some(Self { bytes, signature });
            if enough {
                break;
            }
        }
        Ok(code.expect("there is code of any size"))
    }

    fn define(&self, module: &mut impl Module, name: &str) -> Result<FuncId> {
        let id = module.declare_function(name, Linkage::Export, &self.signature)?;
        module.define_function_bytes(id, 1, &self.bytes, &[])?;
        Ok(id)
    }

    /// A unit that exports the function.
    pub(crate) fn unit(&self, engine: &Engine, name: &str) -> Result<Unit> {
        let mut unit = engine.unit();
        self.define(&mut unit, name)?;
        Ok(unit)
    }

    /// Makes [`bare`](Self::bare)'s function known, so that its gate is there before its code.
    pub(crate) fn declare_bare(&self, engine: &Engine, name: &str) -> Result<()> {
        let mut signature = Signature::new(self.signature.call_conv);
        signature.returns.push(AbiParam::new(types::I64));
        Ok(engine.declare(name, &signature)?)
    }

    /// The address of the function in a unit of its own, which stays installed. Nothing counts
    /// calls of that address.
    pub(crate) fn bare(&self, engine: &Engine, name: &str, align: u64) -> Result<Function> {
        let mut unit = engine.unit();
        let body = unit.declare_anonymous_function(&self.signature)?;
        unit.define_function_bytes(body, align, &self.bytes, &[])?;
        let mut signature = unit.make_signature();
        signature.returns.push(AbiParam::new(types::I64));
        let id = unit.declare_function(name, Linkage::Export, &signature)?;
        Emitter::default().define(&mut unit, id, |builder, unit, _| {
            let body = unit.declare_func_in_func(body, builder.func);
            let address = builder.ins().func_addr(types::I64, body);
            builder.ins().return_(&[address]);
        })?;
        engine.install(unit)?;
        // SAFETY: the function is sound.
        let address = unsafe { engine.function::<fn() -> usize>(name)?.call() }?;
        let address = std::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: the code is of this type, in C's calling convention.
        Ok(unsafe { std::mem::transmute::<*const u8, Function>(address) })
    }

    /// A module of `cranelift-jit` with nothing but the function, and its address.
    pub(crate) fn module(&self, name: &str) -> Result<(JITModule, Function)> {
        let mut module = JITModule::new(JITBuilder::new(default_libcall_names())?);
        let id = self.define(&mut module, name)?;
        module.finalize_definitions()?;
        let address = module.get_finalized_function(id);
        // SAFETY: the code is of this type, in C's calling convention.
        let function = unsafe { std::mem::transmute::<*const u8, Function>(address) };
        Ok((module, function))
    }
}

/// What the code is called as.
pub(crate) type Function = extern "C" fn(i64) -> i64;

fn text(steps: usize) -> String {
    let mut text = "function %f(i64) -> i64 system_v {
        block0(v0: i64):
            v1 = iadd v0, v0
        "
    .to_owned();
    for step in 1..=steps {
        let next = step + 1;
        text += &format!("v{next} = imul v{step}, v0\n");
    }
    text + &format!("return v{}\n}}\n", steps + 1)
}
