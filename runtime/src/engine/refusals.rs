//! Every call of the system is refused once. The operation may fail then, but what was current
//! still is, the next try succeeds, and in the end nothing is left.

mod fences;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod sites;
mod trial;

use crate::host::process;
use crate::host::sys::{Call, faults};
use crate::{Dispatch, DropPolicy};

use trial::Setting;

const CALLS: [Call; 10] = [
    Call::CreateFile,
    Call::Resize,
    Call::Reserve,
    Call::MapFile,
    Call::MapData,
    Call::Write,
    Call::Allocate,
    Call::PunchHole,
    Call::Discard,
    Call::HeavyFence,
];

/// The mappings and files of engines.
#[derive(Debug, PartialEq)]
struct Traces {
    files: usize,
    views: usize,
    /// Half gigabytes of addresses. An engine reserves six, and nothing else takes so much.
    halves: usize,
}

impl Traces {
    fn now() -> Self {
        let mappings = process::mappings();
        let mapped: usize = mappings.iter().map(|mapping| mapping.addresses.len()).sum();
        Self {
            files: process::memory_files().len(),
            views: mappings.iter().filter(|mapping| mapping.is_ours()).count(),
            halves: mapped >> 29,
        }
    }
}

#[test]
fn any_call_may_be_refused() {
    let _alone = process::alone();
    let setting = Setting {
        quarantine_pages: 0,
        drop_policy: DropPolicy::Leaver,
        strict: false,
        dispatch: Dispatch::Slot,
    };
    let settings = [
        setting,
        Setting {
            quarantine_pages: 16,
            drop_policy: DropPolicy::Collector,
            strict: true,
            ..setting
        },
        Setting { strict: true, dispatch: Dispatch::PatchedSites, ..setting },
    ];
    for setting in settings {
        // This run registers the thread, and shows what is left when nothing is refused.
        let expected = trial::run(setting);
        let before = Traces::now();
        assert_eq!((before.files, before.views), (0, 0));
        for call in CALLS {
            for nth in 0.. {
                faults::refuse(call, nth);
                let left = trial::run(setting);
                let never = faults::clear();
                assert_eq!(left, expected, "{call:?} {nth}");
                let now = Traces::now();
                assert_eq!((now.files, now.views), (0, 0), "{call:?} {nth}");
                assert!(now.halves.abs_diff(before.halves) <= 1, "{call:?} {nth}: {now:?}");
                if never {
                    assert!(nth > 0, "{call:?} is never made");
                    break;
                }
            }
        }
    }
}
