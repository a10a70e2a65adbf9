//! Runs Cranelift's test files through gates: every function is a replaceable one, in a unit of its
//! own, and every call between them, and of them, reaches the version that is current.
//!
//! A file has CLIF functions with comments that say what they return, such as
//! `; run: %add(1, 2) == 3`. Each of these *run lines* is checked three times over. First while
//! nothing else happens; then again and again while another thread replaces each function of the
//! file by itself, compiled and installed anew, every third time at the same address if that can be
//! done; and then so in an engine where frames *move*: functions are defined with points at all
//! their loops and calls, and of the convention for tail calls if they are not and nobody could
//! tell. What calls return must be the same, and in the end nobody may be counted as being inside a
//! function or waiting for a call of it, and every version that was replaced must be freed.
//!
//! Functions that have no loops and no calls, that cannot have points (with stack slots, or looks at
//! their frames), or whose convention is known to others than those who call them by name, are among
//! the rest as they are. The report says how many had points, and how many there were; if there are
//! none in a file, it is not run a third time.
//!
//! All this for each `target` line of the file that is for the host's architecture, with that
//! line's features of the processor and no others, and with each [`Dispatch`](lastout::Dispatch).
//!
//! What is *skipped*, always with a reason: files that are for other architectures or have no
//! `test run` line, target lines that want more than the processor has, what this version of
//! Cranelift does not know or cannot compile for the host, and what lastout refuses and documents.
//! Everything else that does not go as the file says is a failure, also a file that is not CLIF.
//! The one exception there are files that must be of a newer Cranelift, since they use an
//! instruction or a setting that this one has never heard of.

mod check;
mod children;
mod file;
mod host;
mod program;
mod refusal;
mod replacing;
mod report;
mod search;
mod tail;
mod target;
mod trampoline;

pub use check::run_file;
pub use children::{report_to_parent, run_in_child};
pub use report::{FileReport, Summary};
pub use search::find_files;

use std::time::Duration;

/// How files are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Flags for files that do not set them, as names and values.
    pub flags: Vec<(String, String)>,
    /// How often each function is replaced, if there is time: a third as often where frames move.
    pub rounds: u32,
    /// For how long at least functions are replaced, for each dispatch and target line.
    pub at_least: Duration,
    /// When replacing ends although there were not as many [rounds](Self::rounds), if every run
    /// line was checked meanwhile.
    pub at_most: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flags: Vec::new(),
            rounds: 24,
            at_least: Duration::from_millis(50),
            at_most: Duration::from_secs(1),
        }
    }
}
