//! Drafts, which are written, and blocks, which they become when they are published.

use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use wasmtime_internal_jit_icache_coherence as icache;

use super::memory::{Memory, Parts};
use super::section;
use crate::Result;
use crate::unwind::code_map::Description;

/// The space that a block needs in one section.
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
    /// Adds so many bytes at the end, and returns their offset.
    pub(crate) fn add(&mut self, len: usize, align: usize) -> usize {
        let offset = self.len.next_multiple_of(align);
        self.len = offset + len;
        self.align = self.align.max(align);
        offset
    }
}

/// The space that a block needs in each section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) code: Room,
    pub(crate) read_only: Room,
    pub(crate) writable: Room,
}

/// Parts that were allocated and not published: they are given back when this is dropped.
pub(super) struct Allocated {
    pub(super) memory: Arc<Memory>,
    pub(super) parts: Parts,
}

impl Drop for Allocated {
    fn drop(&mut self) {
        let parts = std::mem::take(&mut self.parts);
        self.memory.sections.lock().release(parts);
    }
}

/// A block that is being written. Its contents are in other memory until it is published.
pub(crate) struct Draft {
    pub(super) contents: Contents,
    pub(super) allocated: Allocated,
}

/// The contents of a block to be.
pub(crate) struct Contents {
    pub(super) code: Content,
    pub(super) read_only: Content,
    pub(super) writable: Content,
}

/// The contents of a block in one section.
pub(super) struct Content {
    /// The address at which the bytes will be used.
    pub(super) address: usize,
    pub(super) bytes: Vec<u8>,
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

/// Code and data that can be used until this is dropped.
pub(crate) struct Block {
    pub(super) memory: Arc<Memory>,
    pub(super) code: Range<u32>,
    /// The read-only and the writable data. Most blocks have none.
    pub(super) data: Option<Box<[Range<u32>; 2]>>,
}

impl Block {
    /// Notes what the code is, until it is freed.
    pub(crate) fn describe(&self, description: Arc<Description>) {
        self.memory.map.describe(self.address(), description);
    }

    /// The address of the code.
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
