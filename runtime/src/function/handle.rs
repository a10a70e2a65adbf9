//! Typed handles, by which the host calls functions.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use cranelift_codegen::ir::Signature;

use crate::code::Block;
use crate::function::Function;
use crate::host::context;
use crate::types::{FunctionType, Returned, Value, for_each_arity, same_types};
use crate::version::VersionInfo;
use crate::{CallError, Result};

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

/// A function that the host can call, whichever version is current: `F` is its type, such as
/// `fn(i64, f64) -> i64`.
///
/// Handles are cheap to clone, can be sent to and shared by threads, and keep the function, that
/// is its slot, gates and entry, but no particular version of it. A function that no unit is to
/// import any more and that has been removed goes with its last handle.
pub struct Handle<F> {
    function: Arc<Function>,
    /// The code of the entry for typed calls, and its address, which saves a call a load.
    entry: Arc<Block>,
    address: usize,
    _type: PhantomData<F>,
}

// SAFETY: a handle owns things that can be shared, and the address of code, which any thread may
// call; `F` is only a type of function, never a value.
unsafe impl<F> Send for Handle<F> {}
// SAFETY: as above.
unsafe impl<F> Sync for Handle<F> {}

impl<F: FunctionType> Handle<F> {
    pub(crate) fn new(function: Arc<Function>) -> Result<Self> {
        let gates = &function.env().gates;
        let outer = F::signature(gates.isa());
        if !same_types(&outer, function.signature()) {
            function.expect_signature(&outer)?;
        }
        let entry = gates.host_entry(outer, function.signature().clone())?;
        Ok(Self { address: entry.address(), entry, function, _type: PhantomData })
    }
}

impl<F> Handle<F> {
    /// The function's name.
    pub fn name(&self) -> &str {
        self.function.name()
    }

    /// The signature that the function was declared with.
    pub fn signature(&self) -> &Signature {
        self.function.signature()
    }

    /// The versions of the function that are not freed yet, oldest first.
    pub fn versions(&self) -> Vec<VersionInfo> {
        self.function.versions()
    }

    /// A stable address of the function, to be called from C, or through a `transmute` to the
    /// `extern "C" fn` type that fits its signature, from any thread.
    ///
    /// It stays valid, and calls whichever version is current, for as long as the function lives:
    /// while there is this handle or another, or a unit that imports it, or its name in the engine.
    /// The caller must keep one of these until the call has returned. If the function has been
    /// removed, a call returns zeros.
    ///
    /// # Errors
    ///
    /// The entry is made when it is first asked for, so there may be no memory for it.
    pub fn c_address(&self) -> Result<*const u8> {
        Ok(std::ptr::with_exposed_provenance(self.function.entry()?))
    }
}

impl<F> Clone for Handle<F> {
    fn clone(&self) -> Self {
        Self {
            function: Arc::clone(&self.function),
            entry: Arc::clone(&self.entry),
            address: self.address,
            _type: PhantomData,
        }
    }
}

impl<F> fmt::Debug for Handle<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} {})", self.name(), self.signature())
    }
}

macro_rules! call {
    ($($A:ident)*) => {
        impl<$($A: Value,)* R: Returned> Handle<fn($($A),*) -> R> {
            /// Calls the version that is current.
            ///
            /// A thread's first call of any function registers it, until it ends.
            ///
            /// # Errors
            ///
            /// [`CallError::Removed`] if this function, or one that it called on its way, has no
            /// version. A removed function returns zeros to generated code, which goes on with
            /// them, and the error comes out here. [`CallError::Reclaim`] if there is no
            /// memory to register the thread.
            ///
            /// # Safety
            ///
            /// The call runs generated code: whatever its versions do with the arguments, and
            /// with zeros from functions that are removed, must be sound. In particular:
            ///
            /// - it is not left by `longjmp`, nor by any way for which the
            ///   [contract](crate::contract) asks more than is given;
            /// - if it is suspended, as part of a coroutine, it goes on where it has begun: on the
            ///   same thread, or within [`run`](crate::Fiber::run) of the same fiber;
            /// - it takes no address of a function or of data of its own unit to where it is used
            ///   after the version is freed, but for those of replaceable functions that
            ///   something keeps alive.
            #[inline]
            #[allow(non_snake_case, clippy::too_many_arguments, reason = "one for each arity")]
            pub unsafe fn call(&self, $($A: $A),*) -> Result<R, CallError> {
                type Entry<$($A,)* R> = extern "C-unwind" fn(*const u32, *const usize, $($A),*) -> R;
                // SAFETY: the address is that of an entry that was compiled for this very type,
                // and which `self.entry` keeps.
                let entry: Entry<$($A,)* R> = unsafe { std::mem::transmute(self.address) };
                let slot = self.function.slot();
                context::enter(move |ledger| entry(ledger, slot, $($A),*))
            }
        }
    };
}

for_each_arity!(call);
