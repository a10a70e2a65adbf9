//! `FreeRanges`, compared with one flag for each unit.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::free_ranges::FreeRanges;

#[derive(Clone, Debug)]
enum Step {
    Allocate { len: u32, align: u32 },
    Release(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let allocate =
        (1_u32..40, 0_u32..6).prop_map(|(len, shift)| Step::Allocate { len, align: 1 << shift });
    vec(prop_oneof![3 => allocate, 2 => any::<Index>().prop_map(Step::Release)], 1..200)
}

/// For each unit, whether it is in use.
struct Model(Vec<bool>);

impl Model {
    /// The gaps, each with its length and its start.
    fn gaps(&self) -> Vec<(u32, u32)> {
        let mut gaps = Vec::new();
        let mut len = 0;
        for (unit, &used) in (0..).zip(self.0.iter().chain([&true])) {
            if !used {
                len += 1;
            } else if len > 0 {
                gaps.push((len, unit - len));
                len = 0;
            }
        }
        gaps
    }

    /// Allocates in the smallest gap that is large enough wherever it starts, the first of these.
    fn allocate(&mut self, len: u32, align: u32) -> Option<Range<u32>> {
        let sure = |&(gap, _): &(u32, u32)| gap >= len + (align - 1);
        let (_, gap) = self.gaps().into_iter().filter(sure).min()?;
        let start = (gap..).find(|start| start % align == 0)?;
        self.set(start..start + len, true);
        Some(start..start + len)
    }

    fn set(&mut self, extent: Range<u32>, used: bool) {
        for unit in extent {
            let unit = &mut self.0[unit as usize];
            assert_ne!(*unit, used);
            *unit = used;
        }
    }

    fn free(&self) -> u32 {
        self.0.iter().map(|&used| u32::from(!used)).sum()
    }
}

proptest! {
    #[test]
    fn extents_are_the_best_fit_and_join_when_released(
        len in 1_u32..600,
        steps in steps(),
        order in any::<u64>(),
    ) {
        let mut ranges = FreeRanges::new(len);
        let mut model = Model(vec![false; len as usize]);
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Allocate { len, align } => {
                    let extent = ranges.allocate(len, align);
                    prop_assert_eq!(&extent, &model.allocate(len, align));
                    held.extend(extent);
                }
                Step::Release(index) if !held.is_empty() => {
                    let extent = held.swap_remove(index.index(held.len()));
                    model.set(extent.clone(), false);
                    ranges.release(extent);
                }
                Step::Release(_) => {}
            }
            prop_assert_eq!(ranges.free_units(), model.free());
        }
        // In any order, so that gaps are joined to both sides, to one, and to none.
        held.sort_by_key(|extent| u64::from(extent.start).wrapping_mul(order | 1));
        held.into_iter().for_each(|extent| ranges.release(extent));
        prop_assert_eq!(ranges.free_units(), len);
        prop_assert_eq!(ranges.allocate(len, 1), Some(0..len), "the gaps were not joined");
        prop_assert_eq!(ranges.free_units(), 0);
    }
}

#[test]
fn a_range_without_units_has_room_for_nothing() {
    let mut ranges = FreeRanges::new(0);
    assert_eq!(ranges.allocate(1, 1), None);
    assert_eq!(ranges.free_units(), 0);
}

#[test]
fn more_than_can_be_counted_is_refused() {
    let mut ranges = FreeRanges::new(u32::MAX);
    assert_eq!(ranges.allocate(u32::MAX, 64), None);
    assert_eq!(ranges.allocate(u32::MAX, 1), Some(0..u32::MAX));
}
