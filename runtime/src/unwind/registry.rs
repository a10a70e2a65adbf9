//! The registry of all code maps of the process, by addresses. Any code may search it, a signal
//! handler included.

use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::unwind::code_map::CodeMap;

#[cfg(test)]
mod tests;

/// An entry in the list, which only grows: entries of maps that are gone are used again.
struct RegistryEntry {
    next: AtomicPtr<RegistryEntry>,
    /// Null if the entry is free.
    map: AtomicPtr<CodeMap>,
    start: AtomicUsize,
    end: AtomicUsize,
}

static FIRST: AtomicPtr<RegistryEntry> = AtomicPtr::new(ptr::null_mut());

/// Keeps a map registered until it is dropped.
pub(crate) struct Registration(&'static RegistryEntry);

impl Registration {
    /// Makes lookups of addresses in this range find `map`.
    pub(crate) fn new(range: Range<usize>, map: *const CodeMap) -> Self {
        let Range { start, end } = range;
        let map = map.cast_mut();
        let take = |entry: &&RegistryEntry| {
            let (free, mine) = (ptr::null_mut(), map);
            entry.map.compare_exchange(free, mine, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let entry = entries().find(take).unwrap_or_else(|| add(map));
        // The order is safe since no thread looks for code of a map before the map has some.
        entry.end.store(end, Ordering::Relaxed);
        entry.start.store(start, Ordering::Release);
        Self(entry)
    }
}

fn add(map: *mut CodeMap) -> &'static RegistryEntry {
    let entry = Box::leak(Box::new(RegistryEntry {
        next: AtomicPtr::new(ptr::null_mut()),
        map: AtomicPtr::new(map),
        start: AtomicUsize::new(usize::MAX),
        end: AtomicUsize::new(0),
    }));
    let mut first = FIRST.load(Ordering::Relaxed);
    loop {
        entry.next.store(first, Ordering::Relaxed);
        let new = ptr::from_mut(entry);
        match FIRST.compare_exchange_weak(first, new, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return entry,
            Err(newer) => first = newer,
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.0.start.store(usize::MAX, Ordering::Relaxed);
        self.0.end.store(0, Ordering::Relaxed);
        self.0.map.store(ptr::null_mut(), Ordering::Release);
    }
}

fn entries() -> impl Iterator<Item = &'static RegistryEntry> {
    let mut at = FIRST.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: entries are never freed.
        let entry = unsafe { at.as_ref() }?;
        at = entry.next.load(Ordering::Relaxed);
        Some(entry)
    })
}

/// The map of the code that is returned to at an address, as [`at`].
pub(super) fn returned_to<'a>(address: usize) -> Option<&'a CodeMap> {
    at(address.wrapping_sub(1))
}

/// The map of the code at an address, if that is code of an engine's.
///
/// The calling thread has a frame at the address or is about to return to it, or it is no engine's.
/// So the map stays for as long as that is so.
pub(super) fn at<'a>(address: usize) -> Option<&'a CodeMap> {
    // SAFETY: as said above.
    unsafe { find(address)?.as_ref() }
}

fn find(address: usize) -> Option<*const CodeMap> {
    entries().find_map(|entry| entry.map_at(address))
}

impl RegistryEntry {
    /// The map of the code at an address, if this entry has it.
    fn map_at(&self, address: usize) -> Option<*const CodeMap> {
        let start = self.start.load(Ordering::Acquire);
        let inside = start <= address && address < self.end.load(Ordering::Acquire);
        let map = self.map.load(Ordering::Acquire);
        // The entry may get another map meanwhile, and the values that were read may be of both. A
        // map with a frame is alive, so its entry does not change. Of other maps only their own
        // addresses are inside, unless the start has changed since.
        (inside && self.start.load(Ordering::Acquire) == start).then_some(map.cast_const())
    }
}
