//! The settings with which an engine is made.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa, TargetIsa};
use cranelift_codegen::settings::{self, Configurable, SetError};
use lastout_instrument::{Dispatch, GateOptions};
use lastout_reclaim::{Counting, register_membarrier};

use crate::code::{MAX_SIZE, Memory};
use crate::engine::Engine;
use crate::function::callee::AllCalls;
use crate::function::env::FunctionEnv;
use crate::function::retirement::Retirement;
use crate::function::{self, LanePool};
use crate::gates::Gates;
use crate::gates::hooks::Hooks;
use crate::host::fork;
use crate::types::HostFunction;
use crate::unit::env::{HostSymbol, UnitEnv};
use crate::unwind::{SUPPORTED, traps};
use crate::version::payload::DropPolicy;
use crate::{Error, Result};

/// The most code memory that an engine can have if calls are patched: as far as a call reaches.
const MAX_PATCHED: usize = if cfg!(target_arch = "aarch64") { 1 << 27 } else { MAX_SIZE };

/// The settings of an engine to be made.
pub struct EngineBuilder {
    flags: Vec<(String, String)>,
    host: Vec<(String, Host)>,
    code_memory: Option<usize>,
    drop_policy: DropPolicy,
    quarantine: usize,
    strict: bool,
    counting: Option<Counting>,
    dispatch: Dispatch,
    traps: bool,
    checked: bool,
    interleave: Option<extern "C" fn()>,
}

/// A host symbol whose signature depends on an ISA that is not known yet.
struct Host {
    address: usize,
    signature: Option<fn(&dyn TargetIsa) -> Signature>,
    unwinds: bool,
}

impl Default for EngineBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl EngineBuilder {
    /// The defaults: optimized code, a gigabyte of code memory, payloads dropped by the leaving
    /// thread, plain counts where the kernel has `membarrier(2)`.
    pub fn new() -> Self {
        Self {
            flags: vec![("opt_level".to_owned(), "speed".to_owned())],
            host: Vec::new(),
            code_memory: None,
            drop_policy: DropPolicy::default(),
            quarantine: 0,
            strict: false,
            counting: None,
            dispatch: Dispatch::default(),
            traps: false,
            checked: false,
            interleave: None,
        }
    }

    /// Sets one of [Cranelift's flags](cranelift_codegen::settings) for the code of units, shared
    /// or of the host's instruction set.
    ///
    /// By default those of the instruction set are what the processor can do. Code for a processor
    /// that can do more ends with an illegal instruction when it is called.
    ///
    /// The default is `opt_level=speed`. The engine itself sets `enable_pinned_reg`, `is_pic`,
    /// `preserve_frame_pointers`, `unwind_info`, `use_colocated_libcalls` and `libcall_call_conv`.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives units a function of the host to import under `name`.
    ///
    /// The import's declaration is checked against its signature, except for extension flags: the
    /// types, C's calling convention, and that no parameter has a special purpose. Any thread that
    /// calls generated code may call the function.
    pub fn host_function<F: HostFunction>(mut self, name: &str, function: F) -> Self {
        let address = function.address().expose_provenance();
        let signature: fn(&dyn TargetIsa) -> Signature = F::signature;
        let signature = Some(signature);
        self.host.push((name.to_owned(), Host { address, signature, unwinds: F::UNWINDS }));
        self
    }

    /// Gives units a symbol of the host, a function of any signature or data, to import under
    /// `name`. Nothing about it is checked.
    pub fn host_symbol(mut self, name: &str, address: *const u8) -> Self {
        let address = address.expose_provenance();
        self.host.push((name.to_owned(), Host { address, signature: None, unwinds: false }));
        self
    }

    /// Sets how many bytes of code there may be at a time, gates and entries included: at most a
    /// gigabyte, which is also the default. On aarch64 both are an eighth of that if calls are
    /// [patched](Dispatch::PatchedSites).
    ///
    /// So many addresses are reserved, and as many again for read-only data and for writable data;
    /// memory is used only for what is there. Each engine also takes two file descriptors.
    pub fn code_memory(mut self, bytes: usize) -> Self {
        self.code_memory = Some(bytes);
        self
    }

    /// Leaves no view of code or read-only data mapped through which it could be written: the
    /// kernel is asked to write instead, which takes a microsecond longer. By default there is a
    /// view, at addresses of its own. Either way, nothing is ever writable where it is executable.
    ///
    /// If calls are [patched](Dispatch::PatchedSites), which takes single stores, a strict engine
    /// has a view of its code while it patches. It also has one while it
    /// [replaces](Engine::replace_in_place) a version in its place, which must not be left half
    /// done.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Sets where payloads are dropped. The default is [`DropPolicy::Leaver`].
    pub fn drop_policy(mut self, policy: DropPolicy) -> Self {
        self.drop_policy = policy;
        self
    }

    /// Keeps the last so many bytes of freed code and data from being used again. A stray execution
    /// then meets the instructions that freed code is filled with, which end the process, and not
    /// another version. This is for tests; the default is no byte.
    pub fn quarantine(mut self, bytes: usize) -> Self {
        self.quarantine = bytes;
        self
    }

    /// Sets how gates count. The default is [`Counting::Plain`] where the kernel can do what that
    /// needs, and otherwise [`Counting::Atomic`].
    pub fn counting(mut self, counting: Counting) -> Self {
        self.counting = Some(counting);
        self
    }

    /// Sets how calls between units, and of preemptible functions, find the version that is
    /// current. The default is [`Dispatch::Slot`].
    ///
    /// Handles, stable entries and everything else are the same with both.
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.dispatch = dispatch;
        self
    }

    /// Turns traps of the engine's code into errors of the calls that they happen in:
    /// [`CallError::Trap`](crate::CallError::Trap). The default is that the process dies of them.
    ///
    /// This takes handlers for `SIGILL`, `SIGFPE`, `SIGSEGV`, `SIGBUS` and `SIGTRAP`, which are
    /// installed when the first such engine is made and stay. They pass signals that are no such
    /// traps on to the handlers before them; handlers that replace them later should do the same. A
    /// trap counts if its instruction has a trap code of Cranelift's, in a call through a
    /// [`Handle`](crate::Handle) with no other code between the call and the instruction. If the
    /// host, or code of others, calls generated code through a stable entry, the process dies.
    pub fn traps(mut self, traps: bool) -> Self {
        self.traps = traps;
        self
    }

    /// Makes every gate check, at each of its steps, that it counts where the calling thread counts
    /// at that moment. If it does not, the process ends with a message: a coroutine was suspended
    /// inside of a function and resumed on another thread, or by another [`Fiber`](crate::Fiber),
    /// than the one with which it had called the function. This is for debugging, as calls get
    /// several times as long; by default gates do not check.
    pub fn checked(mut self, checked: bool) -> Self {
        self.checked = checked;
        self
    }

    /// Makes every gate call `hook` between any two of its steps, so that tests of the protocol can
    /// make threads change places there.
    pub fn interleave(mut self, hook: extern "C" fn()) -> Self {
        self.interleave = Some(hook);
        self
    }

    /// Makes the engine.
    ///
    /// # Errors
    ///
    /// [`Error::Isa`] if a flag does not exist or Cranelift has no backend for the host,
    /// [`Error::CodeMemoryTooLarge`] if more code memory was asked for than an engine can have,
    /// [`Error::NoMembarrier`] if plain counts were asked for and the kernel has no
    /// `membarrier(2)`, [`Error::NoUnwinding`] if a host function may unwind, or traps are to be
    /// caught, and this host cannot do that, or there is no memory.
    pub fn build(self) -> Result<Engine> {
        let counting = match (self.counting, register_membarrier()) {
            (Some(Counting::Plain), false) => return Err(Error::NoMembarrier),
            (Some(counting), _) => counting,
            (None, true) => Counting::Plain,
            (None, false) => Counting::Atomic,
        };
        if !SUPPORTED && self.host.iter().any(|(_, host)| host.unwinds) {
            return Err(Error::NoUnwinding);
        }
        let flags = || self.flags.iter().map(|(name, value)| (&**name, &**value));
        let isa = host_isa(flags())?;
        let unoptimized = flags().chain([("opt_level", "none")]);
        let unprobed = host_isa(unoptimized.clone().chain([("enable_probestack", "false")]))?;
        let unoptimized = host_isa(unoptimized)?;
        let hooks = Hooks { checked: self.checked, interleave: self.interleave };
        let options = GateOptions { counting, interleave: hooks.any() };
        fork::watch();
        let most = match self.dispatch {
            Dispatch::Slot => MAX_SIZE,
            Dispatch::PatchedSites => MAX_PATCHED,
        };
        let size = self.code_memory.unwrap_or(most);
        if size > most {
            return Err(Error::CodeMemoryTooLarge { asked: size, most });
        }
        let memory = Memory::new(size, self.quarantine, self.strict, counting, self.traps)?;
        if self.traps {
            traps::catch()?;
        }
        let slow_path = function::slow_path();
        let gates = Gates::new(memory, unoptimized, unprobed, options, hooks, slow_path)?;
        let host: HashMap<_, _> = self
            .host
            .into_iter()
            .map(|(name, Host { address, signature, .. })| {
                let signature = signature.map(|signature| signature(&*isa));
                (name, HostSymbol { address, signature })
            })
            .collect();
        let functions = FunctionEnv {
            gates,
            lane_pool: LanePool::default(),
            retirement: Retirement::new(counting),
            calls: AllCalls::default(),
        };
        let functions = Arc::new(functions);
        let units = UnitEnv { isa, host, dispatch: self.dispatch, functions };
        Ok(Engine::from_parts(units, self.drop_policy))
    }
}

/// An ISA for code that runs in this process under a gate. Later flags win.
fn host_isa<'a>(flags: impl Iterator<Item = (&'a str, &'a str)>) -> Result<OwnedTargetIsa> {
    let isa_error = |error: &dyn fmt::Display| Error::Isa(error.to_string());
    let own = [
        ("enable_pinned_reg", "true"),
        ("is_pic", "false"),
        // Unwinding and tail calls need frames that can be found by the frame pointer, and must
        // know where functions save registers.
        ("preserve_frame_pointers", "true"),
        ("unwind_info", "true"),
        ("use_colocated_libcalls", "false"),
        // Otherwise Cranelift copies a struct argument with a `memcpy` called with the callee's
        // convention, and the host's does not know `windows_fastcall` and `preserve_all`.
        ("libcall_call_conv", "system_v"),
    ];
    let mut host = cranelift_native::builder().map_err(|error| isa_error(&error))?;
    let mut builder = settings::builder();
    for (name, value) in flags.chain(own) {
        let set = match builder.set(name, value) {
            Err(SetError::BadName(_)) => host.set(name, value),
            set => set,
        };
        set.map_err(|error| isa_error(&error))?;
    }
    let isa = host.finish(settings::Flags::new(builder)).map_err(|error| isa_error(&error))?;
    if isa.default_call_conv() == CallConv::SystemV {
        Ok(isa)
    } else {
        Err(Error::Isa("only hosts with the System V calling convention are supported".to_owned()))
    }
}
