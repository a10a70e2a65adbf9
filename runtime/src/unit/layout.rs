//! The layout of a unit: where its functions, data, veneers and jumps are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cranelift_codegen::entity::EntityRef;
use cranelift_module::{DataId, FuncId, Linkage, Module, ModuleReloc, ModuleRelocTarget};
use lastout_instrument::Symbol;

use crate::code::Sizes;
use crate::code::object::Object;
use crate::code::patch::{Site, Word};
use crate::code::relocation::{self, JUMP, JUMP_SIZE, VENEER_SIZE};
use crate::function::callee::Calls;
use crate::unit::Unit;

/// Whether functions of this linkage are known in the engine by their names.
pub(super) fn is_public(linkage: Linkage) -> bool {
    matches!(linkage, Linkage::Export | Linkage::Preemptible)
}

/// Whether a function that is called as a replaceable one was later declared as one that is not.
pub(super) fn is_fixed(unit: &Unit, id: FuncId) -> bool {
    let linkage = unit.declarations().get_function_decl(id).linkage;
    linkage.is_definable() && !is_public(linkage)
}

/// The function that a call in `object` calls, if the call is to be patched when the function is
/// replaced.
pub(super) fn site_callee(unit: &Unit, object: &Object, reloc: &ModuleReloc) -> Option<FuncId> {
    if !relocation::can_be_aimed(object, reloc) {
        return None;
    }
    let ModuleRelocTarget::User { namespace, index } = reloc.name else { return None };
    let Some(Symbol::Gate(index)) = Symbol::from_name(namespace, index) else { return None };
    let id = FuncId::from_u32(index);
    (id.index() < unit.declared_functions && !is_fixed(unit, id)).then_some(id)
}

/// How far behind its alignment a function is to start, so that as many as possible of its calls
/// can be patched.
pub(super) fn shift(unit: &Unit, object: &Object) -> usize {
    let sites = object.relocs.iter().filter(|reloc| site_callee(unit, object, reloc).is_some());
    let offsets: Vec<_> = sites.map(|reloc| reloc.offset as usize).collect();
    let unpatchable = |shift: &usize| {
        offsets.iter().filter(|offset| !Site::is_patchable(*offset + shift)).count()
    };
    let shifts = (0..size_of::<Word>()).step_by(object.least_align);
    shifts.min_by_key(unpatchable).unwrap_or(0)
}

/// Where everything in a unit is: offsets from the start of its section.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) sizes: Sizes,
    pub(super) functions: HashMap<FuncId, usize>,
    pub(super) data: HashMap<DataId, usize>,
    /// Words that stand for the slots of functions that cannot be replaced, in the read-only
    /// section: a function may have been declared as an import when it was called, and defined
    /// as a local one later.
    pub(super) fixed_slots: HashMap<FuncId, usize>,
    /// Space at the end of the code for veneers, one for each target outside that a call may not
    /// reach.
    pub(super) veneers: Vec<usize>,
    /// The calls that are to be patched, by their callees.
    pub(super) sites: BTreeMap<FuncId, CallSites>,
}

/// Calls of one function that are to be patched.
#[derive(Default)]
pub(super) struct CallSites {
    /// The offsets in the code of the bytes that change.
    pub(super) offsets: Vec<usize>,
    pub(super) calls: Calls,
    /// The offset of a jump that can be patched, if some of the calls cannot be.
    pub(super) jump: Option<usize>,
}

impl Layout {
    /// Lays a unit out. `first` says where one function has to start, before all others.
    pub(super) fn new(unit: &Unit, first: Option<(FuncId, &Object, usize)>) -> Self {
        let mut layout = Self::default();
        // An empty object takes a byte, so that it has an address of its own.
        let len = |object: &Object| object.bytes.len().max(1);
        if let Some((id, object, start)) = first {
            layout.sizes.code.add(start + len(object), object.least_align);
            layout.functions.insert(id, start);
        }
        // Replaceable functions come first: a version that is written over one later has to start
        // at the same address, and can only use what is behind it.
        let is_public = |id| is_public(unit.declarations().get_function_decl(id).linkage);
        let mut functions: Vec<_> = unit.functions.iter().collect();
        functions.sort_by_key(|(id, _)| !is_public(**id));
        for (&id, object) in functions {
            layout.functions.entry(id).or_insert_with(|| {
                let shift = shift(unit, object);
                layout.sizes.code.add(shift + len(object), object.align) + shift
            });
            for reloc in &object.relocs {
                layout.note_fixed_slot(unit, reloc);
            }
        }
        layout.note_sites(unit);
        layout.make_room_for_veneers(unit);
        for (&id, data) in &unit.data {
            let Sizes { writable, read_only, .. } = &mut layout.sizes;
            let section = if data.writable { writable } else { read_only };
            layout.data.insert(id, section.add(len(&data.contents), data.contents.align));
        }
        for offset in layout.fixed_slots.values_mut() {
            *offset = layout.sizes.read_only.add(size_of::<usize>(), align_of::<usize>());
        }
        let Sizes { code, read_only, writable } = &mut layout.sizes;
        let (reserved_code, reserved_data) = unit.reserved;
        code.len = code.len.max(reserved_code);
        read_only.len = read_only.len.max(reserved_data);
        writable.len = writable.len.max(reserved_data);
        layout
    }

    fn make_room_for_veneers(&mut self, unit: &Unit) {
        let calls = unit.functions.values().flat_map(|object| &object.relocs);
        let calls = calls.filter(|reloc| relocation::is_call(reloc.kind));
        let outside = calls.filter_map(|reloc| match reloc.name {
            ModuleRelocTarget::User { namespace: 0, index } => {
                let inside = self.functions.contains_key(&FuncId::from_u32(index));
                (!inside).then_some((0, index))
            }
            ModuleRelocTarget::User { namespace, index } => {
                let gate = matches!(Symbol::from_name(namespace, index), Some(Symbol::Gate(_)));
                (!gate).then_some((namespace, index))
            }
            ModuleRelocTarget::LibCall(libcall) => Some((u32::MAX, libcall as u32)),
            ModuleRelocTarget::KnownSymbol(_) | ModuleRelocTarget::FunctionOffset(..) => None,
        });
        let targets: BTreeSet<_> = outside.collect();
        let code = &mut self.sizes.code;
        self.veneers = targets.iter().map(|_| code.add(VENEER_SIZE, VENEER_SIZE)).collect();
    }

    /// Finds the calls that are to be patched, and adds jumps for those that cannot be.
    fn note_sites(&mut self, unit: &Unit) {
        for (id, object) in &unit.functions {
            for reloc in &object.relocs {
                let Some(callee) = site_callee(unit, object, reloc) else { continue };
                let sites = self.sites.entry(callee).or_default();
                let offset = self.functions[id] + reloc.offset as usize;
                if Site::is_patchable(offset) {
                    sites.offsets.push(offset);
                    sites.calls.in_place += 1;
                } else {
                    sites.calls.by_jump += 1;
                }
            }
        }
        for sites in self.sites.values_mut().filter(|sites| sites.calls.by_jump > 0) {
            let jump = self.sizes.code.add(JUMP_SIZE, JUMP_SIZE);
            let (_, distance) = JUMP;
            sites.offsets.push(jump + distance);
            sites.jump = Some(jump);
        }
    }

    fn note_fixed_slot(&mut self, unit: &Unit, reloc: &ModuleReloc) {
        let ModuleRelocTarget::User { namespace, index } = reloc.name else { return };
        let Some(Symbol::Slot(index)) = Symbol::from_name(namespace, index) else { return };
        let id = FuncId::from_u32(index);
        if id.index() < unit.declared_functions && is_fixed(unit, id) {
            self.fixed_slots.insert(id, 0);
        }
    }
}
