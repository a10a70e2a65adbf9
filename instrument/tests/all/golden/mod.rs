//! What the passes make of given functions, as text that can be read and compared.
//!
//! A file of `golden/` is a header, functions in CLIF, a line `; ---- after ----`, and what the
//! pass makes of each function. The header's lines are `; key: value`:
//! - `pass`: `gate`, `machine_gate`, `tail_gate`, `host_entry`, `machine_entry`, `c_entry`,
//!   `zeros`, `preserving_stub`, `route_calls` or `resume`. A gate, or entry, is made for the
//!   signature of the function, whose body is left empty. After `gate`, `tail_gate`, `host_entry`
//!   and `c_entry` comes how it counts, `plain` or `atomic`, plain if left out, and `interleave` if
//!   it should. `host_entry` and `machine_entry` take functions by twos: the first has the outer
//!   signature, the second the inner one. After the gates in machine code come the tails that they
//!   share; `tail_gate` takes no function, and makes a head, too.
//! - `target`: the architecture, x86-64 if left out.
//! - `replaceable`, `fixed`: for `route_calls`, the indices of the functions that are declared.
//! - `dispatch`: for `route_calls`, `patched` if calls are to be patched.
//! - `point`: for `resume`, the number of a point and its place, a block or the first, second and
//!   so on of the calls, from `call0` on, and then labels, such as `v3=7`. There may be several.
//! - `converter`: for `resume`, the number of a point, and types that are alive at it elsewhere.
//! - `valid`: `no` if Cranelift's verifier would refuse the functions, too.
//! - `print`: `code` to show instructions of the machine where they are of interest, else CLIF.
//!
//! In the output the symbols of this crate have their names, `@0001` comes before a call of a body,
//! and `refused:` before an error.
//!
//! `BLESS=1 cargo test -p lastout-instrument --test all golden` writes what is the output now below
//! that line; read the difference before it is committed.

mod resumed;

use std::path::Path;
use std::{env, fs};

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{Function, Signature};
use cranelift_codegen::isa::TargetIsa;
use cranelift_reader::parse_functions;
use lastout_instrument::{
    Callee, Dispatch, Error, GateOptions, LaneLayout, MachineCode, Symbol, c_entry, check_entry,
    check_gate, gate, host_entry, machine_entry, machine_gate, machine_tails, preserving_stub,
    route_calls, tail_gate, tail_gate_head, zeros,
};
use lastout_reclaim::Counting;

use crate::machine::listing;
use crate::support;

/// Where all entries, and the tails of gates, find things.
const LAYOUT: LaneLayout =
    LaneLayout { function: 296, cell_offset: 8, current: -88, lane: 16, no_version: 24 };

const AFTER: &str = "; ---- after ----\n";

#[test]
fn golden() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bless = env::var_os("BLESS").is_some();
    let mut files: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no files in {}", folder.display());
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let (input, expected) = text.split_once(AFTER).unwrap_or((&text, ""));
        let output = output(&name, input);
        if output == expected {
            continue;
        }
        if bless {
            fs::write(&file, format!("{input}{AFTER}{output}")).unwrap();
        } else {
            wrong.push(format!("{name}: expected\n{expected}\nbut got\n{output}"));
        }
    }
    assert!(wrong.is_empty(), "{}\nBLESS=1 accepts what it is now.", wrong.join("\n"));
}

/// What the part of the file above the line asks for.
fn output(name: &str, input: &str) -> String {
    let header = Header::of(input);
    let isa = support::isa(header.get("target").unwrap_or("x86_64"));
    let functions = parse_functions(input).unwrap_or_else(|error| panic!("{name}: {error}"));
    let with_body = functions.iter().filter(|function| function.layout.entry_block().is_some());
    if header.get("valid") != Some("no") {
        with_body.for_each(|function| support::verify(function, &*isa));
    }
    match header.get("pass") {
        Some("machine_gate") => return machine_gates(&functions, &*isa),
        Some("machine_entry") => return machine_entries(&functions, &*isa),
        Some("resume") => return resumed::resumed(name, &header, &functions, &*isa),
        Some(pass) if let Some(words) = pass.strip_prefix("tail_gate") => {
            let options = gate_options(name, &words.split_whitespace().collect::<Vec<_>>());
            let head = tail_gate_head(48, &*isa);
            let parts = [("head", head), ("gate", tail_gate(LAYOUT, options, &*isa))];
            return listings(parts.into_iter());
        }
        _ => {}
    }
    let outputs: Vec<String> = results(name, &header, functions, &*isa)
        .into_iter()
        .map(|result| match result {
            Ok(func) => {
                support::verify(&func, &*isa);
                match header.get("print") {
                    None => with_symbols(&func, func.display().to_string()),
                    Some("code") => code(func, &*isa),
                    Some(other) => panic!("{name}: no way to print {other}"),
                }
            }
            Err(error) => format!("; refused: {error}\n"),
        })
        .collect();
    outputs.join("\n")
}

/// What the pass makes of the functions.
fn results(
    name: &str,
    header: &Header<'_>,
    functions: Vec<Function>,
    isa: &dyn TargetIsa,
) -> Vec<Result<Function, Error>> {
    let pass = header.get("pass").unwrap_or_else(|| panic!("{name}: which pass?"));
    let signatures = functions.iter().map(|function| &function.signature);
    match pass.split(' ').collect::<Vec<_>>()[..] {
        ["gate", ref rest @ ..] => {
            let options = gate_options(name, rest);
            let checked = |func: Function| {
                check_gate(&func, isa).unwrap_or_else(|violation| panic!("{name}: {violation}"));
                func
            };
            signatures.map(|signature| gate(signature, options, isa).map(checked)).collect()
        }
        ["c_entry", ref rest @ ..] => {
            let options = gate_options(name, rest);
            signatures
                .map(|signature| {
                    let func = c_entry(signature, LAYOUT, options, isa)?;
                    Ok(checked_entry(name, func, signature, isa))
                })
                .collect()
        }
        ["host_entry", ref rest @ ..] => {
            let options = gate_options(name, rest);
            functions
                .chunks(2)
                .map(|pair| {
                    let (outer, inner) = (&pair[0].signature, &pair[1].signature);
                    let func = host_entry(outer, inner, LAYOUT, options, isa)?;
                    Ok(checked_entry(name, func, inner, isa))
                })
                .collect()
        }
        ["zeros"] => signatures.map(|signature| zeros(signature, isa)).collect(),
        ["preserving_stub"] => vec![Ok(preserving_stub(isa))],
        ["route_calls"] => {
            let callee = |index| match index {
                index if header.lists("replaceable", index) => Some(Callee::Replaceable),
                index if header.lists("fixed", index) => Some(Callee::Fixed),
                _ => None,
            };
            let dispatch = match header.get("dispatch") {
                Some("patched") => Dispatch::PatchedSites,
                Some(other) => panic!("{name}: there is no dispatch {other}"),
                None => Dispatch::Slot,
            };
            let route = |mut func| route_calls(&mut func, isa, dispatch, callee).map(|()| func);
            functions.into_iter().map(route).collect()
        }
        _ => panic!("{name}: there is no pass {pass}"),
    }
}

fn checked_entry(name: &str, func: Function, inner: &Signature, isa: &dyn TargetIsa) -> Function {
    check_entry(&func, inner, LAYOUT, isa).unwrap_or_else(|error| panic!("{name}: {error}"));
    func
}

/// What comes after the name of a pass that makes gates.
fn gate_options(name: &str, words: &[&str]) -> GateOptions {
    let (counting, rest) = match words {
        ["atomic", rest @ ..] => (Counting::Atomic, rest),
        ["plain", rest @ ..] => (Counting::Plain, rest),
        rest => (Counting::Plain, rest),
    };
    match rest {
        [] | ["interleave"] => GateOptions { counting, interleave: !rest.is_empty() },
        _ => panic!("{name}: no gate is {}", words.join(" ")),
    }
}

const PLAIN: GateOptions = GateOptions { counting: Counting::Plain, interleave: false };

/// The gates of the functions in machine code, as far as there are any, and the tails.
fn machine_gates(functions: &[Function], isa: &dyn TargetIsa) -> String {
    let gates = functions.iter().map(|function| machine_gate(&function.signature, PLAIN, isa));
    let [leave, bail] = match machine_tails(LAYOUT, isa) {
        Some(tails) => tails.map(Some),
        None => [None, None],
    };
    listings(gates.map(|gate| ("gate", gate)).chain([("leave tail", leave), ("bail tail", bail)]))
}

/// The entries of functions in machine code, as far as there are any, two functions for one.
fn machine_entries(functions: &[Function], isa: &dyn TargetIsa) -> String {
    let entries = functions
        .chunks(2)
        .map(|pair| machine_entry(&pair[0].signature, &pair[1].signature, LAYOUT, PLAIN, isa));
    listings(entries.map(|entry| ("entry", entry)))
}

fn listings<'a>(parts: impl Iterator<Item = (&'a str, Option<MachineCode>)>) -> String {
    let listings = parts.map(|(part, code)| match code {
        Some(code) => format!("{part}, {} bytes\n{}", code.bytes.len(), listing::listing(&code)),
        None => format!("{part}: none\n"),
    });
    listings.collect::<Vec<_>>().join("\n")
}

/// The instructions of the machine, before they are bytes.
fn code(func: Function, isa: &dyn TargetIsa) -> String {
    let mut context = Context::for_function(func);
    context.set_disasm(true);
    context.compile(isa, &mut ControlPlane::default()).expect("a gate compiles");
    let code = context.compiled_code().expect("it has just been compiled");
    let text = code.vcode.clone().expect("it was asked for");
    // The reader takes what is not a function for an error, unless it is a comment.
    let text = with_symbols(&context.func, text);
    text.trim_end().lines().map(|line| format!("; {line}").trim_end().to_owned() + "\n").collect()
}

/// Names the symbols, which Cranelift numbers in the order in which a function mentions them.
fn with_symbols(func: &Function, mut text: String) -> String {
    // From the last to the first: `userextname1` is how `userextname10` begins.
    for (name_ref, name) in func.params.user_named_funcs().iter().rev() {
        let readable = match Symbol::from_name(name.namespace, name.index) {
            Some(symbol) => format!("{symbol:?}"),
            None => name.to_string(),
        };
        text = text.replace(&name_ref.to_string(), &readable);
    }
    // Where an instruction has a source location, all others are moved to the right of that.
    let marked = text.contains("\n@");
    let line = |line: &str| match line.strip_prefix(&" ".repeat(32)) {
        Some(line) if marked => line.to_owned(),
        _ => match line.split_once(' ') {
            Some((mark, line)) if mark.starts_with('@') => format!("{mark} {}", line.trim_start()),
            _ => line.to_owned(),
        },
    };
    // Cranelift puts a space after some instructions that have no operands.
    text.lines().map(|text| line(text).trim_end().to_owned() + "\n").collect()
}

/// The lines `; key: value` above the first function.
struct Header<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Header<'a> {
    fn of(input: &'a str) -> Self {
        let lines = input.lines().map_while(|line| line.strip_prefix("; "));
        Self(lines.filter_map(|line| line.split_once(": ")).collect())
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(other, _)| *other == key).map(|(_, value)| *value)
    }

    /// The values of all lines with `key`.
    fn all(&self, key: &str) -> impl Iterator<Item = &'a str> {
        let lines = self.0.iter().filter(move |(other, _)| *other == key);
        lines.map(|(_, value)| *value)
    }

    /// Whether the value of `key` is a list with the function `u0:index`.
    fn lists(&self, key: &str, index: u32) -> bool {
        let name = format!("u0:{index}");
        self.get(key).is_some_and(|list| list.split(", ").any(|other| other == name))
    }
}
