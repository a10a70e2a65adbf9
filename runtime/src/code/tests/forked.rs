//! What the other process sees after a fork, as far as one process can tell: the other has the
//! files that were mapped when they parted.

use lastout_reclaim::Counting;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{LINE, Memory, Parts, publish, sections, sizes};
use crate::host::fork;
use crate::host::process;
use crate::host::sys::{Call, faults};

const SIZE: usize = 1 << 20;

/// The other process's code, or read-only data.
struct Other {
    file: File,
    before: Vec<u8>,
}

impl Other {
    fn new(file: File) -> Self {
        let mut before = vec![0; SIZE];
        file.read_exact_at(&mut before, 0).unwrap();
        Self { file, before }
    }

    fn is_undisturbed(&self) -> bool {
        let mut now = vec![0; SIZE];
        self.file.read_exact_at(&mut now, 0).unwrap();
        now == self.before
    }
}

/// Forks, as far as `memory` can tell.
fn fork(memory: &Arc<Memory>) -> [Other; 2] {
    fork::pretend();
    let [code, read_only, _] = sections(memory, SIZE);
    [code, read_only].map(|section| Other::new(process::file_at(section.start)))
}

fn are_there(parts: &Parts) -> bool {
    parts.iter().all(|part| part.is_there())
}

#[test]
fn what_one_process_installs_and_frees_the_other_does_not_see() {
    let _others = process::among_others();
    for strict in [false, true] {
        let memory = Memory::new(SIZE, 0, strict, Counting::Plain, false).unwrap();
        let (_kept, kept) = publish(&memory, sizes(5000, 5000, 5000), 1);
        let (freed, _) = publish(&memory, sizes(5000, 5000, 5000), 2);
        let others = fork(&memory);
        drop(freed);
        let (_new, new) = publish(&memory, sizes(5000, 5000, 5000), 3);
        assert!(are_there(&kept) && are_there(&new));
        assert!(others.iter().all(Other::is_undisturbed));
        // And once more: the copy is shared in its turn.
        let others = fork(&memory);
        let (_last, last) = publish(&memory, sizes(5000, 5000, 5000), 4);
        assert!(are_there(&kept) && are_there(&new) && are_there(&last));
        assert!(others.iter().all(Other::is_undisturbed));
    }
}

/// The pages of blocks that leave quarantine may be given back before anything is written.
#[test]
fn what_leaves_quarantine_after_a_fork_the_other_process_keeps() {
    let _others = process::among_others();
    let memory = Memory::new(SIZE, SIZE, false, Counting::Plain, false).unwrap();
    let (_kept, kept) = publish(&memory, sizes(5000, 5000, 5000), 1);
    drop(publish(&memory, sizes(100_000, 100_000, 100_000), 2));
    let others = fork(&memory);
    // This is too much, so blocks leave the quarantine.
    assert!(memory.allocate(sizes(SIZE, SIZE, SIZE)).is_err());
    assert!(others.iter().all(Other::is_undisturbed));
    assert!(are_there(&kept));
    let (_new, new) = publish(&memory, sizes(200_000, 200_000, 200_000), 3);
    assert!(are_there(&kept) && are_there(&new));
    assert!(others.iter().all(Other::is_undisturbed));
}

/// Whatever the system refuses, what was there stays, and the next try succeeds.
#[test]
fn a_copy_that_is_refused_changes_nothing() {
    let _alone = process::alone();
    for call in [Call::CreateFile, Call::Resize, Call::MapFile, Call::Write] {
        for strict in [false, true] {
            let reached = (0..).find(|&nth| try_without(call, nth, strict)).unwrap();
            assert!(reached > 0, "{call:?} is not made");
        }
    }
}

/// Refuses the `nth` call. Returns whether it was never made.
fn try_without(call: Call, nth: usize, strict: bool) -> bool {
    let memory = Memory::new(SIZE, 0, strict, Counting::Plain, false).unwrap();
    let (_kept, kept) = publish(&memory, sizes(5000, 5000, 5000), 1);
    let (freed, _) = publish(&memory, sizes(5000, 5000, 5000), 2);
    let others = fork(&memory);
    faults::refuse(call, nth);
    let refused = memory.allocate(sizes(100, 100, 100)).unwrap().publish().err();
    assert!(are_there(&kept));
    drop(freed);
    let never = faults::clear();
    assert!(refused.is_none() || !never);
    let (new, parts) = publish(&memory, sizes(5000, 5000, 5000), 3);
    assert!(are_there(&kept) && are_there(&parts));
    drop(new);
    assert_eq!(memory.code_bytes(), kept[0].lines().len());
    assert_eq!(memory.data_bytes(), 2 * 5000_usize.next_multiple_of(LINE));
    assert!(others.iter().all(Other::is_undisturbed));
    never
}
