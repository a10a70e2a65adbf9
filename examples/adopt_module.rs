//! A front end that fills a `cranelift_jit::JITModule`, made to replace what it has compiled: each
//! version is a module of its own, which is freed when the last thread has left it.
//!
//! ```text
//! cargo run --release --example adopt_module -- [--json]
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use lastout::cranelift_codegen::ir::{AbiParam, InstBuilder, types};
use lastout::cranelift_module::{FuncId, Linkage, Module, ModuleResult, default_libcall_names};
use lastout::{Adopted, Engine, Handle};
use serde_json::json;

const VERSIONS: i64 = 1000;
const THREADS: usize = 2;

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let json = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--json") => true,
        Some(_) => {
            eprintln!("usage: adopt_module [--json]");
            return ExitCode::from(2);
        }
    };
    match run(json) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("adopt_module: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Compiles `fn scale(x: i64) -> i64 { x * factor }`. Nothing in it is of lastout.
fn compile(factor: i64) -> ModuleResult<(JITModule, FuncId)> {
    let mut module = JITModule::new(JITBuilder::new(default_libcall_names())?);
    let mut context = module.make_context();
    context.func.signature.params.push(AbiParam::new(types::I64));
    context.func.signature.returns.push(AbiParam::new(types::I64));
    let mut buffers = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut buffers);
    let block = builder.create_block();
    builder.append_block_params_for_function_params(block);
    builder.switch_to_block(block);
    builder.seal_all_blocks();
    let x = builder.block_params(block)[0];
    let product = builder.ins().imul_imm_s(x, factor);
    builder.ins().return_(&[product]);
    builder.finalize(module.isa().frontend_config());
    let id = module.declare_function("scale", Linkage::Export, &context.func.signature)?;
    module.define_function(id, &mut context)?;
    module.finalize_definitions()?;
    Ok((module, id))
}

/// Has the engine call a module's function and, in the end, free the module.
fn install(
    engine: &Engine,
    (module, id): (JITModule, FuncId),
    freed: &Arc<AtomicU64>,
) -> Result<(), lastout::Error> {
    let address = module.get_finalized_function(id);
    let signature = module.declarations().get_function_decl(id).signature.clone();
    let freed = Arc::clone(freed);
    let mut adopted = Adopted::new(move || {
        // SAFETY: the module is this closure's, and when it is called no thread is inside.
        unsafe { module.free_memory() };
        freed.fetch_add(1, Ordering::Relaxed);
    });
    // SAFETY: the module's code is of this signature, and stays until it is freed.
    unsafe { adopted.export("scale", &signature, address) };
    engine.adopt(adopted)?;
    Ok(())
}

/// Calls the function until told to stop. Returns how many calls there were, and how many of them
/// ran an older version than one before.
fn call(scale: &Handle<fn(i64) -> i64>, stop: &AtomicBool) -> (u64, u64) {
    let (mut calls, mut backwards, mut newest) = (0, 0, 0);
    while !stop.load(Ordering::Relaxed) {
        // SAFETY: the function is sound for every argument.
        let factor = unsafe { scale.call(1) }.expect("the function is never removed");
        calls += 1;
        backwards += u64::from(factor < newest);
        newest = newest.max(factor);
    }
    (calls, backwards)
}

/// How much memory this process has, in bytes; 0 if the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = kilobytes.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    kilobytes.map_or(0, |kilobytes: u64| kilobytes << 10)
}

fn run(json: bool) -> Result<bool, Error> {
    let engine = Engine::new()?;
    let freed = Arc::new(AtomicU64::new(0));
    install(&engine, compile(1)?, &freed)?;
    let scale = engine.function::<fn(i64) -> i64>("scale")?;
    let stop = AtomicBool::new(false);
    let resident_start = resident();

    let (calls, backwards) = thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| call(&scale, &stop))).collect();
        let replaced = (2..=VERSIONS).try_for_each(|factor| -> Result<(), Error> {
            install(&engine, compile(factor)?, &freed)?;
            if factor % (VERSIONS / 4) == 0 {
                let freed = freed.load(Ordering::Relaxed);
                println!("{factor} modules installed, {freed} of them freed");
            }
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        let counts = callers.into_iter().map(|caller| caller.join().expect("callers return"));
        let counts = counts.fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
        replaced.map(|()| counts)
    })?;

    let resident_end = resident();
    println!("{calls} calls by {THREADS} threads, {backwards} of them of an older version again");
    println!("{resident_start} bytes resident at the start, {resident_end} at the end");
    engine.remove("scale")?;
    let freed = freed.load(Ordering::Relaxed);
    println!("after removal {freed} modules are freed");
    if json {
        let report = json!({
            "installed": engine.stats().installed,
            "freed": freed,
            "calls": calls,
            "backwards": backwards,
            "resident_bytes_start": resident_start,
            "resident_bytes_end": resident_end,
        });
        println!("{report}");
    }
    Ok(backwards == 0 && freed == VERSIONS as u64)
}
