//! The map of an engine's code: it finds the function, gate or entry whose frame a return address
//! is of.
//!
//! Units, entries and the gates that Cranelift compiles are described when they are published, and
//! forgotten when they go. Gates in machine code, of which there is at least one for each function,
//! take only a bit of memory here: they are all alike, and the address of their lane can be read in
//! their code.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cranelift_codegen::ir::TrapCode;
use cranelift_codegen::{CompiledCode, FinalizedMachExceptionHandler};
use lastout_instrument::{GateFrame, MACHINE_GATE};
use lastout_reclaim::{Counting, Lane};

use crate::arch::TRAP_BYTE;
use crate::host::fork::ForkSafeMutex;
use crate::host::sys;
use crate::unwind::Saved;
use crate::version::payload::Payload;

/// The map of all the code of an engine.
pub(crate) struct CodeMap {
    /// The address of the section of code, and its size in bytes.
    start: usize,
    len: usize,
    /// For each line of the section, whether a gate in machine code starts there.
    gates: Bits,
    /// All other blocks, by the line in which each starts.
    blocks: ForkSafeMutex<BTreeMap<u32, Arc<Description>>>,
    /// How the gates in the section count.
    counting: Counting,
    /// Whether traps of the code are caught.
    catches_traps: bool,
}

/// So many bits, all of them zero until they are set. The system provides them and not the
/// allocator, which would keep the memory, and write the zeros, where engines come and go.
struct Bits {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the words are atomic, and stay where they are.
unsafe impl Send for Bits {}
// SAFETY: as above.
unsafe impl Sync for Bits {}

impl Bits {
    fn new(count: usize) -> io::Result<Self> {
        let words = count.div_ceil(u64::BITS as usize).max(1);
        Ok(Self { start: sys::zeros(words * size_of::<u64>())?.cast(), words })
    }

    /// The word that has a bit.
    fn word(&self, bit: u32) -> &AtomicU64 {
        let word = bit as usize / u64::BITS as usize;
        debug_assert!(word < self.words);
        // SAFETY: there are so many words, which are mapped until this is dropped.
        unsafe { self.start.add(word).as_ref() }
    }
}

impl Drop for Bits {
    fn drop(&mut self) {
        // SAFETY: the words were mapped for this.
        unsafe { sys::unmap(self.start.addr().get(), self.words * size_of::<u64>()) };
    }
}

/// Blocks of code start at multiples of this.
const LINE: usize = 64;

// So the line of a return address into a gate is the line in which the gate starts.
const _: () = assert!((MACHINE_GATE.body_return as usize) < LINE);

/// A block of code.
pub(crate) enum Description {
    Unit(UnitCode),
    /// A gate that Cranelift has compiled.
    Gate(GateCode),
    /// An entry. If it is a typed one, its caller can be told of an error.
    Entry {
        frame: Frame,
        typed: bool,
    },
    /// The gate that all lanes of tail-calling functions share.
    TailGate(Frame),
    /// A stub or a tail of gates.
    Helper,
}

pub(crate) struct GateCode {
    pub(crate) frame: Frame,
    pub(crate) lane: *const Lane<Payload>,
}

// SAFETY: the lane is only used while its function is known to be alive.
unsafe impl Send for GateCode {}
// SAFETY: as above.
unsafe impl Sync for GateCode {}

/// The layout of the frame of a gate or an entry.
#[derive(Clone, Copy, Default)]
pub(crate) struct Frame {
    pub(crate) gate: GateFrame,
    pub(crate) saved: Saved,
}

/// The code of a unit.
pub(crate) struct UnitCode {
    /// The size of the code in bytes.
    pub(crate) len: u32,
    /// The functions, in the order of their addresses.
    pub(crate) functions: Box<[FunctionCode]>,
    /// Facts that few units have.
    pub(crate) more: Option<Box<MoreCode>>,
    /// The unit's number among the installed units, from 1; 0 until it is installed.
    pub(crate) number: AtomicU64,
}

/// A function in a unit.
pub(crate) struct FunctionCode {
    /// The offset of the function in the unit's code.
    pub(crate) start: u32,
    pub(crate) saved: Saved,
    pub(crate) name: Arc<str>,
}

/// Instructions of a unit that trap or catch, each by its offset in the unit's code.
#[derive(Default)]
pub(crate) struct MoreCode {
    /// Instructions that may trap, in their order.
    pub(crate) traps: Vec<(u32, TrapCode)>,
    /// Calls that catch exceptions, by their return addresses.
    pub(crate) catches: BTreeMap<u32, Catch>,
}

/// The handlers of a call.
#[derive(Clone)]
pub(crate) struct Catch {
    /// How far the stack pointer is below the frame pointer while a handler runs.
    pub(crate) stack: u32,
    /// In the order in which they are asked: a tag, or `None` for any, and the handler's offset.
    pub(crate) handlers: Vec<(Option<u32>, u32)>,
}

/// A frame, as found by its return address.
#[derive(Clone)]
pub(crate) struct Found {
    /// The kind of code to which the frame belongs.
    pub(crate) role: Role,
    /// How to find the lane in which the frame is counted, if it is.
    pub(crate) counted: Option<Counted>,
    /// The offset in the frame of the pinned register's outer value.
    pub(crate) outer: Option<i32>,
    pub(crate) saved: Saved,
    /// The offset of the return address in the function, gate or entry.
    pub(crate) offset: usize,
}

#[derive(Clone)]
pub(crate) enum Role {
    /// A function of a unit, by its number in the unit.
    Body {
        unit: Arc<Description>,
        function: usize,
        start: usize,
    },
    Gate,
    /// An entry, which may be one for typed calls.
    Entry {
        typed: bool,
    },
    Helper,
}

/// How to find the lane in which a frame is counted.
#[derive(Clone, Copy)]
pub(crate) enum Counted {
    /// The lane itself.
    At(*const Lane<Payload>),
    /// The address of the lane is in the frame, at this distance from the frame pointer.
    InFrame(i32),
    /// The address of the lane is in the frame's `rbx`.
    InRegister,
}

impl CodeMap {
    /// The map of a section without code.
    pub(crate) fn new(
        start: usize,
        len: usize,
        counting: Counting,
        catches_traps: bool,
    ) -> io::Result<Self> {
        let (gates, blocks) = (Bits::new(len / LINE)?, ForkSafeMutex::default());
        Ok(Self { start, len, gates, blocks, counting, catches_traps })
    }

    /// The addresses at which there may be code.
    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

    /// How the gates in the section count.
    pub(crate) fn counting(&self) -> Counting {
        self.counting
    }

    /// Whether traps of the code are caught.
    pub(crate) fn catches_traps(&self) -> bool {
        self.catches_traps
    }

    /// Whether an address is one of code that is filled with traps.
    pub(crate) fn is_freed(&self, address: usize) -> bool {
        self.contains(address)
            // SAFETY: the section is mapped to be read, for as long as there is code in it.
            && unsafe { std::ptr::with_exposed_provenance::<u8>(address).read() } == TRAP_BYTE
    }

    /// Whether there may be code at an address.
    pub(crate) fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.start) < self.len
    }

    fn line(&self, address: usize) -> Option<u32> {
        self.contains(address).then(|| ((address - self.start) / LINE) as u32)
    }

    /// Notes what starts at an address.
    pub(crate) fn describe(&self, address: usize, description: Arc<Description>) {
        if let Some(line) = self.line(address) {
            self.blocks.lock().insert(line, description);
        }
    }

    /// Notes that a gate in machine code starts at an address.
    pub(crate) fn note_gate(&self, address: usize) {
        if let Some(line) = self.line(address) {
            self.gates.word(line).fetch_or(1 << (line % 64), Ordering::Relaxed);
        }
    }

    /// Forgets what starts at an address, of whatever kind.
    pub(crate) fn forget(&self, address: usize) {
        let Some(line) = self.line(address) else { return };
        let mut blocks = self.blocks.lock();
        self.gates.word(line).fetch_and(!(1 << (line % 64)), Ordering::Relaxed);
        let gone = blocks.remove(&line);
        drop(blocks);
        drop(gone);
    }

    fn is_gate(&self, line: u32) -> bool {
        self.gates.word(line).load(Ordering::Relaxed) & 1 << (line % 64) != 0
    }

    /// The last block that starts in or before a line.
    fn block(&self, line: u32) -> Option<(u32, Arc<Description>)> {
        let blocks = self.blocks.lock();
        let (start, description) = blocks.range(..=line).next_back()?;
        Some((*start, Arc::clone(description)))
    }

    /// The unit with code at an address, the address of the unit's code, and the function's number.
    pub(crate) fn unit(&self, address: usize) -> Option<(Arc<Description>, usize, usize)> {
        let (line, description) = self.block(self.line(address)?)?;
        let start = self.start + line as usize * LINE;
        let function = match &*description {
            Description::Unit(unit) => unit.function(address - start)?,
            _ => return None,
        };
        Some((description, start, function))
    }

    /// The frame that is returned to at an address of this engine's code; `None` if there is no
    /// code.
    ///
    /// # Safety
    ///
    /// The frame is on the stack of the calling thread.
    pub(crate) unsafe fn frame(&self, returned: usize) -> Option<Found> {
        let line = self.line(returned.wrapping_sub(1))?;
        let start = self.start + line as usize * LINE;
        if self.is_gate(line) {
            let offset = returned - start;
            let lane = std::ptr::with_exposed_provenance::<*const Lane<Payload>>(
                start + MACHINE_GATE.lane as usize,
            );
            // SAFETY: the gate is there, as there is a frame of it.
            let lane = unsafe { lane.read_unaligned() };
            let counted =
                (offset == MACHINE_GATE.body_return as usize).then_some(Counted::At(lane));
            let saved = Saved::default();
            return Some(Found { role: Role::Gate, counted, outer: None, saved, offset });
        }
        let (line, description) = self.block(line)?;
        let start = self.start + line as usize * LINE;
        let offset = returned - start;
        let in_frame = |frame: &Frame, otherwise| {
            let counted = frame.gate.body_return == u32::try_from(offset).ok();
            counted.then(|| frame.gate.lane.map_or(otherwise, Counted::InFrame))
        };
        let found = |role, frame: &Frame, otherwise| Found {
            role,
            counted: in_frame(frame, otherwise),
            outer: frame.gate.outer,
            saved: frame.saved,
            offset,
        };
        Some(match &*description {
            Description::Unit(unit) => {
                let function = unit.function(offset - 1)?;
                let code = &unit.functions[function];
                let (saved, offset) = (code.saved, offset - code.start as usize);
                let role = Role::Body { unit: Arc::clone(&description), function, start };
                Found { role, counted: None, outer: None, saved, offset }
            }
            Description::Gate(gate) => found(Role::Gate, &gate.frame, Counted::At(gate.lane)),
            Description::Entry { frame, typed } => {
                found(Role::Entry { typed: *typed }, frame, Counted::InRegister)
            }
            Description::TailGate(frame) => found(Role::Gate, frame, Counted::InRegister),
            Description::Helper => found(Role::Helper, &Frame::default(), Counted::InRegister),
        })
    }
}

impl MoreCode {
    /// The traps and handlers of a function that was compiled.
    pub(crate) fn of(compiled: &CompiledCode) -> Self {
        let traps = compiled.buffer.traps().iter().map(|trap| (trap.offset, trap.code));
        let catching = compiled.buffer.call_sites();
        let catching = catching.filter(|call| !call.exception_handlers.is_empty());
        let catches = catching.map(|call| {
            let handlers = call.exception_handlers.iter().filter_map(|handler| match *handler {
                FinalizedMachExceptionHandler::Tag(tag, at) => Some((Some(tag.as_u32()), at)),
                FinalizedMachExceptionHandler::Default(at) => Some((None, at)),
                // Such handlers are refused before a function is compiled.
                FinalizedMachExceptionHandler::Context(_) => None,
            });
            let stack = call.frame_offset.unwrap_or_default();
            (call.ret_addr, Catch { stack, handlers: handlers.collect() })
        });
        Self { traps: traps.collect(), catches: catches.collect() }
    }

    /// Adds the facts of a function that starts at an offset.
    pub(crate) fn add(&mut self, start: u32, function: &Self, traps: bool) {
        if traps {
            let moved = function.traps.iter().map(|&(offset, code)| (start + offset, code));
            self.traps.extend(moved);
        }
        self.catches.extend(function.catches.iter().map(|(&offset, catch)| {
            let mut catch = catch.clone();
            catch.handlers.iter_mut().for_each(|(_, handler)| *handler += start);
            (start + offset, catch)
        }));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.traps.is_empty() && self.catches.is_empty()
    }
}

impl UnitCode {
    /// The number of the function that has an offset; `None` if the offset is behind the unit's
    /// code, where there may be a gate in machine code.
    fn function(&self, offset: usize) -> Option<usize> {
        if offset >= self.len as usize {
            return None;
        }
        let after = self.functions.partition_point(|code| code.start as usize <= offset);
        after.checked_sub(1)
    }

    /// The code with which the instruction at an offset may trap.
    pub(crate) fn trap(&self, offset: usize) -> Option<TrapCode> {
        let traps = &self.more.as_ref()?.traps;
        let found = traps.binary_search_by_key(&offset, |(at, _)| *at as usize).ok()?;
        Some(traps[found].1)
    }

    /// The handlers of the call that returns to an offset.
    pub(crate) fn catch(&self, offset: usize) -> Option<&Catch> {
        self.more.as_ref()?.catches.get(&u32::try_from(offset).ok()?)
    }
}
