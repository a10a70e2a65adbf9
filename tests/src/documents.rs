//! Documents name tests, files and terms that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace").into()
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// Files and folders below a folder, at any depth.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        found.extend(below(&path));
        found.push(path);
    }
    found
}

/// What is between backticks in a text, without listings.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|prose| prose.split('`').skip(1).step_by(2))
}

/// The cells of each row of the tables in a text, without heads.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().skip_while(|line| !line.starts_with("|---"));
    lines
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

/// The part of a text under a heading, to the next.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let heading = format!("\n# {heading}\n");
    let (_, rest) = text.split_once(&heading).unwrap_or_else(|| panic!("no {heading}"));
    rest.split("\n# ").next().unwrap_or(rest)
}

#[test]
fn tests_that_the_contract_cites_exist() {
    let contract = read("runtime/docs/contract.md");
    let mut tests: BTreeSet<_> = below(&root().join("tests/tests"))
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    assert!(tests.len() > 20, "the tests are not where they were");
    if root().join("reclaim/src/models").is_dir() {
        tests.insert("models".to_owned());
    }
    let mut cited = 0;
    for heading in ["Ways in", "Ways out"] {
        for row in rows(section(&contract, heading)) {
            let [way, .., by] = &*row else { panic!("{row:?} is no row") };
            if *by == "all of them" || by.is_empty() {
                continue;
            }
            for name in by.split(", ") {
                let test = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
                let test = test.unwrap_or_else(|| panic!("{way}: {name} is not in backticks"));
                assert!(tests.contains(test), "{way}: there is no test {test}");
                cited += 1;
            }
        }
    }
    assert!(cited > 20, "the tables are not what they were");
}

#[test]
fn the_glossary_has_each_term_once() {
    let glossary = read("runtime/docs/glossary.md");
    let terms: Vec<_> = rows(&glossary).map(|row| row[0].to_owned()).collect();
    assert!(terms.len() > 30, "the table is not what it was");
    assert!(terms.is_sorted_by(|one, next| one < next), "{terms:?}");
}

#[test]
fn files_that_documents_name_exist() {
    let from = [root(), root().join("runtime/src")];
    let mut missing = BTreeSet::new();
    for document in ["docs/internals.md", "README.md"] {
        let text = read(document);
        for name in quoted(&text).filter(|name| is_path(name)) {
            if !from.iter().any(|folder| folder.join(name).exists()) {
                missing.insert(format!("{document}: `{name}`"));
            }
        }
        let folder = root().join(document).parent().expect("it is in a folder").to_owned();
        for link in links(&text).filter(|link| !link.contains("://")) {
            if !folder.join(link).exists() {
                missing.insert(format!("{document}: ({link})"));
            }
        }
    }
    assert!(missing.is_empty(), "these do not exist: {missing:#?}");
}

/// Whether something in backticks is the path of a file or folder.
fn is_path(name: &str) -> bool {
    const ENDS: [&str; 8] = [".rs", ".md", ".svg", ".toml", ".clif", ".asm", ".sh", "/"];
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
    name.chars().all(plain) && (ENDS.iter().any(|end| name.ends_with(end)) || name.contains('/'))
}

/// What the links of a text lead to, without what is after a `#`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next())
}
