//! Gates, entries and detours in machine code for x86-64.
//!
//! A file here may know signatures, symbols, the layout of lanes and frames, the steps of the
//! protocol, and the instructions and calling conventions of this architecture. It must not know
//! the passes that make CLIF, nor which other architectures there are: [`machine`](crate::machine)
//! makes that choice.

mod detour;
mod encoder;
mod entry;
mod gate;
mod tail_gate;

use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::TargetIsa;

pub use self::gate::MACHINE_GATE;
use crate::machine_code::Machine;
use crate::{GateOptions, LaneLayout, MachineCode};

/// What [`machine`](crate::machine) chooses.
pub(crate) struct X86_64;

impl Machine for X86_64 {
    fn gate(
        &self,
        signature: &Signature,
        options: GateOptions,
        isa: &dyn TargetIsa,
    ) -> Option<MachineCode> {
        gate::gate(signature, options, isa)
    }

    fn tails(&self, layout: LaneLayout) -> [MachineCode; 2] {
        gate::tails(layout)
    }

    fn tail_gate(&self, layout: LaneLayout, options: GateOptions) -> MachineCode {
        tail_gate::tail_gate(layout, options)
    }

    fn tail_gate_head(&self, stack_bytes: u32) -> MachineCode {
        tail_gate::head(stack_bytes)
    }

    fn stack_bytes(&self, code: &[u8]) -> Option<u32> {
        tail_gate::stack_bytes(code)
    }

    fn entry(
        &self,
        outer: &Signature,
        inner: &Signature,
        layout: LaneLayout,
        options: GateOptions,
        isa: &dyn TargetIsa,
    ) -> Option<MachineCode> {
        entry::entry(outer, inner, layout, options, isa)
    }

    fn detour(&self) -> MachineCode {
        detour::detour()
    }
}
