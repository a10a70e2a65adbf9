//! The `target` and `set` lines of a file, and what they ask of the host.
//!
//! They are read here and not by `cranelift_reader`, which passes over `target` lines for backends
//! that it was built without, and then takes the `set` lines before them for errors.

use std::fmt;
use std::str::FromStr;

use cranelift_codegen::isa;
use cranelift_codegen::settings::{self, Configurable, Flags, SetError, Value};
use target_lexicon::Triple;

use super::refusal::Trouble;

/// The lines that say for what a file is, apart from the rest of it.
pub(super) struct Preamble {
    targets: Vec<TargetLine>,
    /// What was set in all, for a file without targets.
    set: Words,
    /// The file with those lines blank, so that lines have the numbers that they had.
    pub(super) rest: String,
}

struct TargetLine {
    label: String,
    set: Words,
    triple: String,
    features: Words,
}

/// Settings as they are written: `name` or `name=value`.
type Words = Vec<String>;

/// A way in which a file is to be run.
pub(super) struct Target {
    /// The line, or what stands for it in a file without any.
    pub(super) label: String,
    /// The flags for the engine, or what is in the way.
    pub(super) flags: Result<Vec<(String, String)>, Trouble>,
}

impl Preamble {
    pub(super) fn split(text: &str) -> Self {
        let (mut targets, mut set, mut rest) = (Vec::new(), Words::new(), String::new());
        let mut in_preamble = true;
        for line in text.lines() {
            let directive = line.split(';').next().unwrap_or_default();
            let mut words = directive.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("function") => in_preamble = false,
                Some("set") if in_preamble => {
                    set.extend(words);
                    rest.push('\n');
                    continue;
                }
                Some("target") if in_preamble => {
                    targets.push(TargetLine {
                        label: directive.trim().to_owned(),
                        set: set.clone(),
                        triple: words.next().unwrap_or_default(),
                        features: words.collect(),
                    });
                    rest.push('\n');
                    continue;
                }
                _ => {}
            }
            rest.push_str(line);
            rest.push('\n');
        }
        Self { targets, set, rest }
    }

    /// How the file is to be run on a host that has these flags: none if it is for others.
    pub(super) fn targets(&self, host: &Triple, features: &[Value]) -> Vec<Target> {
        if self.targets.is_empty() {
            return vec![Target { label: "no target".to_owned(), flags: shared(&self.set) }];
        }
        let ours = self.targets.iter().filter_map(|line| {
            let triple = Triple::from_str(&line.triple).ok()?;
            (triple.architecture == host.architecture).then_some((line, triple))
        });
        ours.map(|(line, triple)| {
            let flags = shared(&line.set).and_then(|mut flags| {
                flags.extend(of_processor(triple, &line.features, features)?);
                Ok(flags)
            });
            Target { label: line.label.clone(), flags }
        })
        .collect()
    }
}

/// The shared flags that `set` lines ask for.
fn shared(words: &Words) -> Result<Vec<(String, String)>, Trouble> {
    let mut builder = settings::builder();
    let set = |word: &String| {
        apply(&mut builder, word)?;
        let (name, value) = word.split_once('=').unwrap_or((word, "true"));
        Ok((name.to_owned(), value.to_owned()))
    };
    words.iter().map(set).collect()
}

/// All flags of the instruction set, as a target line has them, if the host has what it asks for.
fn of_processor(
    triple: Triple,
    words: &Words,
    host: &[Value],
) -> Result<Vec<(String, String)>, Trouble> {
    let failed = |error: &dyn fmt::Display| Trouble::Failed(error.to_string());
    let mut builder = isa::lookup(triple).map_err(|error| failed(&error))?;
    for word in words {
        apply(&mut builder, word)?;
    }
    let isa = builder.finish(Flags::new(settings::builder())).map_err(|error| failed(&error))?;
    let asked = isa.isa_flags();
    // The others are choices of the compiler's, and any processor can do either.
    let features = asked.iter().filter(|flag| flag.name.starts_with("has_"));
    let missing = |flag: &&Value| {
        let on_host = host.iter().find(|host| host.name == flag.name).and_then(Value::as_bool);
        flag.as_bool() == Some(true) && on_host != Some(true)
    };
    let missing: Vec<_> = features.filter(missing).map(|flag| flag.name).collect();
    if !missing.is_empty() {
        return Err(Trouble::Refused(format!("the processor lacks {}", missing.join(", "))));
    }
    Ok(asked.iter().map(|flag| (flag.name.to_owned(), flag.value_string())).collect())
}

fn apply(builder: &mut dyn Configurable, word: &str) -> Result<(), Trouble> {
    let set = match word.split_once('=') {
        Some((name, value)) => builder.set(name, value),
        None => builder.enable(word),
    };
    set.map_err(|error| match error {
        SetError::BadName(name) => {
            Trouble::Refused(format!("this version of Cranelift has no flag `{name}`"))
        }
        error => Trouble::Failed(format!("`{word}`: {error}")),
    })
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    const TEXT: &str = "test run
set opt_level=speed enable_heap_access_spectre_mitigation=false ; a comment
target s390x
target x86_64 has_popcnt has_avx=false
set opt_level=none
set is_pic
target x86_64 has_avx512f
target no_such_machine
function %f() {
; target x86_64
block0:
    return
}
";

    #[test]
    fn a_target_has_what_was_set_before_it_and_no_feature_but_its_own() {
        let mut able = isa::lookup(Triple::host()).unwrap();
        able.enable("has_popcnt").unwrap();
        able.enable("has_avx").unwrap();
        let host = able.finish(Flags::new(settings::builder())).unwrap();
        let preamble = Preamble::split(TEXT);
        let targets = preamble.targets(host.triple(), &host.isa_flags());
        let labels: Vec<_> = targets.iter().map(|target| target.label.as_str()).collect();
        let first = "target x86_64 has_popcnt has_avx=false";
        assert_eq!(labels, [first, "target x86_64 has_avx512f"]);

        let flags = targets[0].flags.as_ref().unwrap();
        let flag = |name: &str| {
            let last = flags.iter().rfind(|(flag, _)| flag == name);
            last.map(|(_, value)| value.as_str())
        };
        assert_eq!(flag("opt_level"), Some("speed"));
        assert_eq!(flag("enable_heap_access_spectre_mitigation"), Some("false"));
        assert_eq!(flag("is_pic"), None);
        assert_eq!(flag("has_popcnt"), Some("true"));
        assert_eq!(flag("has_avx"), Some("false"));
        assert_eq!(flag("has_lzcnt"), Some("false"));

        let missing = targets[1].flags.as_ref().unwrap_err();
        assert!(
            matches!(missing, Trouble::Refused(why) if why == "the processor lacks has_avx512f"),
            "{missing:?}"
        );
    }

    #[test]
    fn without_targets_a_file_has_all_that_was_set_and_every_feature_of_the_host() {
        let text = TEXT.replace("target ", "; target ");
        let targets = Preamble::split(&text).targets(&Triple::host(), &[]);
        let [Target { label, flags: Ok(flags) }] = &*targets else { panic!("not one target") };
        assert_eq!(label, "no target");
        let set = [
            ("opt_level", "speed"),
            ("enable_heap_access_spectre_mitigation", "false"),
            ("opt_level", "none"),
            ("is_pic", "true"),
        ];
        assert_eq!(*flags, set.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn lines_keep_their_numbers() {
        let rest = Preamble::split(TEXT).rest;
        for (number, (line, before)) in rest.lines().zip(TEXT.lines()).enumerate() {
            let is_directive = before.starts_with("set") || before.starts_with("target");
            assert_eq!(line, if is_directive { "" } else { before }, "{number}");
        }
        assert_eq!(rest.lines().count(), TEXT.lines().count());
    }
}
