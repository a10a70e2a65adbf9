//! Modules of `cranelift-jit`, and words in memory that their code can name.

use std::sync::atomic::{AtomicUsize, Ordering};

use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::default_libcall_names;
use crossbeam_utils::CachePadded;
use lastout_tests::clif;

use crate::Error;

/// A word that no other shares a cache line with.
#[derive(Default)]
pub(crate) struct Word(CachePadded<AtomicUsize>);

impl Word {
    /// One that stays.
    pub(crate) fn new() -> &'static Self {
        Box::leak(Box::default())
    }

    pub(crate) fn address(&self) -> usize {
        self.0.as_ptr().expose_provenance()
    }

    pub(crate) fn set(&self, code: *const u8) {
        self.0.store(code.expose_provenance(), Ordering::Relaxed);
    }
}

/// The addresses of the functions in `text`, in their order, compiled into a module that stays.
pub(crate) fn compile(text: &str) -> Result<Vec<*const u8>, Error> {
    let flags = [("opt_level", "speed")];
    let mut module = JITModule::new(JITBuilder::with_flags(&flags, default_libcall_names())?);
    let ids = clif::define(&mut module, text)?;
    module.finalize_definitions()?;
    Ok(ids.into_iter().map(|id| module.get_finalized_function(id)).collect())
}
