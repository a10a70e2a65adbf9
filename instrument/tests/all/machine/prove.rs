//! Proves of machine code that it is a gate, or an entry, by running it on symbols instead of
//! numbers.
//!
//! The interpreter follows every path through a gate and the two tails that it jumps to. A load of
//! a word that others may change at any time, the body or the function's current gate, makes two
//! paths of one: on one the word is 0, on the other it is not. On each the events must be a word
//! of the language in [`word`](super::word), and beside that:
//! - The body and the current gate get every register that may carry an argument, and the stack
//!   pointer of the latter, as the gate's caller has left them.
//! - What the body returns, in any register that may carry a result, is there in the end.
//! - The stack is aligned where something is called, and is as on entry where the path ends.
//! - So are the registers that the caller keeps something in.
//! - Where something is called with arguments, there is a frame, from which an unwinder gets to the
//!   caller. It returns to where an unwinder knows it is counted in if that is the body.
//!
//! An entry is whole by itself, and differs in this:
//! - It gets a ledger and a function, before as many integers as it is made for. Those are two
//!   registers further to the front when the body and the current gate are called.
//! - The lane is the one that it finds in the function, once.
//! - The ledger is in the pinned register where something is called.
//! - The current gate is called, and what it returns is there in the end.
//! - What it has saved of its caller is in the frame where an unwinder looks for it, and the lane
//!   is in the register where it does.
//!
//! A gate that can be tail-called is tried with some numbers of arguments on the stack, both called
//! and with a return address in the frame of such a gate. In this it differs:
//! - There may be results in more registers.
//! - The body gets the arguments on the stack, too, and takes them away. So does the gate when it
//!   returns.
//! - When the body is called the own lane is in the frame, where an unwinder looks for it; when it
//!   returns another may be there, and that is the one that is counted out.
//! - Where it was tail-called, it leaves the stack as it was, but for the lane in the frame of the
//!   other gate: it is the own one when the body is jumped to, and else the one that was there.

use std::collections::BTreeSet;
use std::fmt;

use lastout_instrument::{GateFrame, LaneLayout, MachineCode};

use super::kind::Kind;
use super::listing::{Line, decode};
use super::path::Path;
use super::word::Rule;

/// A gate and the tails that it jumps to, an entry, or a gate that can be tail-called and heads of
/// it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) kind: Kind,
    /// As many as the kind has.
    pub(crate) parts: Vec<MachineCode>,
    /// What an unwinder is told of the frame.
    pub(crate) frame: GateFrame,
    pub(crate) layout: LaneLayout,
}

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
    /// The number of paths through what is of this kind.
    pub(crate) fn check(&self) -> Result<usize, Refusal> {
        let lines = self.parts.iter().map(decode).collect::<Vec<_>>();
        let names = self.kind.parts();
        let refused = |rule, met: &[(usize, usize)]| {
            let line = |&(part, offset)| match find(&lines, part, offset) {
                Some(line) => format!("{} + 0x{offset:02x}  {}", names[part], line.text()),
                None => format!("{} + 0x{offset:02x}", names[part]),
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
        let starts = self.kind.starts().into_iter();
        let mut paths: Vec<_> =
            starts.map(|start| Path::start(self.kind, self.frame, start)).collect();
        while let Some(mut path) = paths.pop() {
            let at = path.at;
            let again = path.met.iter().filter(|&&met| met == at).count() >= self.kind.rounds();
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

fn find(lines: &[Vec<Line>], part: usize, offset: usize) -> Option<&Line> {
    lines[part].iter().find(|line| line.range().start == offset)
}
