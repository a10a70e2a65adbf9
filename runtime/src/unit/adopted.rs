//! Code that something else has made and owns.

use std::collections::BTreeMap;
use std::fmt;

use cranelift_codegen::ir::Signature;

use crate::function::names::Names;
use crate::unit::env::UnitEnv;
use crate::unit::image::{Code, LinkedPoints, Owner};
use crate::unit::link::{Linked, Root};
use crate::{Error, Result};

/// Code that something else has made and owns, such as a finished `JITModule` or a loaded library,
/// to be [installed](crate::Engine::adopt) as versions of functions.
///
/// Its functions are called through gates like those of a [`Unit`](crate::Unit). When the last
/// thread has left the last of them, the owner is told to release the code.
///
/// # A module of `cranelift-jit`
///
/// ```
/// use cranelift_jit::{JITBuilder, JITModule};
/// use lastout::cranelift_module::{Linkage, Module, default_libcall_names};
/// use lastout::{Adopted, Engine};
///
/// # fn define(module: &mut JITModule) -> cranelift_module::FuncId {
/// #     use cranelift_codegen::ir::{AbiParam, InstBuilder, types};
/// #     let mut context = module.make_context();
/// #     context.func.signature.params.push(AbiParam::new(types::I64));
/// #     context.func.signature.returns.push(AbiParam::new(types::I64));
/// #     let mut buffers = cranelift_frontend::FunctionBuilderContext::new();
/// #     let mut builder =
/// #         cranelift_frontend::FunctionBuilder::new(&mut context.func, &mut buffers);
/// #     let block = builder.create_block();
/// #     builder.append_block_params_for_function_params(block);
/// #     builder.switch_to_block(block);
/// #     builder.seal_all_blocks();
/// #     let x = builder.block_params(block)[0];
/// #     let square = builder.ins().imul(x, x);
/// #     builder.ins().return_(&[square]);
/// #     builder.finalize(module.isa().frontend_config());
/// #     let signature = context.func.signature.clone();
/// #     let id = module.declare_function("square", Linkage::Export, &signature).unwrap();
/// #     module.define_function(id, &mut context).unwrap();
/// #     id
/// # }
/// let mut module = JITModule::new(JITBuilder::new(default_libcall_names())?);
/// let square = define(&mut module); // as in any front end
/// module.finalize_definitions()?;
///
/// let address = module.get_finalized_function(square);
/// let signature = module.declarations().get_function_decl(square).signature.clone();
/// // SAFETY: nothing else uses the module, and when this is called no thread is inside.
/// let mut adopted = Adopted::new(move || unsafe { module.free_memory() });
/// // SAFETY: the module's code is of this signature and stays until it is freed.
/// unsafe { adopted.export("square", &signature, address) };
///
/// let engine = Engine::new()?;
/// let installed = engine.adopt(adopted)?;
/// let handle = engine.function::<fn(i64) -> i64>("square")?;
/// // SAFETY: the function is sound for every argument.
/// assert_eq!(unsafe { handle.call(7) }?, 49);
///
/// engine.remove("square")?; // no thread is inside: the module has been freed
/// assert!(installed.version("square").unwrap().wait_freed(std::time::Duration::ZERO));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Adopted {
    exports: BTreeMap<String, (Signature, usize)>,
    owner: Owner,
}

impl Adopted {
    /// Code whose owner is told to release it by a call of `release`: once, after the last thread
    /// has left the last version that was made of it, where the engine's
    /// [`DropPolicy`](crate::DropPolicy) says; or when this is dropped without having been
    /// installed. `release` may be a closure that only owns a value, to drop it.
    ///
    /// `release` should own everything else that the code needs, such as the handles to functions
    /// whose [addresses](crate::Handle::c_address) the code was given.
    pub fn new(release: impl FnOnce() + Send + 'static) -> Self {
        Self { exports: BTreeMap::new(), owner: Owner::new(release) }
    }

    /// Makes the code at `address` the next version of the function with this name. Of several
    /// exports with one name, the last counts.
    ///
    /// # Safety
    ///
    /// - Until the owner is told to release it, there is code at `address`, which any thread may
    ///   call as a function of `signature`, under the contract of [`Handle`](crate::Handle)'s
    ///   `call`.
    /// - The code keeps the registers that callees of its calling convention keep, Cranelift's
    ///   pinned register (r15 on x86-64, x21 on aarch64) among them, and expects nothing of that
    ///   register. This holds for code in C and Rust, and for Cranelift's without the flag
    ///   `enable_pinned_reg`.
    /// - The code calls functions of an engine through [stable
    ///   addresses](crate::Handle::c_address), and in no other way.
    pub unsafe fn export(&mut self, name: &str, signature: &Signature, address: *const u8) {
        let address = address.expose_provenance();
        self.exports.insert(name.to_owned(), (signature.clone(), address));
    }

    pub(crate) fn link(self, env: &UnitEnv, names: &Names) -> Result<Linked> {
        let root = |(name, (signature, body)): (&String, &(Signature, usize))| {
            if *body == 0 {
                return Err(Error::Undefined(name.clone()));
            }
            if env.host.contains_key(name) {
                return Err(Error::HostSymbol(name.clone()));
            }
            let function = names.obtain(name, signature, &env.functions)?;
            Ok(Root { function, body: *body, public: true, exposed: None, part_of: None })
        };
        let roots = self.exports.iter().map(root).collect::<Result<_>>()?;
        let code = Code::Adopted { _owner: self.owner };
        Ok(Linked { code, roots, callees: Vec::new(), points: LinkedPoints::default() })
    }
}

impl fmt::Debug for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adopted").field("exports", &self.exports.keys()).finish_non_exhaustive()
    }
}
