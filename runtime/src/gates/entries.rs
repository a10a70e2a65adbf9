//! Entries, for callers without a ledger at hand: typed calls of the host's, and stable addresses.

use std::collections::HashMap;
use std::sync::Arc;

use cranelift_codegen::ir::Signature;
use lastout_instrument::Symbol;

use crate::Result;
use crate::code::Block;
use crate::gates::Gates;
use crate::gates::template::Kind;
use crate::host::context;
use crate::host::fork::ForkSafeMutex;
use crate::unwind::code_map::Description;

/// Entries for typed calls, one for each pair of signatures.
#[derive(Default)]
pub(crate) struct HostEntries(ForkSafeMutex<HashMap<(Signature, Signature), Arc<Block>>>);

impl Gates {
    /// The entry through which the host calls functions of the signature `inner` as if they had the
    /// signature `outer`.
    pub(crate) fn host_entry(&self, outer: Signature, inner: Signature) -> Result<Arc<Block>> {
        let key = (outer, inner);
        if let Some(entry) = self.host_entries.0.lock().get(&key) {
            return Ok(Arc::clone(entry));
        }
        let kind = Kind::HostEntry(key.0.clone(), key.1.clone());
        let resolve = |_| unreachable!("it refers to nothing but the slow path");
        let (entry, template) = self.instantiate(kind, resolve)?;
        let frame = template.frame;
        entry.describe(Arc::new(Description::Entry { frame, typed: true }));
        Ok(Arc::clone(self.host_entries.0.lock().entry(key).or_insert_with(|| Arc::new(entry))))
    }

    /// The stable entry of the function that has this signature and slot.
    pub(crate) fn c_entry(&self, signature: &Signature, slot: usize) -> Result<Block> {
        let kind = Kind::CEntry(signature.clone());
        let (entry, template) = self.instantiate(kind, |symbol| match symbol {
            Symbol::OwnSlot => slot,
            Symbol::CurrentLedger => context::current_ledger as *const () as usize,
            _ => unreachable!("it refers to nothing else but the slow path"),
        })?;
        let frame = template.frame;
        entry.describe(Arc::new(Description::Entry { frame, typed: false }));
        Ok(entry)
    }
}
