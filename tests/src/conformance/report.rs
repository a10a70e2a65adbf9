//! What came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What came of one file.
///
/// Every run line counts once, however often it was checked: it has failed if it ever did, and is
/// skipped if it was never checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    /// The functions in the file.
    pub functions: usize,
    /// Those of them whose frames have moved: which had points at some time.
    pub with_points: usize,
    /// The points that these had.
    pub points: usize,
    /// Its run lines.
    pub runs: usize,
    /// Those that held whenever they were checked.
    pub passed: usize,
    /// Those that did not; and, one each, whatever else went wrong: a function that does not
    /// compile, a file that cannot be read or ends the process.
    pub failed: usize,
    /// Those that were not checked.
    pub skipped: usize,
    /// How often a function was replaced.
    pub replacements: u64,
    /// How often at the same address.
    pub in_place: u64,
    /// The frames that were counted as inside of functions when nobody was.
    pub left_in_ledger: u64,
    /// The versions that nobody was inside of, and that were not freed.
    pub unfreed: u64,
    /// All that went wrong, with file and line, what was left over included.
    pub failures: Vec<String>,
    /// Why run lines were skipped, and how many each.
    pub skips: BTreeMap<String, usize>,
    /// What was not done as the file says although its run lines were checked: for example not for
    /// all of its targets. With the number of run lines.
    pub notes: BTreeMap<String, usize>,
    /// The results of `print` lines.
    pub printed: Vec<String>,
}

impl FileReport {
    /// Of a file with which nothing could be done because of something that is wrong.
    pub fn failure(path: &Path, what: &str) -> Self {
        let failures = vec![format!("{}: {what}", path.display())];
        Self { failed: 1, failures, ..Self::default() }
    }

    /// Of a file with which nothing is to be done, and that seems to have so many run lines.
    pub(super) fn skip(why: String, runs: usize) -> Self {
        Self { runs, skipped: runs, skips: BTreeMap::from([(why, runs)]), ..Self::default() }
    }

    /// Whether everything is as it should be, but for what was skipped.
    pub fn is_ok(&self) -> bool {
        self.failed == 0 && self.left_in_ledger == 0 && self.unfreed == 0
    }

    fn add(&mut self, other: &Self) {
        self.functions += other.functions;
        self.with_points += other.with_points;
        self.points += other.points;
        self.runs += other.runs;
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.replacements += other.replacements;
        self.in_place += other.in_place;
        self.left_in_ledger += other.left_in_ledger;
        self.unfreed += other.unfreed;
        self.failures.extend_from_slice(&other.failures);
        self.printed.extend_from_slice(&other.printed);
        for (into, from) in [(&mut self.skips, &other.skips), (&mut self.notes, &other.notes)] {
            for (what, count) in from {
                *into.entry(what.clone()).or_default() += count;
            }
        }
    }
}

/// What came of several files.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many files there were.
    pub files: usize,
    /// Everything together.
    pub total: FileReport,
    /// In how many files run lines were skipped, by reason.
    files_by_skip: BTreeMap<String, usize>,
}

impl Summary {
    /// Adds a file.
    pub fn add(&mut self, report: &FileReport) {
        self.files += 1;
        self.total.add(report);
        for why in report.skips.keys() {
            *self.files_by_skip.entry(why.clone()).or_default() += 1;
        }
    }

    /// The counts as one JSON object, and then why lines were skipped.
    pub fn json(&self) -> serde_json::Value {
        let total = &self.total;
        serde_json::json!({
            "files": self.files,
            "functions": total.functions,
            "with_points": total.with_points,
            "points": total.points,
            "runs": total.runs,
            "passed": total.passed,
            "failed": total.failed,
            "skipped": total.skipped,
            "replacements": total.replacements,
            "in_place": total.in_place,
            "left_in_ledger": total.left_in_ledger,
            "unfreed": total.unfreed,
            "skips": total.skips,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = &self.total;
        for line in &total.printed {
            writeln!(f, "{line}")?;
        }
        for failure in &total.failures {
            writeln!(f, "FAILED {failure}")?;
        }
        writeln!(
            f,
            "{} files, {} functions, {} run lines",
            self.files, total.functions, total.runs
        )?;
        writeln!(f, "{} functions with {} points", total.with_points, total.points)?;
        writeln!(f, "{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped)?;
        for (why, lines) in &total.skips {
            let files = self.files_by_skip[why];
            writeln!(f, "    skipped: {lines} run lines in {files} files: {why}")?;
        }
        for (note, lines) in &total.notes {
            writeln!(f, "    noted: {lines} run lines: {note}")?;
        }
        write!(
            f,
            "{} replacements, {} of them at the same address, {} frames left in ledgers, {} versions \
             not freed",
            total.replacements, total.in_place, total.left_in_ledger, total.unfreed
        )
    }
}
