//! The choice of a machine: which architectures have machine code.
//!
//! No other file of this crate asks for the architecture in order to know whether there is machine
//! code. A second architecture takes a folder beside [`x86_64`](crate::x86_64), with a [`Machine`]
//! in it, and an arm of the `match` below.

use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::{CallConv, TargetIsa};
use target_lexicon::Architecture;

use crate::machine_code::Machine;
use crate::x86_64::X86_64;
use crate::{GateOptions, LaneLayout, MachineCode};

/// The machine that `isa` compiles for, if that has machine code.
fn machine(isa: &dyn TargetIsa) -> Option<&'static dyn Machine> {
    match isa.triple().architecture {
        Architecture::X86_64 => Some(&X86_64),
        _ => None,
    }
}

/// The gate of a lane of a function with this signature, if it can be had in machine code.
///
/// It refers to [`Symbol::Lane`], [`Symbol::CellOffset`], and to the [tails](machine_tails) that
/// are [`Symbol::LeaveTail`] and [`Symbol::BailTail`].
///
/// [`Symbol::Lane`]: crate::Symbol::Lane
/// [`Symbol::CellOffset`]: crate::Symbol::CellOffset
/// [`Symbol::LeaveTail`]: crate::Symbol::LeaveTail
/// [`Symbol::BailTail`]: crate::Symbol::BailTail
pub fn machine_gate(
    signature: &Signature,
    options: GateOptions,
    isa: &dyn TargetIsa,
) -> Option<MachineCode> {
    machine(isa)?.gate(signature, options, isa)
}

/// The two tails of gates: the one for gates that find the version gone on their way out, and the
/// one for gates that bail. They call the [preserving stubs](crate::preserving_stub)
/// [`Symbol::Leave`] and [`Symbol::Removed`], which have to be in reach of a relative call. `None`
/// where there are no gates in machine code.
///
/// [`Symbol::Leave`]: crate::Symbol::Leave
/// [`Symbol::Removed`]: crate::Symbol::Removed
pub fn machine_tails(layout: LaneLayout, isa: &dyn TargetIsa) -> Option<[MachineCode; 2]> {
    Some(machine(isa)?.tails(layout))
}

/// Whether functions of this signature have gates that can be tail-called, on this host.
pub fn can_be_tail_called(signature: &Signature, isa: &dyn TargetIsa) -> bool {
    signature.call_conv == CallConv::Tail && has_tail_gates(isa)
}

/// Whether there are gates that can be tail-called, on this host.
pub(crate) fn has_tail_gates(isa: &dyn TargetIsa) -> bool {
    machine(isa).is_some()
}

/// The gate that all lanes of functions share that can be tail-called; `None` where there is none.
///
/// It refers to the [preserving stubs](crate::preserving_stub) [`Symbol::Leave`],
/// [`Symbol::Removed`] and, if asked for, [`Symbol::Interleave`], which have to be in reach of a
/// relative call.
///
/// [`Symbol::Leave`]: crate::Symbol::Leave
/// [`Symbol::Removed`]: crate::Symbol::Removed
/// [`Symbol::Interleave`]: crate::Symbol::Interleave
pub fn tail_gate(
    layout: LaneLayout,
    options: GateOptions,
    isa: &dyn TargetIsa,
) -> Option<MachineCode> {
    Some(machine(isa)?.tail_gate(layout, options))
}

/// The head of the [tail gate](tail_gate) for a lane of a function with so many bytes of arguments
/// on the stack; `None` where there is no such gate.
///
/// It refers to [`Symbol::Lane`] and [`Symbol::TailGate`].
///
/// [`Symbol::Lane`]: crate::Symbol::Lane
/// [`Symbol::TailGate`]: crate::Symbol::TailGate
pub fn tail_gate_head(stack_bytes: u32, isa: &dyn TargetIsa) -> Option<MachineCode> {
    Some(machine(isa)?.tail_gate_head(stack_bytes))
}

/// How many bytes of arguments a function takes off the stack, by its code: that of a function
/// with [`CallConv::Tail`], compiled for `isa`, whose last instruction is its return.
pub fn stack_bytes(code: &[u8], isa: &dyn TargetIsa) -> Option<u32> {
    machine(isa)?.stack_bytes(code)
}

/// The [entry for typed calls](crate::host_entry) of functions with the signature `inner`, as if it
/// was `outer`, if it can be had in machine code.
///
/// It refers to the [preserving stubs](crate::preserving_stub) [`Symbol::Leave`] and
/// [`Symbol::Removed`], which have to be in reach of a relative call.
///
/// [`Symbol::Leave`]: crate::Symbol::Leave
/// [`Symbol::Removed`]: crate::Symbol::Removed
pub fn machine_entry(
    outer: &Signature,
    inner: &Signature,
    layout: LaneLayout,
    options: GateOptions,
    isa: &dyn TargetIsa,
) -> Option<MachineCode> {
    machine(isa)?.entry(outer, inner, layout, options, isa)
}

/// The detour of a lane: what its gates call instead of the body while callers are held. `None`
/// where there is none.
///
/// It refers to [`Symbol::Held`], and to the [preserving stub](crate::preserving_stub)
/// [`Symbol::Hold`], which has to be in reach of a relative call.
///
/// [`Symbol::Held`]: crate::Symbol::Held
/// [`Symbol::Hold`]: crate::Symbol::Hold
pub fn machine_detour(isa: &dyn TargetIsa) -> Option<MachineCode> {
    Some(machine(isa)?.detour())
}
