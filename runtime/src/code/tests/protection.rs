//! The protection of code: how the process may access it.

use super::{Memory, Written, publish, sizes};
use crate::host::fork;
use crate::host::process;
use crate::host::process::Mapping;
use lastout_reclaim::Counting;

/// The mapping that an address is in.
fn mapping_of(address: usize) -> Mapping {
    let mut mappings = process::mappings().into_iter();
    mappings.find(|mapping| mapping.addresses.contains(&address)).unwrap()
}

fn check(parts: &[Written; 3], strict: bool) {
    for mapping in process::mappings() {
        let both = mapping.allows('w') && mapping.allows('x');
        assert!(!both, "writable and executable: {mapping:?}");
        let writable = mapping.is_ours() && mapping.allows('w');
        assert!(!(strict && writable), "writable: {mapping:?}");
    }
    let permissions = |part: &Written| mapping_of(part.address).permissions;
    assert_eq!(parts.each_ref().map(permissions), ["r-xs", "r--s", "rw-p"]);
}

#[test]
fn nothing_is_writable_and_executable() {
    let _alone = process::alone();
    live(false);
}

#[test]
fn what_is_run_or_only_read_is_writable_nowhere_if_that_is_asked_for() {
    let _alone = process::alone();
    live(true);
}

fn live(strict: bool) {
    let memory = Memory::new(1 << 20, 0, strict, Counting::Plain, false).unwrap();
    let (kept, parts) = publish(&memory, sizes(5000, 5000, 5000), 1);
    check(&parts, strict);
    drop(publish(&memory, sizes(100_000, 100_000, 100_000), 2));
    check(&parts, strict);
    fork::pretend();
    drop(publish(&memory, sizes(5000, 5000, 5000), 3));
    check(&parts, strict);
    assert!(parts.iter().all(Written::is_there));
    drop(kept);
    let views = || process::mappings().into_iter().filter(Mapping::is_ours).collect::<Vec<_>>();
    assert_eq!(views().len(), if strict { 2 } else { 4 });
    assert_eq!(process::memory_files().len(), 2);
    drop(memory);
    let left = views();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(process::memory_files().len(), 0);
}
