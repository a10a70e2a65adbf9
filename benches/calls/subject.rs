//! One callee, and a loop around each way of calling it.

use lastout::{Dispatch, Engine, Handle};
use lastout_tests::clif;

use crate::jit_module::{self, Word};
use crate::rivals::{Callee, repeat, rivals};
use crate::text::{self, Call};
use crate::{Error, Loop, Way};

/// What the loops of one layout are padded by more than those of the one before.
const PADDING: usize = 3;

/// What loops are padded by at most, for their calls to be patched as they should be.
const MOST_PADDING: usize = 64;

/// All ways of calling a body of so many steps, with loops that lie in cache lines in a way that
/// depends on `layout`. What the loops call is never freed.
pub(crate) fn subject(steps: usize, layout: usize) -> Result<Vec<Way>, Error> {
    let padding = PADDING * layout;
    let mut ways = Vec::new();
    let callee = with_jit_module(steps, padding, &mut ways)?;
    with_slots(steps, padding, &mut ways)?;
    with_patched_sites(steps, padding, &mut ways)?;
    ways.extend(rivals(callee));
    Ok(ways)
}

/// Loops in a module of `cranelift-jit`; returns the callee.
fn with_jit_module(steps: usize, padding: usize, ways: &mut Vec<Way>) -> Result<Callee, Error> {
    let [slot, counting_slot, counter] = [(); 3].map(|()| Word::new());
    let text = [
        text::callee("%callee", steps, None),
        text::callee("%counting", steps, Some(counter.address())),
        text::repeating("%direct", Call::Name("colocated %callee"), padding),
        text::repeating("%slot", Call::Slot(slot.address()), padding),
        text::repeating("%shared_atomic", Call::Slot(counting_slot.address()), padding),
    ];
    let compiled = jit_module::compile(&text.concat())?;
    slot.set(compiled[0]);
    counting_slot.set(compiled[1]);
    for (way, code) in ["direct", "slot", "shared_atomic"].into_iter().zip(&compiled[2..]) {
        type Compiled = extern "C" fn(i64, i64) -> i64;
        // SAFETY: the loops were compiled with this signature, and stay.
        let run = unsafe { std::mem::transmute::<*const u8, Compiled>(*code) };
        ways.push((way, Box::new(move |calls| run(calls, 1))));
    }
    // SAFETY: as the loops.
    Ok(unsafe { std::mem::transmute::<*const u8, Callee>(compiled[0]) })
}

/// Loops in units of an engine with slots, and one in Rust around a handle.
fn with_slots(steps: usize, padding: usize, ways: &mut Vec<Way>) -> Result<(), Error> {
    let engine = Engine::new()?;
    let within = text::repeating("%within_unit", Call::Name("colocated %fixed"), padding);
    install(&engine, &(text::callee("%fixed", steps, None) + &within))?;
    install(&engine, &text::callee("%callee", steps, None))?;
    install(&engine, &text::repeating("%gate", Call::Name("%callee"), padding))?;
    for way in ["within_unit", "gate"] {
        ways.push((way, compiled_loop(&engine, way)?));
    }
    let handle: Handle<fn(i64) -> i64> = engine.function("callee")?;
    // SAFETY: the callee is sound for all arguments.
    let call = move |value| unsafe { handle.call(value) }.expect("nothing is removed");
    ways.push(("handle", repeat(call)));
    // Dropping it would remove the functions.
    std::mem::forget(engine);
    Ok(())
}

/// Loops in units of an engine whose calls are patched: in place, and by way of a jump.
fn with_patched_sites(steps: usize, padding: usize, ways: &mut Vec<Way>) -> Result<(), Error> {
    let engine = Engine::builder().dispatch(Dispatch::PatchedSites).build()?;
    install(&engine, &text::callee("%callee", steps, None))?;
    type Text = fn(&str, Call<'_>, usize) -> String;
    let ways_and_texts: [(_, _, Text, _); 2] = [
        ("gate_patched", "%gate_patched", text::repeating, (1, 0)),
        ("gate_patched_jump", "%gate_patched_jump", text::repeating_aligned, (1, 1)),
    ];
    for (way, name, text, wanted) in ways_and_texts {
        let patched = || {
            let stats = engine.stats();
            (stats.patched_calls, stats.patched_calls_by_jump)
        };
        let mut paddings = padding..MOST_PADDING;
        // A loop that is not as wanted is replaced by the next, and forgotten.
        while patched() != wanted {
            let padding = paddings.next().ok_or("no padding makes the call lie as wanted")?;
            install(&engine, &text(name, Call::Name("%callee"), padding))?;
        }
        ways.push((way, compiled_loop(&engine, way)?));
    }
    std::mem::forget(engine);
    Ok(())
}

/// Installs a unit with the functions of `text`.
pub(crate) fn install(engine: &Engine, text: &str) -> Result<(), Error> {
    let mut unit = engine.unit();
    clif::define(&mut unit, text)?;
    engine.install(unit)?;
    Ok(())
}

fn compiled_loop(engine: &Engine, name: &str) -> Result<Loop, Error> {
    let compiled: Handle<fn(i64, i64) -> i64> = engine.function(name)?;
    // SAFETY: the loops are sound for all arguments.
    Ok(Box::new(move |calls| unsafe { compiled.call(calls, 1) }.expect("nothing is removed")))
}
