//! Linking a unit: finding what the unit refers to, and writing it into memory.
//!
//! Names are looked up one by one, and nothing is locked in between: many threads link at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use cranelift_codegen::entity::EntityRef;
use cranelift_module::{
    DataId, FuncId, FunctionDeclaration, Linkage, Module, ModuleReloc, ModuleRelocTarget,
};
use lastout_instrument::Symbol;

use crate::code::libcalls;
use crate::code::object::Object;
use crate::code::patch::Site;
use crate::code::relocation::{self, JUMP};
use crate::code::{Contents, Footprint};
use crate::function::Function;
use crate::function::callee::Callee;
use crate::function::names::Names;
use crate::unit::Unit;
use crate::unit::env::UnitEnv;
use crate::unit::image::{Code, LinkedPoints};
use crate::unit::resumable::UnitPoint;
use crate::unwind::code_map::{Description, FunctionCode, MoreCode, UnitCode};
use crate::{Error, Result};

use super::calls::{OutgoingCalls, publish};
use super::layout::{Layout, is_public, site_callee};

/// A function that is about to get a version.
pub(crate) struct Root {
    pub(crate) function: Arc<Function>,
    /// The address at which the version's code starts.
    pub(crate) body: usize,
    /// Whether the function is to be known by its name.
    pub(crate) public: bool,
    /// The function's number in the unit, if the unit exposes it.
    pub(crate) exposed: Option<FuncId>,
    /// If this is the resume entry of a point: the number of the root that has the point.
    pub(crate) part_of: Option<usize>,
}

/// Code in memory, ready to run.
pub(crate) struct Linked {
    pub(crate) code: Code,
    pub(crate) roots: Vec<Root>,
    /// The replaceable functions that the code refers to, its own among them.
    pub(crate) callees: Vec<Callee>,
    pub(crate) points: LinkedPoints,
}

/// Links `unit` with the functions that `names` knows. On an error nothing has changed.
pub(crate) fn link(env: &UnitEnv, names: &Names, unit: &Unit) -> Result<Linked> {
    let mut linker = Linker::new(env, names, unit, Layout::new(unit, None))?;
    linker.find_parked_calls()?;
    let mut draft = env.memory().allocate(linker.layout.sizes)?;
    let calls = linker.write(&mut draft)?;
    let description = linker.description();
    let mut points = std::mem::take(&mut linker.points);
    let writable = draft.writable().1;
    let (block, callees) = publish(draft, calls, env.memory())?;
    for (used, point) in points.uses.iter_mut().zip(unit.points.points.values()) {
        if let Some(flag) = point.flag {
            used.set_flag(writable + linker.layout.data[&flag]);
        }
    }
    block.describe(Arc::clone(&description));
    let roots: Vec<_> = linker.roots(block.address()).collect();
    let only = if let [root] = &*roots { Some(root.body) } else { None };
    let code = Code::Block { block: Arc::new(block), description, only };
    Ok(Linked { roots, callees, code, points })
}

/// A unit that is ready to be written over another.
pub(crate) struct LinkedOver {
    pub(crate) contents: Contents,
    pub(crate) calls: OutgoingCalls,
    pub(crate) root: Root,
    pub(crate) description: Arc<Description>,
}

/// Links `unit`, whose only function with a version is `id`, to be written over another unit, whose
/// function starts at `body`.
pub(crate) fn link_over(
    env: &UnitEnv,
    names: &Names,
    unit: &Unit,
    id: FuncId,
    place: &Footprint,
    body: usize,
) -> Result<LinkedOver> {
    let start = body - place.code.start;
    let object = unit.functions.get(&id).ok_or_else(|| Error::Undefined(id.to_string()))?;
    if !start.is_multiple_of(object.least_align) {
        let (what, needed) = ("alignment", object.least_align);
        return Err(Error::DoesNotFit { what, needed, room: 1 << start.trailing_zeros() });
    }
    let first = Some((id, object, start));
    let mut linker = Linker::new(env, names, unit, Layout::new(unit, first))?;
    let mut contents = place.contents(linker.layout.sizes)?;
    let calls = linker.write(&mut contents)?;
    let description = linker.description();
    let root = linker.roots(place.code.start).next();
    let root = root.ok_or_else(|| Error::Undefined(id.to_string()))?;
    Ok(LinkedOver { contents, calls, root, description })
}

pub(super) struct Linker<'a> {
    pub(super) env: &'a UnitEnv,
    names: &'a Names,
    pub(super) unit: &'a Unit,
    layout: Layout,
    /// The functions that get a version.
    pub(super) roots: BTreeMap<FuncId, Arc<Function>>,
    /// The replaceable functions that the unit refers to, its own among them.
    pub(super) callees: HashMap<FuncId, Arc<Function>>,
    /// The points of the unit, in the order of their resume entries.
    pub(super) points: LinkedPoints,
}

impl<'a> Linker<'a> {
    /// Checks the unit, and finds the functions to which it gives versions.
    fn new(env: &'a UnitEnv, names: &'a Names, unit: &'a Unit, layout: Layout) -> Result<Self> {
        let (roots, callees) = (BTreeMap::new(), HashMap::new());
        let points = LinkedPoints::default();
        let mut linker = Self { env, names, unit, layout, roots, callees, points };
        linker.check_definitions()?;
        linker.find_roots()?;
        Ok(linker)
    }

    /// The functions to which the unit gives versions; its code starts at the address `code`.
    fn roots(self, code: usize) -> impl Iterator<Item = Root> {
        let Self { unit, layout, roots, .. } = self;
        let numbers: Vec<_> = roots.keys().copied().collect();
        roots.into_iter().map(move |(id, function)| {
            let point = unit.points.points.get(&id);
            let public = is_public(unit.declarations().get_function_decl(id).linkage);
            Root {
                function,
                body: code + layout.functions[&id],
                public: public && point.is_none(),
                exposed: unit.exposed.contains(&id).then_some(id),
                part_of: point.and_then(|point| numbers.binary_search(&point.function).ok()),
            }
        })
    }

    pub(super) fn declaration(&self, id: FuncId) -> &'a FunctionDeclaration {
        self.unit.declarations().get_function_decl(id)
    }

    pub(super) fn name(&self, id: FuncId) -> String {
        self.declaration(id).linkage_name(id).into_owned()
    }

    /// Every export must be defined. Other missing functions show when something refers to them.
    fn check_definitions(&self) -> Result<()> {
        let undeclared = |id: &&FuncId| id.index() >= self.unit.declared_functions;
        if let Some(id) = self.unit.exposed.iter().find(undeclared) {
            return Err(Error::Undefined(id.to_string()));
        }
        for (id, declaration) in self.unit.declarations().get_functions() {
            let exposed = self.unit.exposed.contains(&id);
            let needed = declaration.linkage == Linkage::Export || exposed;
            if needed && !self.unit.functions.contains_key(&id) {
                return Err(Error::Undefined(self.name(id)));
            }
        }
        Ok(())
    }

    /// Finds or makes the functions to which the unit gives versions.
    fn find_roots(&mut self) -> Result<()> {
        for &id in self.unit.functions.keys() {
            let declaration = self.declaration(id);
            let public = is_public(declaration.linkage);
            if !public && !self.unit.exposed.contains(&id) {
                continue;
            }
            let name = self.name(id);
            if public && self.env.host.contains_key(&name) {
                return Err(Error::HostSymbol(name));
            }
            let signature = &declaration.signature;
            if let Some(UnitPoint { function, key, .. }) = self.unit.points.points.get(&id) {
                let make = || Function::of_point(name.into(), signature, &self.env.functions);
                let used = self.roots[function].points().register(key, make)?;
                self.roots.insert(id, Arc::clone(used.resume_entry()));
                self.points.uses.push(used);
                continue;
            }
            let function = if public {
                self.names.obtain(&name, signature, &self.env.functions)?
            } else {
                Function::new(name.into(), signature, &self.env.functions)?
            };
            self.roots.insert(id, function);
        }
        Ok(())
    }

    /// The description of the unit's code for the code map.
    fn description(&self) -> Arc<Description> {
        let mut more = MoreCode::default();
        let catches_traps = self.env.memory().code_map().catches_traps();
        let start = |id: &FuncId| self.layout.functions[id] as u32;
        let mut functions: Vec<_> =
            self.unit.functions.iter().map(|(id, object)| (start(id), id, object)).collect();
        functions.sort_by_key(|(start, ..)| *start);
        let functions = functions.into_iter().map(|(start, id, object)| {
            more.add(start, &object.more, catches_traps);
            let name = match self.roots.get(id) {
                Some(function) => Arc::clone(function.name()),
                None => self.name(*id).into(),
            };
            FunctionCode { start, saved: object.frame.saved, name }
        });
        let functions = functions.collect();
        let more = (!more.is_empty()).then(|| Box::new(more));
        let len = self.layout.sizes.code.len as u32;
        let code = UnitCode { len, functions, more, number: AtomicU64::new(0) };
        Arc::new(Description::Unit(code))
    }

    /// Writes code and data, with all addresses in them except those that are patched.
    fn write(&mut self, contents: &mut Contents) -> Result<OutgoingCalls> {
        let unit = self.unit;
        let base = Bases {
            code: contents.code().1,
            read_only: contents.read_only().1,
            writable: contents.writable().1,
        };
        let mut veneers = Veneers { free: self.layout.veneers.clone(), made: HashMap::new() };
        for (&id, object) in &unit.functions {
            let offset = self.layout.functions[&id];
            let (code, address) = contents.code();
            self.write_object(code, address, offset, object, base, &mut veneers)?;
        }
        for offset in self.layout.sites.values().filter_map(|sites| sites.jump) {
            let (jump, _) = JUMP;
            contents.code().0[offset..offset + jump.len()].copy_from_slice(&jump);
        }
        for (&target, &offset) in &veneers.made {
            let veneer = relocation::veneer(self.env.isa.triple(), target);
            contents.code().0[offset..offset + veneer.len()].copy_from_slice(&veneer);
        }
        for (&id, data) in &unit.data {
            let offset = self.layout.data[&id];
            let (section, start) =
                if data.writable { contents.writable() } else { contents.read_only() };
            let veneers = &mut Veneers::default();
            self.write_object(section, start, offset, &data.contents, base, veneers)?;
        }
        for (&id, &offset) in &self.layout.fixed_slots {
            let function = self.layout.functions.get(&id);
            let function = function.ok_or_else(|| Error::Undefined(self.name(id)))?;
            let word = (base.code + function).to_ne_bytes();
            contents.read_only().0[offset..offset + word.len()].copy_from_slice(&word);
        }
        let sites = std::mem::take(&mut self.layout.sites);
        for &id in sites.keys() {
            self.replaceable(id)?;
        }
        let others = self.callees.iter().filter(|(id, _)| !sites.contains_key(id));
        let others = others.map(|(_, function)| Callee::new(Arc::clone(function))).collect();
        let sites = sites.into_iter().map(|(id, sites)| (Arc::clone(&self.callees[&id]), sites));
        let sites = sites.collect();
        Ok(OutgoingCalls { code: base.code, sites, others })
    }

    fn write_object(
        &mut self,
        section: &mut [u8],
        start: usize,
        offset: usize,
        object: &Object,
        base: Bases,
        veneers: &mut Veneers,
    ) -> Result<()> {
        let place = &mut section[offset..offset + object.bytes.len()];
        place.copy_from_slice(&object.bytes);
        let unit = self.unit;
        let name = |target: &ModuleRelocTarget| describe(unit, target);
        let resolve = |target: &ModuleRelocTarget| self.resolve(target, base);
        let near = |target| Some(base.code + veneers.offset(target)?);
        // Calls that are to be patched get their target when they are registered.
        let patched = |reloc: &&ModuleReloc| {
            site_callee(unit, object, reloc).is_some()
                && Site::is_patchable(offset + reloc.offset as usize)
        };
        let relocs = object.relocs.iter().filter(|reloc| !patched(reloc));
        relocation::relocate(place, start + offset, relocs, resolve, near, name)
    }

    fn resolve(&mut self, target: &ModuleRelocTarget, base: Bases) -> Result<usize> {
        let unknown = || Error::MissingImport(target.to_string());
        match *target {
            ModuleRelocTarget::User { namespace: 0, index } => {
                let id = FuncId::from_u32(index);
                let declared = id.index() < self.unit.declared_functions;
                if declared { self.function_address(id, base) } else { Err(unknown()) }
            }
            ModuleRelocTarget::User { namespace: 1, index } => {
                let id = DataId::from_u32(index);
                let declared = id.index() < self.unit.declared_data;
                if declared { self.data_address(id, base) } else { Err(unknown()) }
            }
            ModuleRelocTarget::User { namespace, index } => {
                let declared = |index: u32| (index as usize) < self.unit.declared_functions;
                match Symbol::from_name(namespace, index) {
                    Some(Symbol::Slot(index)) if declared(index) => {
                        self.slot(FuncId::from_u32(index), base)
                    }
                    Some(Symbol::Entry(index)) if declared(index) => {
                        self.function_address(FuncId::from_u32(index), base)
                    }
                    // A call that is not patched in its own place.
                    Some(Symbol::Gate(index)) if declared(index) => {
                        let id = FuncId::from_u32(index);
                        match self.layout.sites.get(&id).and_then(|sites| sites.jump) {
                            Some(jump) => Ok(base.code + jump),
                            None => self.function_address(id, base),
                        }
                    }
                    _ => Err(unknown()),
                }
            }
            ModuleRelocTarget::FunctionOffset(id, offset) => {
                let function = self.layout.functions.get(&id).ok_or_else(unknown)?;
                Ok(base.code + function + offset as usize)
            }
            ModuleRelocTarget::LibCall(libcall) => libcalls::address(libcall),
            ModuleRelocTarget::KnownSymbol(_) => Err(unknown()),
        }
    }

    /// The address that stands for a function in this unit.
    fn function_address(&mut self, id: FuncId, base: Bases) -> Result<usize> {
        let linkage = self.declaration(id).linkage;
        if linkage.is_final() {
            let function = self.layout.functions.get(&id);
            let function = function.ok_or_else(|| Error::Undefined(self.name(id)))?;
            return Ok(base.code + function);
        }
        match self.host_function(id)? {
            Some(address) => Ok(address),
            None => self.replaceable(id)?.entry(),
        }
    }

    /// The address from which calls of a function load the gate, or what stands for one.
    fn slot(&mut self, id: FuncId, base: Bases) -> Result<usize> {
        if let Some(offset) = self.layout.fixed_slots.get(&id) {
            return Ok(base.read_only + offset);
        }
        Ok(self.replaceable(id)?.slot().addr())
    }

    /// The address of an imported function, if the host has it.
    pub(super) fn host_function(&self, id: FuncId) -> Result<Option<usize>> {
        let name = self.name(id);
        let Some(symbol) = self.env.host.get(&name) else { return Ok(None) };
        let given = &self.declaration(id).signature;
        if let Some(existing) = &symbol.signature
            && !crate::types::same_but_for_extensions(existing, given)
        {
            let existing = Box::new(existing.clone());
            return Err(Error::SignatureMismatch {
                name,
                existing,
                given: Box::new(given.clone()),
            });
        }
        Ok(Some(symbol.address))
    }

    /// A function that this unit calls through its gate: its own, or another unit's.
    pub(super) fn replaceable(&mut self, id: FuncId) -> Result<&Arc<Function>> {
        if self.callees.contains_key(&id) {
            return Ok(&self.callees[&id]);
        }
        let function = match self.roots.get(&id) {
            Some(function) => Arc::clone(function),
            None => {
                let name = self.name(id);
                let known = self.names.known(&name);
                let function = known.ok_or_else(|| Error::MissingImport(name))?;
                function.expect_signature(&self.declaration(id).signature)?;
                function
            }
        };
        Ok(self.callees.entry(id).or_insert(function))
    }

    /// The address of a data object: the unit's own, or the host's.
    fn data_address(&self, id: DataId, base: Bases) -> Result<usize> {
        let declaration = self.unit.declarations().get_data_decl(id);
        if let (Some(data), Some(offset)) = (self.unit.data.get(&id), self.layout.data.get(&id)) {
            return Ok(offset + if data.writable { base.writable } else { base.read_only });
        }
        let name = declaration.linkage_name(id).into_owned();
        if declaration.linkage.is_final() {
            return Err(Error::Undefined(name));
        }
        let symbol = self.env.host.get(&name);
        symbol.map(|symbol| symbol.address).ok_or(Error::MissingImport(name))
    }
}

/// Veneers for targets that are too far away for a call.
#[derive(Default)]
struct Veneers {
    /// Offsets in the code that are free for a veneer.
    free: Vec<usize>,
    /// The offsets of the veneers that were made, by their targets.
    made: HashMap<usize, usize>,
}

impl Veneers {
    /// The offset in the code of the veneer for `target`, which is made if there is none yet.
    fn offset(&mut self, target: usize) -> Option<usize> {
        if let Some(&made) = self.made.get(&target) {
            return Some(made);
        }
        let offset = self.free.pop()?;
        self.made.insert(target, offset);
        Some(offset)
    }
}

/// The addresses at which a unit's sections will be used.
#[derive(Clone, Copy)]
struct Bases {
    code: usize,
    read_only: usize,
    writable: usize,
}

/// The name in an error for the target of a relocation.
fn describe(unit: &Unit, target: &ModuleRelocTarget) -> String {
    let function = |index| {
        let id = FuncId::from_u32(index);
        unit.declarations().get_function_decl(id).linkage_name(id).into_owned()
    };
    match *target {
        ModuleRelocTarget::User { namespace: 0, index } => function(index),
        ModuleRelocTarget::User { namespace: 1, index } => {
            let id = DataId::from_u32(index);
            unit.declarations().get_data_decl(id).linkage_name(id).into_owned()
        }
        ModuleRelocTarget::User { namespace, index } => match Symbol::from_name(namespace, index) {
            Some(Symbol::Slot(index) | Symbol::Entry(index) | Symbol::Gate(index)) => {
                function(index)
            }
            _ => target.to_string(),
        },
        _ => target.to_string(),
    }
}
