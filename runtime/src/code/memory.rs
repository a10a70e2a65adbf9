//! The memory of an engine: its sections, and their free, used and quarantined parts.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use lastout_reclaim::Counting;

use super::block::{Allocated, Content, Contents, Draft, Room, Sizes};
use super::section::{self, Purpose, Section};
use crate::arch::TRAP_BYTE;
use crate::host::fork::ForkSafeMutex;
use crate::host::sys::Reserved;
use crate::unwind::code_map::CodeMap;
use crate::unwind::{Registration, UnwindTable};
use crate::{Error, Result};

/// The largest size of a section: everything in two adjacent sections is in reach of each other.
pub(crate) const MAX_SIZE: usize = 1 << 30;

/// An engine's code memory.
pub(crate) struct Memory {
    /// The address of the section of code.
    pub(super) code: usize,
    pub(super) sections: ForkSafeMutex<Sections>,
    /// A thread that changes call sites in published code holds this.
    pub(super) patching: ForkSafeMutex<()>,
    /// Registers the map with the system's unwinder, and with the registry.
    _unwind_registration: (Option<UnwindTable>, Registration),
    /// The map of the code, for unwinding and for backtraces. It is dropped after its
    /// registration.
    pub(super) map: Arc<CodeMap>,
    // Dropped last: the addresses of the sections, and of the views through which they are written.
    _reserved: (Reserved, Option<Reserved>),
}

pub(super) struct Sections {
    pub(super) code: Section,
    pub(super) read_only: Section,
    pub(super) writable: Section,
    pub(super) quarantine: Quarantine,
    /// Freed blocks that still have to be filled with traps, because the system has refused that.
    refused: Vec<Parts>,
}

/// The parts of a block.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) code: Range<u32>,
    pub(super) read_only: Range<u32>,
    pub(super) writable: Range<u32>,
}

impl Parts {
    fn bytes(&self) -> usize {
        let Self { code, read_only, writable } = self;
        (code.len() + read_only.len() + writable.len()) * section::LINE
    }
}

/// Freed blocks that are not to be used again yet, oldest first.
pub(super) struct Quarantine {
    pub(super) limit: usize,
    bytes: usize,
    pub(super) blocks: VecDeque<Parts>,
}

impl Memory {
    /// Memory of three sections of `size` bytes each. The last `quarantine` bytes that were freed
    /// are not used again.
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
        let section = |purpose, index| {
            let writable = writable.as_ref().map(|reserved| reserved.start + index * size);
            // SAFETY: the addresses are this memory's, and each section gets its own.
            unsafe { Section::new(purpose, reserved.start + index * size, size, writable) }
        };
        let sections = Sections {
            read_only: section(Purpose::ReadOnly, 0)?,
            code: section(Purpose::Code, 1)?,
            writable: section(Purpose::Writable, 2)?,
            quarantine: Quarantine { limit: quarantine, bytes: 0, blocks: VecDeque::new() },
            refused: Vec::new(),
        };
        let code = sections.code.address(&(0..0));
        let map = Arc::new(CodeMap::new(code, size, counting, catches_traps)?);
        // SAFETY: the map is dropped after this, and after the last block of code in the memory.
        let table = unsafe { UnwindTable::register(&map)? };
        let registration = (table, Registration::new(map.range(), Arc::as_ptr(&map)));
        Ok(Arc::new(Self {
            code,
            sections: ForkSafeMutex::new(sections),
            patching: ForkSafeMutex::default(),
            _unwind_registration: registration,
            map,
            _reserved: (reserved, writable),
        }))
    }

    /// The map of the code in this memory.
    pub(crate) fn code_map(&self) -> &CodeMap {
        &self.map
    }

    /// The address of the section of code.
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

    /// Bytes for which the system has given memory, in whole pages.
    pub(crate) fn committed_bytes(&self) -> usize {
        let Sections { code, read_only, writable, .. } = &*self.sections.lock();
        [code, read_only, writable].map(Section::committed_bytes).iter().sum()
    }

    /// A block to be written, which has only traps and zeros so far.
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

impl Sections {
    fn allocate(&mut self, sizes: Sizes) -> Result<Parts> {
        loop {
            match self.try_allocate(sizes) {
                // Blocks in quarantine are used if there is nothing else, and blocks that could not
                // be filled with traps perhaps can be by now.
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

    /// Gives back parts that were allocated and never filled.
    pub(super) fn release(&mut self, parts: Parts) {
        self.code.release(parts.code);
        self.read_only.release(parts.read_only);
        self.writable.release(parts.writable);
    }

    /// Frees a block, or makes it wait, in quarantine or until it can be filled with traps.
    pub(super) fn free(&mut self, parts: Parts) {
        self.refused.push(parts);
        self.free_refused();
    }

    /// Frees the blocks that can be filled with traps now. Returns whether there were any.
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
            // A block without bytes would never be pushed out.
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

    /// Makes the block that has been in quarantine for longest usable again.
    fn release_oldest(&mut self) {
        if let Some(oldest) = self.quarantine.blocks.pop_front() {
            self.quarantine.bytes -= oldest.bytes();
            self.code.vacate(oldest.code);
            self.read_only.vacate(oldest.read_only);
            self.writable.vacate(oldest.writable);
        }
    }

    fn poison(&mut self, parts: &Parts) -> io::Result<()> {
        // Data is not run. It is made useless too where freed blocks are kept to find mistakes.
        let data = self.quarantine.limit > 0;
        self.code.poison(&parts.code, true)?;
        self.read_only.poison(&parts.read_only, data)?;
        self.writable.poison(&parts.writable, data)
    }
}
