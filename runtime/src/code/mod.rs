//! Where code lies: the seam between what is linked and what it is linked into.
//!
//! A [`Draft`] is memory that can be written and not run; publishing turns it into a [`Block`],
//! which can be run and not written, and which gives the memory back when it is dropped.
//!
//! An engine has one range of addresses, in three sections of the same size, so that whatever is
//! in it is in reach of the code's 32-bit references:
//!
//! ```text
//!   +-----------------+-----------------+-----------------+
//!   | read-only: r--  | code: r-x       | writable: rw-   |
//!   +-----------------+-----------------+-----------------+
//!     a file in memory, and another       private pages
//! ```
//!
//! Blocks are packed into cache lines: with a page each, functions compete for the few sets that
//! the starts of pages fall into in the instruction cache and the TLB. Gaps that touch are joined,
//! the smallest that will do is used first ([`extents`]), and pages that hold nothing are given
//! back ([`pages`]).
//!
//! # Writing code
//!
//! No mapping is ever both writable and executable, and no protection is ever changed, which would
//! take pages from the threads that are running there. Code is in a file that is mapped twice, at
//! addresses that have nothing to do with each other: once to be executed, once to be written. A
//! strict engine has no second view, and has the kernel write to the file (`pwrite`), which takes
//! a microsecond where the view takes a tenth of one, but leaves nothing that a stray or a wilful
//! store could change code through.
//!
//! What was tried and is not here: mapping the second view for each write takes many times longer
//! than `pwrite`, and interrupts all threads when it goes; `/proc/self/mem` takes longer too, and
//! is not there in every sandbox; changing protections takes longest.
//!
//! Freed code is filled with traps before anything else may use its place, always. What lies
//! between blocks in a page is traps too. Pages that are given back read as zeros, which are no
//! traps on x86-64, until they are used again.
//!
//! # After a fork
//!
//! A file in memory is shared with the child. Until either process writes, both run what is there.
//! Whichever is the first to write makes itself a copy and maps it in the place of the old, see
//! [`section`]; so does the other when its turn comes. Writable data is private and copied by the
//! kernel. This rests on `fork` of the C library running its `pthread_atfork` handlers; a process
//! that is copied by other means must not install or free anything.

use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use lastout_reclaim::Counting;
use wasmtime_internal_jit_icache_coherence as icache;

use crate::arch::TRAP_BYTE;
use crate::host::fork::Lock;
use crate::host::sys;
use crate::unwind::code_map::{CodeMap, Description};
use crate::unwind::{Registered, Table};
use crate::{Error, Result};

mod extents;
mod overwrite;
mod pages;
mod patches;
pub(crate) mod relocation;
mod section;
#[cfg(test)]
mod tests;

pub(crate) use overwrite::Footprint;
pub(crate) use patches::Patches;
use section::{Section, Use};

/// What a [section](Sizes) of a block needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) len: usize,
    pub(crate) align: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { len: 0, align: 1 }
    }
}

impl Room {
    /// Makes room for so many bytes at the end; says where.
    pub(crate) fn add(&mut self, len: usize, align: usize) -> usize {
        let offset = self.len.next_multiple_of(align);
        self.len = offset + len;
        self.align = self.align.max(align);
        offset
    }
}

/// The bytes of a block, by what may be done with them once it is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) code: Room,
    pub(crate) read_only: Room,
    pub(crate) writable: Room,
}

/// The largest size of a section: what is in two of them is in reach of each other.
pub(crate) const MAX_SIZE: usize = 1 << 30;

/// An engine's code memory.
pub(crate) struct Memory {
    /// Where the section of code starts.
    code: usize,
    sections: Lock<Sections>,
    /// Held by whoever changes call sites in published code.
    patching: Lock<()>,
    /// What has the system's unwinder, and our own, find the map.
    _unwind_registration: (Option<Table>, Registered),
    /// What there is, for those who find an address of it on a stack. Dropped after what has it
    /// found.
    map: Box<CodeMap>,
    // Dropped after them: the addresses of the sections, and of the views to write through.
    _reserved: (Reserved, Option<Reserved>),
}

struct Sections {
    code: Section,
    read_only: Section,
    writable: Section,
    quarantine: Quarantine,
    /// Freed blocks that still have to be filled with traps, because the system has refused it.
    refused: Vec<Parts>,
}

/// The parts of a block.
#[derive(Clone, Debug, Default)]
struct Parts {
    code: Range<u32>,
    read_only: Range<u32>,
    writable: Range<u32>,
}

impl Parts {
    fn bytes(&self) -> usize {
        let Self { code, read_only, writable } = self;
        (code.len() + read_only.len() + writable.len()) * section::LINE
    }
}

/// Freed blocks that are not to be used again yet, oldest first.
struct Quarantine {
    limit: usize,
    bytes: usize,
    blocks: VecDeque<Parts>,
}

impl Memory {
    /// Memory of three sections of `size` bytes each, of which the last `quarantine` that were
    /// freed are not used again.
    ///
    /// If `strict`, there is no view through which code or read-only data could be written.
    pub(crate) fn new(
        size: usize,
        quarantine: usize,
        strict: bool,
        counting: Counting,
        catches_traps: bool,
    ) -> Result<Arc<Self>> {
        debug_assert!(size <= MAX_SIZE);
        let size = size.max(1).next_multiple_of(rustix::param::page_size());
        let reserved = Reserved::new(3 * size)?;
        let writable = if strict { None } else { Some(Reserved::new(2 * size)?) };
        let section = |used_for, index| {
            let writable = writable.as_ref().map(|reserved| reserved.start + index * size);
            // SAFETY: the addresses are this memory's, and each section gets its own.
            unsafe { Section::new(used_for, reserved.start + index * size, size, writable) }
        };
        let sections = Sections {
            read_only: section(Use::ReadOnly, 0)?,
            code: section(Use::Code, 1)?,
            writable: section(Use::Writable, 2)?,
            quarantine: Quarantine { limit: quarantine, bytes: 0, blocks: VecDeque::new() },
            refused: Vec::new(),
        };
        let code = sections.code.address(&(0..0));
        let map = Box::new(CodeMap::new(code, size, counting, catches_traps)?);
        // SAFETY: the map is dropped after this, and after the last block of code in the memory.
        let table = unsafe { Table::register(&map)? };
        let registration = (table, Registered::new(map.range(), &raw const *map));
        Ok(Arc::new(Self {
            code,
            sections: Lock::new(sections),
            patching: Lock::default(),
            _unwind_registration: registration,
            map,
            _reserved: (reserved, writable),
        }))
    }

    /// What is known of the code in it.
    pub(crate) fn code_map(&self) -> &CodeMap {
        &self.map
    }

    /// Where the section of code starts.
    pub(crate) fn code_start(&self) -> usize {
        self.code
    }

    /// Bytes of code in published blocks, in whole lines.
    pub(crate) fn code_bytes(&self) -> usize {
        self.sections.lock().code.used_bytes()
    }

    /// Bytes of data in published blocks, in whole lines.
    pub(crate) fn data_bytes(&self) -> usize {
        let sections = self.sections.lock();
        sections.read_only.used_bytes() + sections.writable.used_bytes()
    }

    /// Bytes that the system has given memory for, in whole pages.
    pub(crate) fn committed_bytes(&self) -> usize {
        let Sections { code, read_only, writable, .. } = &*self.sections.lock();
        [code, read_only, writable].map(Section::committed_bytes).iter().sum()
    }

    /// A block to be written: traps and zeros so far.
    pub(crate) fn allocate(self: &Arc<Self>, sizes: Sizes) -> Result<Draft> {
        let mut sections = self.sections.lock();
        let parts = sections.allocate(sizes)?;
        let code = sections.code.address(&parts.code);
        let read_only = sections.read_only.address(&parts.read_only);
        let writable = sections.writable.address(&parts.writable);
        drop(sections);
        let content =
            |address, room: Room, byte: u8| Content { address, bytes: vec![byte; room.len] };
        let contents = Contents {
            code: content(code, sizes.code, TRAP_BYTE),
            read_only: content(read_only, sizes.read_only, 0),
            writable: content(writable, sizes.writable, 0),
        };
        Ok(Draft { contents, allocated: Allocated { memory: Arc::clone(self), parts } })
    }
}

/// Addresses that are a memory's, until it is dropped.
struct Reserved {
    start: usize,
    len: usize,
}

impl Reserved {
    fn new(len: usize) -> io::Result<Self> {
        Ok(Self { start: sys::reserve(len)?.as_ptr().expose_provenance(), len })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: the addresses were reserved for this memory, and no block of it is left.
        unsafe { sys::unmap(self.start, self.len) };
    }
}

impl Sections {
    fn allocate(&mut self, sizes: Sizes) -> Result<Parts> {
        loop {
            match self.try_allocate(sizes) {
                // What is in quarantine is there to be used if need be, and what could not be
                // filled with traps perhaps can be by now.
                Err(Error::OutOfCodeMemory { .. }) if self.quarantine.bytes > 0 => {
                    self.release_oldest();
                }
                Err(Error::OutOfCodeMemory { .. }) if self.free_refused() => {}
                result => return result,
            }
        }
    }

    fn try_allocate(&mut self, sizes: Sizes) -> Result<Parts> {
        let Sizes { code, read_only, writable } = sizes;
        let mut parts = Parts::default();
        let allocated = (|| {
            parts.code = self.code.allocate(code.len, code.align)?;
            parts.read_only = self.read_only.allocate(read_only.len, read_only.align)?;
            parts.writable = self.writable.allocate(writable.len, writable.align)?;
            Ok(())
        })();
        match allocated {
            Ok(()) => Ok(parts),
            Err(error) => {
                self.release(parts);
                Err(error)
            }
        }
    }

    /// Gives back what was allocated and never filled.
    fn release(&mut self, parts: Parts) {
        self.code.release(parts.code);
        self.read_only.release(parts.read_only);
        self.writable.release(parts.writable);
    }

    /// Frees a block, or has it wait, in quarantine or until it can be filled with traps.
    fn free(&mut self, parts: Parts) {
        self.refused.push(parts);
        self.free_refused();
    }

    /// Frees what can be filled with traps; whether there was any.
    fn free_refused(&mut self) -> bool {
        let refused = std::mem::take(&mut self.refused);
        let before = refused.len();
        for parts in refused {
            if self.poison(&parts).is_err() {
                self.refused.push(parts);
                continue;
            }
            self.code.retire(&parts.code);
            self.read_only.retire(&parts.read_only);
            self.writable.retire(&parts.writable);
            // Nothing would push out what has no bytes.
            if parts.bytes() > 0 {
                self.quarantine.bytes += parts.bytes();
                self.quarantine.blocks.push_back(parts);
            }
        }
        while self.quarantine.bytes > self.quarantine.limit {
            self.release_oldest();
        }
        self.refused.len() < before
    }

    /// Lets the block that has been in quarantine for longest be used again.
    fn release_oldest(&mut self) {
        if let Some(oldest) = self.quarantine.blocks.pop_front() {
            self.quarantine.bytes -= oldest.bytes();
            self.code.vacate(oldest.code);
            self.read_only.vacate(oldest.read_only);
            self.writable.vacate(oldest.writable);
        }
    }

    fn poison(&mut self, parts: &Parts) -> io::Result<()> {
        // Data is not run; where freed blocks are kept to find mistakes, it is made useless too.
        let data = self.quarantine.limit > 0;
        self.code.poison(&parts.code, true)?;
        self.read_only.poison(&parts.read_only, data)?;
        self.writable.poison(&parts.writable, data)
    }
}

/// What was allocated and not published: given back when dropped.
struct Allocated {
    memory: Arc<Memory>,
    parts: Parts,
}

impl Drop for Allocated {
    fn drop(&mut self) {
        let parts = std::mem::take(&mut self.parts);
        self.memory.sections.lock().release(parts);
    }
}

/// Memory that is being written: it lies elsewhere until it is published.
pub(crate) struct Draft {
    contents: Contents,
    allocated: Allocated,
}

/// What will be in a block.
pub(crate) struct Contents {
    code: Content,
    read_only: Content,
    writable: Content,
}

/// What will be in one section.
struct Content {
    /// Where it will be used.
    address: usize,
    bytes: Vec<u8>,
}

impl Deref for Draft {
    type Target = Contents;

    fn deref(&self) -> &Contents {
        &self.contents
    }
}

impl DerefMut for Draft {
    fn deref_mut(&mut self) -> &mut Contents {
        &mut self.contents
    }
}

impl Contents {
    /// The code, and the address where it will be run.
    pub(crate) fn code(&mut self) -> (&mut [u8], usize) {
        (&mut self.code.bytes, self.code.address)
    }

    /// The read-only data, and its address.
    pub(crate) fn read_only(&mut self) -> (&mut [u8], usize) {
        (&mut self.read_only.bytes, self.read_only.address)
    }

    /// The writable data, and its address.
    pub(crate) fn writable(&mut self) -> (&mut [u8], usize) {
        (&mut self.writable.bytes, self.writable.address)
    }
}

impl Draft {
    /// Makes the block runnable for every thread of the process.
    pub(crate) fn publish(self) -> Result<Block> {
        let Self { contents: Contents { code, read_only, writable }, mut allocated } = self;
        let memory = Arc::clone(&allocated.memory);
        {
            let mut sections = memory.sections.lock();
            let parts = &allocated.parts;
            sections.read_only.fill(&parts.read_only, &read_only.bytes)?;
            sections.writable.fill(&parts.writable, &writable.bytes)?;
            sections.code.fill(&parts.code, &code.bytes)?;
            sections.read_only.occupy(&parts.read_only);
            sections.writable.occupy(&parts.writable);
            sections.code.occupy(&parts.code);
        }
        let Parts { code: lines, read_only, writable } = std::mem::take(&mut allocated.parts);
        let data = !(read_only.is_empty() && writable.is_empty());
        let data = data.then(|| Box::new([read_only, writable]));
        let block = Block { memory, code: lines, data };
        let start = std::ptr::with_exposed_provenance(code.address);
        // SAFETY: the range is the code just written.
        unsafe { icache::clear_cache(start, code.bytes.len()) }.map_err(io::Error::other)?;
        icache::pipeline_flush_mt().map_err(io::Error::other)?;
        Ok(block)
    }
}

/// Code and data that can be used, until dropped.
pub(crate) struct Block {
    memory: Arc<Memory>,
    code: Range<u32>,
    /// Read-only and writable. Most blocks have none.
    data: Option<Box<[Range<u32>; 2]>>,
}

impl Block {
    /// Notes what the code is, until it is freed.
    pub(crate) fn describe(&self, description: Arc<Description>) {
        self.memory.map.describe(self.address(), description);
    }

    /// How many bytes of code there are, in whole lines.
    pub(crate) fn code_len(&self) -> usize {
        self.code.len() * section::LINE
    }

    /// Where the code starts.
    pub(crate) fn address(&self) -> usize {
        self.memory.code + self.code.start as usize * section::LINE
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.memory.map.forget(self.address());
        let [read_only, writable] = self.data.take().map_or([0..0, 0..0], |data| *data);
        let parts = Parts { code: self.code.clone(), read_only, writable };
        self.memory.sections.lock().free(parts);
    }
}
