//! Finding and making the parked calls of a unit.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use cranelift_codegen::ir::Signature;
use lastout_instrument::{Callee, Symbol};

use super::link::Linker;
use crate::Result;
use crate::code::Block;
use crate::function::Function;
use crate::function::resume_points::ParkedCallee;
use crate::gates::template::ParkedCallSignatures;
use crate::unit::env::UnitEnv;
use crate::unit::resumable::UnitParkedCall;
use crate::unwind::code_map::{Description, FunctionCode, UnitCode};

impl Linker<'_> {
    /// Finds or makes the parked calls from which the unit calls other functions.
    pub(super) fn find_parked_calls(&mut self) -> Result<()> {
        for (&id, UnitParkedCall { resume_entry, callee, called_as }) in
            &self.unit.points.parked_calls
        {
            let callee = match self.host_function(*callee)? {
                Some(address) => ParkedCallee::Host(address),
                None => ParkedCallee::Replaceable(Arc::clone(self.replaceable(*callee)?)),
            };
            let resume_entry = &self.roots[resume_entry];
            let used =
                self.points.uses.iter().find(|used| Arc::ptr_eq(used.resume_entry(), resume_entry));
            let used = used.expect("a parked call is one of a point of the unit");
            let (name, signature) = (self.name(id), &self.declaration(id).signature);
            let parked_call = used.parked_call(callee, called_as, |callee| {
                make_parked_call(self.env, name.into(), signature, callee, called_as, resume_entry)
            })?;
            self.callees.insert(id, Arc::clone(&parked_call.function));
            self.points.parked_calls.push(parked_call);
        }
        Ok(())
    }
}

/// Makes the function and the code of a parked call.
fn make_parked_call(
    env: &UnitEnv,
    name: Arc<str>,
    signature: &Signature,
    callee: &ParkedCallee,
    called_as: &Signature,
    resume_entry: &Arc<Function>,
) -> Result<(Arc<Function>, Arc<Block>)> {
    let signatures = ParkedCallSignatures {
        parked_call: signature.clone(),
        call: called_as.clone(),
        callee: match callee {
            ParkedCallee::Replaceable(_) => Callee::Replaceable,
            ParkedCallee::Host(_) => Callee::Fixed,
        },
        resume_entry: resume_entry.signature().clone(),
    };
    let gates = &env.functions.gates;
    let (code, template) = gates.parked_call(signatures, |symbol| match (symbol, callee) {
        (Symbol::Slot(0), ParkedCallee::Replaceable(callee)) => callee.slot().addr(),
        (Symbol::StubTarget, ParkedCallee::Host(address)) => *address,
        (Symbol::Slot(1), _) => resume_entry.slot().addr(),
        _ => unreachable!("a parked call refers to nothing else"),
    })?;
    let saved = template.frame.saved;
    let function = FunctionCode { start: 0, saved, name: Arc::clone(&name) };
    code.describe(Arc::new(Description::Unit(UnitCode {
        len: template.bytes.len() as u32,
        functions: Box::new([function]),
        more: None,
        number: AtomicU64::new(0),
    })));
    Ok((Function::of_point(name, signature, &env.functions)?, Arc::new(code)))
}
