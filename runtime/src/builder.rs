//! What an engine can be told before it is made.

use std::collections::HashMap;
use std::fmt;

use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use lastout_instrument::GateOptions;
use lastout_reclaim::{Counting, register_membarrier};

use crate::engine::Engine;
use crate::memory::Memory;
use crate::payload::{Disposal, DropPolicy};
use crate::shared::{HostSymbol, Shared, Stubs};
use crate::template::Templates;
use crate::types::HostFunction;
use crate::{Error, Result};

/// How much code memory an engine may have mapped unless it is told otherwise.
const DEFAULT_CODE_MEMORY: usize = 1 << 30;

/// What an engine is made with.
pub struct EngineBuilder {
    flags: Vec<(String, String)>,
    host: Vec<(String, Host)>,
    code_memory_limit: usize,
    drop_policy: DropPolicy,
    poison: bool,
    counting: Option<Counting>,
    interleave: Option<extern "C" fn()>,
}

/// A host symbol whose signature depends on an ISA that is not known yet.
struct Host {
    address: usize,
    signature: Option<fn(&dyn TargetIsa) -> Signature>,
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
            code_memory_limit: DEFAULT_CODE_MEMORY,
            drop_policy: DropPolicy::default(),
            poison: false,
            counting: None,
            interleave: None,
        }
    }

    /// Sets one of [Cranelift's flags](cranelift_codegen::settings) for the code of units.
    ///
    /// The default is `opt_level=speed`. `enable_pinned_reg`, `is_pic`, `use_colocated_libcalls`
    /// and `libcall_call_conv` are the engine's to set.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives units a function of the host to import under `name`.
    ///
    /// Its signature is checked against the importing unit's declaration, but for extension flags:
    /// the types, C's calling convention, and that no parameter has a special purpose. It may be
    /// called by any thread that calls generated code.
    pub fn host_function<F: HostFunction>(mut self, name: &str, function: F) -> Self {
        let address = function.address().expose_provenance();
        let signature: fn(&dyn TargetIsa) -> Signature = F::signature;
        self.host.push((name.to_owned(), Host { address, signature: Some(signature) }));
        self
    }

    /// Gives units a symbol of the host, a function of any signature or data, to import under
    /// `name`. Nothing about it is checked.
    pub fn host_symbol(mut self, name: &str, address: *const u8) -> Self {
        let address = address.expose_provenance();
        self.host.push((name.to_owned(), Host { address, signature: None }));
        self
    }

    /// How many bytes of code and data, in whole pages, may be mapped at a time. The default is
    /// a gigabyte.
    pub fn code_memory_limit(mut self, bytes: usize) -> Self {
        self.code_memory_limit = bytes;
        self
    }

    /// Where payloads are dropped. The default is [`DropPolicy::Leaver`].
    pub fn drop_policy(mut self, policy: DropPolicy) -> Self {
        self.drop_policy = policy;
        self
    }

    /// Fills freed code with instructions that trap, and keeps the last few megabytes of it
    /// mapped, so that a stray execution ends the process there and then. For tests.
    pub fn poison_freed_code(mut self, poison: bool) -> Self {
        self.poison = poison;
        self
    }

    /// How gates count. The default is [`Counting::Plain`] where the kernel can do what that
    /// needs, and else [`Counting::Atomic`].
    pub fn counting(mut self, counting: Counting) -> Self {
        self.counting = Some(counting);
        self
    }

    /// Has every gate call `hook` between any two of its steps, so that threads can be made to
    /// change places there. For tests of the protocol.
    pub fn interleave(mut self, hook: extern "C" fn()) -> Self {
        self.interleave = Some(hook);
        self
    }

    /// Makes the engine.
    ///
    /// # Errors
    ///
    /// [`Error::Isa`] if a flag does not exist or Cranelift has no backend for the host,
    /// [`Error::NoMembarrier`] if plain counts were asked for and the kernel cannot, or there is
    /// no memory.
    pub fn build(self) -> Result<Engine> {
        let counting = match (self.counting, register_membarrier()) {
            (Some(Counting::Plain), false) => return Err(Error::NoMembarrier),
            (Some(counting), _) => counting,
            (None, true) => Counting::Plain,
            (None, false) => Counting::Atomic,
        };
        let isa = host_isa(self.flags.iter().map(|(name, value)| (&**name, &**value)))?;
        let unoptimized = self.flags.iter().map(|(name, value)| (&**name, &**value));
        let unoptimized = host_isa(unoptimized.chain([("opt_level", "none")]))?;
        let options = GateOptions { counting, interleave: self.interleave.is_some() };
        let templates = Templates::new(unoptimized, options);
        let memory = Memory::new(self.code_memory_limit, self.poison);
        let stubs = Stubs::new(&templates, &memory, self.interleave)?;
        let host: HashMap<_, _> = self
            .host
            .into_iter()
            .map(|(name, Host { address, signature })| {
                let signature = signature.map(|signature| signature(&*isa));
                (name, HostSymbol { address, signature })
            })
            .collect();
        let disposal = Disposal::new(self.drop_policy);
        let shared = Shared::new(isa, templates, stubs, memory, disposal, host, counting);
        Ok(Engine::from_shared(shared))
    }
}

/// An ISA for code that runs in this process under a gate. Later flags win.
fn host_isa<'a>(flags: impl Iterator<Item = (&'a str, &'a str)>) -> Result<OwnedTargetIsa> {
    let isa_error = |error: &dyn fmt::Display| Error::Isa(error.to_string());
    let own = [
        ("enable_pinned_reg", "true"),
        ("is_pic", "false"),
        ("use_colocated_libcalls", "false"),
        // Otherwise Cranelift copies a struct argument with a `memcpy` called as the callee would
        // be, and the host's knows nothing of `windows_fastcall` and `preserve_all`.
        ("libcall_call_conv", "system_v"),
    ];
    let mut builder = settings::builder();
    for (name, value) in flags.chain(own) {
        builder.set(name, value).map_err(|error| isa_error(&error))?;
    }
    let host = cranelift_native::builder().map_err(|error| isa_error(&error))?;
    let isa = host.finish(settings::Flags::new(builder)).map_err(|error| isa_error(&error))?;
    if isa.default_call_conv() == CallConv::SystemV {
        Ok(isa)
    } else {
        Err(Error::Isa("only hosts with the System V calling convention are supported".to_owned()))
    }
}
