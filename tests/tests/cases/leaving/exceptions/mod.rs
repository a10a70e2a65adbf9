//! Exceptions of generated code: which handler gets them, with what, and what is left on the way.

mod handlers;
mod passed;
mod refused;
mod uncaught;

use lastout::throw;
use lastout_tests::layers::Text;
use lastout_tests::support::Callback;

/// What a callback does with a number: from 100 on it throws it, with the tag that is a hundredth
/// of it.
fn pass_or_throw(number: i64) -> i64 {
    if number < 100 {
        return number;
    }
    // SAFETY: there is nothing to drop between here and the generated code.
    let uncaught = unsafe { throw((number / 100) as u32, [number as u64, 5]) };
    panic!("{uncaught}");
}

/// A callback that does that.
fn throwing<'a>() -> Callback<'a> {
    Callback::new(pass_or_throw)
}

/// What a function returns that has [caught](Catching) a number, by which of its handlers.
fn caught(handler: i64, number: i64) -> i64 {
    1_000_000 * handler + 5000 + number
}

/// How a function catches.
#[derive(Clone, Copy)]
struct Catching<'a> {
    /// Its calling convention.
    convention: &'a str,
    /// Further parameters, which are there to take room on the stack.
    more: usize,
    /// What it calls, with its first two arguments, and how that is called.
    callee: &'a str,
    callee_convention: &'a str,
    /// The tags that it catches, in this order; 0 is any.
    tags: &'a [u32],
    /// How many values it holds in registers.
    live: usize,
}

impl Default for Catching<'_> {
    fn default() -> Self {
        Self {
            convention: "system_v",
            more: 0,
            callee: "call_back",
            callee_convention: "system_v",
            tags: &[1],
            live: 8,
        }
    }
}

impl Catching<'_> {
    /// A function that returns what the callee does, or what it has [caught](caught()).
    fn function(self, name: &str) -> String {
        let Self { convention, more, callee, callee_convention, tags, live } = self;
        let mut text = Text::default();
        let types = ", i64".repeat(more);
        let params: String = (0..more).map(|_| format!(", {}: i64", text.value())).collect();
        text.hold(live);
        let before = text.take();
        text.check();
        let after = text.take();
        let mut handlers = Vec::new();
        let mut blocks = String::new();
        for (number, tag) in (1..).zip(tags) {
            let block = number + 1;
            handlers.push(match tag {
                0 => format!("default: block{block}(exn0, exn1)"),
                tag => format!("tag{tag}: block{block}(exn0, exn1)"),
            });
            let [first, second] = [text.value(), text.value()];
            text.check();
            let thousand = text.line("iconst.i64 1000");
            let second_thousand = text.line(&format!("imul {second}, {thousand}"));
            let sum = text.line(&format!("iadd {first}, {second_thousand}"));
            let handler = text.line(&format!("iconst.i64 {}", 1_000_000 * number));
            let sum = text.line(&format!("iadd {sum}, {handler}"));
            text.effect(&format!("return {sum}"));
            blocks += &format!("block{block}({first}: i64, {second}: i64):\n{}", text.take());
        }
        format!(
            "function %{name}(i64, i64{types}) -> i64 {convention} {{
                sig0 = (i64, i64) -> i64 {callee_convention}
                fn0 = %{callee}(i64, i64) -> i64 {callee_convention}
             block0(v0: i64, v1: i64{params}):
                {before}
                try_call fn0(v0, v1), sig0, block1(ret0), [ {} ]
             block1(v2: i64):
                {after}
                return v2
             {blocks}
             }}\n",
            handlers.join(", "),
        )
    }
}
