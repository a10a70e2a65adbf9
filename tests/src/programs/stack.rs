//! The frames of a program: as they should be, and as they are found.
//!
//! Generated code has frame pointer frames: at the frame pointer is the caller's, and above it the
//! return address. Frames of the host need not. So the host is given the frame pointer
//! of the function that visits it, and the frames are followed from there to the entry by which the
//! host has called, which is the one that returns to other code. If the host had been visited when
//! it called that, there is another such *segment* further out.

use std::collections::BTreeMap;
use std::ops::Range;

use lastout::{Engine, Location, Part};

use super::Carried;
use super::lower::CARRIED;

/// A function and the number of its version.
pub(super) type Version = (usize, u64);

/// A point at a call of a function, or what it takes to be the same: its site, and what is carried
/// there besides the variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) function: usize,
    pub(super) site: u32,
    pub(super) carried: Option<Carried>,
}

/// What a frame is inside of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inside {
    Version(Version),
    /// The parked call of a point.
    Parked(Point),
}

impl From<Version> for Inside {
    fn from(version: Version) -> Self {
        Self::Version(version)
    }
}

/// How many frames are counted in each version that is not freed.
pub(super) type Ledger = BTreeMap<Version, u32>;

/// How many frames are inside of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) ledger: Ledger,
    /// How many frames of each function are in none of its versions, if any.
    pub(super) waiting: BTreeMap<usize, u32>,
    /// The frames of generated code, innermost first, by following frame pointers: what they are
    /// inside of, or `None` for a gate or an entry.
    pub(super) walked: Vec<Option<Inside>>,
    /// The same, as the engine says.
    pub(super) traced: Vec<Traced>,
}

/// A frame, as the engine tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traced {
    Body(Inside),
    /// What it has counted.
    Gate(Option<Inside>),
    Entry,
}

/// A frame as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Body(Inside),
    /// A gate, with what it counts.
    Gate(Inside),
    /// An entry. If the function can be tail-called, there is a gate beyond it that counts.
    Entry(Option<Version>),
}

/// The frames as they should be, outermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stack(pub(super) Vec<Frame>);

impl Stack {
    /// For each frame that counts in a version, in which.
    pub(super) fn counted(&self) -> impl Iterator<Item = Version> {
        self.0.iter().filter_map(|frame| match *frame {
            Frame::Gate(Inside::Version(version)) => Some(version),
            Frame::Entry(version) => version,
            Frame::Body(_) | Frame::Gate(Inside::Parked(_)) => None,
        })
    }

    /// For each frame that waits for a call, where.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Point> {
        self.0.iter().filter_map(|frame| match *frame {
            Frame::Gate(Inside::Parked(point)) => Some(point),
            _ => None,
        })
    }

    pub(super) fn walked(&self) -> Vec<Option<Inside>> {
        let walked = self.0.iter().rev().map(|frame| match *frame {
            Frame::Body(inside) => Some(inside),
            Frame::Gate(_) | Frame::Entry(_) => None,
        });
        walked.collect()
    }

    pub(super) fn traced(&self) -> Vec<Traced> {
        let traced = self.0.iter().rev().map(|frame| match *frame {
            Frame::Body(inside) => Traced::Body(inside),
            Frame::Gate(inside) => Traced::Gate(Some(inside)),
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
    pub(super) visitor: Inside,
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
) -> Vec<Option<Inside>> {
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
            walked.push(locate(engine, returned));
        }
    }
    walked
}

/// The frames of an engine's code, as it says.
pub(super) fn trace(engine: &Engine) -> Vec<Traced> {
    let traced = engine.backtrace().into_iter().map(|location| match location.part {
        Part::Body { function, version } => Traced::Body(inside(&function, version)),
        Part::Gate { version } => {
            Traced::Gate(version.map(|it| inside(it.function(), it.number())))
        }
        Part::Entry => Traced::Entry,
        Part::Helper => panic!("nobody looks from a helper of gates"),
    });
    traced.collect()
}

/// What the code that has a return address in it is inside of, unless it is a gate or an entry.
pub(super) fn locate(engine: &Engine, returned: usize) -> Option<Inside> {
    engine.locate(returned - 1).and_then(body)
}

fn body(location: Location) -> Option<Inside> {
    match location.part {
        Part::Body { function, version } => Some(inside(&function, version)),
        Part::Gate { .. } | Part::Entry | Part::Helper => None,
    }
}

/// The version that a place is in, unless it is not in one.
pub(super) fn version(location: Location) -> Option<Version> {
    match body(location)? {
        Inside::Version(version) => Some(version),
        Inside::Parked(_) => None,
    }
}

/// What code with a name is of: of the function with that [name](super::name), of a point of it
/// such as `f1@5`, or of a parked call, such as `f1@5(0: i8, i64) after i64 waiting for f2`.
fn inside(name: &str, number: u64) -> Inside {
    let (function, point) = name.split_once('@').unwrap_or((name, ""));
    let function = function.strip_prefix('f').and_then(|number| number.parse().ok());
    let function = function.expect("functions have such names");
    if !point.contains(" waiting for ") {
        return Inside::Version((function, number));
    }
    let (site, alive) =
        point.split_once('(').expect("parked calls are of points, with what is alive");
    let carries = |carried: &Carried| alive.starts_with(&format!("{CARRIED}: {}", carried.type_()));
    let carried = Carried::ALL.into_iter().find(carries);
    let site = site.parse().expect("points have the numbers of their sites");
    Inside::Parked(Point { function, site, carried })
}

/// How many frames of gates and entries there are for the versions with each number: those next to
/// one of their bodies, parked calls not among them. (Not for each version: a function may have
/// ended with a call of another of its unit, which is then next to a gate of the first.)
pub(super) fn counts(walked: &[Option<Inside>]) -> BTreeMap<u64, u32> {
    let mut counts = BTreeMap::new();
    for frames in walked.windows(2) {
        if let [Some(Inside::Version((_, number))), None] = frames {
            *counts.entry(*number).or_default() += 1;
        }
    }
    counts
}

/// How many frames of each function are in parked calls: next to a gate, each of them.
pub(super) fn waiting(walked: &[Option<Inside>]) -> BTreeMap<usize, u32> {
    let mut waiting = BTreeMap::new();
    for frames in walked.windows(2) {
        if let [Some(Inside::Parked(point)), None] = frames {
            *waiting.entry(point.function).or_default() += 1;
        }
    }
    waiting
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
