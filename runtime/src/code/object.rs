//! Machine code and data that is not linked yet.

use cranelift_codegen::Context;
use cranelift_codegen::ir::UserExternalName;
use cranelift_codegen::isa::TargetIsa;
use cranelift_control::ControlPlane;
use cranelift_module::{FuncId, ModuleError, ModuleReloc, ModuleRelocTarget, ModuleResult};
use lastout_instrument::{GateFrame, MachineCode, symbol_name};

use crate::unwind::code_map::{Frame, MoreCode};
use crate::unwind::{self, Saved};

/// Machine code, or data, with relocations for the symbols to which it refers.
pub(crate) struct Object {
    pub(crate) bytes: Vec<u8>,
    /// The alignment that is best for it.
    pub(crate) align: usize,
    /// The alignment that it needs.
    pub(crate) least_align: usize,
    pub(crate) relocs: Vec<ModuleReloc>,
    /// The layout of its frame, if it is code.
    pub(crate) frame: Frame,
    /// Its traps and handlers, by their offsets.
    pub(crate) more: MoreCode,
}

impl Object {
    /// Bytes of which nothing else is known.
    pub(crate) fn of_bytes(bytes: Vec<u8>, align: usize, relocs: Vec<ModuleReloc>) -> Self {
        let (frame, more) = (Frame::default(), MoreCode::default());
        Self { bytes, align, least_align: align, relocs, frame, more }
    }

    /// Machine code that Cranelift has not compiled.
    pub(crate) fn from_machine_code(code: MachineCode) -> Self {
        let relocs = code.fixups.iter().map(|fixup| {
            let UserExternalName { namespace, index } = symbol_name(fixup.symbol);
            ModuleReloc {
                offset: fixup.offset,
                kind: fixup.kind,
                name: ModuleRelocTarget::user(namespace, index),
                addend: fixup.addend,
            }
        });
        let relocs = relocs.collect();
        Self {
            frame: Frame { gate: code.frame, saved: Saved::default() },
            ..Self::of_bytes(code.bytes, 1, relocs)
        }
    }

    /// Compiles the function in `context`, which keeps the result too.
    pub(crate) fn compile(
        id: FuncId,
        context: &mut Context,
        isa: &dyn TargetIsa,
        control: &mut ControlPlane,
    ) -> ModuleResult<Self> {
        context.compile(isa, control)?;
        let compiled = context.compiled_code().expect("it was compiled just now");
        let relocs = compiled.buffer.relocs().iter();
        let relocs = relocs.map(|reloc| ModuleReloc::from_mach_reloc(reloc, &context.func, id));
        let least_align = compiled.buffer.alignment;
        let align = least_align.max(isa.function_alignment().preferred);
        let saved = if unwind::SUPPORTED {
            let unknown =
                || ModuleError::Backend(anyhow::anyhow!("Cranelift gives no unwind table"));
            Saved::of(compiled, isa).ok_or_else(unknown)?
        } else {
            Saved::default()
        };
        Ok(Self {
            bytes: compiled.code_buffer().to_vec(),
            align: align as usize,
            least_align: least_align as usize,
            relocs: relocs.collect(),
            frame: Frame { gate: GateFrame::of(compiled), saved },
            more: MoreCode::of(compiled),
        })
    }
}
