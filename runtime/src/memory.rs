//! Where code lies: the seam between what is linked and what it is linked into.
//!
//! A [`Draft`] is memory that can be written and not run; publishing turns it into a [`Block`],
//! which can be run and not written, and which gives the memory back when it is dropped.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use wasmtime_internal_jit_icache_coherence as icache;

use crate::{Error, Result};

/// How many bytes of poisoned code stay mapped, so that a stray execution finds traps there and
/// not the next version.
const QUARANTINE_BYTES: usize = 4 << 20;

/// The bytes of a block, by what may be done with them once it is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) code: usize,
    pub(crate) read_only: usize,
    pub(crate) writable: usize,
}

/// An engine's code memory.
///
/// Every block has pages of its own, in one mapping:
///
/// ```text
///   +----------------+------------------+-----------------+
///   | code: r-x      | read-only: r--   | writable: rw-   |
///   +----------------+------------------+-----------------+
///   page             page               page
/// ```
pub(crate) struct Memory {
    page: usize,
    limit: usize,
    mapped: AtomicUsize,
    code: AtomicUsize,
    /// The mappings of freed blocks, filled with traps, oldest first; `None` if blocks are
    /// unmapped as soon as they are freed.
    quarantine: Option<Mutex<VecDeque<Mapping>>>,
}

impl Memory {
    /// Memory of which at most `limit` bytes are mapped at a time. If `poison`, freed blocks are
    /// filled with traps.
    pub(crate) fn new(limit: usize, poison: bool) -> Arc<Self> {
        Arc::new(Self {
            page: rustix::param::page_size(),
            limit,
            mapped: AtomicUsize::new(0),
            code: AtomicUsize::new(0),
            quarantine: poison.then(Mutex::default),
        })
    }

    /// Bytes of machine code in published blocks.
    pub(crate) fn code_bytes(&self) -> usize {
        self.code.load(Ordering::Relaxed)
    }

    /// Bytes that blocks take from the system, in whole pages.
    pub(crate) fn mapped_bytes(&self) -> usize {
        self.mapped.load(Ordering::Relaxed)
    }

    /// Zeroed memory for a block, to be written.
    pub(crate) fn allocate(self: &Arc<Self>, sizes: Sizes) -> Result<Draft> {
        let pages = |bytes: usize| bytes.checked_next_multiple_of(self.page);
        let too_large = || Error::OutOfCodeMemory { needed: usize::MAX, available: self.limit };
        let code = pages(sizes.code.max(1)).ok_or_else(too_large)?;
        let read_only = pages(sizes.read_only).ok_or_else(too_large)?;
        let writable = pages(sizes.writable).ok_or_else(too_large)?;
        let len = code
            .checked_add(read_only)
            .and_then(|len| len.checked_add(writable))
            .ok_or_else(too_large)?;
        let reserved = Reserved::new(self, len)?;
        let mapping = Mapping::new(len)?;
        Ok(Draft { read_only: code, writable: code + read_only, sizes, mapping, reserved })
    }
}

/// Bytes counted against an engine's limit, until dropped.
struct Reserved {
    memory: Arc<Memory>,
    len: usize,
}

impl Reserved {
    fn new(memory: &Arc<Memory>, len: usize) -> Result<Self> {
        let reserve = |mapped: usize| mapped.checked_add(len).filter(|&sum| sum <= memory.limit);
        match memory.mapped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve) {
            Ok(_) => Ok(Self { memory: Arc::clone(memory), len }),
            Err(mapped) => {
                Err(Error::OutOfCodeMemory { needed: len, available: memory.limit - mapped })
            }
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory.mapped.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// Pages of our own, unmapped when dropped.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory that nothing else owns.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference to a mapping only gives its address.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the system's choice disturbs nothing.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    fn at(&self, offset: usize) -> *mut c_void {
        debug_assert!(offset <= self.len);
        // SAFETY: the offset is within the mapping, or one past its end.
        unsafe { self.start.add(offset) }.as_ptr().cast()
    }

    /// Changes what may be done with a range of pages.
    fn protect(&self, from: usize, to: usize, flags: MprotectFlags) -> io::Result<()> {
        if from == to {
            return Ok(());
        }
        // SAFETY: the pages are this mapping's own, and no reference into them exists.
        unsafe { mprotect(self.at(from), to - from, flags) }.map_err(io::Error::from)
    }

    /// Fills everything with instructions that trap, executable and not writable.
    fn poison(&self) -> io::Result<()> {
        self.protect(0, self.len, MprotectFlags::READ | MprotectFlags::WRITE)?;
        // SAFETY: the pages are this mapping's own, writable, and no reference into them exists.
        unsafe { std::ptr::write_bytes(self.start.as_ptr(), TRAP_BYTE, self.len) };
        self.protect(0, self.len, MprotectFlags::READ | MprotectFlags::EXEC)
    }
}

/// Any number of these bytes is an instruction that traps: `int3` on x86-64; elsewhere zeros,
/// which are undefined instructions on aarch64 and riscv64.
const TRAP_BYTE: u8 = if cfg!(target_arch = "x86_64") { 0xcc } else { 0 };

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the pages are this mapping's own, and whoever drops it says that nobody uses
        // them any more. A failure would leave them mapped; there is nobody to tell.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Memory that is being written: readable, writable, not executable.
pub(crate) struct Draft {
    mapping: Mapping,
    reserved: Reserved,
    sizes: Sizes,
    /// Where the read-only pages start, and the writable ones.
    read_only: usize,
    writable: usize,
}

impl Draft {
    /// The code, and the address where it will be run.
    pub(crate) fn code(&mut self) -> (&mut [u8], usize) {
        self.section(0, self.sizes.code)
    }

    /// The read-only data, and its address.
    pub(crate) fn read_only(&mut self) -> (&mut [u8], usize) {
        self.section(self.read_only, self.sizes.read_only)
    }

    /// The writable data, and its address.
    pub(crate) fn writable(&mut self) -> (&mut [u8], usize) {
        self.section(self.writable, self.sizes.writable)
    }

    fn section(&mut self, offset: usize, len: usize) -> (&mut [u8], usize) {
        let start = self.mapping.at(offset).cast::<u8>();
        // SAFETY: the section is within the mapping, which is readable, writable and borrowed
        // mutably through `self`.
        (unsafe { std::slice::from_raw_parts_mut(start, len) }, start.addr())
    }

    /// Makes the block runnable, and no longer writable, for every thread of the process.
    pub(crate) fn publish(self) -> Result<Block> {
        let Self { mapping, reserved, sizes, read_only, writable } = self;
        // SAFETY: the range is the code just written.
        unsafe { icache::clear_cache(mapping.at(0), read_only) }.map_err(io::Error::other)?;
        mapping.protect(0, read_only, MprotectFlags::READ | MprotectFlags::EXEC)?;
        mapping.protect(read_only, writable, MprotectFlags::READ)?;
        icache::pipeline_flush_mt().map_err(io::Error::other)?;
        reserved.memory.code.fetch_add(sizes.code, Ordering::Relaxed);
        Ok(Block { mapping: Some(mapping), code: sizes.code, reserved })
    }
}

/// Code and data that can be used, until dropped.
pub(crate) struct Block {
    /// Taken when the block is dropped.
    mapping: Option<Mapping>,
    code: usize,
    reserved: Reserved,
}

impl Block {
    /// Where the code starts.
    pub(crate) fn address(&self) -> usize {
        self.mapping.as_ref().map_or(0, |mapping| mapping.start.addr().get())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let memory = &self.reserved.memory;
        memory.code.fetch_sub(self.code, Ordering::Relaxed);
        let (Some(mapping), Some(quarantine)) = (self.mapping.take(), &memory.quarantine) else {
            return;
        };
        if mapping.poison().is_err() {
            // Unmapped instead: a stray execution crashes all the same.
            return;
        }
        let mut quarantine = quarantine.lock().unwrap_or_else(PoisonError::into_inner);
        quarantine.push_back(mapping);
        while quarantine.iter().map(|mapping| mapping.len).sum::<usize>() > QUARANTINE_BYTES {
            quarantine.pop_front();
        }
    }
}
