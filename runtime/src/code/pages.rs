//! The pages of a range, and which of them are empty, so that these can be given back.

use std::io;
use std::ops::Range;

/// For each page of a range, how many of its units are in use, and whether the system has given
/// memory for it.
#[derive(Debug)]
pub(crate) struct Pages {
    /// The bits of each [`Page`]: as plain numbers, which the allocator knows to be zeros.
    pages: Vec<u16>,
    units_per_page: u32,
    committed: usize,
    /// How many pages are committed and empty.
    empty: usize,
    /// Pages that are empty, or were when they were noted.
    candidates: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Page(u16);

impl Page {
    const COMMITTED: u16 = 1 << 15;
    /// The page is among the candidates.
    const NOTED: u16 = 1 << 14;
    const UNITS: u16 = Self::NOTED - 1;

    fn has(self, flag: u16) -> bool {
        self.0 & flag != 0
    }

    fn units(self) -> u16 {
        self.0 & Self::UNITS
    }
}

/// Empty pages are kept for the next block until they are more than this, and more than one in
/// [`KEPT_SHARE`] of all.
const KEPT: usize = 16;
const KEPT_SHARE: usize = 32;

impl Pages {
    /// `pages` pages of `units_per_page` units each, none of them committed.
    pub(crate) fn new(pages: usize, units_per_page: u32) -> Self {
        debug_assert!(units_per_page <= u32::from(Page::UNITS));
        // A table of zeros takes memory only where something was written.
        let pages = vec![0; pages];
        Self { pages, units_per_page, committed: 0, empty: 0, candidates: Vec::new() }
    }

    /// How many pages the system has given memory for.
    pub(crate) fn committed(&self) -> usize {
        self.committed
    }

    /// The first run of pages of an extent that are not committed.
    pub(crate) fn missing(&self, extent: &Range<u32>) -> Option<Range<u32>> {
        let mut pages = self.of(extent);
        let start = pages.find(|&page| !self.is_committed(page))?;
        let end = pages.find(|&page| self.is_committed(page));
        Some(start..end.unwrap_or(self.of(extent).end))
    }

    /// The pages in which an extent is.
    fn of(&self, extent: &Range<u32>) -> Range<u32> {
        extent.start / self.units_per_page..extent.end.div_ceil(self.units_per_page)
    }

    pub(crate) fn is_committed(&self, page: u32) -> bool {
        self.page(page).has(Page::COMMITTED)
    }

    /// Notes that a page is committed, and empty.
    pub(crate) fn commit(&mut self, page: u32) {
        debug_assert!(!self.is_committed(page));
        self.pages[page as usize] |= Page::COMMITTED;
        self.committed += 1;
        self.empty += 1;
        self.note(page);
    }

    /// Notes that an extent, whose pages are all committed, is in use.
    pub(crate) fn occupy(&mut self, extent: &Range<u32>) {
        for page in self.of(extent) {
            let units = self.units_in(page, extent);
            debug_assert!(self.is_committed(page));
            if self.page(page).units() == 0 {
                self.empty -= 1;
            }
            self.pages[page as usize] += units;
        }
    }

    /// Notes that an extent is no longer in use.
    pub(crate) fn vacate(&mut self, extent: &Range<u32>) {
        for page in self.of(extent) {
            self.pages[page as usize] -= self.units_in(page, extent);
            if self.page(page).units() == 0 {
                self.empty += 1;
                self.note(page);
            }
        }
    }

    /// Gives empty pages back, once they are too many to be kept: all of them, so that as many
    /// blocks share the work as it took to empty them. `give_back` gets runs of pages. Runs on
    /// which it fails are kept until the next time.
    pub(crate) fn trim(&mut self, mut give_back: impl FnMut(Range<u32>) -> io::Result<()>) {
        if self.empty <= KEPT.max(self.committed / KEPT_SHARE) {
            return;
        }
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.sort_unstable();
        candidates.retain(|&page| {
            self.pages[page as usize] &= !Page::NOTED;
            self.page(page).units() == 0
        });
        for run in candidates.chunk_by(|page, next| page + 1 == *next) {
            let run = run[0]..run[run.len() - 1] + 1;
            let given_back = give_back(run.clone()).is_ok();
            for page in run {
                if given_back {
                    self.pages[page as usize] = 0;
                    self.committed -= 1;
                    self.empty -= 1;
                } else {
                    self.note(page);
                }
            }
        }
    }

    /// The committed pages, in runs.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<u32>> {
        let mut pages = (0..).zip(self.pages.iter().copied().map(Page));
        std::iter::from_fn(move || {
            let (start, _) = pages.by_ref().find(|(_, page)| page.has(Page::COMMITTED))?;
            let more = pages.by_ref().take_while(|(_, page)| page.has(Page::COMMITTED));
            Some(start..start + 1 + more.count() as u32)
        })
    }

    fn page(&self, page: u32) -> Page {
        Page(self.pages[page as usize])
    }

    fn note(&mut self, page: u32) {
        if !self.page(page).has(Page::NOTED) {
            self.pages[page as usize] |= Page::NOTED;
            self.candidates.push(page);
        }
    }

    /// How many units of a page belong to an extent.
    fn units_in(&self, page: u32, extent: &Range<u32>) -> u16 {
        let first = page * self.units_per_page;
        let start = extent.start.max(first);
        let end = extent.end.min(first + self.units_per_page);
        (end - start) as u16
    }
}
