//! The mappings and files that the process has at the moment, for tests.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Tests that make engines or their memory hold this for reading, and tests that count what these
/// do or leave behind for writing. A fork, pretended or not, makes all engines do more.
static ENGINES: RwLock<()> = RwLock::new(());

/// For tests that make engines, or their memory, and can run while others do that.
pub(crate) fn among_others() -> RwLockReadGuard<'static, ()> {
    ENGINES.read().unwrap_or_else(PoisonError::into_inner)
}

/// For tests that look for what engines have left behind, or that refuse a system call.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    ENGINES.write().unwrap_or_else(PoisonError::into_inner)
}

/// A line of `/proc/self/maps`.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) addresses: Range<usize>,
    /// Such as `r-xs`.
    pub(crate) permissions: String,
    inode: u64,
    name: String,
}

impl Mapping {
    pub(crate) fn allows(&self, what: char) -> bool {
        self.permissions.contains(what)
    }

    /// Whether the mapping is of a file with code or read-only data.
    pub(crate) fn is_ours(&self) -> bool {
        self.name.starts_with("/memfd:lastout")
    }
}

pub(crate) fn mappings() -> Vec<Mapping> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mapping = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let address = |digits| usize::from_str_radix(digits, 16).ok();
        Some(Mapping {
            addresses: address(start)?..address(end)?,
            permissions: fields.next()?.to_owned(),
            inode: fields.nth(2)?.parse().ok()?,
            name: fields.collect::<Vec<_>>().join(" "),
        })
    };
    maps.lines().map(|line| mapping(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

/// The descriptors of the files with code and read-only data, each as a path that can be opened.
pub(crate) fn memory_files() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    // An entry that cannot be read is the directory itself, closed by now, or another test's.
    let is_ours = |path: &PathBuf| {
        fs::read_link(path).is_ok_and(|target| target.starts_with("/memfd:lastout (deleted)"))
    };
    entries.filter(is_ours).collect()
}

/// The file that is mapped at an address, opened once more: it shows what other processes see.
pub(crate) fn file_at(address: usize) -> File {
    let mappings = mappings();
    let mapping = mappings.iter().find(|mapping| mapping.addresses.contains(&address)).unwrap();
    let mut files = memory_files().into_iter().filter_map(|path| File::open(path).ok());
    files.find(|file| file.metadata().unwrap().ino() == mapping.inode).unwrap()
}
