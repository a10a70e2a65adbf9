//! CLIF text as functions of a module: of a unit of lastout, or of the oracle's.

use cranelift_codegen::Context;
use cranelift_codegen::ir::{ExternalName, Function, UserExternalName, UserFuncName};
use cranelift_module::{FuncId, Linkage, Module, ModuleError, ModuleResult};

/// What is wrong with a text, and in which line, counted from 1.
#[derive(Debug, thiserror::Error)]
#[error("{line}: {message}")]
pub(crate) struct Error {
    line: usize,
    message: String,
}

impl Error {
    /// About the text as a whole.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { line: 1, message: message.into() }
    }
}

impl From<ModuleError> for Error {
    fn from(error: ModuleError) -> Self {
        Self::new(error.to_string())
    }
}

/// Defines all functions of a text in a module, in their order, under the names that the text gives
/// them: `%name` as `name`. What they call and the text does not define is imported.
pub(crate) fn define(module: &mut impl Module, text: &str) -> Result<Vec<FuncId>, Error> {
    let functions = cranelift_reader::parse_functions(text)
        .map_err(|error| Error { line: error.location.line_number, message: error.message })?;
    let mut ids = Vec::new();
    for (index, function) in functions.iter().enumerate() {
        let name = function_name(&function.name);
        let id = module.declare_function(&name, Linkage::Export, &function.signature);
        ids.push(id.map_err(|error| in_function(text, index, function, &error))?);
    }
    for (index, (&id, function)) in ids.iter().zip(&functions).enumerate() {
        let mut context = Context::for_function(function.clone());
        resolve_callees(module, &mut context.func)
            .and_then(|()| module.define_function(id, &mut context))
            .map_err(|error| in_function(text, index, function, &error))?;
    }
    Ok(ids)
}

/// What is wrong with the function of this index, in the line where it begins.
fn in_function(text: &str, index: usize, function: &Function, error: &ModuleError) -> Error {
    let lines = (1..).zip(text.lines());
    let mut first = lines.filter(|(_, line)| line.trim_start().starts_with("function"));
    let line = first.nth(index).map_or(1, |(line, _)| line);
    let message = format!("function {}: {error}", function_name(&function.name));
    Error { line, message }
}

fn function_name(name: &UserFuncName) -> String {
    match name {
        UserFuncName::User(name) => name.to_string(),
        UserFuncName::Testcase(name) => name.to_string().trim_start_matches('%').to_owned(),
    }
}

/// Gives the functions that `function` calls the numbers that they have in the module.
fn resolve_callees(module: &mut impl Module, function: &mut Function) -> ModuleResult<()> {
    for callee in function.dfg.ext_funcs.keys().collect::<Vec<_>>() {
        let data = &function.dfg.ext_funcs[callee];
        let name = match &data.name {
            ExternalName::User(name) => function.params.user_named_funcs()[*name].to_string(),
            ExternalName::TestCase(name) => name.to_string().trim_start_matches('%').to_owned(),
            ExternalName::LibCall(_) | ExternalName::KnownSymbol(_) => continue,
        };
        let signature = function.dfg.signatures[data.signature].clone();
        let id = module.declare_function(&name, Linkage::Import, &signature)?;
        let number = UserExternalName { namespace: 0, index: id.as_u32() };
        let name = function.declare_imported_user_function(number);
        function.dfg.ext_funcs[callee].name = ExternalName::user(name);
    }
    Ok(())
}
