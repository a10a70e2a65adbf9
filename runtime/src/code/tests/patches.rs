//! Calls that are changed while threads execute them.

use lastout_reclaim::Counting;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lastout_tests::support::OnDrop;

use super::super::{Block, Memory};
use super::sizes;
use crate::code::patch::Site;
use crate::code::relocation;
use crate::host::process;

/// A function that returns a number.
fn constant(memory: &Arc<Memory>, number: u8) -> Block {
    let code = [0xb8, number, 0, 0, 0, 0xc3]; // mov eax, number; ret
    let mut draft = memory.allocate(sizes(code.len(), 0, 0)).unwrap();
    draft.code().0.copy_from_slice(&code);
    draft.publish().unwrap()
}

/// Functions that call `target`, with the distance at each place in a word where it can be changed.
/// Returns the sites, and the addresses of the functions.
fn callers(memory: &Arc<Memory>, target: usize) -> (Block, Vec<(Site, usize)>) {
    const SIZE: usize = 24;
    let offsets: Vec<_> = (0..8).filter(|&offset| Site::is_patchable(offset)).collect();
    let mut draft = memory.allocate(sizes(SIZE * offsets.len(), 0, 0)).unwrap();
    let (code, address) = draft.code();
    code.fill(0x90); // nop
    let start = address - memory.code_start();
    let functions = (0..).step_by(SIZE).zip(offsets).map(|(function, offset)| {
        let distance = function + 8 + offset;
        code[distance - 1] = 0xe8; // call
        code[distance + 4] = 0xc3; // ret
        relocation::aim(code, distance, address + distance, target).unwrap();
        (Site::at(start + distance), address + function)
    });
    let functions = functions.collect();
    (draft.publish().unwrap(), functions)
}

fn call(address: usize) -> i32 {
    let address = std::ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: the tests pass addresses of functions of this type.
    let function: extern "C" fn() -> i32 = unsafe { std::mem::transmute(address) };
    function()
}

/// Between the two targets there are traps and, further on, nothing: a thread that goes by half of
/// a distance ends the process.
#[test]
fn a_thread_calls_the_old_target_or_the_new() {
    const CHANGES: usize = 200_000;
    let _others = process::among_others();
    for strict in [false, true] {
        let memory = Memory::new(1 << 26, 0, strict, Counting::Plain, false).unwrap();
        let near = constant(&memory, 1);
        let (_code, functions) = callers(&memory, near.address());
        // With this gap, no byte of the two distances is the same.
        let _gap = memory.allocate(sizes(0x0123_4500, 0, 0)).unwrap();
        let far = constant(&memory, 2);
        let targets = [near.address(), far.address()];
        for &(site, function) in &functions {
            let met = [const { AtomicBool::new(false) }; 2];
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        met[call(function) as usize - 1].store(true, Ordering::Relaxed);
                    }
                });
                let mut patches = memory.patches();
                patches.prepare().unwrap();
                for change in 1.. {
                    patches.aim(site, targets[change % 2]);
                    let both = met.iter().all(|met| met.load(Ordering::Relaxed));
                    if change >= CHANGES && both && change % 2 == 1 {
                        break;
                    }
                    assert!(change < 100 * CHANGES, "both targets are never called");
                }
            });
        }
        // This thread has waited for the end of the other, in the kernel.
        assert!(functions.iter().all(|&(_, function)| call(function) == 2));
        let mut patches = memory.patches();
        patches.prepare().unwrap();
        patches.aim(functions[0].0, near.address());
        drop(patches);
        let results = |functions: &[(Site, usize)]| -> Vec<_> {
            functions.iter().map(|&(_, function)| call(function)).collect()
        };
        thread::scope(|scope| {
            let results = scope.spawn(|| results(&functions)).join().unwrap();
            assert_eq!(results, [1, 2, 2, 2, 2]);
        });
    }
}
