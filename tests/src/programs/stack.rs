//! The frames of a program: as they should be, and as they are found.
//!
//! Generated code has frame pointer frames: at the frame pointer is the caller's, and above it the
//! return address. Frames of the host need not. So whoever is visited is given the frame pointer
//! of the function that visits, and the frames are followed from there to the entry by which the
//! host has called, which is the one that returns to other code. If the host had been visited when
//! it called that, there is another such *segment* further out.

use std::collections::BTreeMap;
use std::ops::Range;

use lastout::{Engine, Location, Part};

/// A function and the number of its version.
pub(super) type Version = (usize, u64);

/// How many frames are counted in each version that is not freed.
pub(super) type Ledger = BTreeMap<Version, u32>;

/// Who is inside of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) ledger: Ledger,
    /// The frames of generated code, innermost first, by following frame pointers: the version, or
    /// `None` for a gate or an entry.
    pub(super) walked: Vec<Option<Version>>,
    /// The same, as the engine says.
    pub(super) traced: Vec<Traced>,
}

/// A frame, as the engine tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traced {
    Body(Version),
    /// What it has counted.
    Gate(Option<Version>),
    Entry,
}

/// A frame as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Body(Version),
    /// A gate, with what it counts.
    Gate(Version),
    /// An entry. If the function can be tail-called, there is a gate beyond it that counts.
    Entry(Option<Version>),
}

/// The frames as they should be, outermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stack(pub(super) Vec<Frame>);

impl Stack {
    /// For each frame that counts, what.
    pub(super) fn counted(&self) -> impl Iterator<Item = Version> {
        self.0.iter().filter_map(|frame| match *frame {
            Frame::Body(_) => None,
            Frame::Gate(version) => Some(version),
            Frame::Entry(version) => version,
        })
    }

    pub(super) fn walked(&self) -> Vec<Option<Version>> {
        let walked = self.0.iter().rev().map(|frame| match *frame {
            Frame::Body(version) => Some(version),
            Frame::Gate(_) | Frame::Entry(_) => None,
        });
        walked.collect()
    }

    pub(super) fn traced(&self) -> Vec<Traced> {
        let traced = self.0.iter().rev().map(|frame| match *frame {
            Frame::Body(version) => Traced::Body(version),
            Frame::Gate(version) => Traced::Gate(Some(version)),
            Frame::Entry(_) => Traced::Entry,
        });
        traced.collect()
    }
}

/// The frames between a visit and the entry of the host's call.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    /// The frame pointer of the function that visits.
    pub(super) frame: usize,
    pub(super) visitor: Version,
}

/// Follows the frame pointers of all segments, of which the last is the innermost.
///
/// # Safety
///
/// The segments are on the stack of the calling thread, and their code is in `code`, where all of
/// the engine's is.
pub(super) unsafe fn walk(
    engine: &Engine,
    code: &Range<usize>,
    segments: &[Segment],
) -> Vec<Option<Version>> {
    let word = |at: usize| {
        // SAFETY: every frame has these words, and we do not go on beyond the outermost.
        unsafe { std::ptr::with_exposed_provenance::<usize>(at).read() }
    };
    let mut walked = Vec::new();
    for segment in segments.iter().rev() {
        walked.push(Some(segment.visitor));
        let mut frame = segment.frame;
        loop {
            let returned = word(frame + 8);
            if !code.contains(&returned) {
                break;
            }
            frame = word(frame);
            walked.push(engine.locate(returned - 1).and_then(version));
        }
    }
    walked
}

/// The frames of an engine's code, as it says.
pub(super) fn trace(engine: &Engine) -> Vec<Traced> {
    let traced = engine.backtrace().into_iter().map(|location| match location.part {
        Part::Body { function, version } => Traced::Body((number_in(&function), version)),
        Part::Gate { version } => {
            let version = version.map(|it| (number_in(it.function()), it.number()));
            Traced::Gate(version)
        }
        Part::Entry => Traced::Entry,
        Part::Helper => panic!("nobody looks from a helper of gates"),
    });
    traced.collect()
}

/// The version that a place is in, unless it is not in one.
pub(super) fn version(location: Location) -> Option<Version> {
    match location.part {
        Part::Body { function, version } => Some((number_in(&function), version)),
        Part::Gate { .. } | Part::Entry | Part::Helper => None,
    }
}

/// The function that has a name, see [`name`](super::name).
fn number_in(name: &str) -> usize {
    let number = name.strip_prefix('f').and_then(|number| number.parse().ok());
    number.expect("functions have such names")
}

/// How many frames of gates and entries there are for the versions with each number: those next to
/// one of their bodies. (Not for each version: a function may have ended with a call of another of
/// its unit, which is then next to a gate of the first.)
pub(super) fn counts(walked: &[Option<Version>]) -> BTreeMap<u64, u32> {
    let mut counts = BTreeMap::new();
    for frames in walked.windows(2) {
        if let [Some((_, number)), None] = frames {
            *counts.entry(*number).or_default() += 1;
        }
    }
    counts
}

/// Where an engine's code is: what is mapped at an address of it, and can be executed.
pub(super) fn code_range(address: usize) -> Range<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let range = maps.lines().find_map(|line| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let bound = |text| usize::from_str_radix(text, 16).ok();
        let range = bound(start)?..bound(end)?;
        range.contains(&address).then_some(range)
    });
    range.expect("code is mapped")
}
