//! Pages, compared with a plain list of them.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::pages::Pages;

#[derive(Clone, Debug)]
enum Step {
    /// An extent becomes used, unless some of it is; its pages are committed.
    Occupy {
        start: Index,
        len: u32,
    },
    /// A page is committed, and then not used after all.
    Commit(Index),
    Vacate(Index),
    /// Pages are given back, except for the runs that the system refuses to take.
    Trim {
        refused: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let occupy = (any::<Index>(), 1_u32..200);
    let step = prop_oneof![
        4 => occupy.prop_map(|(start, len)| Step::Occupy { start, len }),
        2 => any::<Index>().prop_map(Step::Commit),
        4 => any::<Index>().prop_map(Step::Vacate),
        1 => prop_oneof![Just(0), any::<u64>()].prop_map(|refused| Step::Trim { refused }),
    ];
    vec(step, 1..200)
}

#[derive(Default)]
struct Model {
    units_per_page: u32,
    /// For each unit, whether it is in use.
    used: Vec<bool>,
    committed: BTreeSet<u32>,
}

impl Model {
    fn pages_of(&self, extent: &Range<u32>) -> BTreeSet<u32> {
        extent.clone().map(|unit| unit / self.units_per_page).collect()
    }

    fn is_free(&self, extent: &Range<u32>) -> bool {
        extent.clone().all(|unit| self.used.get(unit as usize) == Some(&false))
    }

    fn set(&mut self, extent: &Range<u32>, used: bool) {
        self.used[extent.start as usize..extent.end as usize].fill(used);
    }

    fn empty(&self) -> BTreeSet<u32> {
        let units = |page| page * self.units_per_page..(page + 1) * self.units_per_page;
        self.committed.iter().copied().filter(|&page| self.is_free(&units(page))).collect()
    }

    /// The pages that are to be given back.
    fn surplus(&self) -> BTreeSet<u32> {
        let empty = self.empty();
        if empty.len() > 16 && empty.len() > self.committed.len() / 32 {
            empty
        } else {
            BTreeSet::new()
        }
    }
}

/// The pages in as few runs as possible.
fn runs(pages: &BTreeSet<u32>) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for &page in pages {
        match runs.last_mut() {
            Some(run) if run.end == page => run.end += 1,
            _ => runs.push(page..page + 1),
        }
    }
    runs
}

fn commit(pages: &mut Pages, model: &mut Model, page: u32) {
    assert_eq!(pages.is_committed(page), model.committed.contains(&page));
    if model.committed.insert(page) {
        pages.commit(page);
    }
}

/// Trims, and checks what is given back. The system refuses the runs whose bits are set.
fn trim(pages: &mut Pages, model: &mut Model, refused: u64) {
    let mut offered = Vec::new();
    pages.trim(|run| {
        let refuse = refused >> (offered.len() % 64) & 1 != 0;
        offered.push((run, refuse));
        if refuse { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    });
    let surplus: Vec<_> = offered.iter().map(|(run, _)| run.clone()).collect();
    assert_eq!(surplus, runs(&model.surplus()));
    for (run, refused) in offered {
        model.committed.retain(|page| refused || !run.contains(page));
    }
}

proptest! {
    #[test]
    fn pages_are_counted_and_given_back_as_their_units_are_used(
        units_per_page in 1_u32..70,
        count in 1_u32..100,
        steps in steps(),
    ) {
        let units = units_per_page * count;
        let mut pages = Pages::new(count as usize, units_per_page);
        let mut model =
            Model { units_per_page, used: vec![false; units as usize], ..Model::default() };
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Occupy { start, len } => {
                    let start = start.index(units as usize) as u32;
                    let extent = start..start + len;
                    if model.is_free(&extent) {
                        let missing = |page: &u32| !model.committed.contains(page);
                        let mut expected: Vec<u32> =
                            model.pages_of(&extent).into_iter().filter(missing).collect();
                        while let Some(run) = pages.missing(&extent) {
                            prop_assert_eq!(run.clone().collect::<Vec<_>>(),
                                expected.drain(..run.len()).collect::<Vec<_>>());
                            for page in run {
                                commit(&mut pages, &mut model, page);
                            }
                        }
                        prop_assert!(expected.is_empty());
                        pages.occupy(&extent);
                        model.set(&extent, true);
                        held.push(extent);
                    }
                }
                Step::Commit(page) => {
                    let page = page.index(count as usize) as u32;
                    commit(&mut pages, &mut model, page);
                }
                Step::Vacate(index) if !held.is_empty() => {
                    let extent = held.swap_remove(index.index(held.len()));
                    pages.vacate(&extent);
                    model.set(&extent, false);
                }
                Step::Vacate(_) => {}
                Step::Trim { refused } => trim(&mut pages, &mut model, refused),
            }
            prop_assert_eq!(pages.committed(), model.committed.len());
            prop_assert_eq!(pages.runs().collect::<Vec<_>>(), runs(&model.committed));
        }
        // Pages that the system has refused to take are offered again.
        trim(&mut pages, &mut model, 0);
        prop_assert_eq!(pages.committed(), model.committed.len());
    }
}

/// If many pages are in use, a share of them may be empty and kept.
#[test]
fn of_many_pages_more_are_kept() {
    let mut pages = Pages::new(2000, 4);
    (0..1000).for_each(|page| pages.commit(page));
    pages.occupy(&(0..4 * 1000));
    let mut offered = Vec::new();
    for page in 0..31 {
        pages.vacate(&(4 * page..4 * (page + 1)));
        pages.trim(|run| {
            offered.push(run);
            Ok(())
        });
    }
    assert_eq!(offered, []);
    pages.vacate(&(4 * 500..4 * 501));
    pages.trim(|run| {
        offered.push(run);
        Ok(())
    });
    assert_eq!(offered, [0..31, 500..501]);
    assert_eq!(pages.committed(), 968);
}
