//! Fibers: contexts for coroutines.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use lastout_reclaim::Context;

use crate::CallError;
use crate::host::context;
use crate::host::fork::Pass;
use crate::host::threads::{self, FIBER};

/// A context for a coroutine, in which its calls are counted, on whichever thread it runs.
///
/// As a rule a call ends on the thread on which it has begun. It need not, if a function of the
/// host switches stacks: then a coroutine is suspended inside of a version, and may be resumed
/// elsewhere. Calls are counted in memory that only one thread writes, the one that runs. So a
/// coroutine that moves has a fiber, and only code that the fiber [runs](Self::run) ever resumes
/// it. While it is suspended, the versions that it is inside of stay, as they do while threads are
/// inside. The last thread or fiber to leave a version frees it.
///
/// A coroutine that is always resumed by the same thread needs no fiber.
///
/// ```
/// use corosensei::{Coroutine, CoroutineResult, Yielder};
/// use lastout::{CallError, Engine, Fiber};
///
/// /// Generated code calls this to suspend its coroutine.
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
/// # fn install(engine: &Engine, result: i64)
/// # -> Result<lastout::Installed, Box<dyn std::error::Error>> {
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
/// The contract of [`Handle`](crate::Handle)'s `call` asks this of code that suspends a call:
///
/// - The call goes on within a `run` of the fiber in which it has begun; or, if it has begun in
///   none, on the thread on which it has begun, in none.
/// - The call is not suspended from within another fiber's `run` that it has itself called.
/// - In a shared library, a coroutine that may move between two calls makes each of them from a
///   function that is not inlined into it: compilers take the address of a thread-local to be the
///   same for as long as a function runs. In an executable it makes no difference.
///
/// [`EngineBuilder::checked`](crate::EngineBuilder::checked) finds calls that break this.
///
/// # Dropping
///
/// If a fiber is dropped while its coroutine is suspended inside of a version, the fiber cannot
/// know whether that will be resumed or unwound. So its ledger is kept as it is for good, and the
/// version is never freed. For the version to be freed, drop the coroutine, which unwinds it,
/// within `run`, and then the fiber.
///
/// # What a fiber takes
///
/// A fiber takes as much as a thread does: 16 MiB of addresses and a page or two of memory, which
/// the next fiber or thread uses again. The free of a version looks at a word in each ledger, and
/// the drop of a fiber at a word for each function and each version alive at a time.
pub struct Fiber {
    context: &'static Context,
    id: u64,
}

impl Fiber {
    /// A fiber in which no call is counted yet.
    ///
    /// # Errors
    ///
    /// [`CallError::Reclaim`] if there is no memory for its ledger.
    pub fn new() -> Result<Self, CallError> {
        static FIBERS: AtomicU64 = AtomicU64::new(1);

        let id = FIBERS.fetch_add(1, Ordering::Relaxed);
        let _pass = Pass::new();
        let context = threads::domain().register(FIBER | id)?;
        Ok(Self { context, id })
    }

    /// The fiber's number, by which [`ThreadFrames`](crate::ThreadFrames) say that it is inside of
    /// a version. No two fibers of a process have the same number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Counts the calling thread's calls in this fiber, for the time of `resume`, which resumes the
    /// coroutine and returns when that is suspended or has ended. Afterwards the thread's calls are
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
        // If a fork has left the thread that ran the fiber behind, the context has been given up by
        // now, or will be.
        if self.context.owner() == FIBER | self.id && self.context.runner() == 0 {
            // SAFETY: the context is this fiber's, and no thread runs it.
            unsafe { context::give_up(self.context) };
        }
    }
}

impl fmt::Debug for Fiber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fiber").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Stands for a fiber that the calling thread runs, until this is dropped.
struct Running {
    fiber: &'static Context,
    before: Option<&'static Context>,
}

impl Running {
    fn begin(fiber: &'static Context) -> Self {
        // SAFETY: the caller has the fiber for itself, and this thread runs it.
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
