//! The settings and symbols with which the units of an engine are compiled and linked.

use std::collections::HashMap;
use std::sync::Arc;

use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::OwnedTargetIsa;
use lastout_instrument::Dispatch;

use crate::code::Memory;
use crate::function::env::FunctionEnv;

pub(crate) struct UnitEnv {
    pub(crate) isa: OwnedTargetIsa,
    pub(crate) host: HashMap<String, HostSymbol>,
    pub(crate) dispatch: Dispatch,
    pub(crate) functions: Arc<FunctionEnv>,
}

impl UnitEnv {
    /// The memory in which the code of units is.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        self.functions.gates.memory()
    }
}

/// A symbol of the host that units may import.
pub(crate) struct HostSymbol {
    pub(crate) address: usize,
    /// The signature, if the host has given it; it is checked when a unit imports the function.
    pub(crate) signature: Option<Signature>,
}
