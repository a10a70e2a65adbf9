//! Layers of generated code that call each other, of every kind of frame that there is, for what
//! leaves them otherwise than by returning.
//!
//! A *layer* is a function `(callback, i64) -> i64` that calls what is below it, of that type, and
//! adds one to its result. It does so by way of an *inner* function of its own, which has one of
//! many [kinds](Kind) of signature. Both have values in registers while they call, and trap if these
//! change.

#![expect(clippy::missing_panics_doc, reason = "whatever fails here fails the test")]

use std::fmt::Write;

use lastout::{Counting, Engine, EngineBuilder};

use crate::support::{COUNTINGS, Drops, install_counted};

/// A kind of signature.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What to call it.
    pub name: &'static str,
    convention: &'static str,
    /// The types of further parameters.
    more: &'static [&'static str],
    /// The types of further results; `None` if there is none at all.
    results: Option<&'static [&'static str]>,
}

const fn kind(
    name: &'static str,
    convention: &'static str,
    more: &'static [&'static str],
    results: &'static [&'static str],
) -> Kind {
    Kind { name, convention, more, results: Some(results) }
}

/// Kinds whose gates are machine code, are compiled, and are shared by tail-calling functions.
pub const KINDS: [Kind; 15] = [
    kind("plain", "system_v", &[], &[]),
    kind("fast", "fast", &["f64", "i64"], &["f64"]),
    kind("vector", "system_v", &["f32x4"], &["f32x4"]),
    kind("wide", "system_v", &["i128"], &[]),
    kind("stack", "system_v", &["i64", "i64", "i64", "i64", "i64", "i64", "i64"], &[]),
    kind("results", "system_v", &[], &["i64", "f64", "i64", "i64", "f64", "f64"]),
    kind("wide_results", "system_v", &["i128"], &["i128", "i64"]),
    kind("structs", "system_v", &["i64 sarg(16)", "i64 sarg(64)"], &[]),
    kind("windows", "windows_fastcall", &[], &[]),
    kind("windows_stack", "windows_fastcall", &["f64", "i64", "f32x4", "i64", "f64"], &[]),
    Kind { name: "preserve_all", convention: "preserve_all", more: &["f64"], results: None },
    kind("tail", "tail", &[], &[]),
    kind("tail_stack", "tail", &["i64", "i64", "i64", "i64", "i64", "i64", "i64", "f64"], &[]),
    kind("tail_wide", "tail", &["i128", "f32x4"], &["i128"]),
    kind("tail_results", "tail", &["f64"], &["i64"; 14]),
];

/// What values in registers are loaded from: nobody can know them while compiling.
static NUMBERS: [i64; 8] =
    [0x1001, 0x1_0002, 0x10_0003, 0x100_0004, 0x1000_0005, 0x1_0000_0006, 0x10_0000_0007, 8];

impl Kind {
    /// The inner function of a layer: `name_inner`, above `callee`.
    ///
    /// `live` is how many values, at most eight, it has in registers while it calls. From four on
    /// it uses all that calls keep.
    pub fn inner(&self, name: &str, callee: &str, live: usize) -> String {
        let mut text = Text::default();
        let by_pointer = self.results.is_none().then_some("i64");
        let more: String = self
            .more
            .iter()
            .map(|ty| format!(", {ty}"))
            .chain(by_pointer.map(|_| ", i64".into()))
            .collect();
        let types = self.more.iter().copied().chain(by_pointer);
        let results = self.results.map(|more| {
            format!("-> i64{}", more.iter().map(|ty| format!(", {ty}")).collect::<String>())
        });
        let params: Vec<_> = types.map(|ty| format!("{}: {}", text.value(), plain(ty))).collect();
        let pointer = params.last().and_then(|param| param.split(':').next()).map(str::to_owned);
        let params: String = params.iter().map(|param| format!(", {param}")).collect();
        text.hold(live);
        let called = text.line("call fn0(v0, v1)");
        text.check();
        let one = text.line("iconst.i64 1");
        let sum = text.line(&format!("iadd {called}, {one}"));
        let last = match self.results {
            Some(more) => {
                let more: Vec<_> = more.iter().map(|ty| text.make(ty)).collect();
                format!(
                    "return {sum}{}",
                    more.iter().map(|it| format!(", {it}")).collect::<String>()
                )
            }
            None => {
                let pointer = pointer.unwrap_or_default();
                text.effect(&format!("store.i64 notrap aligned {sum}, {pointer}"));
                "return".to_owned()
            }
        };
        format!(
            "function %{name}_inner(i64, i64{more}) {} {} {{
                ss0 = explicit_slot 64
                fn0 = %{callee}(i64, i64) -> i64 system_v
             block0(v0: i64, v1: i64{params}):
                {}
                {last}
             }}\n",
            results.unwrap_or_default(),
            self.convention,
            text.take(),
        )
    }

    /// The function of a layer that is called from above, and calls the inner one.
    pub fn outer(&self, name: &str, live: usize) -> String {
        let mut text = Text::default();
        let mut arguments: String =
            self.more.iter().map(|ty| format!(", {}", text.make(ty))).collect();
        let mut more: String = self.more.iter().map(|ty| format!(", {ty}")).collect();
        let results = self.results.map(|results| {
            format!("-> i64{}", results.iter().map(|ty| format!(", {ty}")).collect::<String>())
        });
        let pointer = self.results.is_none().then(|| text.line("stack_addr.i64 ss0"));
        if let Some(pointer) = &pointer {
            arguments += &format!(", {pointer}");
            more += ", i64";
        }
        text.hold(live);
        let call = format!("call fn0(v0, v1{arguments})");
        let result = match (self.results, pointer) {
            (Some(more), _) => {
                let results: Vec<_> = (0..=more.len()).map(|_| text.value()).collect();
                text.effect(&format!("{} = {call}", results.join(", ")));
                results[0].clone()
            }
            (None, pointer) => {
                text.effect(&call);
                text.line(&format!("load.i64 notrap aligned {}", pointer.unwrap_or_default()))
            }
        };
        text.check();
        format!(
            "function %{name}(i64, i64) -> i64 system_v {{
                ss0 = explicit_slot 64
                fn0 = %{name}_inner(i64, i64{more}) {} {}
             block0(v0: i64, v1: i64):
                {}
                return {result}
             }}\n",
            results.unwrap_or_default(),
            self.convention,
            text.take(),
        )
    }

    /// Installs a layer `name` above `callee`: two units, with something attached to each.
    pub fn install(&self, engine: &Engine, name: &str, callee: &str, live: usize, drops: &Drops) {
        install_counted(engine, &self.inner(name, callee, live), drops);
        install_counted(engine, &self.outer(name, live), drops);
    }
}

/// The type of a parameter without its purpose.
fn plain(ty: &str) -> &str {
    ty.split(' ').next().unwrap_or(ty)
}

/// Instructions in the making, which number their values from ten on, and hold values in registers
/// that are to be what they were.
pub struct Text {
    lines: String,
    values: usize,
    held: Vec<String>,
}

impl Default for Text {
    fn default() -> Self {
        Self { lines: String::new(), values: 10, held: Vec::new() }
    }
}

impl Text {
    /// The instructions so far; more can follow in another block.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.lines)
    }

    /// A value that is to be defined.
    pub fn value(&mut self) -> String {
        self.values += 1;
        format!("v{}", self.values)
    }

    /// An instruction, whose value is returned.
    pub fn line(&mut self, instruction: &str) -> String {
        let value = self.value();
        writeln!(self.lines, "{value} = {instruction}").ok();
        value
    }

    /// An instruction without a value.
    pub fn effect(&mut self, instruction: &str) {
        writeln!(self.lines, "{instruction}").ok();
    }

    /// A value of a type; if that is a struct, of one in `ss0`.
    fn make(&mut self, ty: &str) -> String {
        match ty {
            "i64" => self.line("iconst.i64 77"),
            "i128" => {
                let half = self.line("iconst.i64 78");
                self.line(&format!("iconcat {half}, {half}"))
            }
            "f64" => self.line("f64const 0x1.8p3"),
            "f32x4" => {
                let lane = self.line("f32const 0x1.8p3");
                self.line(&format!("splat.f32x4 {lane}"))
            }
            _ => self.line("stack_addr.i64 ss0"),
        }
    }

    /// Loads numbers, at most eight, which nobody can know while compiling. From four on they take
    /// all registers that calls keep.
    pub fn hold(&mut self, live: usize) {
        if live == 0 {
            return;
        }
        let address = std::ptr::from_ref(&NUMBERS).expose_provenance();
        let numbers = self.line(&format!("iconst.i64 {address}"));
        for index in 0..live {
            let loaded = self.line(&format!("load.i64 notrap aligned {numbers}+{}", 8 * index));
            self.held.push(loaded);
        }
    }

    /// Traps unless they are what they were.
    pub fn check(&mut self) {
        for (value, number) in self.held.clone().iter().zip(NUMBERS) {
            let number = self.line(&format!("iconst.i64 {number}"));
            let differ = self.line(&format!("icmp ne {value}, {number}"));
            self.effect(&format!("trapnz {differ}, user42"));
        }
    }
}

/// An engine for each way in which gates are made: with either way to count, and with a hook
/// between their steps, for which all of them are compiled.
pub fn engines(builder: impl Fn() -> EngineBuilder) -> impl Iterator<Item = (String, Engine)> {
    extern "C" fn hook() {}

    let ways = COUNTINGS.into_iter().flat_map(|counting| [(counting, false), (counting, true)]);
    ways.map(move |(counting, interleave): (Counting, bool)| {
        let builder = builder()
            .counting(counting)
            .flag("enable_llvm_abi_extensions", "true")
            .flag("enable_multi_ret_implicit_sret", "true");
        let builder = if interleave { builder.interleave(hook) } else { builder };
        let name = format!("{counting:?}{}", if interleave { ", with hooks" } else { "" });
        (name, builder.build().expect("there is memory for an engine"))
    })
}

/// How many frames there are in all versions of functions.
pub fn frames(engine: &Engine, names: &[&str]) -> u64 {
    let versions = names.iter().flat_map(|name| engine.versions(name).expect("it is known"));
    versions.map(|version| version.frames()).sum()
}
