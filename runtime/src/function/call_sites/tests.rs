use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use lastout_tests::call;
use lastout_tests::clif::define;
use lastout_tests::support::{OnDrop, caller, constant};

use crate::code::patch::{AtomicWord, Site, Word};
use crate::code::relocation::{JUMP, JUMP_SIZE};
use crate::function::Function;
use crate::function::callee::{Callee, Calls};
use crate::host::process;
use crate::host::process::Mapping;
use crate::unit::image::{Code, Image, Owner};
use crate::{Dispatch, Engine, FunctionType, Handle};

const WORD: usize = size_of::<Word>();

#[test]
fn what_can_be_changed_lies_in_one_word() {
    for offset in 0..4 * WORD {
        let one = offset / WORD == (offset + 3) / WORD;
        assert_eq!(Site::is_patchable(offset), one, "{offset}");
        if one {
            let site = Site::at(offset);
            assert_eq!((site.offset(), site.word()), (offset, offset / WORD * WORD));
        }
    }
    // The distance of a jump is always patchable.
    for jump in (0..256).step_by(JUMP_SIZE) {
        assert!(Site::is_patchable(jump + JUMP.1));
    }
}

/// Words as they lie in code, and the address that the first is thought to have.
struct Words {
    words: [AtomicWord; 3],
    address: usize,
}

impl Words {
    /// Code that is nothing but a jump whose distance is at `site`, in the word in the middle.
    fn new(site: Site) -> Self {
        let mut bytes: [u8; 3 * WORD] = std::array::from_fn(|index| 0xa0 + index as u8);
        let (jump, distance) = JUMP;
        let start = site.offset() - distance;
        bytes[start..start + distance + 4].copy_from_slice(&jump[..distance + 4]);
        let words = bytes.as_chunks().0.iter().map(|word| Word::from_le_bytes(*word).into());
        let words: Vec<AtomicWord> = words.collect();
        Self { words: words.try_into().unwrap(), address: 0x4000_0000_0000 }
    }

    fn aim(&self, site: Site, target: usize) {
        site.aim(&self.words[site.word() / WORD], self.address + site.offset(), target);
    }

    fn words(&self) -> [Word; 3] {
        self.words.each_ref().map(|word| word.load(Ordering::Relaxed))
    }
}

/// The sites whose distance is in the word in the middle.
fn all_sites() -> impl Iterator<Item = Site> {
    (WORD..2 * WORD).filter(|&offset| Site::is_patchable(offset)).map(Site::at)
}

#[test]
fn a_site_gets_its_distance_and_nothing_else_changes() {
    for site in all_sites() {
        let code = Words::new(site);
        let place = code.address + site.offset();
        let bytes = |words: [Word; 3]| words.map(Word::to_le_bytes).as_flattened().to_vec();
        let before = bytes(code.words());
        for distance in [4, 0x0123_4560, -0x0123_4560, 0x0400_0000, -8, 0] {
            code.aim(site, place.wrapping_add_signed(distance));
            let mut expected = before.clone();
            let written = if cfg!(target_arch = "x86_64") {
                // From the end of the instruction.
                distance as i32 - 4
            } else {
                (0x1400_0000 | distance as u32 >> 2 & 0x03ff_ffff) as i32
            };
            expected[site.offset()..site.offset() + 4].copy_from_slice(&written.to_le_bytes());
            assert_eq!(bytes(code.words()), expected, "{site:?} {distance:#x}");
        }
    }
}

/// A thread that loads the word all the time stands for one that fetches instructions from it.
#[test]
fn a_word_has_the_old_distance_or_the_new_at_any_time() {
    const CHANGES: usize = 500_000;
    for site in all_sites() {
        let code = Words::new(site);
        // No byte of the two distances is the same.
        let targets = [0x0123_4560, -0x0123_4560]
            .map(|distance| code.address.wrapping_add(site.offset()).wrapping_add_signed(distance));
        let both = targets.map(|target| {
            code.aim(site, target);
            code.words()
        });
        let seen = [const { AtomicBool::new(false) }; 2];
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
            let reader = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for (index, word) in code.words.iter().enumerate() {
                        let word = word.load(Ordering::Relaxed);
                        let which = both.iter().position(|words| words[index] == word);
                        let which = which.unwrap_or_else(|| panic!("{site:?}: {word:#x}"));
                        if index == 1 {
                            seen[which].store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
            for change in 0.. {
                code.aim(site, targets[change % 2]);
                let all = seen.iter().all(|seen| seen.load(Ordering::Relaxed));
                if change >= CHANGES && all || reader.is_finished() {
                    break;
                }
                assert!(change < 100 * CHANGES, "{site:?}: both distances are never seen");
            }
        });
        assert!(both.contains(&code.words()));
    }
}

fn install(engine: &Engine, text: &str) {
    let mut unit = engine.unit();
    define(&mut unit, text).unwrap();
    engine.install(unit).unwrap();
}

/// After the code is freed, code of another unit may be at the addresses of the sites.
#[test]
fn the_calls_of_a_unit_are_forgotten_before_its_code_is_freed() {
    let _others = process::among_others();
    let engine = Engine::builder().dispatch(Dispatch::PatchedSites).build().unwrap();
    let signature = <fn() -> i64>::signature(engine.isa());
    let function = Function::new("f".into(), &signature, engine.functions()).unwrap();
    let calls = Calls { in_place: 1, by_jump: 0 };
    let callee = Callee::register(Arc::clone(&function), vec![Site::at(0)], calls);
    let (sender, known) = mpsc::channel();
    let tell = || {
        let (function, sender) = (Arc::clone(&function), sender.clone());
        move || {
            let counted = function.env().calls.get().in_place;
            sender.send((function.sites().any(), counted)).unwrap();
        }
    };
    let attached: Vec<Box<dyn Any + Send>> = vec![Box::new(OnDrop(tell()))];
    let code = Code::Adopted { _owner: Owner::new(tell()) };
    drop(Image::new(code, vec![callee], attached));
    // First goes what is attached, then the calls, then the code.
    assert_eq!(known.try_iter().collect::<Vec<_>>(), [(true, 1), (false, 0)]);
}

/// A strict engine has a view for writing code only while it patches calls.
#[test]
fn a_strict_engine_patches_calls_and_keeps_no_view_and_nothing_else() {
    const REPLACEMENTS: i64 = 1000;
    let _alone = process::alone();
    let engine = Engine::builder().strict(true).dispatch(Dispatch::PatchedSites).build().unwrap();
    install(&engine, &constant("f", 0));
    for number in 0..5 {
        install(&engine, &caller(&format!("g{number}"), "f", number));
    }
    let callers: Vec<Handle<fn() -> i64>> =
        (0..5).map(|number| engine.function(&format!("g{number}")).unwrap()).collect();
    let held = || {
        let stats = engine.stats();
        let mappings = process::mappings();
        let writable = |mapping: &&Mapping| mapping.is_ours() && mapping.allows('w');
        assert_eq!(mappings.iter().find(writable).map(|mapping| &mapping.addresses), None);
        let reserved: usize = mappings.iter().map(|mapping| mapping.addresses.len() >> 29).sum();
        let ours = mappings.iter().filter(|mapping| mapping.is_ours()).count();
        let calls = (stats.patched_calls, stats.patched_calls_by_jump);
        let memory = (stats.code_bytes, stats.data_bytes, stats.committed_bytes);
        (stats.alive(), calls, memory, ours, process::memory_files().len(), reserved)
    };
    // From now on there are two lanes, which versions take in turn.
    install(&engine, &constant("f", 1));
    let before = held();
    assert_eq!(before.1.0 + before.1.1, callers.len());
    for value in 2..REPLACEMENTS {
        install(&engine, &constant("f", value));
        for (plus, caller) in (0..).zip(&callers) {
            assert_eq!(call!(caller).unwrap(), value + plus);
        }
        if value % 100 == 0 {
            assert_eq!(held(), before);
        }
    }
}
