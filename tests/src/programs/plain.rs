//! A program in a `JITModule`: no gates, and nothing is replaced.

use std::sync::{Mutex, PoisonError};

use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_codegen::isa::CallConv;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::FunctionBuilder;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};

use super::host::{Outcome, Place, visit};
use super::lower;
use super::stack::{Inside, Seen, Segment};
use super::{Entry, Points, Program, Replacement, name};
use crate::emit::Emitter;

/// The functions that the host calls, in C's convention.
type Caller = extern "C" fn(i64, i64) -> i64;

pub(super) struct Plain {
    callers: Vec<Option<Caller>>,
    /// Behind a lock because places are shared, and it cannot be.
    module: Mutex<Option<JITModule>>,
}

impl Plain {
    pub(super) fn new(program: &Program) -> Self {
        let mut flags = settings::builder();
        for (name, value) in [("opt_level", "speed"), ("preserve_frame_pointers", "true")] {
            flags.set(name, value).unwrap();
        }
        let isa = cranelift_native::builder().unwrap().finish(settings::Flags::new(flags));
        let mut builder = JITBuilder::with_isa(isa.unwrap(), default_libcall_names());
        builder.symbol("visit", visit as *const u8);
        let mut module = JITModule::new(builder);
        let functions = program.named().collect();
        let all = Replacement { functions, points: Points::Without, in_place: false };
        lower::define(&mut module, program, &all, 0);
        let callers: Vec<_> = (0..program.functions.len())
            .map(|function| {
                let callable = program.functions[function].signature == 0
                    && program.named().any(|named| named == function);
                callable.then(|| define_caller(&mut module, program, function))
            })
            .collect();
        module.finalize_definitions().unwrap();
        let callers = callers.into_iter().map(|caller| {
            let address = module.get_finalized_function(caller?);
            // SAFETY: `define_caller` has given it this type.
            Some(unsafe { std::mem::transmute::<*const u8, Caller>(address) })
        });
        Self { callers: callers.collect(), module: Mutex::new(Some(module)) }
    }
}

fn define_caller(module: &mut JITModule, program: &Program, function: usize) -> FuncId {
    let mut signature = lower::signature(program.signature(function));
    let callee = module.declare_function(&name(function), Linkage::Import, &signature).unwrap();
    signature.call_conv = CallConv::SystemV;
    let caller = module.declare_anonymous_function(&signature).unwrap();
    let emit = |builder: &mut FunctionBuilder<'_>, module: &mut JITModule, params: &[Value]| {
        let callee = module.declare_func_in_func(callee, builder.func);
        let call = builder.ins().call(callee, params);
        let results = builder.inst_results(call).to_vec();
        builder.ins().return_(&results);
    };
    Emitter::default().define(module, caller, emit).unwrap();
    caller
}

impl Place for Plain {
    fn enter(&self, entry: &Entry) -> Outcome {
        let caller = self.callers[entry.function].expect("an entry is of a function with a name");
        Outcome::Returned(caller(entry.fuel, entry.argument))
    }

    fn replace(&self, _: &Replacement) -> bool {
        false
    }

    fn locate(&self, _: usize) -> Option<Inside> {
        None
    }

    fn look(&self, _: &[Segment]) -> Option<Seen> {
        None
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let module = self.module.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let module = module.expect("it is only taken here");
        // SAFETY: nobody is inside of the functions, and the addresses of them go with this.
        unsafe { module.free_memory() };
    }
}
