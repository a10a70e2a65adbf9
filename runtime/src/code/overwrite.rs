//! Writing other code and data over those of a block.

use std::io;
use std::ops::Range;

use wasmtime_internal_jit_icache_coherence as icache;

use super::block::{Block, Content, Contents, Room, Sizes};
use crate::arch::TRAP_BYTE;
use crate::{Error, Result};

/// The addresses that a block has in each section.
#[derive(Clone)]
pub(crate) struct Footprint {
    pub(crate) code: Range<usize>,
    read_only: Range<usize>,
    writable: Range<usize>,
}

impl Footprint {
    /// Contents for these addresses, which are only traps and zeros so far.
    ///
    /// # Errors
    ///
    /// [`Error::DoesNotFit`] if the sizes do not fit.
    pub(crate) fn contents(&self, sizes: Sizes) -> Result<Contents> {
        let content = |place: &Range<usize>, needed: Room, what, byte: u8| {
            let room = place.len();
            if needed.len > room {
                return Err(Error::DoesNotFit { what, needed: needed.len, room });
            }
            if needed.len > 0 && !place.start.is_multiple_of(needed.align) {
                let what = "alignment";
                let room = 1 << place.start.trailing_zeros();
                return Err(Error::DoesNotFit { what, needed: needed.align, room });
            }
            Ok(Content { address: place.start, bytes: vec![byte; room] })
        };
        Ok(Contents {
            code: content(&self.code, sizes.code, "code", TRAP_BYTE)?,
            read_only: content(&self.read_only, sizes.read_only, "read-only data", 0)?,
            writable: content(&self.writable, sizes.writable, "writable data", 0)?,
        })
    }
}

impl Block {
    pub(crate) fn footprint(&self) -> Footprint {
        let sections = self.memory.sections.lock();
        let place =
            |start: usize, extent: &Range<u32>| start..start + extent.len() * super::section::LINE;
        let (read_only, writable) = match self.data.as_deref() {
            Some([read_only, writable]) => (
                place(sections.read_only.address(read_only), read_only),
                place(sections.writable.address(writable), writable),
            ),
            None => (0..0, 0..0),
        };
        Footprint { code: place(self.address(), &self.code), read_only, writable }
    }

    /// Writes the contents that are in this block from now on. On an error the block is as it was.
    ///
    /// A thread that is to run the code needs a fence that serializes it.
    ///
    /// # Safety
    ///
    /// No thread runs the code or uses the data, and no other thread patches calls in it. The
    /// contents are for the [footprint](Self::footprint) of this block.
    pub(crate) unsafe fn overwrite(&self, contents: &Contents) -> Result<()> {
        let mut sections = self.memory.sections.lock();
        let (code, read_only, writable) = (&contents.code, &contents.read_only, &contents.writable);
        // All that can fail comes first. A strict engine has views for the time of this: a write by
        // the system could end half done.
        let code_view = sections.code.view()?;
        let read_only_view = match read_only.bytes.is_empty() {
            true => None,
            false => Some(sections.read_only.view()?),
        };
        let written = [
            (Some(&code_view), sections.code.start(), code),
            (read_only_view.as_ref(), sections.read_only.start(), read_only),
        ];
        for (view, start, content) in written {
            let Some(view) = view else { continue };
            let place = view.start + (content.address - start);
            // SAFETY: the view has what the section has, at the same distances.
            unsafe { write(place, &content.bytes) };
        }
        // SAFETY: writable data is written where it is used.
        unsafe { write(writable.address, &writable.bytes) };
        let start = std::ptr::with_exposed_provenance(code.address);
        // SAFETY: the range is the code just written.
        let coherent = unsafe { icache::clear_cache(start, code.bytes.len()) };
        Ok(coherent.map_err(io::Error::other)?)
    }
}

/// # Safety
///
/// The place is in a block that no thread uses at the moment, in pages that can be written.
unsafe fn write(place: usize, bytes: &[u8]) {
    let place = std::ptr::with_exposed_provenance_mut::<u8>(place);
    // SAFETY: as the caller says.
    unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}
