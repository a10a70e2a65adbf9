//! CLIF text as units of lastout, or as any other module, such as an oracle.
//!
//! Functions have the names that the text gives them, `%name` as `name`, and are exported. What
//! they call and the text does not define is imported. A function of the text that is called as
//! `colocated` is called directly; one that is called without that can be replaced under its
//! callers, that is, it is preemptible.

use std::collections::BTreeSet;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{
    ExternalName, Function, GlobalValueData, UserExternalName, UserFuncName,
};
use cranelift_module::{FuncId, FuncOrDataId, Linkage, Module, ModuleError};

/// Why a text cannot be made into a unit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not CLIF.
    #[error("line {line}: {message}")]
    Syntax {
        /// Where, counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// It is CLIF that cannot be declared or compiled.
    #[error("line {line}: function {function}: {error}")]
    Function {
        /// Where the function starts, counted from 1.
        line: usize,
        /// The function's name.
        function: String,
        /// What is wrong with it.
        error: Box<ModuleError>,
    },
}

/// Defines all functions of `text` in `unit`, in their order.
///
/// It is any [`Module`], so that the same text can be given to an oracle.
///
/// # Errors
///
/// With the line of what is wrong. The unit is then good for nothing.
pub fn define(unit: &mut impl Module, text: &str) -> Result<Vec<FuncId>, Error> {
    define_by(unit, text, |unit, id, function| {
        unit.define_function(id, &mut Context::for_function(function))
    })
}

/// Defines all functions of `text` in `unit`, each by calling `define`.
///
/// # Errors
///
/// As [`define`].
pub fn define_by<M: Module>(
    unit: &mut M,
    text: &str,
    mut define: impl FnMut(&mut M, FuncId, Function) -> Result<(), ModuleError>,
) -> Result<Vec<FuncId>, Error> {
    let functions = cranelift_reader::parse_functions(text).map_err(|error| Error::Syntax {
        line: error.location.line_number,
        message: error.message,
    })?;
    let lines: Vec<usize> = (1..)
        .zip(text.lines())
        .filter(|(_, line)| line.trim_start().starts_with("function"))
        .map(|(number, _)| number)
        .collect();
    let failed = |index: usize, name: &str, error: ModuleError| Error::Function {
        line: lines.get(index).copied().unwrap_or(1),
        function: name.to_owned(),
        error: Box::new(error),
    };
    let preemptible = called_from_afar(&functions);
    let mut ids = Vec::new();
    for (index, function) in functions.iter().enumerate() {
        let name = function_name(&function.name);
        let linkage =
            if preemptible.contains(&name) { Linkage::Preemptible } else { Linkage::Export };
        let id = unit.declare_function(&name, linkage, &function.signature);
        ids.push((id.map_err(|error| failed(index, &name, error))?, name));
    }
    for (index, mut function) in functions.into_iter().enumerate() {
        let (id, name) = &ids[index];
        resolve_callees(unit, &mut function).map_err(|error| failed(index, name, error))?;
        define(unit, *id, function).map_err(|error| failed(index, name, error))?;
    }
    Ok(ids.into_iter().map(|(id, _)| id).collect())
}

/// The name that a function of a text has in units.
pub(crate) fn function_name(name: &UserFuncName) -> String {
    match name {
        UserFuncName::User(name) => user_name(name),
        UserFuncName::Testcase(name) => name.to_string().trim_start_matches('%').to_owned(),
    }
}

fn user_name(name: &UserExternalName) -> String {
    format!("u{}:{}", name.namespace, name.index)
}

/// The name of a function that `func` refers to, unless it is one that Cranelift knows.
pub(crate) fn callee_name(func: &Function, name: &ExternalName) -> Option<String> {
    match name {
        ExternalName::User(name) => Some(user_name(&func.params.user_named_funcs()[*name])),
        ExternalName::TestCase(name) => Some(name.to_string().trim_start_matches('%').to_owned()),
        ExternalName::LibCall(_) | ExternalName::KnownSymbol(_) => None,
    }
}

/// The functions that are referred to without being colocated.
fn called_from_afar(functions: &[Function]) -> BTreeSet<String> {
    let callees = functions.iter().flat_map(|func| {
        let afar = func.dfg.ext_funcs.values().filter(|callee| !callee.colocated);
        afar.filter_map(|callee| callee_name(func, &callee.name))
    });
    callees.collect()
}

/// Gives the functions that `func` refers to the numbers that they have in `unit`. Those that it
/// does not call, but has as symbols, must have been declared.
///
/// # Errors
///
/// If they cannot be declared.
pub fn resolve_callees(unit: &mut impl Module, func: &mut Function) -> Result<(), ModuleError> {
    for callee in func.dfg.ext_funcs.keys().collect::<Vec<_>>() {
        let data = &func.dfg.ext_funcs[callee];
        let Some(name) = callee_name(func, &data.name) else { continue };
        let signature = func.dfg.signatures[data.signature].clone();
        let id = unit.declare_function(&name, Linkage::Import, &signature)?;
        let number = UserExternalName { namespace: 0, index: id.as_u32() };
        let name = func.declare_imported_user_function(number);
        func.dfg.ext_funcs[callee].name = ExternalName::user(name);
    }
    for global in func.global_values.keys().collect::<Vec<_>>() {
        let GlobalValueData::Symbol { name, .. } = &func.global_values[global] else { continue };
        let Some(symbol) = callee_name(func, name) else { continue };
        let Some(FuncOrDataId::Func(id)) = unit.declarations().get_name(&symbol) else { continue };
        let number = UserExternalName { namespace: 0, index: id.as_u32() };
        let number = func.declare_imported_user_function(number);
        if let GlobalValueData::Symbol { name, .. } = &mut func.global_values[global] {
            *name = ExternalName::user(number);
        }
    }
    Ok(())
}
