//! The layers of a crate, read from its sources: which there are, and which import which.
//!
//! `lib.rs` declares the layers in their order, lowest first. The files beside them, before the
//! first layer that is a folder, belong to that one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The layers of a crate.
#[derive(Debug)]
pub struct Architecture {
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// Every import, of another layer or the same.
    pub imports: Vec<Import>,
}

/// A layer.
#[derive(Debug)]
pub struct Layer {
    /// The name of its folder.
    pub name: String,
    /// Its files but for those of tests, from the sources' folder.
    pub files: Vec<PathBuf>,
    /// The first paragraph of its documentation.
    pub summary: String,
}

/// A place that names something of a layer.
#[derive(Debug, PartialEq, Eq)]
pub struct Import {
    /// The file that imports, from the sources' folder.
    pub file: PathBuf,
    /// The layer that the file is in, by its index.
    pub from: usize,
    /// The layer of what it names.
    pub to: usize,
    /// What that is, from `crate` on.
    pub name: String,
}

impl Architecture {
    /// Reads the sources below a folder with a `lib.rs`.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn read(src: &Path) -> io::Result<Self> {
        let lib = fs::read_to_string(src.join("lib.rs"))?;
        let modules = lib.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        let mut layer_of = HashMap::new();
        let mut layers = Vec::new();
        for module in modules {
            layer_of.insert(module.to_owned(), layers.len());
            let files = src.join(module);
            if files.is_dir() {
                let mod_rs = fs::read_to_string(files.join("mod.rs"))?;
                let docs = mod_rs.lines().map_while(|line| line.strip_prefix("//!"));
                let first = docs.map(str::trim).take_while(|line| !line.is_empty());
                let summary = first.collect::<Vec<_>>().join(" ");
                layers.push(Layer { name: module.to_owned(), files: Vec::new(), summary });
            }
        }
        for (public, module) in re_exports(&lib) {
            if let Some(&layer) = layer_of.get(module) {
                layer_of.insert(public.to_owned(), layer);
            }
        }
        let mut imports = Vec::new();
        for file in files(src)? {
            let module = file.components().next().map(|first| Path::new(first.as_os_str()));
            let module = module.and_then(Path::file_stem).and_then(|stem| stem.to_str());
            let Some(&from) = module.and_then(|module| layer_of.get(module)) else { continue };
            let text = fs::read_to_string(src.join(&file))?;
            for name in names(&text) {
                let first = name.split("::").next().unwrap_or_default();
                if let Some(&to) = layer_of.get(first) {
                    imports.push(Import { file: file.clone(), from, to, name });
                }
            }
            layers[from].files.push(file);
        }
        Ok(Self { layers, imports })
    }

    /// The imports of a higher layer, each as a message that names both.
    pub fn upward(&self) -> Vec<String> {
        let upward = self.imports.iter().filter(|import| import.to > import.from);
        let message = |Import { file, from, to, name }: &Import| {
            let [from, to] = [from, to].map(|&layer| &self.layers[layer].name);
            let file = file.display();
            format!("{file}: the layer `{from}` imports `{to}`, which is above it: crate::{name}")
        };
        upward.map(message).collect()
    }
}

/// What `lib.rs` makes public, with the module that it is from.
fn re_exports(lib: &str) -> impl Iterator<Item = (&str, &str)> {
    let uses = lib.split(';').filter_map(|item| item.trim().rsplit_once("pub use ")).map(|it| it.1);
    uses.flat_map(|path| {
        let module = path.split("::").next().unwrap_or_default();
        let last = path.rsplit_once("::").map_or(path, |(_, last)| last);
        let last = path.split_once('{').map_or(last, |(_, group)| group.trim_end_matches('}'));
        last.split(',').map(move |name| (name.trim(), module))
    })
}

/// What a text names from `crate` on, but for its comments.
fn names(text: &str) -> Vec<String> {
    let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let path = |text: &str| -> String {
            let end = text.find(|c: char| c != ':' && c != '_' && !c.is_alphanumeric());
            text[..end.unwrap_or(text.len())].to_owned()
        };
        match rest.strip_prefix('{').and_then(|group| group.split_once('}')) {
            Some((group, _)) => names.extend(group.split(',').map(|name| path(name.trim()))),
            None => names.push(path(rest)),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The sources below a folder, but for those of tests.
fn files(src: &Path) -> io::Result<Vec<PathBuf>> {
    const TESTS: [&str; 3] = ["tests", "refusals", "process"];

    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(src.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if TESTS.contains(&stem) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Where the sources of `lastout` are.
pub fn runtime_sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/src")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_of_the_runtime_go_down_only() {
        let architecture = Architecture::read(&runtime_sources()).unwrap();
        let names: Vec<_> = architecture.layers.iter().map(|layer| &*layer.name).collect();
        let expected = ["version", "host", "unwind", "code", "gates", "function", "unit", "engine"];
        assert_eq!(names, expected);
        assert!(architecture.imports.len() > 200, "{}", architecture.imports.len());
        let upward = architecture.upward();
        assert!(upward.is_empty(), "{}", upward.join("\n"));
    }

    #[test]
    fn layers_say_what_they_may_know() {
        for Layer { name, summary, .. } in Architecture::read(&runtime_sources()).unwrap().layers {
            let says = summary.contains("may know");
            // The highest may know all.
            let restricts = summary.contains("must not know") || name == "engine";
            assert!(says && restricts, "{name}: {summary}");
        }
    }

    #[test]
    fn an_import_that_goes_up_is_found() {
        let folder = std::env::temp_dir().join(format!("lastout-layers-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("lib.rs", "mod error;\nmod low;\n\nmod high;\n\npub use high::{Other, Top};\n");
        write("error.rs", "use crate::low::Thing;\n");
        write("low/mod.rs", "//! Low.\nuse crate::{\n    Top, error::Error,\n};\n// crate::high\n");
        write("low/tests.rs", "use crate::high::Top;\n");
        write("high/mod.rs", "//! High.\nuse crate::low::Thing;\n");
        let found = Architecture::read(&folder).unwrap();
        assert_eq!(
            found.upward(),
            ["low/mod.rs: the layer `low` imports `high`, which is above it: crate::Top"]
        );
        assert_eq!(found.imports.len(), 4);
        fs::remove_dir_all(folder).unwrap();
    }
}
