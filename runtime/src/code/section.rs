//! One range of an engine's memory, for code, for read-only data, or for data that code writes.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use wasmtime_internal_jit_icache_coherence as icache;

use super::free_ranges::FreeRanges;
use super::pages::Pages;
use crate::arch::TRAP_BYTE;
use crate::host::fork;
use crate::host::sys;
use crate::host::sys::{Reserved, View};
use crate::{Error, Result};

/// Blocks start at multiples of this and have whole lines to themselves, so that none shares a
/// cache line with another.
pub(super) const LINE: usize = 64;

static TRAPS: [u8; 1 << 16] = [TRAP_BYTE; 1 << 16];

/// A range of addresses: its mappings, and its free parts.
pub(super) struct Section {
    address: usize,
    len: usize,
    page: usize,
    backing: Backing,
    free: FreeRanges,
    pages: Pages,
    used_units: usize,
}

/// The memory in which the bytes are.
enum Backing {
    /// In a file in memory, of which there is a view at the section's addresses.
    File(File),
    /// In pages that are readable and writable, and copied on a fork.
    Private,
}

struct File {
    file: OwnedFd,
    view: View,
    /// The address of another view, through which the file can be written.
    writable: Option<usize>,
    /// How many forks there had been when the file was made. If there has been one since, another
    /// process may have a view of the file.
    forks: u64,
}

/// The purpose of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Code,
    ReadOnly,
    Writable,
}

/// A view through which a section can be written.
pub(super) struct WritableView {
    pub(super) start: usize,
    /// The addresses of the view, if it was mapped for this purpose only.
    pub(super) _own: Option<Reserved>,
}

impl Section {
    /// Maps a section. If it is not for writable data, `writable` is the address for a view through
    /// which it can be written, if it is to have one.
    ///
    /// # Safety
    ///
    /// All those addresses are reserved for the section.
    pub(super) unsafe fn new(
        purpose: Purpose,
        address: usize,
        len: usize,
        writable: Option<usize>,
    ) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let view = match purpose {
            Purpose::Code => Some(View::Execute),
            Purpose::ReadOnly => Some(View::Read),
            Purpose::Writable => None,
        };
        let backing = match view {
            Some(view) => {
                let file = sys::memory_file(len)?;
                let file = File { file, view, writable, forks: fork::forks() };
                // SAFETY: the addresses are reserved for this, so nothing is mapped there.
                unsafe { file.map(address, len)? };
                Backing::File(file)
            }
            None => {
                // SAFETY: as above.
                unsafe { sys::map_data(address, len)? };
                Backing::Private
            }
        };
        Ok(Self {
            address,
            len,
            page,
            backing,
            free: FreeRanges::new((len / LINE) as u32),
            pages: Pages::new(len / page, (page / LINE) as u32),
            used_units: 0,
        })
    }

    /// The address of an extent.
    pub(super) fn address(&self, extent: &Range<u32>) -> usize {
        self.address + extent.start as usize * LINE
    }

    /// Bytes in use, in whole lines.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_units * LINE
    }

    /// Bytes for which the system has given memory.
    pub(super) fn committed_bytes(&self) -> usize {
        self.pages.committed() * self.page
    }

    /// Allocates an extent of at least `len` bytes; an empty one for no bytes.
    pub(super) fn allocate(&mut self, len: usize, align: usize) -> Result<Range<u32>> {
        if len == 0 {
            return Ok(0..0);
        }
        let units = u32::try_from(len.div_ceil(LINE)).ok();
        let align = align.div_ceil(LINE).next_power_of_two() as u32;
        let extent = units.and_then(|units| self.free.allocate(units, align));
        extent.ok_or_else(|| Error::OutOfCodeMemory {
            needed: len,
            available: self.free.free_units() as usize * LINE,
        })
    }

    /// Gives back an extent that was never in use.
    pub(super) fn release(&mut self, extent: Range<u32>) {
        if !extent.is_empty() {
            self.free.release(extent);
        }
    }

    /// Writes `bytes` to the start of an allocated extent.
    pub(super) fn fill(&mut self, extent: &Range<u32>, bytes: &[u8]) -> io::Result<()> {
        if extent.is_empty() {
            return Ok(());
        }
        self.own()?;
        while let Some(run) = self.pages.missing(extent) {
            self.commit(run)?;
        }
        let written = self.write(extent.start as usize * LINE, bytes);
        if written.is_err() && self.is_code() {
            // As much as possible is filled with traps. No thread has the address of what remains.
            let _ = self.poison(extent, true);
        }
        written
    }

    /// Gets memory for a run of pages.
    fn commit(&mut self, run: Range<u32>) -> io::Result<()> {
        if let Backing::File(File { file, .. }) = &self.backing {
            sys::allocate(file, run.start as usize * self.page..run.end as usize * self.page)?;
        }
        for page in run {
            // So everything in a page is blocks and traps.
            if self.is_code() {
                self.write(page as usize * self.page, &TRAPS[..self.page])?;
            }
            self.pages.commit(page);
        }
        Ok(())
    }

    /// Notes that a filled extent is in use.
    pub(super) fn occupy(&mut self, extent: &Range<u32>) {
        if !extent.is_empty() {
            self.pages.occupy(extent);
            self.used_units += extent.len();
        }
    }

    /// Notes that an extent is no longer in use, though its bytes are to stay for now.
    pub(super) fn retire(&mut self, extent: &Range<u32>) {
        self.used_units -= extent.len();
    }

    /// Fills an extent with traps, so that a stray execution of it ends at once. Data is filled
    /// only if `everything` says so.
    pub(super) fn poison(&mut self, extent: &Range<u32>, everything: bool) -> io::Result<()> {
        if extent.is_empty() {
            return Ok(());
        }
        self.own()?;
        if !self.is_code() && !everything {
            return Ok(());
        }
        let mut offset = extent.start as usize * LINE;
        let end = extent.end as usize * LINE;
        while offset < end {
            let len = TRAPS.len().min(end - offset);
            self.write(offset, &TRAPS[..len])?;
            offset += len;
        }
        if self.is_code() {
            let start = std::ptr::with_exposed_provenance(self.address(extent));
            // SAFETY: the range is this section's, and mapped to be read.
            unsafe { icache::clear_cache(start, extent.len() * LINE) }.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Frees a retired extent, and gives pages back if there are enough.
    pub(super) fn vacate(&mut self, extent: Range<u32>) {
        if extent.is_empty() {
            return;
        }
        self.pages.vacate(&extent);
        self.free.release(extent);
        if self.is_shared() {
            // Another process has these pages too. They are given back once there is a copy.
            return;
        }
        let Self { pages, backing, address, page: size, .. } = self;
        pages.trim(|run| {
            let bytes = run.start as usize * *size..run.end as usize * *size;
            match backing {
                Backing::File(File { file, .. }) => sys::punch_hole(file, bytes),
                // SAFETY: no block is in the pages.
                Backing::Private => unsafe {
                    sys::discard(*address + bytes.start..*address + bytes.end)
                },
            }
        });
    }

    /// Whether another process may have a view of the file.
    fn is_shared(&self) -> bool {
        matches!(&self.backing, Backing::File(File { forks, .. }) if *forks != fork::forks())
    }

    fn is_code(&self) -> bool {
        matches!(self.backing, Backing::File(File { view: View::Execute, .. }))
    }

    /// The address of the section.
    pub(super) fn start(&self) -> usize {
        self.address
    }

    /// A view through which published bytes can be written, while the section keeps its file.
    pub(super) fn view(&mut self) -> io::Result<WritableView> {
        self.own()?;
        match &self.backing {
            Backing::File(File { writable: Some(start), .. }) => {
                Ok(WritableView { start: *start, _own: None })
            }
            Backing::File(File { file, .. }) => {
                let own = Reserved::new(self.len)?;
                // SAFETY: the addresses were reserved for this just now.
                unsafe { sys::map_file(own.start, self.len, View::Write, file)? };
                Ok(WritableView { start: own.start, _own: Some(own) })
            }
            Backing::Private => Ok(WritableView { start: self.address, _own: None }),
        }
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let start = match &self.backing {
            Backing::File(File { file, writable: None, .. }) => {
                return sys::write(file, bytes, offset);
            }
            Backing::File(File { writable: Some(writable), .. }) => *writable,
            Backing::Private => self.address,
        };
        let place = std::ptr::with_exposed_provenance_mut::<u8>(start + offset);
        // SAFETY: the place belongs to a block that no thread uses yet, or any longer, or to no
        // block, in pages that are mapped to be written.
        unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Makes sure that no other process has a view of the bytes that are about to be written.
    ///
    /// After a fork both processes run the same code from the same file, and neither writes to it:
    /// the first to write makes itself a copy. The mapping is replaced by the same bytes in one
    /// step, so threads that run them do not notice.
    fn own(&mut self) -> io::Result<()> {
        if !self.is_shared() {
            return Ok(());
        }
        let Backing::File(file) = &mut self.backing else { return Ok(()) };
        let copy = File { file: sys::memory_file(self.len)?, forks: fork::forks(), ..*file };
        for run in self.pages.runs() {
            let offset = run.start as usize * self.page;
            let start = std::ptr::with_exposed_provenance::<u8>(self.address + offset);
            // SAFETY: the pages are mapped to be read, and only written through `file`, which
            // takes this section by mutable reference.
            let bytes = unsafe { std::slice::from_raw_parts(start, run.len() * self.page) };
            sys::write(&copy.file, bytes, offset)?;
        }
        // SAFETY: the addresses are the section's, and every page that is used has been copied.
        unsafe { copy.map(self.address, self.len)? };
        *file = copy;
        Ok(())
    }
}

impl File {
    /// Maps the views of the file, in the place of the mappings there.
    ///
    /// # Safety
    ///
    /// The addresses belong to the file's section, and the file has all that is in use there.
    unsafe fn map(&self, address: usize, len: usize) -> io::Result<()> {
        // The order matters: should the system refuse the second view, threads still run the old
        // file, and nothing is written until both are mapped.
        if let Some(writable) = self.writable {
            // SAFETY: as the caller says.
            unsafe { sys::map_file(writable, len, View::Write, &self.file)? };
        }
        // SAFETY: as the caller says.
        unsafe { sys::map_file(address, len, self.view, &self.file) }
    }
}
