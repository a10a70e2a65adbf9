//! A function and two versions of it with points, linked, and the host that they call.

use std::cell::RefCell;
use std::collections::HashMap;
use std::mem::transmute;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{AbiParam, Function, InstBuilder, Signature, UserExternalName, Value};
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module, default_libcall_names};
use lastout_instrument::resume::{
    PointNames, PositionNames, Resumable, ResumePoint, call_fallback, parked_call,
};
use lastout_instrument::{Callee, Symbol, symbol_name};

use super::liveness::marks;
use super::program::{ASK, PARAMS, Program, TICK, host_signatures};
use crate::support;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Whether there are parked calls, or else calls are made by their fallbacks.
    pub(crate) parked: bool,
    /// Whether the way into the second version converts what is alive, into the same.
    pub(crate) convert: bool,
    /// Which of the points there are.
    pub(crate) marked: u64,
}

/// What a frame has done that the host sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Happened {
    calls: Vec<(u32, i64)>,
    result: i64,
}

/// Which version has made each of the calls.
pub(crate) type Callers = Vec<usize>;

pub(crate) struct World {
    /// Until this is dropped.
    module: Option<JITModule>,
    original: Function,
    /// What is called from here: the original, and the two versions.
    entries: [Entry; 3],
    words: Words,
}

type Entry = extern "sysv64" fn(i64, i64, i64) -> i64;

/// What the host changes with what is current.
#[derive(Clone, Default)]
struct Words {
    /// The flags of each version.
    flags: [Vec<*mut usize>; 2],
    /// The slots of resume entries, with what is in them if a version is current.
    slots: Vec<(*mut usize, [usize; 2])>,
}

#[derive(Default)]
struct Host {
    script: u64,
    current: usize,
    words: Words,
    calls: Vec<(u32, i64)>,
    callers: Callers,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

impl Words {
    fn set(&self, current: usize) {
        let flags = self.flags.iter().enumerate();
        let flags = flags.flat_map(|(version, flags)| {
            flags.iter().map(move |&flag| (flag, usize::from(version != current)))
        });
        let slots = self.slots.iter().map(|(slot, ways_in)| (*slot, ways_in[current]));
        for (word, value) in flags.chain(slots) {
            // SAFETY: it is data of the module, which is there while its code runs, and this is the
            // thread that runs it.
            unsafe { word.write(value) };
        }
    }
}

impl Host {
    fn called(by: usize, callee: u32, argument: i64) {
        HOST.with_borrow_mut(|host| {
            let number = host.calls.len();
            host.calls.push((callee, argument));
            host.callers.push(by);
            if number < 64 && host.script >> number & 1 != 0 {
                host.current = 1 - host.current;
                host.words.set(host.current);
            }
        });
    }
}

extern "sysv64" fn tick<const BY: usize>(argument: i64) {
    Host::called(BY, TICK, argument);
}

extern "sysv64" fn ask<const BY: usize>(argument: i64) -> i64 {
    Host::called(BY, ASK, argument);
    argument.rotate_left(9) ^ 0x55
}

impl World {
    pub(crate) fn new(program: &Program, options: Options) -> Self {
        let isa = support::isa("x86_64");
        let functions = [0, 1].map(|version| program.function(version, &*isa));
        let mut linker = Linker::new(&isa);
        let entry = linker.entry(functions[0].clone());
        let mut marks = marks(&functions[0]);
        marks.retain(|mark| options.marked >> (mark.id % 64) & 1 != 0);
        let resumables = functions
            .each_ref()
            .map(|func| Resumable::new(func, &marks, &*isa).expect("it is resumable"));
        let points = resumables[0].points().iter();
        let points: Vec<_> = points.map(|point| linker.declare(&resumables[0], point)).collect();
        let versions = [0, 1].map(|version| {
            let resumable = &resumables[version];
            let names: Vec<_> = points.iter().map(|point| point.names(version)).collect();
            for (point, declared) in resumable.points().iter().zip(&points) {
                let own = declared.names(version);
                let parts = &declared.versions[version];
                linker.define(parts.code, resumable.code(point, &names));
                let resume_entry = match options.convert && version == 1 {
                    true => linker.converting(resumable, point, &own),
                    false => resumable.resume_entry(point, &own),
                };
                linker.define(parts.resume_entry, resume_entry);
                if let Some(fallback) = resumable.fallback(point, &own) {
                    linker.define(parts.fallback, fallback);
                }
            }
            linker.entry(resumable.start(&names))
        });
        for (point, declared) in resumables[0].points().iter().zip(&points) {
            if point.call.is_some() {
                let func = linker.parked(&resumables[0], point, declared, options);
                linker.define(declared.parked, func);
            }
        }
        linker.module.finalize_definitions().expect("all is defined");
        let module = &linker.module;
        let entries = [entry, versions[0], versions[1]].map(|entry| {
            let entry = module.get_finalized_function(entry);
            // SAFETY: it is code of this type.
            unsafe { transmute::<*const u8, Entry>(entry) }
        });
        let word = |data| module.get_finalized_data(data).0.cast_mut().cast::<usize>();
        let flags = [0, 1]
            .map(|version| points.iter().map(|point| word(point.versions[version].flag)).collect());
        let slots = points.iter().map(|point| {
            let resume_entry =
                |parts: &Parts| module.get_finalized_function(parts.resume_entry) as usize;
            (word(point.slot), point.versions.each_ref().map(resume_entry))
        });
        let words = Words { flags, slots: slots.collect() };
        // SAFETY: its slot holds an address, like those of resume entries.
        unsafe { word(linker.ask_slot).write(ask::<0> as *const () as usize) };
        let [original, _] = functions;
        Self { module: Some(linker.module), original, entries, words }
    }

    /// The function without points.
    pub(crate) fn original(&self) -> &Function {
        &self.original
    }

    pub(crate) fn run_original(&self, arguments: [i64; PARAMS]) -> Happened {
        self.call(self.entries[0], arguments, 0).0
    }

    /// Calls the first version, which is current, but not after the calls of the host that the
    /// script says.
    pub(crate) fn run(&self, arguments: [i64; PARAMS], script: u64) -> (Happened, Callers) {
        self.call(self.entries[1], arguments, script)
    }

    fn call(
        &self,
        entry: Entry,
        [one, two, three]: [i64; PARAMS],
        script: u64,
    ) -> (Happened, Callers) {
        self.words.set(0);
        let words = self.words.clone();
        HOST.set(Host { script, words, ..Host::default() });
        let result = entry(one, two, three);
        let Host { calls, callers, .. } = HOST.take();
        (Happened { calls, result }, callers)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let module = self.module.take().expect("it is dropped once");
        // SAFETY: its code is called only from here, and has returned.
        unsafe { module.free_memory() };
    }
}

/// What there is for a point.
struct Declared {
    /// What is in each of the two versions.
    versions: [Parts; 2],
    is_call: bool,
    parked: FuncId,
    /// Of the resume entry.
    slot: DataId,
}

struct Parts {
    resume_entry: FuncId,
    code: FuncId,
    fallback: FuncId,
    flag: DataId,
}

fn function_name(id: FuncId) -> UserExternalName {
    UserExternalName { namespace: 0, index: id.as_u32() }
}

fn data_name(id: DataId) -> UserExternalName {
    UserExternalName { namespace: 1, index: id.as_u32() }
}

impl Declared {
    /// The names for a version, which is left for the other one.
    fn names(&self, version: usize) -> PointNames {
        let Parts { code, fallback, flag, .. } = self.versions[version];
        let position = match self.is_call {
            true => PositionNames::Call {
                parked_call: function_name(self.parked),
                fallback: function_name(fallback),
            },
            false => PositionNames::Block { flag: data_name(flag) },
        };
        let resume_entry = function_name(self.versions[1 - version].resume_entry);
        PointNames { resume_entry, code: function_name(code), position }
    }
}

struct Linker {
    isa: OwnedTargetIsa,
    module: JITModule,
    ask_slot: DataId,
}

impl Linker {
    fn new(isa: &OwnedTargetIsa) -> Self {
        let mut builder = JITBuilder::with_isa(isa.clone(), default_libcall_names());
        // All of it in reach of everything.
        let memory = ArenaMemoryProvider::new_with_size(16 << 20).expect("there is memory");
        builder.memory_provider(Box::new(memory));
        let host = [
            ("tick", TICK, tick::<0> as *const u8),
            ("ask", ASK, ask::<0> as *const u8),
            ("tick of the second", TICK + 2, tick::<1> as *const u8),
            ("ask of the second", ASK + 2, ask::<1> as *const u8),
        ];
        builder.symbols(host.map(|(name, _, address)| (name, address)));
        let mut module = JITModule::new(builder);
        let signatures = host_signatures();
        for ((name, number, _), signature) in host.into_iter().zip(signatures.iter().cycle()) {
            let id = module.declare_function(name, Linkage::Import, signature).unwrap();
            assert_eq!(id.as_u32(), number);
        }
        let ask_slot = word(&mut module);
        Self { isa: isa.clone(), module, ask_slot }
    }

    fn declare(&mut self, resumable: &Resumable<'_>, point: &ResumePoint) -> Declared {
        let module = &mut self.module;
        let mut function = |signature: Signature| {
            module.declare_anonymous_function(&signature).expect("it can be declared")
        };
        let parked = function(resumable.parked_call_signature(point));
        let functions = [(); 2].map(|()| {
            [
                function(resumable.resume_entry_signature(point)),
                function(resumable.code_signature(point)),
                function(resumable.fallback_signature(point)),
            ]
        });
        let versions = functions.map(|[resume_entry, code, fallback]| Parts {
            resume_entry,
            code,
            fallback,
            flag: word(module),
        });
        Declared { versions, is_call: point.call.is_some(), parked, slot: word(module) }
    }

    fn define(&mut self, id: FuncId, func: Function) {
        support::verify(&func, &*self.isa);
        self.module.define_function(id, &mut Context::for_function(func)).expect("it compiles");
    }

    /// Defines a function, and what calls it from here.
    fn entry(&mut self, func: Function) -> FuncId {
        let callee = self.module.declare_anonymous_function(&func.signature).unwrap();
        let signature = Signature { call_conv: CallConv::SystemV, ..func.signature.clone() };
        self.define(callee, func);
        let entry = self.module.declare_anonymous_function(&signature).unwrap();
        let mut func = Function::new();
        func.signature = signature;
        let callee = self.module.declare_func_in_func(callee, &mut func);
        let func = small(func, &self.isa, |builder, params| {
            let call = builder.ins().call(callee, params);
            let results = builder.inst_results(call).to_vec();
            builder.ins().return_(&results);
        });
        self.define(entry, func);
        entry
    }

    /// The resume entry of a version where the same is alive, by a converter that returns what it
    /// takes.
    fn converting(
        &mut self,
        resumable: &Resumable<'_>,
        point: &ResumePoint,
        own: &PointNames,
    ) -> Function {
        let mut signature = Signature::new(CallConv::Tail);
        signature.params.extend(point.live.iter().map(|live| AbiParam::new(live.ty)));
        signature.returns.clone_from(&signature.params);
        assert!(point.accepts(&signature.returns));
        let converter = self.module.declare_anonymous_function(&signature).unwrap();
        let mut func = Function::new();
        func.signature = signature.clone();
        let func = small(func, &self.isa, |builder, params| {
            builder.ins().return_(params);
        });
        self.define(converter, func);
        resumable.converting_resume_entry(point, own, &function_name(converter), &signature)
    }

    /// The parked call of a point, or what takes its place.
    fn parked(
        &self,
        resumable: &Resumable<'_>,
        point: &ResumePoint,
        declared: &Declared,
        options: Options,
    ) -> Function {
        let signature = resumable.parked_call_signature(point);
        let (Some(call), true) = (&point.call, options.parked) else {
            return call_fallback(&signature);
        };
        let resume_entry = resumable.resume_entry_signature(point);
        let callee = if point.id.is_multiple_of(2) { Callee::Fixed } else { Callee::Replaceable };
        let mut func = parked_call(signature, call, callee, &resume_entry, &*self.isa);
        let names = [
            (Symbol::StubTarget, UserExternalName { namespace: 0, index: ASK }),
            (Symbol::Slot(0), data_name(self.ask_slot)),
            (Symbol::Slot(1), data_name(declared.slot)),
        ];
        let names: HashMap<_, _> =
            names.into_iter().map(|(symbol, name)| (symbol_name(symbol), name)).collect();
        let symbols: Vec<_> = func.params.user_named_funcs().iter().collect();
        let symbols: Vec<_> =
            symbols.into_iter().map(|(at, symbol)| (at, names[symbol].clone())).collect();
        for (at, name) in symbols {
            func.params.reset_user_func_name(at, name);
        }
        func
    }
}

/// A word of data.
fn word(module: &mut JITModule) -> DataId {
    let data = module.declare_anonymous_data(true, false).expect("it can be declared");
    let mut zero = DataDescription::new();
    zero.define_zeroinit(size_of::<usize>());
    zero.set_align(align_of::<usize>() as u64);
    module.define_data(data, &zero).expect("it can be defined");
    data
}

/// A function of one block.
fn small(
    mut func: Function,
    isa: &OwnedTargetIsa,
    fill: impl FnOnce(&mut FunctionBuilder<'_>, &[Value]),
) -> Function {
    let mut context = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut func, &mut context);
    let block = builder.create_block();
    builder.append_block_params_for_function_params(block);
    builder.switch_to_block(block);
    let params = builder.block_params(block).to_vec();
    fill(&mut builder, &params);
    builder.seal_all_blocks();
    builder.finalize(isa.frontend_config());
    func
}
