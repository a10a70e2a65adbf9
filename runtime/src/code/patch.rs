//! Changing calls in code that threads may be executing.

use std::sync::atomic::Ordering;

use wasmtime_internal_jit_icache_coherence as icache;

use super::memory::Memory;
use super::relocation;
use super::section::WritableView;
use crate::Result;
use crate::host::fork::Guard;

/// The unit of a store that changes a call.
#[cfg(target_arch = "x86_64")]
pub(crate) type Word = u64;
/// An atomic [`Word`].
#[cfg(target_arch = "x86_64")]
pub(crate) type AtomicWord = std::sync::atomic::AtomicU64;
/// The unit of a store that changes a call.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) type Word = u32;
/// An atomic [`Word`].
#[cfg(not(target_arch = "x86_64"))]
pub(crate) type AtomicWord = std::sync::atomic::AtomicU32;

/// A call or jump that can be changed while threads execute it: the offset of the four bytes that
/// change, from the start of the engine's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site(u32);

impl Site {
    /// Whether a call can be changed in its place, if the bytes to change are at this offset.
    /// Blocks of code are aligned to more than matters here.
    pub(crate) fn is_patchable(offset: usize) -> bool {
        offset % size_of::<Word>() + 4 <= size_of::<Word>()
    }

    /// The site whose bytes are that far from the start of the engine's code.
    pub(crate) fn at(offset: usize) -> Self {
        debug_assert!(Self::is_patchable(offset));
        Self(u32::try_from(offset).expect("no engine has so much code"))
    }

    /// The offset of the bytes that change, from the start of the engine's code.
    pub(crate) fn offset(self) -> usize {
        self.0 as usize
    }

    /// The offset of the word that is stored to change them, from the start of the engine's code.
    pub(crate) fn word(self) -> usize {
        self.offset() & !(size_of::<Word>() - 1)
    }

    /// Makes the site at `place`, in `word`, call `target`.
    pub(crate) fn aim(self, word: &AtomicWord, place: usize, target: usize) {
        let mut bytes = word.load(Ordering::Relaxed).to_le_bytes();
        let aimed = relocation::aim(&mut bytes, self.offset() - self.word(), place, target);
        // A site that could not be aimed would go on calling a gate that bails.
        debug_assert!(aimed.is_ok(), "gates are in reach");
        word.store(Word::from_le_bytes(bytes), Ordering::Release);
    }
}

/// The right to change [sites](Site), and to register calls as sites.
pub(crate) struct Patches<'a> {
    memory: &'a Memory,
    /// While this is held the process does not fork, so the code stays in the same file.
    _turn: Guard<'a, ()>,
    /// The view through which code is written, once that is [prepared](Self::prepare).
    view: Option<WritableView>,
}

impl Memory {
    /// Waits for any other thread that has the right.
    pub(crate) fn patches(&self) -> Patches<'_> {
        Patches { memory: self, _turn: self.patching.lock(), view: None }
    }
}

impl Patches<'_> {
    /// Does all that may fail: makes the code this process's own, and maps a view for writing if
    /// there is none.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        self.view = Some(self.memory.sections.lock().code.view()?);
        Ok(())
    }

    /// Makes a site call `target`, by one store, so that a thread that executes it meanwhile calls
    /// its old target or `target`. See [`call_sites`](crate::function::call_sites).
    ///
    /// Does nothing unless [prepared](Self::prepare).
    pub(crate) fn aim(&self, site: Site, target: usize) {
        let Some(view) = &self.view else { return };
        let word = std::ptr::with_exposed_provenance_mut(view.start + site.word());
        // SAFETY: the site is in a block that is published and, since its unit is registered, not
        // freed yet. Its word is aligned as the block is, and mapped to be written. All writes to
        // published calls go through here.
        let word = unsafe { AtomicWord::from_ptr(word) };
        let place = self.memory.code + site.offset();
        site.aim(word, place, target);
        let place = std::ptr::with_exposed_provenance(place);
        // SAFETY: the site is in the section of code.
        let coherent = unsafe { icache::clear_cache(place, 4) };
        // This cannot fail on a supported host. If it did, calls would meet a closed gate.
        debug_assert!(coherent.is_ok());
    }
}
