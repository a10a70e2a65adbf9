//! The functions that are called, and the loops that call them, as CLIF.

use std::fmt::Write;

use lastout_tests::timed;

/// How a function is called.
#[derive(Clone, Copy)]
pub(crate) enum Call<'a> {
    /// By its name: directly, or in a unit as its linkage says.
    Name(&'a str),
    /// By what is in the slot at this address.
    Slot(usize),
}

impl Call<'_> {
    /// What a function needs before its first block, to call so as number `index`.
    pub(crate) fn declaration(self, index: usize) -> String {
        match self {
            Call::Name(name) => format!("fn{index} = {name}(i64) -> i64 system_v\n"),
            Call::Slot(_) => format!("sig{index} = (i64) -> i64 system_v\n"),
        }
    }

    /// The call that gives the value `result`. It takes the value numbers `result + 1000` and
    /// `result + 2000`, too.
    pub(crate) fn call(self, index: usize, result: usize, argument: usize) -> String {
        match self {
            Call::Name(_) => format!("v{result} = call fn{index}(v{argument})\n"),
            Call::Slot(address) => {
                let [pointer, gate] = [result + 1000, result + 2000];
                format!(
                    "v{pointer} = iconst.i64 {address}
                    v{gate} = load.i64 notrap aligned v{pointer}
                    v{result} = call_indirect sig{index}, v{gate}(v{argument})\n"
                )
            }
        }
    }
}

/// The literal scheme: what a function does where it begins and where it ends, to be counted in
/// the word at an address. It takes the value numbers from 900 to 904.
pub(crate) fn counting(counter: Option<usize>) -> [String; 2] {
    let Some(address) = counter else { return Default::default() };
    [
        format!(
            "v900 = iconst.i64 {address}
            v901 = iconst.i64 1
            v902 = atomic_rmw.i64 add v900, v901\n"
        ),
        "v903 = atomic_rmw.i64 sub v900, v901\n".to_owned(),
    ]
}

/// A callee of so many steps, which counts itself in `counter` if there is one.
pub(crate) fn callee(name: &str, steps: usize, counter: Option<usize>) -> String {
    let [entry, exit] = counting(counter);
    timed::callee(name, steps, [&entry, &exit])
}

/// A loop `name` that makes a call as often as the first argument says, each time with what it
/// returned last. Before that there are so many instructions that do nothing: where the loop lies
/// in a cache line, and whether its call can be patched in place, depends on them.
pub(crate) fn repeating(name: &str, call: Call<'_>, padding: usize) -> String {
    repeating_after(name, call, padding, "")
}

/// The same, in a function that is aligned to 16 bytes for the sake of a constant, and so cannot be
/// moved to where its call can be patched.
pub(crate) fn repeating_aligned(name: &str, call: Call<'_>, padding: usize) -> String {
    let constant = "v8 = vconst.i64x2 0x0102030405060708090a0b0c0d0e0f00\nstore notrap v8, v7\n";
    repeating_after(name, call, padding, constant)
}

fn repeating_after(name: &str, call: Call<'_>, padding: usize, before: &str) -> String {
    let mut nothing = format!("v7 = stack_addr.i64 ss0\n{before}");
    for index in 0..padding {
        // Five bytes of code each, so that eight of them lie in all ways there are.
        writeln!(nothing, "istore8 notrap v0, v7+{index}").expect("strings can be written to");
    }
    let declaration = call.declaration(0);
    let call = call.call(0, 4, 3);
    format!(
        "function {name}(i64, i64) -> i64 system_v {{
            ss0 = explicit_slot 64
            {declaration}
        block0(v0: i64, v1: i64):
            {nothing}
            jump block1(v0, v1)
        block1(v2: i64, v3: i64):
            {call}
            v5 = iconst.i64 -1
            v6 = iadd v2, v5
            brif v6, block1(v6, v4), block2
        block2:
            return v4
        }}
        "
    )
}
