//! The waiting rooms of a unit.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use cranelift_codegen::ir::Signature;
use lastout_instrument::{Callee, Symbol};

use super::link::Linker;
use crate::Result;
use crate::code::Block;
use crate::function::Function;
use crate::function::resume_points::RoomCallee;
use crate::gates::template::RoomSignatures;
use crate::unit::env::UnitEnv;
use crate::unit::resumable::UnitRoom;
use crate::unwind::code_map::{Description, FunctionCode, UnitCode};

impl Linker<'_> {
    /// Finds or makes the waiting rooms that the unit calls others from.
    pub(super) fn find_rooms(&mut self) -> Result<()> {
        for (&id, UnitRoom { way_in, callee, called_as }) in &self.unit.points.rooms {
            let callee = match self.host_function(*callee)? {
                Some(address) => RoomCallee::Host(address),
                None => RoomCallee::Replaceable(Arc::clone(self.replaceable(*callee)?)),
            };
            let way_in = &self.roots[way_in];
            let used = self.points.uses.iter().find(|used| Arc::ptr_eq(used.way_in(), way_in));
            let used = used.expect("a room is one of a point of the unit");
            let (name, signature) = (self.name(id), &self.declaration(id).signature);
            let room = used.room(callee, called_as, |callee| {
                make_room(self.env, name.into(), signature, callee, called_as, way_in)
            })?;
            self.callees.insert(id, Arc::clone(&room.function));
            self.points.rooms.push(room);
        }
        Ok(())
    }
}

/// A waiting room, and its code.
fn make_room(
    env: &UnitEnv,
    name: Arc<str>,
    signature: &Signature,
    callee: &RoomCallee,
    called_as: &Signature,
    way_in: &Arc<Function>,
) -> Result<(Arc<Function>, Arc<Block>)> {
    let signatures = RoomSignatures {
        room: signature.clone(),
        call: called_as.clone(),
        callee: match callee {
            RoomCallee::Replaceable(_) => Callee::Replaceable,
            RoomCallee::Host(_) => Callee::Fixed,
        },
        way_in: way_in.signature().clone(),
    };
    let gates = &env.functions.gates;
    let (code, frame) = gates.waiting_room(signatures, |symbol| match (symbol, callee) {
        (Symbol::Slot(0), RoomCallee::Replaceable(callee)) => callee.slot().addr(),
        (Symbol::StubTarget, RoomCallee::Host(address)) => *address,
        (Symbol::Slot(1), _) => way_in.slot().addr(),
        _ => unreachable!("a waiting room refers to nothing else"),
    })?;
    let function = FunctionCode { start: 0, saved: frame.saved, name: Arc::clone(&name) };
    code.describe(Arc::new(Description::Unit(UnitCode {
        len: code.code_len() as u32,
        functions: Box::new([function]),
        more: None,
        number: AtomicU64::new(0),
    })));
    Ok((Function::of_point(name, signature, &env.functions)?, Arc::new(code)))
}
