//! Calls that always reach the current version.

use std::iter;

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir::{
    ExceptionTable, ExceptionTableItem, ExtFuncData, ExternalName, FuncRef, Function, GlobalValue,
    GlobalValueData, Inst, InstBuilder, InstructionData, MemFlagsData, Opcode, Type, ValueList,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};

use crate::machine::has_tail_gates;
use crate::{Error, Symbol, symbol, symbol_name};

/// How calls find the gate of the version that is current.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dispatch {
    /// They load it from the function's slot, and call what they have loaded. To replace a
    /// function is to store one word.
    #[default]
    Slot,
    /// They are direct calls, each of which is patched when the function is replaced. Nothing is
    /// loaded and nothing has to be predicted, but a replacement takes longer the more calls of the
    /// function there are.
    PatchedSites,
}

/// What a function's name stands for, as [`route_calls`] needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Callee {
    /// A replaceable function: calls go through its slot, its address is its stable entry.
    Replaceable,
    /// Code that stays as long as the caller does: a function of the same unit that is not
    /// preemptible, or one of the host. Calls stay as they are.
    Fixed,
}

/// Sends the calls in `func` of replaceable functions to the gates of their current versions, as
/// `dispatch` says, and turns the addresses it takes of them into their stable entries.
///
/// `callee` says what the function named `u0:index` is, or `None` if there is no such function.
/// The symbols that the rewritten code refers to are [`Symbol::Slot`] or [`Symbol::Gate`], and
/// [`Symbol::Entry`], of that index. Everything else in `func` is left as it is, calls through
/// pointers too.
///
/// # Errors
///
/// - [`Error::Call`]: a patchable call of a replaceable function; a `try_call` with a context, or
///   with a calling convention that Cranelift has no handlers for; on hosts other than x86-64 a
///   tail call or `try_call` of a replaceable function.
/// - [`Error::PinnedRegister`]: `func` uses the register that holds the ledger.
/// - [`Error::Undeclared`]: `func` names what is not declared.
///
/// After an error `func` may be half rewritten, and is good for nothing.
pub fn route_calls(
    func: &mut Function,
    isa: &dyn TargetIsa,
    dispatch: Dispatch,
    mut callee: impl FnMut(u32) -> Option<Callee>,
) -> Result<(), Error> {
    let mut routes = routes(func, &mut callee)?;
    route_symbols(func, &mut callee)?;
    let mut pos = FuncCursor::new(func);
    while pos.next_block().is_some() {
        while let Some(inst) = pos.next_inst() {
            route_instruction(&mut pos, inst, dispatch, &mut routes, isa)?;
        }
    }
    Ok(())
}

/// How a function refers to a replaceable one: the symbols, once they are needed.
#[derive(Clone)]
struct Route {
    index: u32,
    slot: Option<GlobalValue>,
    gate: Option<FuncRef>,
    entry: Option<GlobalValue>,
}

impl Route {
    fn slot(&mut self, func: &mut Function) -> GlobalValue {
        *self.slot.get_or_insert_with(|| {
            let data = symbol::data(func, Symbol::Slot(self.index));
            func.create_global_value(data)
        })
    }

    /// What a direct call of `callee`, which this is the route to, calls instead.
    fn gate(&mut self, func: &mut Function, callee: FuncRef) -> FuncRef {
        *self.gate.get_or_insert_with(|| {
            let name = func.declare_imported_user_function(symbol_name(Symbol::Gate(self.index)));
            let signature = func.dfg.ext_funcs[callee].signature;
            func.import_function(ExtFuncData {
                name: ExternalName::user(name),
                signature,
                colocated: true,
                patchable: false,
            })
        })
    }

    fn entry(&mut self, func: &mut Function) -> GlobalValue {
        *self.entry.get_or_insert_with(|| {
            let data = symbol::data(func, Symbol::Entry(self.index));
            func.create_global_value(data)
        })
    }
}

/// For each function that `func` refers to, its route if it is replaceable.
fn routes(
    func: &Function,
    callee: &mut impl FnMut(u32) -> Option<Callee>,
) -> Result<SecondaryMap<FuncRef, Option<Route>>, Error> {
    let mut routes = SecondaryMap::new();
    for (func_ref, data) in func.dfg.ext_funcs.iter() {
        let index = replaceable(func, &data.name, callee)?;
        routes[func_ref] = index.map(|index| Route { index, slot: None, gate: None, entry: None });
    }
    Ok(routes)
}

/// The index of the function that `name` stands for, if it is a replaceable one.
fn replaceable(
    func: &Function,
    name: &ExternalName,
    callee: &mut impl FnMut(u32) -> Option<Callee>,
) -> Result<Option<u32>, Error> {
    let undeclared = || Error::Undeclared(name.display(Some(&func.params)).to_string());
    match name {
        ExternalName::User(name_ref) => {
            let user = &func.params.user_named_funcs()[*name_ref];
            match user.namespace {
                0 => match callee(user.index).ok_or_else(undeclared)? {
                    Callee::Replaceable => Ok(Some(user.index)),
                    Callee::Fixed => Ok(None),
                },
                1 => Ok(None),
                _ => Err(undeclared()),
            }
        }
        ExternalName::LibCall(_) => Ok(None),
        ExternalName::TestCase(_) | ExternalName::KnownSymbol(_) => Err(undeclared()),
    }
}

/// Turns symbols that name a replaceable function into its entry.
fn route_symbols(
    func: &mut Function,
    callee: &mut impl FnMut(u32) -> Option<Callee>,
) -> Result<(), Error> {
    for global in func.global_values.keys().collect::<Vec<_>>() {
        let GlobalValueData::Symbol { name, offset, .. } = &func.global_values[global] else {
            continue;
        };
        let Some(index) = replaceable(func, name, callee)? else { continue };
        let kept = *offset;
        let mut data = symbol::data(func, Symbol::Entry(index));
        if let GlobalValueData::Symbol { offset, .. } = &mut data {
            *offset = kept;
        }
        func.global_values[global] = data;
    }
    Ok(())
}

/// The arguments of a call, and before them the gate of what it calls, loaded from the slot.
fn with_gate(
    pos: &mut FuncCursor<'_>,
    route: &mut Route,
    args: ValueList,
    pointer: Type,
) -> ValueList {
    let slot = route.slot(pos.func);
    let slot = pos.ins().symbol_value(pointer, slot);
    let gate = pos.ins().load(pointer, MemFlagsData::trusted(), slot, 0);
    let pool = &mut pos.func.dfg.value_lists;
    let arguments = args.as_slice(pool).to_vec();
    ValueList::from_iter(iter::once(gate).chain(arguments), pool)
}

/// Why a call with these handlers cannot be, if it cannot.
fn uncatchable(func: &Function, exception: ExceptionTable) -> Option<&'static str> {
    let table = &func.dfg.exception_tables[exception];
    let contexts = table.items().any(|item| matches!(item, ExceptionTableItem::Context(_)));
    if contexts {
        return Some("exceptions have no contexts here");
    }
    match func.dfg.signatures[table.signature()].call_conv {
        CallConv::SystemV | CallConv::Tail | CallConv::PreserveAll => None,
        _ => Some("calls with this calling convention cannot catch exceptions"),
    }
}

const PATCHABLE: &str = "a call of a replaceable function cannot be patchable";

fn route_instruction(
    pos: &mut FuncCursor<'_>,
    inst: Inst,
    dispatch: Dispatch,
    routes: &mut SecondaryMap<FuncRef, Option<Route>>,
    isa: &dyn TargetIsa,
) -> Result<(), Error> {
    let (pointer, tail_gates) = (isa.pointer_type(), has_tail_gates(isa));
    let instruction = pos.func.dfg.insts[inst];
    let display =
        |pos: &FuncCursor<'_>| pos.func.dfg.display_inst(inst).to_string().trim_end().to_owned();
    let refuse = |pos: &FuncCursor<'_>, why| Err(Error::Call { instruction: display(pos), why });
    match instruction {
        InstructionData::Call { opcode, func_ref, args } => {
            let Some(route) = &mut routes[func_ref] else { return Ok(()) };
            if opcode == Opcode::ReturnCall && !tail_gates {
                return refuse(pos, "on this host a replaceable function cannot be tail-called");
            }
            if pos.func.dfg.ext_funcs[func_ref].patchable {
                return refuse(pos, PATCHABLE);
            }
            if dispatch == Dispatch::PatchedSites {
                let func_ref = route.gate(pos.func, func_ref);
                pos.func.dfg.insts[inst] = InstructionData::Call { opcode, func_ref, args };
                return Ok(());
            }
            let args = with_gate(pos, route, args, pointer);
            let sig_ref = pos.func.dfg.ext_funcs[func_ref].signature;
            let opcode = match opcode {
                Opcode::ReturnCall => Opcode::ReturnCallIndirect,
                _ => Opcode::CallIndirect,
            };
            // In place, so that results, stack maps and source location stay with the call.
            pos.func.dfg.insts[inst] = InstructionData::CallIndirect { opcode, sig_ref, args };
        }
        InstructionData::TryCall { opcode, func_ref, args, exception } => {
            if let Some(why) = uncatchable(pos.func, exception) {
                return refuse(pos, why);
            }
            let Some(route) = &mut routes[func_ref] else { return Ok(()) };
            if !tail_gates {
                return refuse(pos, "on this host exceptions cannot pass a replaceable function");
            }
            if pos.func.dfg.ext_funcs[func_ref].patchable {
                return refuse(pos, PATCHABLE);
            }
            pos.func.dfg.insts[inst] = match dispatch {
                Dispatch::PatchedSites => {
                    let func_ref = route.gate(pos.func, func_ref);
                    InstructionData::TryCall { opcode, func_ref, args, exception }
                }
                Dispatch::Slot => {
                    let args = with_gate(pos, route, args, pointer);
                    let opcode = Opcode::TryCallIndirect;
                    InstructionData::TryCallIndirect { opcode, args, exception }
                }
            };
        }
        InstructionData::TryCallIndirect { exception, .. } => {
            if let Some(why) = uncatchable(pos.func, exception) {
                return refuse(pos, why);
            }
        }
        InstructionData::FuncAddr { func_ref, .. } => {
            let Some(route) = &mut routes[func_ref] else { return Ok(()) };
            let entry = route.entry(pos.func);
            pos.func.replace(inst).symbol_value(pointer, entry);
        }
        _ if matches!(instruction.opcode(), Opcode::GetPinnedReg | Opcode::SetPinnedReg) => {
            return Err(Error::PinnedRegister { instruction: display(pos) });
        }
        _ => {}
    }
    Ok(())
}
