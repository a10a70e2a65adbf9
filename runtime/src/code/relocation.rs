//! Relocations: writing addresses into code and data.

use cranelift_codegen::binemit::Reloc;
use cranelift_module::{ModuleReloc, ModuleRelocTarget};
use target_lexicon::{Architecture, Triple};

use super::object::Object;
use crate::{Error, Result};

#[cfg(test)]
mod tests;

/// Writes the addresses that `relocs` ask for into `bytes`, which will be used at `address`.
///
/// `resolve` gives the address of a symbol, `near` that of a veneer for a target that is too far
/// away for a call, if there can be one, and `name` the name of a symbol in an error.
pub(crate) fn relocate<'a>(
    bytes: &mut [u8],
    address: usize,
    relocs: impl IntoIterator<Item = &'a ModuleReloc>,
    mut resolve: impl FnMut(&ModuleRelocTarget) -> Result<usize>,
    mut near: impl FnMut(usize) -> Option<usize>,
    name: impl Fn(&ModuleRelocTarget) -> String,
) -> Result<()> {
    for reloc in relocs {
        let symbol = resolve(&reloc.name)?;
        let offset = reloc.offset as usize;
        let mut patch = Patch { bytes, offset, place: address.wrapping_add(offset) };
        let mut apply = |symbol: usize| {
            patch.apply(reloc.kind, symbol.wrapping_add_signed(reloc.addend as isize))
        };
        let applied = match apply(symbol) {
            Err(OUT_OF_REACH) if is_call(reloc.kind) => match near(symbol) {
                Some(veneer) => apply(veneer),
                None => Err(OUT_OF_REACH),
            },
            applied => applied,
        };
        applied.map_err(|why| Error::Link { symbol: name(&reloc.name), why })?;
    }
    Ok(())
}

/// Whether a relocation is of a call or jump, which may as well go by way of a veneer.
pub(crate) fn is_call(kind: Reloc) -> bool {
    matches!(kind, Reloc::X86CallPCRel4 | Reloc::X86CallPLTRel4 | Reloc::Arm64Call)
}

/// The relocation of a call or jump of this host's: its kind and its addend.
const CALL: (Reloc, i64) = if cfg!(target_arch = "x86_64") {
    // The distance counts from its own end.
    (Reloc::X86CallPCRel4, -4)
} else {
    (Reloc::Arm64Call, 0)
};

/// Whether a relocation is of a call that can be [aimed](aim).
pub(crate) fn can_be_aimed(object: &Object, reloc: &ModuleReloc) -> bool {
    (reloc.kind, reloc.addend) == CALL && reloc.offset as usize + 4 <= object.bytes.len()
}

/// Makes the call or jump with its distance at `offset` of `bytes` go to `target`. The distance is
/// used at the address `place`.
pub(crate) fn aim(
    bytes: &mut [u8],
    offset: usize,
    place: usize,
    target: usize,
) -> Result<(), Refusal> {
    let (kind, addend) = CALL;
    Patch { bytes, offset, place }.apply(kind, target.wrapping_add_signed(addend as isize))
}

/// The size and the alignment of a jump that can be [aimed](aim).
pub(crate) const JUMP_SIZE: usize = 8;

/// Such a jump, and the offset of the distance in it.
pub(crate) const JUMP: ([u8; JUMP_SIZE], usize) = if cfg!(target_arch = "x86_64") {
    ([0xe9, 0, 0, 0, 0, 0xcc, 0xcc, 0xcc], 1) // jmp
} else {
    ([0, 0, 0, 0x14, 0, 0, 0, 0], 0) // b
};

/// The size and the alignment of a veneer.
pub(crate) const VENEER_SIZE: usize = 16;

/// A jump to any address, wherever it is itself. It uses no register except the one that aarch64
/// reserves for this.
pub(crate) fn veneer(triple: &Triple, target: usize) -> [u8; VENEER_SIZE] {
    let jump: [u8; 8] = match triple.architecture {
        Architecture::X86_64 => [
            0xff, 0x25, 0x02, 0, 0, 0, // jmp [rip + 2]
            0xcc, 0xcc,
        ],
        Architecture::Aarch64(_) => [
            0x50, 0, 0, 0x58, // ldr x16, . + 8
            0x00, 0x02, 0x1f, 0xd6, // br x16
        ],
        _ => unreachable!("no other host has calls that can be out of reach"),
    };
    let mut veneer = [0; VENEER_SIZE];
    veneer[..8].copy_from_slice(&jump);
    veneer[8..].copy_from_slice(&(target as u64).to_le_bytes());
    veneer
}

/// One place to be written.
struct Patch<'a> {
    bytes: &'a mut [u8],
    offset: usize,
    /// The address of the place.
    place: usize,
}

/// The reason why a place cannot be written.
pub(crate) type Refusal = &'static str;

const OUT_OF_REACH: Refusal = "it is too far away";

impl Patch<'_> {
    fn apply(&mut self, kind: Reloc, target: usize) -> Result<(), Refusal> {
        let place = self.place;
        let distance = target.wrapping_sub(place) as isize;
        match kind {
            Reloc::Abs8 => self.write((target as u64).to_le_bytes()),
            Reloc::Abs4 => {
                let target = u32::try_from(target).map_err(|_| OUT_OF_REACH)?;
                self.write(target.to_le_bytes())
            }
            Reloc::X86PCRel4 | Reloc::X86CallPCRel4 | Reloc::X86CallPLTRel4 => {
                let distance = i32::try_from(distance).map_err(|_| OUT_OF_REACH)?;
                self.write(distance.to_le_bytes())
            }
            // BL: bits 0 to 25 hold the distance in instructions.
            Reloc::Arm64Call => {
                let words = distance >> 2;
                if !(-(1 << 25)..1 << 25).contains(&words) {
                    return Err(OUT_OF_REACH);
                }
                self.replace(0x03ff_ffff, words as u32)
            }
            // ADRP: the distance in pages, its two low bits in bits 29 and 30, the rest from 5.
            Reloc::Aarch64AdrPrelPgHi21 => {
                let pages = (target as isize >> 12) - (place as isize >> 12);
                if !(-(1 << 20)..1 << 20).contains(&pages) {
                    return Err(OUT_OF_REACH);
                }
                let pages = pages as u32 & 0x1f_ffff;
                self.replace(0x60ff_ffe0, (pages & 3) << 29 | (pages >> 2) << 5)
            }
            // ADD: bits 10 to 21 hold the offset within the page.
            Reloc::Aarch64AddAbsLo12Nc => self.replace(0x003f_fc00, (target as u32) << 10),
            _ => Err("this kind of relocation is not supported"),
        }
    }

    fn write<const N: usize>(&mut self, value: [u8; N]) -> Result<(), Refusal> {
        let place = self.bytes.get_mut(self.offset..).and_then(|rest| rest.first_chunk_mut());
        *place.ok_or("the relocation is outside of what it relocates")? = value;
        Ok(())
    }

    /// Sets the bits of a 32-bit instruction that are in `mask`.
    fn replace(&mut self, mask: u32, bits: u32) -> Result<(), Refusal> {
        let place = self.bytes.get_mut(self.offset..).and_then(|rest| rest.first_chunk_mut::<4>());
        let place = place.ok_or("the relocation is outside of what it relocates")?;
        *place = (u32::from_le_bytes(*place) & !mask | bits & mask).to_le_bytes();
        Ok(())
    }
}
