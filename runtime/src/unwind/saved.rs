//! The places where functions save the registers that they keep for their callers.

use cranelift_codegen::CompiledCode;
use cranelift_codegen::gimli::read::{CallFrameInstruction, CieOrFde, UnwindSection};
use cranelift_codegen::gimli::write::{Address, EhFrame, EndianVec, FrameTable};
use cranelift_codegen::gimli::{self, BaseAddresses, NativeEndian};
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::isa::unwind::UnwindInfo;

use super::machine::{ENTRY_SAVES, FRAME_POINTER, KEPT};

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

/// For each register that calls keep, how many words below the frame pointer a function has saved
/// it; 0 if the function has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Saved([u8; KEPT.len()]);

impl Saved {
    /// Of an entry in machine code.
    pub(crate) const MACHINE_ENTRY: Self = Self(ENTRY_SAVES);

    /// The saves of a compiled function; `None` if frames cannot be unwound on its host.
    pub(crate) fn of(compiled: &CompiledCode, isa: &dyn TargetIsa) -> Option<Self> {
        let UnwindInfo::SystemV(info) = compiled.create_unwind_info(isa).ok()?? else {
            return None;
        };
        // Cranelift gives the facts only by writing them, so they are read from that.
        let mut table = FrameTable::default();
        let cie = table.add_cie(isa.create_systemv_cie()?);
        table.add_fde(cie, info.to_fde(Address::Constant(0)));
        let mut section = EhFrame(EndianVec::new(NativeEndian));
        table.write_eh_frame(&mut section).ok()?;
        let section = gimli::EhFrame::new(section.slice(), NativeEndian);
        saves(&section).ok().map(|saves| Self::from_saves(&saves))
    }

    /// The saves in a table: each of a register, at so many words below the CFA.
    ///
    /// Cranelift puts the registers in a row at the lower end of what it saves, on 16 bytes. Its
    /// distances count from where the caller's frame ends, which is not where the table says that
    /// the CFA is if a function makes space for arguments of tail calls. So only the order is used.
    fn from_saves(saves: &[(u16, i64)]) -> Self {
        let mut saved = Self::default();
        let Some(lowest) = saves.iter().map(|&(_, words)| words).max() else { return saved };
        let highest = saves.iter().map(|&(_, words)| words).min().unwrap_or(lowest);
        // The last register takes one word, or two if it is a vector. Then it is on 16 bytes.
        let words = (lowest - highest + 2) & !1;
        for &(register, at) in saves {
            if let Some(kept) = KEPT.iter().position(|&kept| kept == register) {
                saved.0[kept] = u8::try_from(words - (lowest - at)).unwrap_or(0);
            }
        }
        saved
    }

    /// The registers that are saved, each by its index in [`KEPT`], with the address of its value
    /// in a frame.
    pub(crate) fn places(self, frame_pointer: usize) -> impl Iterator<Item = (usize, usize)> {
        let saved = self.0.into_iter().enumerate().filter(|&(_, words)| words != 0);
        saved.map(move |(kept, words)| {
            (kept, frame_pointer - usize::from(words) * size_of::<usize>())
        })
    }
}

/// Every save of a register in a table, except that of the frame pointer.
fn saves(
    section: &gimli::EhFrame<gimli::EndianSlice<'_, NativeEndian>>,
) -> gimli::Result<Vec<(u16, i64)>> {
    let bases = BaseAddresses::default();
    let mut saves = Vec::new();
    let mut entries = section.entries(&bases);
    while let Some(entry) = entries.next()? {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(|section, bases, offset| section.cie_from_offset(bases, offset))?;
        let mut instructions = fde.instructions(section, &bases);
        while let Some(instruction) = instructions.next()? {
            if let CallFrameInstruction::Offset { register, factored_offset } = instruction
                && register != FRAME_POINTER
            {
                saves.push((register.0, factored_offset as i64));
            }
        }
    }
    Ok(saves)
}
