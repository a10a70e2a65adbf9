//! From CLIF to code that can be published: units, their layout, linking, and the image that their
//! versions own. This layer may know the functions that a unit defines and calls; it must not know
//! which version is current.
//!
//! This file is the unit in the making.

pub(crate) mod adopted;
mod calls;
pub(crate) mod env;
pub(crate) mod image;
mod layout;
pub(crate) mod link;
mod parked_calls;
pub(crate) mod resumable;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cranelift_codegen::Context;
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::entity::EntityRef;
use cranelift_codegen::ir::{ExternalName, Function, Signature};
use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use cranelift_control::ControlPlane;
use cranelift_module::{
    DataDescription, DataId, FuncId, Init, Linkage, Module, ModuleDeclarations, ModuleError,
    ModuleReloc, ModuleResult,
};
use lastout_instrument::{Callee, check_signature, route_calls};

use crate::code::object::Object;
use crate::unit::env::UnitEnv;
use crate::unit::resumable::UnitPoints;

/// Functions and data that are compiled and installed together.
///
/// A unit is made by [`Engine::unit`](crate::Engine::unit), filled through
/// [`cranelift_module::Module`], and installed by [`Engine::install`](crate::Engine::install). It
/// can be sent to another thread, and any number of units can be filled at the same time.
///
/// What a declaration's [`Linkage`] means here:
///
/// | linkage | in the engine | calls from this unit |
/// |---|---|---|
/// | `Local`, `Hidden` | unknown | direct, stay in this version |
/// | `Export` | replaceable by name | direct, stay in this version |
/// | `Preemptible` | replaceable by name | the version that is current |
/// | `Import` | another unit's, or the host's | the version that is current; direct for the host's |
///
/// The address of a `Preemptible` or imported function is its stable entry; that of any other
/// function, and of data, is good while this version lives. Data is the unit's own whatever its
/// linkage, except for `Import`, which stands for a symbol of the host.
pub struct Unit {
    env: Arc<UnitEnv>,
    declarations: ModuleDeclarations,
    /// How many functions, and how many data objects, are declared: their numbers are below these.
    pub(crate) declared_functions: usize,
    pub(crate) declared_data: usize,
    pub(crate) functions: BTreeMap<FuncId, Object>,
    pub(crate) data: BTreeMap<DataId, DataObject>,
    pub(crate) exposed: BTreeSet<FuncId>,
    pub(crate) attached: Vec<Box<dyn Any + Send>>,
    pub(crate) points: UnitPoints,
    /// How many bytes of code, and of data, the unit takes at least.
    pub(crate) reserved: (usize, usize),
}

/// A data object that is defined.
pub(crate) struct DataObject {
    pub(crate) contents: Object,
    pub(crate) writable: bool,
}

impl Unit {
    pub(crate) fn new(env: Arc<UnitEnv>) -> Self {
        Self {
            env,
            declarations: ModuleDeclarations::default(),
            declared_functions: 0,
            declared_data: 0,
            functions: BTreeMap::new(),
            data: BTreeMap::new(),
            exposed: BTreeSet::new(),
            attached: Vec::new(),
            points: UnitPoints::default(),
            reserved: (0, 0),
        }
    }

    pub(crate) fn owned_isa(&self) -> OwnedTargetIsa {
        Arc::clone(&self.env.isa)
    }

    /// Attaches a value, which is dropped together with this unit's code: after the last frame of
    /// its last version has left, exactly once, where the engine's
    /// [`DropPolicy`](crate::DropPolicy) says.
    ///
    /// If the unit is not installed, the value is dropped with the unit.
    pub fn attach(&mut self, value: impl Any + Send) {
        self.attached.push(Box::new(value));
    }

    /// Makes this unit take at least so many bytes of code, and so many of read-only and of
    /// writable data each, so that larger units can [replace it in its
    /// place](crate::Engine::replace_in_place).
    pub fn reserve(&mut self, code: usize, data: usize) {
        self.reserved = (code, data);
    }

    /// Makes a function callable from the host that need not have a name in the engine: an
    /// anonymous, local or hidden one. [`Installed::function`](crate::Installed::function) gives
    /// handles to it. Without a name, its version lives as long as a handle does.
    pub fn expose(&mut self, function: FuncId) {
        self.exposed.insert(function);
    }

    pub(crate) fn belongs_to(&self, env: &Arc<UnitEnv>) -> bool {
        Arc::ptr_eq(&self.env, env)
    }

    /// Whether the function can be defined now, as its declaration and earlier definitions say.
    fn check_definable(&self, id: FuncId) -> ModuleResult<()> {
        if id.index() >= self.declared_functions {
            return Err(ModuleError::Undeclared(id.to_string()));
        }
        let declaration = self.declarations.get_function_decl(id);
        let name = || declaration.linkage_name(id).into_owned();
        if !declaration.linkage.is_definable() {
            return Err(ModuleError::InvalidImportDefinition(name()));
        }
        if self.functions.contains_key(&id) {
            return Err(ModuleError::DuplicateDefinition(name()));
        }
        check_signature(&declaration.signature, &*self.env.isa)
            .map_err(|error| ModuleError::Backend(error.into()))
    }

    /// How this unit calls the function that Cranelift knows as `u0:index`.
    fn callee(&self, index: u32) -> Option<Callee> {
        if index as usize >= self.declared_functions {
            return None;
        }
        let declaration = self.declarations.get_function_decl(FuncId::from_u32(index));
        let host = declaration.name.as_ref().is_some_and(|name| self.env.host.contains_key(name));
        let fixed = declaration.linkage.is_final() || host;
        Some(if fixed { Callee::Fixed } else { Callee::Replaceable })
    }

    /// Replaceable functions must be called as they were declared: the signature of a gate cannot
    /// be cast. (Those of the host can, as C's variadic functions need it.)
    fn check_callees(&self, func: &Function) -> ModuleResult<()> {
        for callee in func.dfg.ext_funcs.values() {
            let ExternalName::User(name) = callee.name else { continue };
            let name = &func.params.user_named_funcs()[name];
            if name.namespace != 0 || self.callee(name.index) != Some(Callee::Replaceable) {
                continue;
            }
            let id = FuncId::from_u32(name.index);
            let declaration = self.declarations.get_function_decl(id);
            let called_as = &func.dfg.signatures[callee.signature];
            if *called_as != declaration.signature {
                return Err(ModuleError::IncompatibleSignature(
                    declaration.linkage_name(id).into_owned(),
                    declaration.signature.clone(),
                    called_as.clone(),
                ));
            }
        }
        Ok(())
    }
}

fn refuse_tls(tls: bool) -> ModuleResult<()> {
    if tls {
        return Err(ModuleError::Backend(anyhow::anyhow!("a unit cannot have thread-local data")));
    }
    Ok(())
}

impl Module for Unit {
    fn isa(&self) -> &dyn TargetIsa {
        &*self.env.isa
    }

    fn declarations(&self) -> &ModuleDeclarations {
        &self.declarations
    }

    fn declare_function(
        &mut self,
        name: &str,
        linkage: Linkage,
        signature: &Signature,
    ) -> ModuleResult<FuncId> {
        let (id, _) = self.declarations.declare_function(name, linkage, signature)?;
        self.declared_functions = self.declared_functions.max(id.index() + 1);
        Ok(id)
    }

    fn declare_anonymous_function(&mut self, signature: &Signature) -> ModuleResult<FuncId> {
        let id = self.declarations.declare_anonymous_function(signature)?;
        self.declared_functions = self.declared_functions.max(id.index() + 1);
        Ok(id)
    }

    fn declare_data(
        &mut self,
        name: &str,
        linkage: Linkage,
        writable: bool,
        tls: bool,
    ) -> ModuleResult<DataId> {
        refuse_tls(tls)?;
        let (id, _) = self.declarations.declare_data(name, linkage, writable, tls)?;
        self.declared_data = self.declared_data.max(id.index() + 1);
        Ok(id)
    }

    fn declare_anonymous_data(&mut self, writable: bool, tls: bool) -> ModuleResult<DataId> {
        refuse_tls(tls)?;
        let id = self.declarations.declare_anonymous_data(writable, tls)?;
        self.declared_data = self.declared_data.max(id.index() + 1);
        Ok(id)
    }

    /// As for every module, `context` is left with the function as it was compiled: calls of
    /// replaceable functions go as the engine's [`Dispatch`](crate::Dispatch) says.
    fn define_function_with_control_plane(
        &mut self,
        id: FuncId,
        context: &mut Context,
        control: &mut ControlPlane,
    ) -> ModuleResult<()> {
        self.check_definable(id)?;
        let declaration = self.declarations.get_function_decl(id);
        if context.func.signature != declaration.signature {
            return Err(ModuleError::IncompatibleSignature(
                declaration.linkage_name(id).into_owned(),
                declaration.signature.clone(),
                context.func.signature.clone(),
            ));
        }
        let isa = &*self.env.isa;
        // Cranelift panics at a function without blocks, and at signatures that it cannot call.
        if context.func.layout.entry_block().is_none() {
            let name = declaration.linkage_name(id);
            return Err(ModuleError::Backend(anyhow::anyhow!("`{name}` has no blocks")));
        }
        for signature in context.func.dfg.signatures.values() {
            check_signature(signature, isa).map_err(|error| ModuleError::Backend(error.into()))?;
        }
        self.check_callees(&context.func)?;
        route_calls(&mut context.func, isa, self.env.dispatch, |index| self.callee(index))
            .map_err(|error| ModuleError::Backend(error.into()))?;
        let object = Object::compile(id, context, isa, control)?;
        self.functions.insert(id, object);
        Ok(())
    }

    /// As for every module; a relocation against a replaceable function gets its stable entry.
    fn define_function_bytes(
        &mut self,
        id: FuncId,
        alignment: u64,
        bytes: &[u8],
        relocs: &[ModuleReloc],
    ) -> ModuleResult<()> {
        self.check_definable(id)?;
        let alignment = usize::try_from(alignment).unwrap_or(usize::MAX);
        check_alignment(alignment)?;
        let align = alignment.max(self.env.isa.function_alignment().preferred as usize);
        let (bytes, relocs) = (bytes.to_vec(), relocs.to_vec());
        let object = Object { align, ..Object::of_bytes(bytes, alignment, relocs) };
        self.functions.insert(id, object);
        Ok(())
    }

    fn define_data(&mut self, id: DataId, description: &DataDescription) -> ModuleResult<()> {
        if id.index() >= self.declared_data {
            return Err(ModuleError::Undeclared(id.to_string()));
        }
        let declaration = self.declarations.get_data_decl(id);
        let name = || declaration.linkage_name(id).into_owned();
        if !declaration.linkage.is_definable() {
            return Err(ModuleError::InvalidImportDefinition(name()));
        }
        if self.data.contains_key(&id) {
            return Err(ModuleError::DuplicateDefinition(name()));
        }
        let bytes = match &description.init {
            Init::Zeros { size } => zeros(*size)?,
            Init::Bytes { contents } => contents.to_vec(),
            Init::Uninitialized => {
                return Err(ModuleError::Backend(anyhow::anyhow!("`{}` has no contents", name())));
            }
        };
        let pointer_reloc = match self.env.isa.pointer_bytes() {
            4 => Reloc::Abs4,
            _ => Reloc::Abs8,
        };
        let align = description.align.unwrap_or(u64::from(self.env.isa.pointer_bytes()));
        let align = usize::try_from(align).unwrap_or(usize::MAX);
        check_alignment(align)?;
        check_references(description)?;
        let relocs = description.all_relocs(pointer_reloc).collect();
        let contents = Object::of_bytes(bytes, align, relocs);
        self.data.insert(id, DataObject { contents, writable: declaration.writable });
        Ok(())
    }
}

/// Returns zeros, unless there is no memory for so many.
fn zeros(size: usize) -> ModuleResult<Vec<u8>> {
    let mut bytes = Vec::new();
    let reserved = bytes.try_reserve_exact(size);
    reserved.map_err(|error| ModuleError::Allocation { err: std::io::Error::other(error) })?;
    bytes.resize(size, 0);
    Ok(bytes)
}

/// Returns an error if the description refers to something that it has not imported: a `FuncRef` of
/// another description, for example.
fn check_references(description: &DataDescription) -> ModuleResult<()> {
    let DataDescription { function_decls, function_relocs, data_decls, data_relocs, .. } =
        description;
    let functions = function_relocs.iter().find(|(_, name)| !function_decls.is_valid(*name));
    let data = data_relocs.iter().find(|(_, name, _)| !data_decls.is_valid(*name));
    match (functions, data) {
        (Some((_, name)), _) => Err(ModuleError::Undeclared(name.to_string())),
        (_, Some((_, name, _))) => Err(ModuleError::Undeclared(name.to_string())),
        (None, None) => Ok(()),
    }
}

/// A unit starts on a page, so nothing in it can be aligned to more.
const MAX_ALIGNMENT: usize = 4096;

fn check_alignment(align: usize) -> ModuleResult<()> {
    if align.is_power_of_two() && align <= MAX_ALIGNMENT {
        return Ok(());
    }
    Err(ModuleError::Backend(anyhow::anyhow!(
        "an alignment of {align} is not a power of two up to {MAX_ALIGNMENT}"
    )))
}
