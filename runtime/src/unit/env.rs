//! What the units of an engine are compiled and linked with.

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
    /// Where the code of units is.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        self.functions.gates.memory()
    }
}

/// Something of the host that units may import.
pub(crate) struct HostSymbol {
    pub(crate) address: usize,
    /// For a function whose type the host has given; checked when a unit imports it.
    pub(crate) signature: Option<Signature>,
}
