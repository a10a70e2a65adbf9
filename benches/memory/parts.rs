//! What is measured, each part in a process of its own.

use std::hint::black_box;
use std::sync::mpsc::Sender;
use std::time::Instant;

use lastout::{Engine, Handle};
use lastout_tests::measure::{idle_thread, median};
use lastout_tests::random::Random;
use serde_json::{Value, json};

use crate::code::{Code, Function};
use crate::{Result, progress};

/// Functions alive while their memory is measured.
pub(crate) const LIVE: usize = 100_000;

/// Sizes of code that are measured, in bytes.
pub(crate) const SIZES: [usize; 3] = [20, 200, 2000];

/// Runs a part, given as its name and arguments.
pub(crate) fn run(part: &[String]) -> Result<Value> {
    let number = |index: usize| Ok::<usize, crate::Error>(part[index].parse()?);
    match &*part[0] {
        "bytes" => bytes(&part[1], number(2)?),
        "times" => times(),
        "alive" => alive(),
        "round_robin" => round_robin(number(1)?),
        "growth" => growth(number(1)?),
        "churn" => churn(),
        other => Err(format!("there is no part {other}").into()),
    }
}

/// Bytes of memory that this process has. Pages that are mapped twice count once.
fn resident() -> Result<usize> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let share = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let share = share.and_then(|share| share.trim().strip_suffix("kB"));
    let kilobytes: usize = share.ok_or("there is no proportional share")?.trim().parse()?;
    Ok(kilobytes << 10)
}

/// A function that is called through its gate.
type Gated = Handle<fn(i64) -> i64>;

fn call(handle: &Gated, argument: i64) -> Result<i64> {
    // SAFETY: the functions of this bench are sound for every argument.
    Ok(unsafe { handle.call(argument) }?)
}

/// What a live function takes, each of them called once.
fn bytes(way: &str, size: usize) -> Result<Value> {
    let engine = Engine::new()?;
    let code = Code::new(engine.isa(), size)?;
    let mut modules = Vec::with_capacity(LIVE);
    let mut before = 0;
    // The first is not counted: it brings with it what all have in common.
    for number in 0..=LIVE {
        let name = format!("f{number}");
        if way == "lastout" {
            engine.install(code.unit(&engine, &name)?)?;
            call(&engine.function(&name)?, 1)?;
        } else {
            let (module, function) = code.module(&name)?;
            black_box(function(1));
            modules.push(module);
        }
        if number == 0 {
            before = resident()?;
        }
    }
    let per_function = (resident()? - before) as f64 / LIVE as f64;
    let result = json!({ "code": code.bytes.len(), "bytes_per_function": per_function });
    for module in modules {
        // SAFETY: nothing of the module is used any more.
        unsafe { module.free_memory() };
    }
    Ok(result)
}

/// Another thread, which has called a function and waits.
fn idle_caller(engine: &Engine) -> Result<Sender<()>> {
    let handle: Gated = engine.function("f0")?;
    Ok(idle_thread(move || call(&handle, 1).is_ok())?)
}

/// Microseconds that each of several runs of `run` takes: the median of blocks of them.
fn micros(runs: usize, mut run: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    const BLOCK: usize = 100;
    let mut blocks = Vec::new();
    for first in (0..runs).step_by(BLOCK) {
        let began = Instant::now();
        for index in first..first + BLOCK {
            run(index)?;
        }
        blocks.push(began.elapsed().as_secs_f64() * 1e6 / BLOCK as f64);
    }
    Ok(median(blocks))
}

/// Installing and freeing code that is compiled already, with one other thread that is idle.
fn times() -> Result<Value> {
    const RUNS: usize = 5_000;
    let engine = Engine::new()?;
    let code = Code::new(engine.isa(), 200)?;
    engine.install(code.unit(&engine, "f0")?)?;
    let _idle = idle_caller(&engine)?;
    let names: Vec<String> = (0..RUNS).map(|number| format!("g{number}")).collect();

    let install = micros(RUNS, |index| {
        engine.install(code.unit(&engine, &names[index])?)?;
        Ok(())
    })?;
    let replace = micros(RUNS, |index| {
        engine.install(code.unit(&engine, &names[index])?)?;
        Ok(())
    })?;
    let free = micros(RUNS, |index| Ok(engine.remove(&names[index])?))?;

    let mut modules = Vec::with_capacity(RUNS);
    let module_install = micros(RUNS, |index| {
        modules.push(code.module(&names[index])?.0);
        Ok(())
    })?;
    let module_free = micros(RUNS, |_| {
        if let Some(module) = modules.pop() {
            // SAFETY: no code of the module has been called.
            unsafe { module.free_memory() };
        }
        Ok(())
    })?;
    Ok(json!({
        "install_us": install,
        "replace_us": replace,
        "free_us": free,
        "module_install_us": module_install,
        "module_free_us": module_free,
    }))
}

/// Installing one function more, by how many there are.
fn alive() -> Result<Value> {
    const RUNS: usize = 2_000;
    let engine = Engine::new()?;
    let code = Code::new(engine.isa(), 20)?;
    engine.install(code.unit(&engine, "f0")?)?;
    let _idle = idle_caller(&engine)?;
    let mut count = 1;
    let mut figures = serde_json::Map::new();
    for alive in [1_000, 100_000, 1_000_000] {
        while count < alive {
            engine.install(code.unit(&engine, &format!("f{count}"))?)?;
            count += 1;
            progress("functions alive", count, 1_000_000);
        }
        let names: Vec<String> = (count..count + RUNS).map(|number| format!("f{number}")).collect();
        let micros = micros(RUNS, |index| {
            engine.install(code.unit(&engine, &names[index])?)?;
            Ok(())
        })?;
        count += RUNS;
        figures.insert(alive.to_string(), json!(micros));
    }
    let memory = engine.stats().committed_bytes;
    Ok(json!({ "install_us": figures, "committed_bytes": memory, "resident": resident()? }))
}

/// Nanoseconds a call of functions in turn, packed and with a page each: bare calls, which is what
/// the place of code does by itself, and calls through handles and gates. Beside them bare calls of
/// modules of `cranelift-jit` with one function each.
fn round_robin(functions: usize) -> Result<Value> {
    const ROUNDS: usize = 15;
    let engine = Engine::new()?;
    let code = Code::new(engine.isa(), 20)?;
    // Gates first, so that there is nothing between the versions.
    let bare = |prefix: &str, align: u64| -> Result<Vec<Function>> {
        let names: Vec<_> = (0..functions).map(|number| format!("{prefix}{number}")).collect();
        names.iter().try_for_each(|name| code.declare_bare(&engine, name))?;
        names.iter().map(|name| code.bare(&engine, name, align)).collect()
    };
    let bare_packed = bare("bare_packed", 1)?;
    let bare_paged = bare("bare_paged", 4096)?;
    let gated = |prefix: &str, code: &Code| -> Result<Vec<Gated>> {
        let handles = (0..functions).map(|number| {
            let name = format!("{prefix}{number}");
            engine.install(code.unit(&engine, &name)?)?;
            Ok(engine.function(&name)?)
        });
        handles.collect()
    };
    let before = engine.stats().code_bytes;
    let gated_packed = gated("packed", &code)?;
    // Each with so much behind it that it takes a page, its gate included.
    let taken = (engine.stats().code_bytes - before) / functions;
    let mut padded = code.clone();
    padded.bytes.resize(4096 - taken + code.bytes.len().next_multiple_of(64), 0);
    let gated_paged = gated("paged", &padded)?;
    let modules: Vec<_> = (0..functions).map(|_| code.module("f")).collect::<Result<_>>()?;
    let modules_bare: Vec<Function> = modules.iter().map(|module| module.1).collect();

    let bare = |functions: &[Function]| time_each(functions, |function| Ok(function(1)));
    let gated = |handles: &[Gated]| time_each(handles, |handle| call(handle, 1));
    let mut rounds = [const { Vec::new() }; 5];
    for _ in 0..ROUNDS {
        let round = [
            bare(&bare_packed)?,
            bare(&bare_paged)?,
            gated(&gated_packed)?,
            gated(&gated_paged)?,
            bare(&modules_bare)?,
        ];
        for (times, time) in rounds.iter_mut().zip(round) {
            times.push(time);
        }
    }
    let [bare_packed, bare_paged, packed, paged, module] = rounds.map(median);
    for (module, _) in modules {
        // SAFETY: nothing of the module is used any more.
        unsafe { module.free_memory() };
    }
    Ok(json!({
        "bare": { "packed": bare_packed, "page_each": bare_paged, "module_each": module },
        "gated": { "packed": packed, "page_each": paged },
    }))
}

/// Calls each of several functions in turn, over and over: nanoseconds a call.
fn time_each<F>(functions: &[F], call: impl Fn(&F) -> Result<i64>) -> Result<f64> {
    let turns = (1 << 20) / functions.len();
    let began = Instant::now();
    for _ in 0..turns {
        for function in functions {
            black_box(call(function)?);
        }
    }
    Ok(began.elapsed().as_secs_f64() * 1e9 / (turns * functions.len()) as f64)
}

/// What is left in memory of functions that were compiled, called once and dropped.
fn growth(cycles: usize) -> Result<Value> {
    const WARM_UP: usize = 1_000;
    let engine = Engine::new()?;
    let mut emitter = lastout_tests::emit::Emitter::default();
    let mut before = 0;
    let began = Instant::now();
    for number in 0..WARM_UP + cycles {
        if number == WARM_UP {
            before = resident()?;
        }
        let installed_as = format!("f{}", number % 7);
        one_shot(&engine, &mut emitter, &installed_as, number as i64)?;
        progress("compiled, called, dropped", number, WARM_UP + cycles);
    }
    let stats = engine.stats();
    Ok(json!({
        "cycles": cycles,
        "grown_bytes": resident()? as i64 - before as i64,
        "cycle_us": began.elapsed().as_secs_f64() * 1e6 / (WARM_UP + cycles) as f64,
        "alive": stats.alive(),
    }))
}

fn one_shot(
    engine: &Engine,
    emitter: &mut lastout_tests::emit::Emitter,
    name: &str,
    value: i64,
) -> Result<()> {
    use cranelift_codegen::ir::{AbiParam, InstBuilder, types};
    use cranelift_module::{Linkage, Module};

    let mut unit = engine.unit();
    let mut signature = unit.make_signature();
    signature.params.push(AbiParam::new(types::I64));
    signature.returns.push(AbiParam::new(types::I64));
    let id = unit.declare_function(name, Linkage::Export, &signature)?;
    emitter.define(&mut unit, id, |builder, _, params| {
        let sum = builder.ins().iadd_imm_s(params[0], value);
        builder.ins().return_(&[sum]);
    })?;
    engine.install(unit)?;
    if call(&engine.function(name)?, 1)? != value + 1 {
        return Err("a function has returned something else".into());
    }
    Ok(engine.remove(name)?)
}

/// How much of the memory in use is dead after functions of many sizes have come and gone.
fn churn() -> Result<Value> {
    const FUNCTIONS: usize = 20_000;
    const STEPS: usize = 500_000;
    let engine = Engine::new()?;
    let sizes: Vec<Code> =
        (4..13).map(|log| Code::new(engine.isa(), 1 << log)).collect::<Result<_>>()?;
    let mut random = Random::new(42);
    let mut alive: Vec<Option<usize>> = vec![None; FUNCTIONS];
    let mut live_bytes = 0;
    for step in 0..STEPS {
        let function = random.below(FUNCTIONS);
        let name = format!("f{function}");
        if let Some(size) = alive[function].take() {
            live_bytes -= size;
            // Some are removed, some replaced.
            if random.below(2) == 0 {
                engine.remove(&name)?;
                continue;
            }
        }
        let mut code = sizes[random.below(sizes.len())].clone();
        let shortened = random.below(code.bytes.len() / 2);
        code.bytes.truncate(code.bytes.len() - shortened);
        engine.install(code.unit(&engine, &name)?)?;
        alive[function] = Some(code.bytes.len());
        live_bytes += code.bytes.len();
        progress("replaced and removed", step, STEPS);
    }
    let stats = engine.stats();
    let bodies = alive.iter().flatten();
    let lines: usize = bodies.map(|size| size.next_multiple_of(64)).sum();
    // Gates and entries are alive too.
    let live = live_bytes + stats.code_bytes - lines;
    let dead = 1.0 - live as f64 / stats.committed_bytes as f64;
    Ok(json!({
        "functions": alive.iter().flatten().count(),
        "live_bytes": live,
        "committed_bytes": stats.committed_bytes,
        "dead_share": dead,
    }))
}
