//! Proves of machine code that it is a gate, by running it on symbols instead of numbers.
//!
//! The interpreter follows every path through a gate and the two tails that it jumps to. A load of
//! a word that others may change at any time, the body or the function's current gate, makes two
//! paths of one: on one the word is 0, on the other it is not. On each the events must be a word
//! of the language in [`word`](super::word), and beside that:
//! - The body and the current gate get every register that may carry an argument, and the stack
//!   pointer of the latter, as the gate's caller has left them.
//! - What the body returns, in any register that may carry a result, is there in the end.
//! - The stack is aligned where something is called, and is as on entry where the path ends.
//! - No register that the caller keeps something in is ever written.

use std::collections::BTreeSet;
use std::fmt;

use lastout_instrument::{LaneLayout, MachineCode};

use crate::listing::{Line, decode};
use crate::path::Path;
use crate::word::Rule;

/// A gate and the tails that it jumps to: that of leave, that of bail.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) parts: [MachineCode; 3],
    pub(crate) layout: LaneLayout,
}

/// What the parts are called.
pub(crate) const PARTS: [&str; 3] = ["gate", "leave tail", "bail tail"];
pub(crate) const GATE: usize = 0;
pub(crate) const LEAVE: usize = 1;
pub(crate) const BAIL: usize = 2;

/// Where a path breaks a rule.
pub(crate) struct Refusal {
    pub(crate) rule: Rule,
    /// The instructions of the path, the offending one last.
    path: Vec<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:\n  {}", self.rule, self.path.join("\n  "))
    }
}

impl Machine {
    /// The number of paths through what is a gate.
    pub(crate) fn check(&self) -> Result<usize, Refusal> {
        let lines = self.parts.each_ref().map(decode);
        let refused = |rule, met: &[(usize, usize)]| {
            let line = |&(part, offset)| match find(&lines, part, offset) {
                Some(line) => format!("{} + 0x{offset:02x}  {}", PARTS[part], line.text()),
                None => format!("{} + 0x{offset:02x}", PARTS[part]),
            };
            Err(Refusal { rule, path: met.iter().map(line).collect() })
        };
        for (part, code) in self.parts.iter().enumerate() {
            let held = lines[part].iter().map(|line| line.fixups.len()).sum::<usize>();
            if held != code.fixups.len() {
                return refused(Rule::Fixup, &[]);
            }
            let decoded = lines[part].last().map_or(0, |line| line.range().end);
            if decoded != code.bytes.len() {
                return refused(Rule::Instruction, &[(part, decoded)]);
            }
        }
        let mut ended = 0;
        let mut reached = BTreeSet::new();
        let mut paths = vec![Path::start()];
        while let Some(mut path) = paths.pop() {
            let at = path.at;
            let again = path.met.contains(&at);
            path.met.push(at);
            let met = path.met.clone();
            let Some(line) = find(&lines, at.0, at.1).filter(|_| !again) else {
                return refused(Rule::Jump, &met);
            };
            reached.insert(at);
            match path.step(line, self.layout) {
                Ok(next) => {
                    ended += usize::from(next.is_empty());
                    paths.extend(next);
                }
                Err(rule) => return refused(rule, &met),
            }
        }
        let all = lines.iter().enumerate();
        let all =
            all.flat_map(|(part, lines)| lines.iter().map(move |line| (part, line.range().start)));
        match all.into_iter().find(|at| !reached.contains(at)) {
            Some(at) => refused(Rule::Unreached, &[at]),
            None => Ok(ended),
        }
    }
}

fn find(lines: &[Vec<Line>; 3], part: usize, offset: usize) -> Option<&Line> {
    lines[part].iter().find(|line| line.range().start == offset)
}
