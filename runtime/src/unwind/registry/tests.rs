use std::ptr::without_provenance;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Registration, entries, find};
use crate::host::process::among_others;
use crate::unwind::code_map::CodeMap;

/// Addresses at which nothing is, and that no code can have.
const NOWHERE: usize = 1 << 60;

/// Maps that are never looked into.
fn map(number: usize) -> *const CodeMap {
    without_provenance(NOWHERE + 64 * number)
}

#[test]
fn a_map_is_found_by_its_addresses_until_it_is_dropped() {
    let _others = among_others();
    let range = |number: usize| (NOWHERE + 0x1000 * number, NOWHERE + 0x1000 * (number + 1));
    let register = |number: usize| {
        let (start, end) = range(number);
        Registration::new(start..end, map(number))
    };
    let mut registered: Vec<_> = (2..6).map(|number| Some(register(number))).collect();
    let found = |address: usize| find(address).map(|map| (map.addr() - NOWHERE) / 64);
    let alive = |registered: &[Option<Registration>]| {
        for (number, registered) in (2..).zip(registered) {
            let (start, end) = range(number);
            let expected = registered.as_ref().map(|_| number);
            assert_eq!([start, start + 1, end - 1].map(found), [expected; 3]);
        }
        assert_eq!([range(2).0 - 1, range(5).1].map(found), [None; 2]);
    };
    alive(&registered);
    for number in [3, 2, 5, 4] {
        registered[number - 2] = None;
        alive(&registered);
    }
}

#[test]
fn entries_are_used_again() {
    let _alone = crate::host::process::alone();
    drop(Registration::new(NOWHERE..NOWHERE + 1, map(1)));
    let before = entries().count();
    for number in 0..100 {
        let both = [0, 1].map(|it| Registration::new(NOWHERE + it..NOWHERE + it + 1, map(number)));
        drop(both);
    }
    assert!(entries().count() <= before + 1);
}

#[test]
fn an_entry_that_changes_hands_is_not_taken_for_what_is_looked_for() {
    let _others = among_others();
    const BELOW: usize = NOWHERE + 0x1_0000;
    const LOOKED_FOR: usize = NOWHERE + 0x2_0000;
    const ABOVE: usize = NOWHERE + 0x3_0000;

    let _lasting = Registration::new(LOOKED_FOR..LOOKED_FOR + 0x1000, map(2));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // One entry is registered below and above by turns.
            while !over.load(Ordering::Relaxed) {
                drop(Registration::new(BELOW..BELOW + 0x1000, map(1)));
                drop(Registration::new(ABOVE..ABOVE + 0x1000, map(3)));
            }
        });
        let wrong = (0..2_000_000).find_map(|_| {
            let found = find(LOOKED_FOR + 0x10);
            (found != Some(map(2))).then_some(found)
        });
        over.store(true, Ordering::Relaxed);
        assert_eq!(wrong, None);
    });
}
