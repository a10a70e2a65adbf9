//! The programs, as CLIF.

use lastout_tests::random::Random;

use crate::text::{Call, counting};

/// Functions that call each other. The first is the one to call.
pub(crate) trait Program {
    const NAME: &'static str;
    const WHAT: &'static str;

    fn functions(&self) -> usize;

    /// What the first function is called with.
    fn argument(&self) -> i64;

    /// How many calls that makes: of functions, or if there are none, rounds of a loop.
    fn calls(&self) -> i64;

    /// The function of this index, whose calls of functions by index are made as `call` says, and
    /// which counts itself in `counter` if there is one.
    fn text<'a>(
        &self,
        index: usize,
        call: impl Fn(usize) -> Call<'a>,
        counter: Option<usize>,
    ) -> String;
}

/// The name of a function of a program.
pub(crate) fn name(index: usize) -> String {
    format!("%f{index}")
}

/// Fibonacci numbers, recursively.
pub(crate) struct Fib(pub(crate) i64);

impl Program for Fib {
    const NAME: &'static str = "fib";
    const WHAT: &'static str = "recursive Fibonacci numbers";

    fn functions(&self) -> usize {
        1
    }

    fn argument(&self) -> i64 {
        self.0
    }

    fn calls(&self) -> i64 {
        // Of the last two numbers.
        let (mut last, mut this) = (1, 1);
        for _ in 1..self.0 {
            (last, this) = (this, 1 + last + this);
        }
        this
    }

    fn text<'a>(
        &self,
        index: usize,
        call: impl Fn(usize) -> Call<'a>,
        counter: Option<usize>,
    ) -> String {
        let [entry, exit] = counting(counter);
        let call = call(index);
        format!(
            "function {}(i64) -> i64 system_v {{
                {}
            block0(v0: i64):
                {entry}
                v1 = iconst.i64 2
                v2 = icmp slt v0, v1
                brif v2, block2(v0), block1
            block1:
                v3 = iconst.i64 -1
                v4 = iadd v0, v3
                {}
                v6 = iadd v4, v3
                {}
                v8 = iadd v5, v7
                jump block2(v8)
            block2(v9: i64):
                {exit}
                return v9
            }}\n",
            name(index),
            call.declaration(0),
            call.call(0, 5, 4),
            call.call(0, 7, 6),
        )
    }
}

/// Arithmetic in a loop that calls nothing.
pub(crate) struct Arithmetic(pub(crate) i64);

impl Program for Arithmetic {
    const NAME: &'static str = "loop";
    const WHAT: &'static str = "arithmetic in a loop, no calls: ns a round of it";

    fn functions(&self) -> usize {
        1
    }

    fn argument(&self) -> i64 {
        self.0
    }

    fn calls(&self) -> i64 {
        self.0
    }

    fn text<'a>(&self, index: usize, _: impl Fn(usize) -> Call<'a>, _: Option<usize>) -> String {
        format!(
            "function {}(i64) -> i64 system_v {{
            block0(v0: i64):
                jump block1(v0, v0)
            block1(v1: i64, v2: i64):
                v3 = iconst.i64 13
                v4 = ishl v2, v3
                v5 = bxor v2, v4
                v6 = iconst.i64 7
                v7 = ushr v5, v6
                v8 = bxor v5, v7
                v9 = iconst.i64 17
                v10 = ishl v8, v9
                v11 = bxor v8, v10
                v12 = iconst.i64 -1
                v13 = iadd v1, v12
                brif v13, block1(v13, v11), block2
            block2:
                return v11
            }}\n",
            name(index),
        )
    }
}

/// Small functions, each of which adds something and calls up to three others. They are in layers,
/// and call the next one.
pub(crate) struct ManyFunctions {
    callees: Vec<Vec<usize>>,
    calls: i64,
}

impl ManyFunctions {
    /// The same ones at every time.
    pub(crate) fn new() -> Self {
        const LAYERS: usize = 14;
        const LAYER: usize = 14;
        /// How many others a function calls, in an eighth of the cases each.
        const FANS: [usize; 8] = [0, 1, 2, 2, 3, 3, 3, 3];
        let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
        // The first, and the layers after it.
        let mut callees = vec![vec![1, 2, 3]];
        for index in 0..LAYERS * LAYER {
            let next = 1 + (index / LAYER + 1) * LAYER;
            let last_layer = next > LAYERS * LAYER;
            let fan = if last_layer { 0 } else { FANS[random.below(FANS.len())] };
            callees.push((0..fan).map(|_| next + random.below(LAYER)).collect());
        }
        let mut calls = vec![1; callees.len()];
        for (index, callees) in callees.iter().enumerate().rev() {
            calls[index] += callees.iter().map(|&callee| calls[callee]).sum::<i64>();
        }
        Self { callees, calls: calls[0] }
    }
}

impl Program for ManyFunctions {
    const NAME: &'static str = "many_functions";
    const WHAT: &'static str = "small functions that call up to three others each";

    fn functions(&self) -> usize {
        self.callees.len()
    }

    fn argument(&self) -> i64 {
        1
    }

    fn calls(&self) -> i64 {
        self.calls
    }

    fn text<'a>(
        &self,
        index: usize,
        call: impl Fn(usize) -> Call<'a>,
        counter: Option<usize>,
    ) -> String {
        let [entry, exit] = counting(counter);
        let [mut declarations, mut calls] = [String::new(), String::new()];
        // The same one twice is two declarations, which does no harm.
        for (nth, &callee) in self.callees[index].iter().enumerate() {
            declarations += &call(callee).declaration(nth);
            calls += &call(callee).call(nth, 5 + nth, 4 + nth);
        }
        format!(
            "function {}(i64) -> i64 system_v {{
                {declarations}
            block0(v0: i64):
                {entry}
                v1 = iconst.i64 {index}
                v2 = iadd v0, v1
                v3 = iconst.i64 5
                v4 = rotl v2, v3
                {calls}
                {exit}
                return v{}
            }}\n",
            name(index),
            4 + self.callees[index].len(),
        )
    }
}
