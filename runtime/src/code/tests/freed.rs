//! The memory of blocks that are dropped.

use lastout_reclaim::Counting;
use std::sync::Arc;

use super::{LINE, Memory, TRAP_BYTE, is_all, publish, sizes};
use crate::Error;
use crate::host::process;
use crate::host::sys::{Call, faults};

/// A memory that asks the system to write, which may be refused.
fn memory(size: usize, quarantine: usize) -> Arc<Memory> {
    Memory::new(size, quarantine, true, Counting::Plain, false).unwrap()
}

#[test]
fn freed_code_is_traps_at_once() {
    let _others = process::among_others();
    for quarantine in [0, 1 << 20] {
        let memory = memory(1 << 20, quarantine);
        let before = publish(&memory, sizes(100, 0, 0), 1);
        // This is longer than what is written in one piece.
        let (freed, parts) = publish(&memory, sizes(150_000, 70_000, 70_000), 2);
        let after = publish(&memory, sizes(100, 0, 0), 3);
        let [code, read_only, writable] = parts;
        drop(freed);
        let page = rustix::param::page_size();
        if quarantine == 0 {
            // Pages that were given back keep nothing, so only the first one is read.
            let first = code.address..code.address.next_multiple_of(page);
            assert!(is_all(first, TRAP_BYTE));
        } else {
            assert!(is_all(code.lines(), TRAP_BYTE));
            assert!(is_all(read_only.addresses(), TRAP_BYTE));
            assert!(is_all(writable.addresses(), TRAP_BYTE));
        }
        assert!(before.1.iter().chain(&after.1).all(|part| part.is_there()));
    }
}

#[test]
fn what_is_in_quarantine_is_used_again_only_when_it_is_full_or_all_there_is() {
    let _others = process::among_others();
    let memory = memory(1 << 20, 4 * LINE);
    let address = |seed| {
        let (block, _) = publish(&memory, sizes(2 * LINE, 0, 0), seed);
        block.address()
    };
    let first = address(1);
    assert_eq!(address(2), first + 2 * LINE);
    assert_eq!(address(3), first + 4 * LINE);
    // The third block has pushed the first one out.
    assert_eq!(address(4), first);
    // The blocks in quarantine are now at both ends of the free space.
    let (_block, _) = publish(&memory, sizes((1 << 20) - 6 * LINE, 0, 0), 5);
    let all = memory.allocate(sizes(6 * LINE, 0, 0));
    assert!(all.is_ok());
    let needed = 7 * LINE;
    let none = memory.allocate(sizes(needed, 0, 0)).err();
    assert!(matches!(none, Some(Error::OutOfCodeMemory { .. })), "{none:?}");
}

#[test]
fn pages_of_freed_blocks_are_given_back() {
    let _others = process::among_others();
    let page = rustix::param::page_size();
    for quarantine in [0, 3 * page] {
        let memory = memory(4 << 20, quarantine);
        assert_eq!(memory.committed_bytes(), 0);
        let mut blocks = Vec::new();
        for seed in 0..100 {
            blocks.push(publish(&memory, sizes(10_000, 10_000, 10_000), seed));
        }
        assert!(memory.committed_bytes() >= 3 * 100 * 10_000);
        // A block keeps its own pages, and no others.
        let (_kept, parts) = blocks.swap_remove(50);
        drop(blocks);
        assert!(memory.committed_bytes() <= (3 * (16 + 4) + 2 * 3) * page);
        assert!(parts.iter().all(|part| part.is_there()));
    }
}

/// A block without anything in it takes nothing, and leaves nothing.
#[test]
fn freed_blocks_of_nothing_are_not_kept() {
    let _others = process::among_others();
    for quarantine in [0, 1 << 16] {
        let memory = memory(1 << 20, quarantine);
        for _ in 0..100 {
            drop(publish(&memory, sizes(0, 0, 0), 0));
        }
        assert_eq!(memory.sections.lock().quarantine.blocks.len(), 0);
        assert_eq!(memory.committed_bytes(), 0);
    }
}

#[test]
fn code_that_cannot_be_filled_with_traps_is_not_used_again_until_it_can() {
    let _alone = process::alone();
    let memory = memory(1 << 20, 0);
    let (other, _) = publish(&memory, sizes(LINE, 0, 0), 1);
    let (block, parts) = publish(&memory, sizes(LINE, LINE, LINE), 2);
    faults::refuse(Call::Write, 0);
    drop(block);
    assert!(!faults::clear());
    assert_eq!((memory.code_bytes(), memory.data_bytes()), (2 * LINE, 2 * LINE));
    let (next, next_parts) = publish(&memory, sizes(LINE, LINE, LINE), 3);
    for (next, part) in next_parts.iter().zip(&parts) {
        assert_ne!(next.address, part.address);
    }
    drop(other);
    assert_eq!((memory.code_bytes(), memory.data_bytes()), (LINE, 2 * LINE));
    assert!(is_all(parts[0].lines(), TRAP_BYTE));
    assert!(next_parts.iter().all(|part| part.is_there()));
    drop(next);
    assert_eq!((memory.code_bytes(), memory.data_bytes()), (0, 0));
    drop(memory.allocate(sizes(1 << 20, 1 << 20, 1 << 20)).unwrap());
}

#[test]
fn what_cannot_be_published_is_given_back() {
    let _alone = process::alone();
    // The writes are of read-only data, of a page of traps, and of the code itself.
    for nth in 0..3 {
        let memory = memory(1 << 20, 0);
        let draft = memory.allocate(sizes(LINE, LINE, LINE)).unwrap();
        faults::refuse(Call::Write, nth);
        let refused = draft.publish().err();
        assert!(!faults::clear());
        assert!(matches!(refused, Some(Error::Memory(_))), "{refused:?}");
        assert_eq!((memory.code_bytes(), memory.data_bytes()), (0, 0));
        drop(memory.allocate(sizes(1 << 20, 1 << 20, 1 << 20)).unwrap());
        let (_block, parts) = publish(&memory, sizes(LINE, LINE, LINE), 1);
        assert!(parts.iter().all(|part| part.is_there()));
        let page = rustix::param::page_size();
        assert!(is_all(parts[0].address + LINE..parts[0].address + page, TRAP_BYTE));
    }
}
