//! The hooks that gates call between any two of their steps, if the engine has any.

use std::ffi::c_void;

use crate::host::context;

/// The hooks that run at each step of a gate.
#[derive(Clone, Copy)]
pub(crate) struct Hooks {
    /// See [`EngineBuilder::checked`](crate::EngineBuilder::checked).
    pub(crate) checked: bool,
    /// See [`EngineBuilder::interleave`](crate::EngineBuilder::interleave).
    pub(crate) interleave: Option<extern "C" fn()>,
}

impl Hooks {
    pub(crate) fn any(self) -> bool {
        self.checked || self.interleave.is_some()
    }

    /// The stub calls this.
    ///
    /// # Safety
    ///
    /// `hooks` are those that the engine keeps beside its stubs.
    pub(crate) unsafe extern "C" fn step(
        _lane: *const c_void,
        ledger: *const u32,
        hooks: *const Self,
    ) {
        // SAFETY: the stub has the address of the hooks that the engine keeps beside it.
        let hooks = unsafe { &*hooks };
        if hooks.checked && !context::counts_in(ledger) {
            eprintln!(
                "lastout: a call goes on where the calling thread does not count it: it was \
                 suspended, and resumed on another thread or by another fiber than it began with. \
                 Whatever is resumed elsewhere needs a `lastout::Fiber` of its own."
            );
            std::process::abort();
        }
        if let Some(interleave) = hooks.interleave {
            interleave();
        }
    }
}
