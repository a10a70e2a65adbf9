//! What a program must return, from `cranelift-jit` without any gate.

use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module, default_libcall_names};
use lastout::FunctionType;

use crate::clif::{self, Error};

/// How many different arguments the function is called with: 0 and up.
pub(crate) const INPUTS: i64 = 64;

/// The name of the first function in `text` of type `(i64) -> i64`, and its results.
pub(crate) fn run(text: &str) -> Result<(String, Vec<i64>), Error> {
    let mut module = JITModule::new(JITBuilder::new(default_libcall_names())?);
    let ids = clif::define(&mut module, text)?;
    let undefined = module
        .declarations()
        .get_functions()
        .find(|(_, declaration)| declaration.linkage == Linkage::Import);
    if let Some((id, declaration)) = undefined {
        let name = declaration.linkage_name(id);
        return Err(Error::new(format!("`{name}` is called and not defined")));
    }
    let wanted = <extern "C" fn(i64) -> i64>::signature(module.isa());
    let declaration = |id| module.declarations().get_function_decl(id);
    let id = ids.into_iter().find(|&id| declaration(id).signature == wanted);
    let id = id.ok_or_else(|| Error::new("there is no function of type (i64) -> i64"))?;
    let name = declaration(id).linkage_name(id).into_owned();
    module.finalize_definitions()?;
    let address = module.get_finalized_function(id);
    // SAFETY: the function was compiled with this signature. The author of the file answers for
    // everything else that it does.
    let function: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(address) };
    let results = (0..INPUTS).map(|input| function(input)).collect();
    // SAFETY: no thread runs the module's code, or will.
    unsafe { module.free_memory() };
    Ok((name, results))
}
