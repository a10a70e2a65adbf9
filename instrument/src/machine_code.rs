//! Machine code as it is handed to the runtime, and what an architecture has of it.

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::TargetIsa;

use crate::{GateFrame, GateOptions, LaneLayout, Symbol};

/// Instructions, and the places in them that depend on where things are.
#[derive(Clone, Debug, Default)]
pub struct MachineCode {
    /// The instructions.
    pub bytes: Vec<u8>,
    /// What is to be filled in.
    pub fixups: Vec<Fixup>,
    /// What is where in its frame, if it has one.
    pub frame: GateFrame,
}

/// A place that is to be filled in with an address, or a number that depends on a lane.
#[derive(Clone, Copy, Debug)]
pub struct Fixup {
    /// Where, in bytes from the start.
    pub offset: u32,
    /// How.
    pub kind: Reloc,
    /// With what.
    pub symbol: Symbol,
    /// What is added to it.
    pub addend: i64,
}

/// What is where in every [gate in machine code](crate::machine_gate), in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineGate {
    /// The address of the lane.
    pub lane: u32,
    /// Where the call of the body returns to. The gate calls nothing else.
    pub body_return: u32,
}

/// An architecture that has machine code. Its methods are documented where the whole crate has
/// them, in [`machine`](crate::machine).
pub(crate) trait Machine {
    /// See [`machine_gate`](crate::machine_gate).
    fn gate(
        &self,
        signature: &Signature,
        options: GateOptions,
        isa: &dyn TargetIsa,
    ) -> Option<MachineCode>;

    /// See [`machine_tails`](crate::machine_tails).
    fn tails(&self, layout: LaneLayout) -> [MachineCode; 2];

    /// See [`tail_gate`](crate::tail_gate).
    fn tail_gate(&self, layout: LaneLayout, options: GateOptions) -> MachineCode;

    /// See [`tail_gate_head`](crate::tail_gate_head).
    fn tail_gate_head(&self, stack_bytes: u32) -> MachineCode;

    /// See [`stack_bytes`](crate::stack_bytes).
    fn stack_bytes(&self, code: &[u8]) -> Option<u32>;

    /// See [`machine_entry`](crate::machine_entry).
    fn entry(
        &self,
        outer: &Signature,
        inner: &Signature,
        layout: LaneLayout,
        options: GateOptions,
        isa: &dyn TargetIsa,
    ) -> Option<MachineCode>;

    /// See [`machine_detour`](crate::machine_detour).
    fn detour(&self) -> MachineCode;
}
