//! What may happen on a path through a gate, or an entry, in machine code.
//!
//! The language is that at the top of `src/checker/mod.rs`, without the light fences, which are no
//! instructions. It is written down a second time, so that the two cannot be wrong together. For
//! gates that can be tail-called it is:
//!
//! ```text
//! called      = in(own) · body(own)≠0 · call(body) · out(taken) · check(taken) · return(results)
//!             | bail
//! tail-called = in(own) · body(own)≠0 · swap · out(taken) · check(taken) · jump(body)
//!             | bail
//! bail        = in(own) · body(own)=0 · out(own) · check(own) · restart
//! check(lane) = body(lane)≠0
//!             | body(lane)=0 · leave(lane)
//! restart     = current≠0 · jump(current)
//!             | current=0 · removed(own) · jump(zeros)
//! ```

use lastout_reclaim::{Counting, Step};

/// A lane that a path is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// That of the gate.
    Own,
    /// That which is in the frame: of the body that tail-calls, or of the last one that was
    /// tail-called, which may be the first.
    Taken,
}

/// A letter of the language. A load and what it is found to be are one letter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    In(Lane),
    Out(Lane),
    Body {
        of: Lane,
        zero: bool,
    },
    /// When the body has returned, this lane is to be counted out of.
    CallBody {
        out_of: Lane,
    },
    /// The own lane is in the frame now instead of that which is taken.
    Swap,
    JumpBody,
    Leave(Lane),
    Current {
        zero: bool,
    },
    Restart,
    Removed,
    JumpZeros,
}

/// Why machine code is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    // What has to happen next where something else has happened.
    CountIn,
    LoadBody,
    CallBody,
    Swap,
    CountOut,
    CheckBody,
    Leave,
    JumpBody,
    LoadCurrent,
    Restart,
    Removed,
    Return,
    /// A count changes by one.
    ByOne,
    /// Atomic counts have a `lock` prefix, others none.
    Lock,
    /// Between two events a stub is called that makes threads change places, where asked for.
    Hook,
    /// An argument is not where the caller has put it.
    Arguments,
    /// A result is not where the body has put it.
    Results,
    /// A gate that could call nothing returns something else than zeros.
    Zeros,
    /// A stub gets something else than the lane, or there are two lanes.
    Lane,
    /// The ledger is not in the pinned register where something is called.
    Ledger,
    /// Calls are made with the stack aligned to 16 bytes.
    Alignment,
    /// The stack is not as it was on entry, or something else than its top is read.
    Stack,
    /// An unwinder would not find the caller, the lane, or what it has to put back.
    Frame,
    /// What the caller keeps in a register is not there in the end.
    Saved,
    /// A jump depends on flags that no test has set.
    Flags,
    /// Memory that is none of the words that gates know.
    Memory,
    /// What is filled in is not exactly one part of an instruction, or not exactly a symbol.
    Fixup,
    /// A jump goes nowhere, or back, or round without end.
    Jump,
    /// The interpreter does not know this instruction, or not with this part of it filled in.
    Instruction,
    /// There are instructions that no path comes to.
    Unreached,
}

/// What follows when a lane is counted out of, and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Return,
    JumpBody,
    Restart,
}

/// How far a path has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Before {
        tail_called: bool,
    },
    In {
        tail_called: bool,
    },
    Entered {
        tail_called: bool,
    },
    /// A count is due.
    Done {
        with: Lane,
        then: Then,
    },
    Out {
        of: Lane,
        then: Then,
    },
    Leaving {
        of: Lane,
        then: Then,
    },
    Checked {
        then: Then,
    },
    Restarting,
    Nowhere,
    Reported,
    /// What was called, or jumped to, after a restart has returned the results, or will.
    Restarted,
    /// The path is over, but for a return if it has called something.
    Left,
}

impl Phase {
    /// How far the path has come after `event`, or what should have happened instead.
    pub(crate) fn after(self, event: Event) -> Result<Self, Rule> {
        use Lane::{Own, Taken};
        Ok(match (self, event) {
            (Self::Before { tail_called }, Event::In(Own)) => Self::In { tail_called },
            (Self::In { tail_called }, Event::Body { of: Own, zero: false }) => {
                Self::Entered { tail_called }
            }
            (Self::In { .. }, Event::Body { of: Own, zero: true }) => {
                Self::Done { with: Own, then: Then::Restart }
            }
            (Self::Entered { tail_called: false }, Event::CallBody { out_of }) => {
                Self::Done { with: out_of, then: Then::Return }
            }
            (Self::Entered { tail_called: true }, Event::Swap) => {
                Self::Done { with: Taken, then: Then::JumpBody }
            }
            (Self::Done { with, then }, Event::Out(lane)) if lane == with => {
                Self::Out { of: with, then }
            }
            (Self::Out { of, then }, Event::Body { of: lane, zero }) if lane == of => match zero {
                true => Self::Leaving { of, then },
                false => Self::Checked { then },
            },
            (Self::Leaving { of, then }, Event::Leave(lane)) if lane == of => {
                Self::Checked { then }
            }
            (Self::Checked { then: Then::JumpBody }, Event::JumpBody) => Self::Left,
            (Self::Checked { then: Then::Restart }, Event::Current { zero: false }) => {
                Self::Restarting
            }
            (Self::Checked { then: Then::Restart }, Event::Current { zero: true }) => Self::Nowhere,
            (Self::Restarting, Event::Restart) => Self::Restarted,
            (Self::Nowhere, Event::Removed) => Self::Reported,
            (Self::Reported, Event::JumpZeros) => Self::Left,
            _ => return Err(self.due()),
        })
    }

    /// What has to happen next.
    pub(crate) fn due(self) -> Rule {
        match self {
            Self::Before { .. } => Rule::CountIn,
            Self::In { .. } => Rule::LoadBody,
            Self::Entered { tail_called: false } => Rule::CallBody,
            Self::Entered { tail_called: true } => Rule::Swap,
            Self::Done { .. } => Rule::CountOut,
            Self::Out { .. } => Rule::CheckBody,
            Self::Leaving { .. } => Rule::Leave,
            Self::Checked { then: Then::JumpBody } => Rule::JumpBody,
            Self::Checked { then: Then::Restart } => Rule::LoadCurrent,
            Self::Restarting => Rule::Restart,
            Self::Nowhere => Rule::Removed,
            Self::Checked { then: Then::Return }
            | Self::Reported
            | Self::Restarted
            | Self::Left => Rule::Return,
        }
    }
}

/// The language is that of the steps that machine code and models are made from.
#[test]
fn the_steps_are_in_the_language() {
    for counting in [Counting::Plain, Counting::Atomic] {
        let ways = [
            (counting.gate(), false, Lane::Own),
            (counting.tail_gate(), false, Lane::Taken),
            (counting.transfer(), true, Lane::Taken),
        ];
        for (steps, tail_called, out_of) in ways {
            let end = follow(Phase::Before { tail_called }, steps, false, out_of);
            assert_eq!(end.due(), Rule::Return, "{steps:?}");
            let load = steps.iter().position(|&step| step == Step::LoadBody);
            let begin = &steps[..=load.expect("a gate loads the body")];
            let bail = follow(Phase::Before { tail_called }, begin, true, out_of);
            assert_eq!(follow(bail, counting.bail(), false, out_of), Phase::Restarted);
        }
    }
}

/// Where the steps lead to, if the body is found to be 0 or not.
fn follow(mut phase: Phase, steps: &[Step], zero: bool, out_of: Lane) -> Phase {
    use Lane::{Own, Taken};
    for step in steps {
        let events: &[Event] = match step {
            Step::LightFence | Step::PushLane | Step::PopLane => &[],
            Step::CountIn | Step::CountInFenced => &[Event::In(Own)],
            Step::LoadBody | Step::CheckBody => &[Event::Body { of: Own, zero }],
            Step::SwapLane => &[Event::Swap],
            Step::CallBody => &[Event::CallBody { out_of }],
            Step::CountOut | Step::CountOutFenced => &[Event::Out(Own)],
            Step::CountOutTaken | Step::CountOutTakenFenced => &[Event::Out(Taken)],
            Step::CheckTaken => &[Event::Body { of: Taken, zero }],
            Step::JumpBody => &[Event::JumpBody],
            Step::Restart => &[Event::Current { zero: false }, Event::Restart],
        };
        for &event in events {
            phase = phase.after(event).unwrap_or_else(|due| panic!("{step:?}, and not {due:?}"));
        }
    }
    phase
}
