mod blocks;
mod forked;
mod free_ranges;
mod freed;
mod pages;
#[cfg(target_arch = "x86_64")]
mod patches;
mod protection;

use std::ops::Range;
use std::sync::Arc;

use super::section::LINE;
use super::{Block, Draft, Memory, Room, Sizes};
use crate::arch::TRAP_BYTE;

/// Sizes that need no particular alignment.
fn sizes(code: usize, read_only: usize, writable: usize) -> Sizes {
    let [code, read_only, writable] = [code, read_only, writable].map(|len| Room { len, align: 1 });
    Sizes { code, read_only, writable }
}

/// Bytes that were written to an address.
struct Written {
    address: usize,
    bytes: Vec<u8>,
}

impl Written {
    fn addresses(&self) -> Range<usize> {
        self.address..self.address + self.bytes.len()
    }

    /// The lines that these bytes have to themselves.
    fn lines(&self) -> Range<usize> {
        self.address..self.address + self.bytes.len().next_multiple_of(LINE)
    }

    fn is_there(&self) -> bool {
        read(self.addresses()) == self.bytes
    }
}

/// The code, the read-only and the writable data of a block.
type Parts = [Written; 3];

/// Fills a draft with bytes that none of its neighbours has in the same order.
fn fill(draft: &mut Draft, seed: u8) -> Parts {
    let mut byte = u32::from(seed).wrapping_mul(0x9e37_79b9) | 1;
    let mut write = |(bytes, address): (&mut [u8], usize)| {
        bytes.fill_with(|| {
            byte = byte.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (byte >> 24) as u8
        });
        Written { address, bytes: bytes.to_vec() }
    };
    [write(draft.code()), write(draft.read_only()), write(draft.writable())]
}

/// A published block with something in it.
fn publish(memory: &Arc<Memory>, sizes: Sizes, seed: u8) -> (Block, Parts) {
    let mut draft = memory.allocate(sizes).unwrap();
    let parts = fill(&mut draft, seed);
    (draft.publish().unwrap(), parts)
}

/// The bytes at addresses in a memory.
fn read(addresses: Range<usize>) -> Vec<u8> {
    let start = std::ptr::with_exposed_provenance::<u8>(addresses.start);
    let mut bytes = vec![0; addresses.len()];
    // SAFETY: tests ask for addresses in sections of a memory that they have. All of those can be
    // read, and no thread writes to them meanwhile.
    unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(start, bytes.len()) };
    bytes
}

fn is_all(addresses: Range<usize>, byte: u8) -> bool {
    read(addresses).iter().all(|&found| found == byte)
}

/// The addresses of code, of read-only and of writable data.
fn sections(memory: &Memory, size: usize) -> [Range<usize>; 3] {
    let sections = memory.sections.lock();
    [&sections.code, &sections.read_only, &sections.writable].map(|section| {
        let start = section.address(&(0..0));
        start..start + size
    })
}
