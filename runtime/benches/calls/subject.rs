//! One callee, and a loop around each way of calling it.

use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, default_libcall_names};
use lastout::{Engine, Handle};
use lastout_tests::clif;

use crate::rivals::{Callee, repeat, rivals};
use crate::{Error, text};

/// Calls the callee as often as the argument says.
pub(crate) type Loop = Box<dyn Fn(i64) -> i64 + Send + Sync>;

/// A way of calling, with its name.
pub(crate) type Way = (&'static str, Loop);

/// Everything that there is for a body of some size. What the loops call is never freed.
pub(crate) struct Subject {
    pub(crate) ways: Vec<Way>,
}

impl Subject {
    /// All ways of calling a body of so many steps.
    pub(crate) fn new(steps: usize) -> Result<Self, Error> {
        let mut ways = Vec::new();
        let callee = with_jit_module(steps, &mut ways)?;
        with_lastout(steps, &mut ways)?;
        ways.extend(rivals(callee));
        Ok(Self { ways })
    }
}

/// Loops in a module of `cranelift-jit`, which is never freed; returns the callee.
fn with_jit_module(steps: usize, ways: &mut Vec<Way>) -> Result<Callee, Error> {
    // Slots and the counter, at addresses that the text can name.
    let words: &'static mut [usize; 3] = Box::leak(Box::default());
    let addresses = words.each_ref().map(|word| std::ptr::from_ref(word).expose_provenance());
    let [slot, counting_slot, counter] = addresses;
    let text = [
        text::callee(steps),
        text::counting(steps, counter),
        text::calling("%direct", "colocated %callee"),
        text::through_slot("%slot", slot),
        text::through_slot("%shared_atomic", counting_slot),
    ];
    let flags = [("opt_level", "speed")];
    let mut module = JITModule::new(JITBuilder::with_flags(&flags, default_libcall_names())?);
    let ids = clif::define(&mut module, &text.concat())?;
    module.finalize_definitions()?;
    let address = |id: FuncId| module.get_finalized_function(id);
    words[0] = address(ids[0]).expose_provenance();
    words[1] = address(ids[1]).expose_provenance();
    for (way, id) in [("direct", ids[2]), ("slot", ids[3]), ("shared_atomic", ids[4])] {
        type Compiled = extern "C" fn(i64, i64) -> i64;
        // SAFETY: the loops were compiled with this signature, and stay.
        let compiled = unsafe { std::mem::transmute::<*const u8, Compiled>(address(id)) };
        ways.push((way, Box::new(move |calls| compiled(calls, 1))));
    }
    // SAFETY: as the loops.
    Ok(unsafe { std::mem::transmute::<*const u8, Callee>(address(ids[0])) })
}

/// Loops in units of an engine, and one in Rust around a handle.
fn with_lastout(steps: usize, ways: &mut Vec<Way>) -> Result<(), Error> {
    let engine = Engine::new()?;
    let install = |text: &str| -> Result<(), Error> {
        let mut unit = engine.unit();
        clif::define(&mut unit, text)?;
        engine.install(unit)?;
        Ok(())
    };
    let callee = text::callee(steps);
    let within = text::calling("%within_unit", "colocated %fixed");
    install(&(callee.replace("%callee", "%fixed") + &within))?;
    install(&callee)?;
    install(&text::calling("%gate", "%callee"))?;
    for way in ["within_unit", "gate"] {
        let compiled: Handle<fn(i64, i64) -> i64> = engine.function(way)?;
        // SAFETY: the loops are sound for all arguments.
        let run = move |calls| unsafe { compiled.call(calls, 1) }.expect("nothing is removed");
        ways.push((way, Box::new(run)));
    }
    let handle: Handle<fn(i64) -> i64> = engine.function("callee")?;
    // SAFETY: the callee is sound for all arguments.
    let call = move |value| unsafe { handle.call(value) }.expect("nothing is removed");
    ways.push(("handle", repeat(call)));
    // Dropping it would remove the functions.
    std::mem::forget(engine);
    Ok(())
}
