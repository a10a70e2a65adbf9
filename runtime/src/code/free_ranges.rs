//! The free parts of a range: best fit, neighbours joined.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The free parts of a range of units, none of which touch.
///
/// Allocated parts are not noted: their owners know where they are and how long. So memory in use
/// costs nothing here, and the two trees are as large as there are gaps.
///
/// There are crates for this, but they do not suit. `offset-allocator` notes every allocation, in
/// tables of a fixed size that is paid for when they are made: 32 bytes for each allocation that
/// there could ever be. `range-alloc` looks at every gap to find the best. A tree by length makes
/// that a search, and a tree by address makes joining a look at both neighbours.
#[derive(Debug)]
pub(crate) struct FreeRanges {
    /// The length of each gap, by its start.
    by_start: BTreeMap<u32, u32>,
    /// Length and start of each gap.
    by_len: BTreeSet<(u32, u32)>,
    free: u32,
}

impl FreeRanges {
    /// A range of `len` units, all of them free.
    pub(crate) fn new(len: u32) -> Self {
        let mut ranges = Self { by_start: BTreeMap::new(), by_len: BTreeSet::new(), free: 0 };
        if len != 0 {
            ranges.insert(0, len);
        }
        ranges
    }

    /// How many units are free, in whatever pieces.
    pub(crate) fn free_units(&self) -> u32 {
        self.free
    }

    /// Takes `len` units, at least one, that start at a multiple of `align`: of the gaps that are
    /// sure to hold them the smallest, and of those the first. `None` if there is no such gap.
    pub(crate) fn allocate(&mut self, len: u32, align: u32) -> Option<Range<u32>> {
        debug_assert!(len > 0 && align.is_power_of_two());
        let sure = len.checked_add(align - 1)?;
        let &(gap_len, gap) = self.by_len.range((sure, 0)..).next()?;
        self.remove(gap, gap_len);
        let start = gap.next_multiple_of(align);
        let end = start + len;
        if gap < start {
            self.insert(gap, start - gap);
        }
        if end < gap + gap_len {
            self.insert(end, gap + gap_len - end);
        }
        Some(start..end)
    }

    /// Gives back an extent that was [allocated](Self::allocate).
    pub(crate) fn release(&mut self, extent: Range<u32>) {
        let Range { mut start, mut end } = extent;
        if let Some((&before, &len)) = self.by_start.range(..start).next_back()
            && before + len == start
        {
            self.remove(before, len);
            start = before;
        }
        if let Some(&len) = self.by_start.get(&end) {
            self.remove(end, len);
            end += len;
        }
        self.insert(start, end - start);
    }

    fn insert(&mut self, start: u32, len: u32) {
        self.by_start.insert(start, len);
        self.by_len.insert((len, start));
        self.free += len;
    }

    fn remove(&mut self, start: u32, len: u32) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
        self.free -= len;
    }
}
