//! Every failure that a caller can cause or meet.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use cranelift_codegen::ir::Signature;
use cranelift_module::ModuleError;

use crate::version::ThreadFrames;
use crate::version::location::{Exception, Trap};

/// The ways in which an engine, an install, a lookup or a call can fail.
///
/// After any of them the engine is as it was before: what ran still runs, and nothing leaks.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host has no Cranelift backend, or a flag given to the builder does not exist.
    #[error("no code can be generated on this host with these settings: {0}")]
    Isa(String),
    /// A function or data object that a unit exports or uses is declared but not defined.
    #[error("`{0}` is declared as defined in this unit, and is not defined")]
    Undefined(String),
    /// A unit uses a function or data object that neither the engine nor the host has.
    #[error("`{0}` is imported, and neither an installed function nor a symbol of the host")]
    MissingImport(String),
    /// A unit exports a function under a name that the host has given to a symbol of its own.
    #[error("`{0}` is the name of a symbol of the host")]
    HostSymbol(String),
    /// A function is already known with another signature.
    #[error("`{name}` has the signature {existing}, not {given}")]
    SignatureMismatch {
        /// The function.
        name: String,
        /// The signature it has.
        existing: Box<Signature>,
        /// The signature it was now given.
        given: Box<Signature>,
    },
    /// Plain counts were asked for, and the kernel has no `membarrier(2)` that does what they need.
    #[error("plain counts need membarrier(2), private expedited SYNC_CORE, of the kernel")]
    NoMembarrier,
    /// Traps are to be caught, or a host function may unwind, and on this host frames of generated
    /// code cannot be unwound: that is possible on x86-64 with glibc.
    #[error("frames of generated code cannot be unwound on this host")]
    NoUnwinding,
    /// A unit was given to another engine than the one that made it.
    #[error("the unit was made by another engine")]
    ForeignUnit,
    /// No function has this name.
    #[error("there is no function `{0}`")]
    UnknownFunction(String),
    /// A call has no result.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A code relocation cannot reach its target, or is of a kind that this host does not have.
    #[error("cannot link a reference to `{symbol}`: {why}")]
    Link {
        /// The symbol to which the code refers.
        symbol: String,
        /// Why it cannot be linked.
        why: &'static str,
    },
    /// The time for a replacement in place is over, and threads are inside of the version that was
    /// to be replaced.
    #[error("`{function}` cannot be replaced in its place yet, as threads are inside: {}", list(.threads))]
    StillInside {
        /// The function.
        function: String,
        /// The threads, and how deep they are inside. Threads that wait for the replacement are not
        /// among them.
        threads: Vec<ThreadFrames>,
    },
    /// The function cannot be replaced in its place, or not now, or not by this unit.
    #[error("`{function}` cannot be replaced in its place: {why}")]
    NotInPlace {
        /// The function; if the unit does not say which, the functions that it exports.
        function: String,
        /// Why it cannot.
        why: &'static str,
    },
    /// A unit does not fit where the code and data are over which it is to be written: see
    /// [`Unit::reserve`](crate::Unit::reserve).
    #[error("{needed} bytes of {what} are needed, and there are {room}")]
    DoesNotFit {
        /// The kind of memory of which there is not enough.
        what: &'static str,
        /// How many bytes are needed.
        needed: usize,
        /// How many there are.
        room: usize,
    },
    /// The engine's code memory is used up, see
    /// [`EngineBuilder::code_memory`](crate::EngineBuilder::code_memory).
    #[error("out of code memory: {needed} bytes are needed, {available} are left")]
    OutOfCodeMemory {
        /// How many bytes were needed, in one piece.
        needed: usize,
        /// How many are left, though maybe not in one piece.
        available: usize,
    },
    /// An engine was to have more code memory than its code can reach.
    #[error("{asked} bytes of code memory are more than {most}")]
    CodeMemoryTooLarge {
        /// How much was asked for.
        asked: usize,
        /// How much there can be.
        most: usize,
    },
    /// The system refused memory for code or data, or to write to it.
    #[error("the system refused memory for code: {0}")]
    Memory(#[from] io::Error),
    /// Cranelift refused to compile a gate or an entry, or a unit's definition was refused.
    #[error(transparent)]
    Module(#[from] Box<ModuleError>),
    /// The function cannot be called through a gate.
    #[error(transparent)]
    Instrument(#[from] lastout_instrument::Error),
    /// There are too many threads or functions at once.
    #[error(transparent)]
    Reclaim(#[from] lastout_reclaim::Error),
}

/// Lists threads and their frames for a message.
fn list(threads: &[ThreadFrames]) -> String {
    let thread = |thread: &ThreadFrames| {
        let name = thread.name.as_deref().unwrap_or("?");
        format!("{name} ({}) in {} calls", thread.thread_id, thread.frames)
    };
    threads.iter().map(thread).collect::<Vec<_>>().join(", ")
}

/// Why a call through a [`Handle`](crate::Handle) has no result.
///
/// This has two words, and is apart from [`Error`], because it is in the result of every call. The
/// compiler would move a larger type to and fro even where there is no error, which takes longer
/// than the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The function, or one that it called on its way, has been removed, or was declared and not
    /// installed yet.
    #[error("`{0}` was called and has no version: it was removed, or not installed yet")]
    Removed(FunctionName),
    /// There is no memory for the counters of another thread.
    #[error(transparent)]
    Reclaim(#[from] lastout_reclaim::Error),
    /// An exception was [thrown](crate::throw) during the call, and no `try_call` on the way out
    /// has a handler for it.
    #[error(transparent)]
    Exception(Box<Exception>),
    /// Generated code trapped during the call, in an engine that
    /// [catches traps](crate::EngineBuilder::traps).
    #[error(transparent)]
    Trap(Box<Trap>),
}

// With a result of one word a `Result` fits into two registers.
const _: () = assert!(size_of::<Result<u64, CallError>>() == 16);

/// The name of a function, in one word.
#[derive(Clone, PartialEq, Eq)]
pub struct FunctionName(Arc<Box<str>>);

impl From<&str> for FunctionName {
    fn from(name: &str) -> Self {
        Self(Arc::new(name.into()))
    }
}

impl Deref for FunctionName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl From<ModuleError> for Error {
    fn from(error: ModuleError) -> Self {
        Self::Module(Box::new(error))
    }
}

/// Shorthand for results with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
