//! Files in directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The file, or the `.clif` files in the directory and those below, by name.
///
/// # Errors
///
/// If the path does not exist, or a directory cannot be read.
pub fn find_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path)?;
    let mut entries = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            found.extend(find_files(&entry)?);
        } else if entry.extension().is_some_and(|extension| extension == "clif") {
            found.push(entry);
        }
    }
    Ok(found)
}
