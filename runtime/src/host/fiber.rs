//! Contexts for coroutines.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use lastout_reclaim::Context;

use crate::CallError;
use crate::host::context;
use crate::host::fork::Pass;
use crate::host::threads::{self, FIBER};

/// A context for a coroutine: what its calls are counted in, on whichever thread it runs.
///
/// As a rule a call ends on the thread that it has begun on. It need not, if a function of the host
/// switches stacks: then a coroutine is suspended inside of a version, and may be resumed elsewhere.
/// Calls are counted in memory that only one thread writes, the one that runs. So a coroutine that
/// moves has a fiber, and is only ever resumed by what the fiber [runs](Self::run). While it is
/// suspended, the versions that it is inside of stay, as they do while threads are inside; and who
/// is the last to leave one, a thread or a fiber, frees it.
///
/// A coroutine that is always resumed by the same thread needs no fiber.
///
/// ```
/// use corosensei::{Coroutine, CoroutineResult, Yielder};
/// use lastout::{CallError, Engine, Fiber};
///
/// /// What generated code calls to have its coroutine suspended.
/// extern "C-unwind" fn pause(yielder: usize) {
///     let yielder = std::ptr::with_exposed_provenance::<Yielder<(), ()>>(yielder);
///     // SAFETY: the coroutine below passes its own.
///     unsafe { &*yielder }.suspend(());
/// }
///
/// struct Routine(Coroutine<(), (), Result<i64, CallError>>);
///
/// // SAFETY: whatever is on its stack when it is suspended can be sent.
/// unsafe impl Send for Routine {}
///
/// impl Routine {
///     /// Goes on to where it is suspended, or to its end.
///     fn resume(&mut self, fiber: &mut Fiber) -> CoroutineResult<(), Result<i64, CallError>> {
///         fiber.run(|| self.0.resume(()))
///     }
/// }
///
/// # fn install(engine: &Engine, result: i64) -> Result<lastout::Installed, Box<dyn std::error::Error>> {
/// #     use lastout::cranelift_module::{FuncId, Linkage, Module};
/// #     use lastout::cranelift_codegen::ir::{ExternalName, UserExternalName};
/// #     let text = format!("function %f(i64) -> i64 system_v {{
/// #         fn0 = u0:0(i64) system_v
/// #     block0(v0: i64):
/// #         call fn0(v0)
/// #         v1 = iconst.i64 {result}
/// #         return v1
/// #     }}");
/// #     let mut unit = engine.unit();
/// #     let mut context = unit.make_context();
/// #     context.func = cranelift_reader::parse_functions(&text)?.remove(0);
/// #     let callee = context.func.dfg.ext_funcs.values().next().unwrap().signature;
/// #     let callee = context.func.dfg.signatures[callee].clone();
/// #     let pause = unit.declare_function("pause", Linkage::Import, &callee)?;
/// #     assert_eq!(pause.as_u32(), 0);
/// #     let f = unit.declare_function("f", Linkage::Export, &context.func.signature)?;
/// #     unit.define_function(f, &mut context)?;
/// #     Ok(engine.install(unit)?)
/// # }
/// let pause = pause as extern "C-unwind" fn(usize);
/// let engine = Engine::builder().host_function("pause", pause).build()?;
/// let first = install(&engine, 1)?; // `f` pauses, then returns 1
/// let f = engine.function::<fn(usize) -> i64>("f")?;
///
/// let mut fiber = Fiber::new()?;
/// let mut routine = Routine(Coroutine::new(move |yielder: &Yielder<(), ()>, ()| {
///     // SAFETY: the function is sound for the address of the coroutine's yielder.
///     unsafe { f.call(std::ptr::from_ref(yielder).expose_provenance()) }
/// }));
/// assert!(routine.resume(&mut fiber).as_yield().is_some());
///
/// // It is inside of the first version when that is replaced, and leaves it on another thread.
/// install(&engine, 2)?;
/// let second = std::thread::spawn(move || routine.resume(&mut fiber).as_return());
/// assert_eq!(second.join().unwrap(), Some(Ok(1)));
/// assert!(first.version("f").unwrap().wait_freed(std::time::Duration::ZERO));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What the caller owes
///
/// The contract of [`Handle`](crate::Handle)'s `call` asks this of whoever suspends a call:
///
/// - It goes on within a `run` of the fiber in which it has begun; or, if it has begun in none, on
///   the thread on which it has begun, in none.
/// - It is not suspended from within another fiber's `run` that it has itself called.
/// - In a shared library, a coroutine that may move between two calls makes each of them from a
///   function that is not inlined into it: compilers take the address of what belongs to a thread to
///   be the same for as long as a function runs. In an executable it makes no difference.
///
/// [`EngineBuilder::checked`](crate::EngineBuilder::checked) finds out if this is broken.
///
/// # Dropping
///
/// If a fiber is dropped whose coroutine is suspended inside of a version, nobody knows whether
/// that will be resumed or unwound. So its table of counts is kept as it is for good, and the
/// version is never freed. To have it freed, drop the coroutine, which unwinds it, within `run`,
/// and then the fiber.
///
/// # What it takes
///
/// As much as a thread does: 16 MiB of addresses and a page or two of memory, which the next fiber
/// or thread uses again. To free a version, a word in each such table is looked at; and to drop a
/// fiber, a word for each function and each version alive at a time.
pub struct Fiber {
    context: &'static Context,
    id: u64,
}

impl Fiber {
    /// A fiber, with nobody in it.
    ///
    /// # Errors
    ///
    /// [`CallError::Reclaim`] if there is no memory for its table of counts.
    pub fn new() -> Result<Self, CallError> {
        static FIBERS: AtomicU64 = AtomicU64::new(1);

        let id = FIBERS.fetch_add(1, Ordering::Relaxed);
        let _pass = Pass::new();
        let context = threads::domain().register(FIBER | id)?;
        Ok(Self { context, id })
    }

    /// Its number, by which [`ThreadFrames`](crate::ThreadFrames) say that it is inside of a
    /// version. No two fibers of a process have the same.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Counts the calling thread's calls in this fiber, for the time of `resume`, which resumes
    /// the coroutine and returns when that is suspended or has ended. Then the thread's calls are
    /// counted where they were before.
    ///
    /// Other fibers may be run within.
    pub fn run<R>(&mut self, resume: impl FnOnce() -> R) -> R {
        let _running = Running::begin(self.context);
        resume()
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        // Where a fork has left its thread behind, its context has been given up by now, or will
        // be.
        if self.context.owner() == FIBER | self.id && self.context.runner() == 0 {
            // SAFETY: it is this fiber's context, which nobody runs.
            unsafe { context::give_up(self.context) };
        }
    }
}

impl fmt::Debug for Fiber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fiber").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The calling thread runs a fiber, until this is dropped.
struct Running {
    fiber: &'static Context,
    before: Option<&'static Context>,
}

impl Running {
    fn begin(fiber: &'static Context) -> Self {
        // SAFETY: whoever has begun this has the fiber for itself, and this thread runs it.
        unsafe { fiber.set_runner(threads::id()) };
        Self { fiber, before: context::switch(Some(fiber)) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        context::switch(self.before);
        // SAFETY: this thread does not run it any more, and no other does before `run` returns.
        unsafe { self.fiber.set_runner(0) };
    }
}
