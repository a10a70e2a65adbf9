//! A memory, compared with a list of what was written where.

use lastout_reclaim::Counting;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::memory::Sections;
use super::{Block, Draft, LINE, Memory, Parts, Room, Sizes, TRAP_BYTE};
use super::{fill, is_all, read, sections, sizes};
use crate::Error;
use crate::host::fork;
use crate::host::process;

#[derive(Clone, Debug)]
enum Step {
    Allocate {
        sizes: Sizes,
        seed: u8,
    },
    Publish(Index),
    /// Drops a draft that was never published.
    Abandon(Index),
    Free(Index),
    /// A block's code writes to its data.
    Store(Index, u8),
    Fork,
}

fn room() -> impl Strategy<Value = Room> {
    let len = prop_oneof![1 => Just(0), 4 => 1_usize..600, 2 => 1_usize..20_000];
    (len, 0_u32..13).prop_map(|(len, shift)| Room { len, align: 1 << shift })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sizes = (room(), room(), room());
    let sizes = sizes.prop_map(|(code, read_only, writable)| Sizes { code, read_only, writable });
    let step = prop_oneof![
        12 => (sizes, any::<u8>()).prop_map(|(sizes, seed)| Step::Allocate { sizes, seed }),
        10 => any::<Index>().prop_map(Step::Publish),
        2 => any::<Index>().prop_map(Step::Abandon),
        7 => any::<Index>().prop_map(Step::Free),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(index, byte)| Step::Store(index, byte)),
        1 => Just(Step::Fork),
    ];
    vec(step, 1..100)
}

struct World {
    memory: Arc<Memory>,
    /// The addresses of code, read-only and writable data.
    sections: [Range<usize>; 3],
    drafts: Vec<(Draft, Parts)>,
    blocks: Vec<(Block, Parts)>,
    /// The files and bytes of the process that was the last to part from this one.
    other: Vec<(File, Vec<u8>)>,
}

impl World {
    fn new(size: usize, quarantine: usize, strict: bool) -> Self {
        let memory = Memory::new(size, quarantine, strict, Counting::Plain, false).unwrap();
        let sections = sections(&memory, size);
        Self { memory, sections, drafts: Vec::new(), blocks: Vec::new(), other: Vec::new() }
    }

    fn run(&mut self, step: &Step) {
        let pick = |index: &Index, len: usize| (len > 0).then(|| index.index(len));
        match step {
            Step::Allocate { sizes, seed } => self.allocate(*sizes, *seed),
            Step::Publish(index) => {
                if let Some(index) = pick(index, self.drafts.len()) {
                    let (draft, parts) = self.drafts.swap_remove(index);
                    let block = draft.publish().unwrap();
                    assert_eq!(block.address(), parts[0].address);
                    self.blocks.push((block, parts));
                }
            }
            Step::Abandon(index) => {
                if let Some(index) = pick(index, self.drafts.len()) {
                    self.drafts.swap_remove(index);
                }
            }
            Step::Free(index) => {
                if let Some(index) = pick(index, self.blocks.len()) {
                    self.blocks.swap_remove(index);
                }
            }
            Step::Store(index, byte) => {
                if let Some(index) = pick(index, self.blocks.len()) {
                    let (_, [_, _, data]) = &mut self.blocks[index];
                    data.bytes.fill(*byte);
                    let place = std::ptr::with_exposed_provenance_mut::<u8>(data.address);
                    // SAFETY: these are the bytes of a block's writable data.
                    unsafe { place.write_bytes(*byte, data.bytes.len()) };
                }
            }
            Step::Fork => {
                fork::pretend();
                let [code, read_only, _] = &self.sections;
                let other = [code, read_only].map(|section| {
                    let file = process::file_at(section.start);
                    let bytes = contents(&file, section.len());
                    (file, bytes)
                });
                self.other = other.into();
            }
        }
    }

    fn allocate(&mut self, sizes: Sizes, seed: u8) {
        let Sizes { code, read_only, writable } = sizes;
        let rooms = [code, read_only, writable];
        let lacking = (0..3).find_map(|section| self.lack(section, rooms[section]));
        match (self.memory.allocate(sizes), lacking) {
            (Ok(mut draft), None) => {
                assert!(draft.code().0.iter().all(|&byte| byte == TRAP_BYTE));
                assert!(draft.read_only().0.iter().all(|&byte| byte == 0));
                assert!(draft.writable().0.iter().all(|&byte| byte == 0));
                let parts = fill(&mut draft, seed);
                for (part, Room { len, align }) in parts.iter().zip(rooms) {
                    assert_eq!(part.bytes.len(), len);
                    assert!(len == 0 || part.address.is_multiple_of(align.max(LINE)));
                }
                self.drafts.push((draft, parts));
            }
            (Err(Error::OutOfCodeMemory { needed, available }), Some(lack)) => {
                assert_eq!((needed, available), lack);
            }
            (result, lacking) => panic!("{:?}, and lacking is {lacking:?}", result.err()),
        }
    }

    /// The lines that drafts and blocks have in a section.
    fn taken(&self, section: usize) -> impl Iterator<Item = Range<usize>> {
        let drafts = self.drafts.iter().map(|(_, parts)| parts);
        let parts = drafts.chain(self.blocks.iter().map(|(_, parts)| parts));
        parts.map(move |parts| parts[section].lines()).filter(|lines| !lines.is_empty())
    }

    /// If no gap of a section is sure to be large enough: what is needed, and what is free there.
    fn lack(&self, section: usize, room: Room) -> Option<(usize, usize)> {
        let Range { start, end } = self.sections[section];
        let mut taken: Vec<_> = self.taken(section).collect();
        taken.push(end..end);
        taken.sort_by_key(|lines| lines.start);
        let (mut at, mut most, mut available) = (start, 0, 0);
        for lines in taken {
            assert!(at <= lines.start, "blocks overlap");
            available += lines.start - at;
            most = most.max(lines.start - at);
            at = lines.end;
        }
        let sure = room.len.next_multiple_of(LINE) + room.align.max(LINE) - LINE;
        (room.len > 0 && most < sure).then_some((room.len, available))
    }

    fn check(&self) {
        for part in self.blocks.iter().flat_map(|(_, parts)| parts) {
            assert!(part.is_there(), "what was written to {:#x} is not there", part.address);
        }
        let used = |section: usize| -> usize {
            self.blocks.iter().map(|(_, parts)| parts[section].lines().len()).sum()
        };
        assert_eq!(self.memory.code_bytes(), used(0));
        assert_eq!(self.memory.data_bytes(), used(1) + used(2));
        self.check_traps();
        for (file, before) in &self.other {
            let same = contents(file, before.len()) == *before;
            assert!(same, "the other process sees what this one has done");
        }
    }

    /// Where there is no block, there are traps, except for pages that were never used or have been
    /// given back.
    fn check_traps(&self) {
        let page = rustix::param::page_size();
        let section = &self.sections[0];
        let mut gaps = read(section.clone());
        let mut pages_with_code = vec![false; section.len() / page];
        for (_, [code, ..]) in &self.blocks {
            let addresses = code.addresses();
            for address in addresses.clone() {
                pages_with_code[(address - section.start) / page] = true;
            }
            gaps[addresses.start - section.start..addresses.end - section.start].fill(TRAP_BYTE);
        }
        let mut committed = 0;
        for (bytes, has_code) in gaps.chunks(page).zip(pages_with_code) {
            if !has_code && bytes.iter().all(|&byte| byte == 0) {
                continue;
            }
            assert!(bytes.iter().all(|&byte| byte == TRAP_BYTE), "there is more than traps");
            committed += page;
        }
        // Where traps are zeros, nothing can be told from the bytes.
        if TRAP_BYTE != 0 {
            assert_eq!(committed, self.memory.sections.lock().code.committed_bytes());
        }
    }

    /// When everything is gone, there is as much space as at first.
    fn clear(mut self) {
        let size = self.sections[0].len();
        self.drafts.clear();
        self.blocks.clear();
        self.check();
        drop(self.memory.allocate(sizes(size, size, size)).unwrap());
        // Blocks that leave quarantine after a fork may keep their pages for a while.
        let sections = self.memory.sections.lock();
        if sections.quarantine.limit == 0 {
            let Sections { code, read_only, writable, .. } = &*sections;
            for section in [code, read_only, writable] {
                assert!(section.committed_bytes() <= 16 * rustix::param::page_size());
            }
        }
    }
}

/// All of a file, as a process sees it that has mapped it.
fn contents(file: &File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn blocks_are_what_was_written_and_the_rest_is_traps(
        pages in 4_usize..100,
        quarantine in prop_oneof![Just(0), 1_usize..200_000],
        strict in any::<bool>(),
        steps in steps(),
    ) {
        let _others = process::among_others();
        let mut world = World::new(pages * rustix::param::page_size(), quarantine, strict);
        for step in &steps {
            world.run(step);
            world.check();
        }
        world.clear();
    }
}

#[test]
fn sections_are_at_least_a_page() {
    let _others = process::among_others();
    let memory = Memory::new(0, 0, false, Counting::Plain, false).unwrap();
    let page = rustix::param::page_size();
    let draft = memory.allocate(sizes(page, page, page)).unwrap();
    assert!(is_all(sections(&memory, page)[0].clone(), 0));
    drop(draft);
}
