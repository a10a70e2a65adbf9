//! The calls that go out of a unit.

use std::sync::Arc;

use super::layout::CallSites;
use crate::code::patch::Site;
use crate::code::relocation;
use crate::code::{Block, Draft, Memory, Patches};
use crate::function::Function;
use crate::function::callee::Callee;
use crate::{Error, Result};

/// The replaceable functions that a unit refers to, and how its code calls them.
pub(crate) struct OutgoingCalls {
    /// The address of the unit's code.
    pub(super) code: usize,
    /// The calls that are patched.
    pub(super) sites: Vec<(Arc<Function>, CallSites)>,
    pub(super) others: Vec<Callee>,
}

impl OutgoingCalls {
    /// Makes the sites in `code` call the gates that calls go to while no other thread patches any.
    pub(crate) fn aim(&self, code: &mut [u8], _turn: &Patches<'_>) -> Result<()> {
        for (function, sites) in &self.sites {
            for &offset in &sites.offsets {
                relocation::aim(code, offset, self.code + offset, function.gate())
                    .map_err(|why| Error::Link { symbol: function.name().to_string(), why })?;
            }
        }
        Ok(())
    }

    /// Makes the sites be patched from now on. They were [aimed](Self::aim) in the same turn.
    pub(crate) fn register(self, memory: &Memory, _turn: &Patches<'_>) -> Vec<Callee> {
        let start = self.code - memory.code_start();
        let register = |(function, sites): (Arc<Function>, CallSites)| {
            let places = sites.offsets.iter().map(|offset| Site::at(start + offset));
            Callee::register(function, places.collect(), sites.calls)
        };
        let mut callees: Vec<_> = self.sites.into_iter().map(register).collect();
        callees.extend(self.others);
        callees
    }
}

/// Makes code runnable, and makes its sites be patched from now on.
pub(super) fn publish(
    mut draft: Draft,
    calls: OutgoingCalls,
    memory: &Memory,
) -> Result<(Block, Vec<Callee>)> {
    if calls.sites.is_empty() {
        return Ok((draft.publish()?, calls.others));
    }
    // The next patch relies on the sites' calling what is in the slots at this moment.
    let turn = memory.patches();
    calls.aim(draft.code().0, &turn)?;
    let block = draft.publish()?;
    Ok((block, calls.register(memory, &turn)))
}
