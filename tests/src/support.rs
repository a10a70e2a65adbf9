//! What many tests start from: engines that trap on stray executions, units from text, closures
//! that generated code can call, and values that tell when they are dropped.

#![expect(clippy::missing_panics_doc, reason = "whatever fails here fails the test")]

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::{Signature, UserExternalName};
use cranelift_module::{FuncId, Linkage, Module, ModuleReloc, ModuleRelocTarget};
use crossbeam_utils::Backoff;
use lastout::{Counting, Dispatch, Engine, EngineBuilder, Handle, Installed, Stats, Unit};
use lastout_instrument::{Symbol, symbol_name};

use crate::clif;

/// Calls a function through its handle, as a result.
///
/// For the functions of tests, which are sound for all arguments that tests give them.
#[macro_export]
macro_rules! call {
    ($handle:expr $(, $argument:expr)* $(,)?) => {{
        // SAFETY: the functions of tests are sound for the arguments that tests give them, and
        // neither unwind nor hand out addresses of what is freed before they are used.
        unsafe { $handle.call($($argument),*) }
    }};
}

/// The dispatch of the tests of a crate. Those whose names start with `patched` have tests of
/// others as modules, and so everything that these say is tested with both ways of dispatch.
pub const fn dispatch_in(crate_name: &str) -> Dispatch {
    match crate_name.as_bytes() {
        [b'p', b'a', b't', b'c', b'h', b'e', b'd', ..] => Dispatch::PatchedSites,
        _ => Dispatch::Slot,
    }
}

/// How functions are called in the tests of this crate, see [`dispatch_in`].
#[macro_export]
macro_rules! dispatch {
    () => {
        $crate::support::dispatch_in(env!("CARGO_CRATE_NAME"))
    };
}

/// A [builder] of engines with the [dispatch](dispatch!) of this crate.
#[macro_export]
macro_rules! builder {
    () => {
        $crate::support::builder().dispatch($crate::dispatch!())
    };
}

/// An engine to test with, with the [dispatch](dispatch!) of this crate.
#[macro_export]
macro_rules! engine {
    () => {
        $crate::builder!().build().unwrap()
    };
}

/// Both ways to count, for tests that should hold for either.
pub const COUNTINGS: [Counting; 2] = [Counting::Plain, Counting::Atomic];

/// The builder of [`engine!`]: freed code traps, and units can import `call_back`, which calls a
/// [`Callback`].
pub fn builder() -> EngineBuilder {
    type CallBack = extern "C-unwind" fn(usize, i64) -> i64;
    Engine::builder().quarantine(4 << 20).host_function("call_back", call_back as CallBack)
}

/// A unit with the functions of a text, see [`clif::define`].
pub fn unit(engine: &Engine, text: &str) -> Unit {
    let mut unit = engine.unit();
    clif::define(&mut unit, text).unwrap();
    unit
}

/// Installs the functions of a text, see [`clif::define`].
pub fn install(engine: &Engine, text: &str) -> Installed {
    engine.install(unit(engine, text)).unwrap()
}

/// Installs the functions of a text, with something attached that counts its drops.
pub fn install_counted(engine: &Engine, text: &str, drops: &Drops) -> Installed {
    let mut unit = unit(engine, text);
    unit.attach(drops.value());
    engine.install(unit).unwrap()
}

/// A handle to a function such as [`constant`].
pub type Nullary = Handle<fn() -> i64>;

/// A handle to a function such as [`calling_back`].
pub type CallingBack = Handle<fn(usize, i64) -> i64>;

/// The handle to a function `() -> i64`.
pub fn handle(engine: &Engine, name: &str) -> Nullary {
    engine.function(name).unwrap()
}

/// The handle to a function `(callback, i64) -> i64`.
pub fn calls(engine: &Engine, name: &str) -> CallingBack {
    engine.function(name).unwrap()
}

/// The signature of the first function of a text.
pub fn signature(text: &str) -> Signature {
    cranelift_reader::parse_functions(text).unwrap()[0].signature.clone()
}

/// The signature of a function such as [`constant`].
pub fn nullary() -> Signature {
    signature(&constant("nullary", 0))
}

/// What an engine holds, less what only counts up and which pages are kept for the next block.
pub fn held(stats: Stats) -> (usize, u64, usize, usize) {
    (stats.functions, stats.alive(), stats.code_bytes, stats.data_bytes)
}

/// A function `() -> i64` that returns a number.
pub fn constant(name: &str, value: i64) -> String {
    format!(
        "function %{name}() -> i64 system_v {{
         block0:
            v0 = iconst.i64 {value}
            return v0
         }}\n"
    )
}

/// A function `() -> i64` that calls another one of that type, and adds a number to its result.
pub fn caller(name: &str, callee: &str, plus: i64) -> String {
    format!(
        "function %{name}() -> i64 system_v {{
            fn0 = %{callee}() -> i64 system_v
         block0:
            v0 = call fn0()
            v1 = iconst.i64 {plus}
            v2 = iadd v0, v1
            return v2
         }}\n"
    )
}

/// A function `(callback, i64) -> i64` that calls a [`Callback`] back from inside, and adds a
/// number to its result.
pub fn calling_back(name: &str, plus: i64) -> String {
    format!(
        "function %{name}(i64, i64) -> i64 system_v {{
            fn0 = %call_back(i64, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            v2 = call fn0(v0, v1)
            v3 = iconst.i64 {plus}
            v4 = iadd v2, v3
            return v4
         }}\n"
    )
}

/// A closure, which may panic, for generated code to call: its [address](Self::address) is the first argument of a
/// function that [calls back](calling_back).
pub struct Callback<'a>(Box<dyn Fn(i64) -> i64 + Sync + 'a>);

impl<'a> Callback<'a> {
    /// A callback.
    pub fn new(callback: impl Fn(i64) -> i64 + Sync + 'a) -> Self {
        Self(Box::new(callback))
    }

    /// What generated code passes to `call_back`.
    pub fn address(&self) -> usize {
        std::ptr::from_ref(self).expose_provenance()
    }
}

extern "C-unwind" fn call_back(callback: usize, argument: i64) -> i64 {
    // SAFETY: tests pass the address of a callback that outlives the call.
    let callback = unsafe { &*std::ptr::with_exposed_provenance::<Callback<'_>>(callback) };
    (callback.0)(argument)
}

/// After how long a test has failed that waits for another thread.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for other threads to bring something about. It mostly takes next to no time, so this spins
/// at first, and then lets others run each time.
#[track_caller]
pub fn wait_until(is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    let backoff = Backoff::new();
    while !is_so() {
        assert!(Instant::now() < end, "it never is");
        backoff.snooze();
    }
}

/// For one test at a time of a binary: those that count what the process has, or need the
/// processor for themselves.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place where a thread stops until it is let go: the thread calls [`pass`](Self::pass), the
/// test waits for it to [arrive](Self::arrived) and [opens](Self::open).
pub struct Door {
    inside: Mutex<(Sender<()>, Receiver<()>)>,
    outside: Mutex<(Sender<()>, Receiver<()>)>,
}

impl Default for Door {
    fn default() -> Self {
        let ((arrive, arrived), (open, opened)) = (channel(), channel());
        Self { inside: Mutex::new((arrive, opened)), outside: Mutex::new((open, arrived)) }
    }
}

impl Door {
    /// Says that the thread is here, and waits for the door to open.
    pub fn pass(&self) {
        let (arrive, opened) = &*self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        arrive.send(()).unwrap();
        opened.recv_timeout(PATIENCE).expect("nobody opened the door");
    }

    /// A callback that passes the door and returns its argument.
    pub fn callback(&self) -> Callback<'_> {
        Callback::new(|argument| {
            self.pass();
            argument
        })
    }

    /// Waits for a thread to be at the door.
    pub fn arrived(&self) {
        let (_, arrived) = &*self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.recv_timeout(PATIENCE).expect("nobody came to the door");
    }

    /// Lets one thread pass.
    pub fn open(&self) {
        self.outside.lock().unwrap_or_else(PoisonError::into_inner).0.send(()).unwrap();
    }
}

/// Counts the values that were dropped.
#[derive(Clone, Default)]
pub struct Drops(Arc<AtomicUsize>);

impl Drops {
    /// None so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value that counts itself when it is dropped.
    pub fn value(&self) -> impl Send + use<> {
        struct Value(Drops);

        impl Drop for Value {
            fn drop(&mut self) {
                self.0.0.fetch_add(1, Ordering::SeqCst);
            }
        }

        Value(self.clone())
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// What an engine is given as [interleave](EngineBuilder::interleave) where [`steps`] are counted.
pub extern "C" fn step() {
    STEPS.set(STEPS.get() + 1);
}

/// How many steps of gates this thread goes through meanwhile: the same for every call of a
/// function, unless it has come to the gate of a version that is not current, and bailed.
pub fn steps<T>(call: impl FnOnce() -> T) -> (usize, T) {
    let before = STEPS.get();
    let result = call();
    (STEPS.get() - before, result)
}

/// Defines and exports a function that calls `callee`, of the same type `() -> i64`, as
/// [`Dispatch::PatchedSites`] has it, and returns the result. The four bytes with the distance to
/// what is called are `offset` after a multiple of eight.
#[cfg(target_arch = "x86_64")]
pub fn define_call_at(unit: &mut impl Module, name: &str, callee: FuncId, offset: usize) -> FuncId {
    let signature = unit.declarations().get_function_decl(callee).signature.clone();
    let id = unit.declare_function(name, Linkage::Export, &signature).unwrap();
    let mut code = vec![0x48, 0x83, 0xec, 8]; // sub rsp, 8
    let nops = (offset + 3) % 8;
    code.extend([0x90].repeat(nops));
    code.extend([0xe8, 0, 0, 0, 0]); // call
    let distance = code.len() - 4;
    assert_eq!(distance % 8, offset);
    code.extend([0x48, 0x83, 0xc4, 8, 0xc3]); // add rsp, 8; ret
    let UserExternalName { namespace, index } = symbol_name(Symbol::Gate(callee.as_u32()));
    let reloc = ModuleReloc {
        offset: distance as u32,
        kind: Reloc::X86CallPCRel4,
        name: ModuleRelocTarget::user(namespace, index),
        addend: -4,
    };
    unit.define_function_bytes(id, 8, &code, &[reloc]).unwrap();
    id
}

/// Runs a closure when dropped.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}
