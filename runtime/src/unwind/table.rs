//! The one table that an engine registers with the system's unwinder.

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use cranelift_codegen::gimli::write::{
    Address, CallFrameInstruction, CommonInformationEntry, EhFrame, EndianVec,
    FrameDescriptionEntry, FrameTable,
};
use cranelift_codegen::gimli::{DW_EH_PE_absptr, Encoding, Format, NativeEndian};

use super::machine::{FRAME_POINTER, RETURN_ADDRESS};
use super::personality::personality;
use super::{SUPPORTED, system};
use crate::host::fork::Pass;
use crate::unwind::code_map::CodeMap;

#[cfg(test)]
mod tests;

/// A table for all code in a range, registered until it is dropped.
pub(crate) struct UnwindTable {
    bytes: Box<[u8]>,
}

impl UnwindTable {
    /// Registers a table for all code of a map; `None` if the host has no unwinder that could use
    /// it.
    ///
    /// # Safety
    ///
    /// The map stays where it is for as long as there is a frame of its code.
    pub(crate) unsafe fn register(map: &Arc<CodeMap>) -> io::Result<Option<Self>> {
        if !SUPPORTED {
            return Ok(None);
        }
        let table = Self { bytes: bytes(map.range(), Arc::as_ptr(map).cast())? };
        // A fork must not find the unwinder's lock held.
        let _pass = Pass::new();
        // SAFETY: the table is well formed and ends with a zero, and stays where it is until it
        // is deregistered.
        unsafe { system::register_table(table.bytes.as_ptr()) };
        #[cfg(test)]
        tests::count(1);
        Ok(Some(table))
    }
}

impl Drop for UnwindTable {
    fn drop(&mut self) {
        let _pass = Pass::new();
        #[cfg(test)]
        tests::count(-1);
        // SAFETY: the table was registered, once.
        unsafe { system::deregister_table(self.bytes.as_ptr()) };
    }
}

/// A table with one entry for the whole range: the caller's frame is two words above the frame
/// pointer, and below it are the return address and the caller's frame pointer.
fn bytes(code: Range<usize>, data: *const c_void) -> io::Result<Box<[u8]>> {
    let address = |address: usize| Address::Constant(address as u64);
    let encoding = Encoding { format: Format::Dwarf32, version: 1, address_size: 8 };
    let mut common = CommonInformationEntry::new(encoding, 1, -8, RETURN_ADDRESS);
    common.personality = Some((DW_EH_PE_absptr, address(personality as *const () as usize)));
    common.lsda_encoding = Some(DW_EH_PE_absptr);
    common.fde_address_encoding = DW_EH_PE_absptr;
    common.add_instruction(CallFrameInstruction::Cfa(FRAME_POINTER, 16));
    common.add_instruction(CallFrameInstruction::Offset(RETURN_ADDRESS, -8));
    common.add_instruction(CallFrameInstruction::Offset(FRAME_POINTER, -16));
    let len = u32::try_from(code.len()).map_err(io::Error::other)?;
    let mut range = FrameDescriptionEntry::new(address(code.start), len);
    range.lsda = Some(address(data.expose_provenance()));

    let mut table = FrameTable::default();
    let common = table.add_cie(common);
    table.add_fde(common, range);
    let mut section = EhFrame(EndianVec::new(NativeEndian));
    table.write_eh_frame(&mut section).map_err(io::Error::other)?;
    let mut bytes = section.0.into_vec();
    bytes.extend([0; 4]);
    Ok(bytes.into())
}
