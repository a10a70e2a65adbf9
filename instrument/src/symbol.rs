//! The addresses that instrumented code refers to, by names that the linker resolves.
//!
//! Code that names what it needs can be compiled once for a signature and then linked for every
//! lane and function that has that signature.

use cranelift_codegen::cursor::FuncCursor;
use cranelift_codegen::ir::immediates::Imm64;
use cranelift_codegen::ir::{
    ExternalName, Function, GlobalValueData, InstBuilder, Type, UserExternalName, Value,
};

/// Something that instrumented code refers to.
///
/// A gate belongs to one lane of one function, but its instructions depend on the signature only.
/// So whatever differs between lanes is a symbol, which the linker resolves: a gate is compiled
/// once for a signature, and its bytes are copied and relocated for each lane. The same goes for
/// entries.
///
/// The [name](symbol_name) of a symbol has the form `u<namespace>:<index>`. `cranelift_module` uses
/// the first two namespaces, for functions and for data, and symbols have those after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Symbol {
    /// The slot of a function: the address of the word that holds the gate to call.
    Slot(u32),
    /// The stable entry of a function, for use as an address.
    Entry(u32),
    /// The gate of the version of a function that is current, in reach of a direct call, which is
    /// patched when that changes.
    Gate(u32),
    /// The lane, which starts with its body word.
    Lane,
    /// The distance in bytes of the lane's cell from the start of any ledger. It is a number and
    /// not an address, which makes no difference to a relocation.
    CellOffset,
    /// The function's word that holds the gate of the current lane, or 0 if there is none. A
    /// caller that bails out of a gate goes on from here.
    Current,
    /// The slot of the function that an entry belongs to.
    OwnSlot,
    /// A [preserving stub](crate::preserving_stub) of the slow path: takes a lane, and frees its
    /// version if the caller was the last to leave.
    Leave,
    /// A preserving stub: takes a lane, and notes that its function was called and has no version.
    Removed,
    /// A preserving stub: called between any two steps of a gate that asks for it.
    Interleave,
    /// Where the [machine code of a gate](crate::machine_gate) goes when it has counted out and
    /// found the version gone.
    LeaveTail,
    /// Where the machine code of a gate goes when it has counted out without having called the
    /// body.
    BailTail,
    /// What a preserving stub calls.
    StubTarget,
    /// `extern "C" fn() -> *const u32`: the ledger of the calling thread.
    CurrentLedger,
    /// The [gate](crate::tail_gate) that all lanes of functions share that can be tail-called.
    TailGate,
    /// What a preserving stub passes on besides: a number to the linker, whose meaning is the
    /// host's.
    StubData,
    /// A preserving stub: takes what is at [`Symbol::Held`], and returns when the caller is to go
    /// on to the body.
    Hold,
    /// What a [detour](crate::machine_detour) passes to that stub: it starts with the address of
    /// the body.
    Held,
}

const SLOTS: u32 = 2;
const ENTRIES: u32 = 3;
const GATES: u32 = 4;
const SINGLE: u32 = 5;
const SINGLES: [Symbol; 15] = [
    Symbol::Lane,
    Symbol::CellOffset,
    Symbol::Current,
    Symbol::OwnSlot,
    Symbol::Leave,
    Symbol::Removed,
    Symbol::Interleave,
    Symbol::LeaveTail,
    Symbol::BailTail,
    Symbol::StubTarget,
    Symbol::CurrentLedger,
    Symbol::TailGate,
    Symbol::StubData,
    Symbol::Hold,
    Symbol::Held,
];

impl Symbol {
    /// The symbol that a name stands for, if it is one of these.
    pub fn from_name(namespace: u32, index: u32) -> Option<Self> {
        match namespace {
            SLOTS => Some(Self::Slot(index)),
            ENTRIES => Some(Self::Entry(index)),
            GATES => Some(Self::Gate(index)),
            SINGLE => SINGLES.get(index as usize).copied(),
            _ => None,
        }
    }
}

/// The name of a symbol: what [`Symbol::from_name`] turns back.
pub fn symbol_name(symbol: Symbol) -> UserExternalName {
    let (namespace, index) = match symbol {
        Symbol::Slot(function) => (SLOTS, function),
        Symbol::Entry(function) => (ENTRIES, function),
        Symbol::Gate(function) => (GATES, function),
        single => {
            let before = SINGLES.iter().take_while(|&&other| other != single);
            (SINGLE, before.count() as u32)
        }
    };
    UserExternalName { namespace, index }
}

/// What declares `symbol` in `func`.
///
/// It is not colocated: slots, lanes and the runtime may be anywhere.
pub(crate) fn data(func: &mut Function, symbol: Symbol) -> GlobalValueData {
    let name = func.declare_imported_user_function(symbol_name(symbol));
    GlobalValueData::Symbol {
        name: ExternalName::user(name),
        offset: Imm64::new(0),
        colocated: false,
        tls: false,
    }
}

/// The value of `symbol` at the cursor, in a function that refers to few of them.
pub(crate) fn value(pos: &mut FuncCursor<'_>, pointer: Type, symbol: Symbol) -> Value {
    let data = data(pos.func, symbol);
    let global = match pos.func.global_values.iter().find(|(_, other)| **other == data) {
        Some((global, _)) => global,
        None => pos.func.create_global_value(data),
    };
    pos.ins().symbol_value(pointer, global)
}
