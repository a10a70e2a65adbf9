//! Random signatures through gates, compared with direct calls.
//!
//! A [`Case`] becomes a unit with a function of its signature, which notes all arguments byte for
//! byte in a buffer, and returns bytes of that buffer as its results; and callers, which load
//! arguments from a buffer and store results into another. One of them calls directly, which is
//! Cranelift's own business and so the oracle. The others go through the slot and the gate, and
//! through the stable entry. [`check`] compares what they pass and what they get back.
//!
//! What Cranelift or a gate cannot do must be refused as an error by both, and nothing may panic.

use arbitrary::{Arbitrary, Unstructured};
use cranelift_codegen::ir::{
    AbiParam, ArgumentExtension, ArgumentPurpose, InstBuilder, MemFlagsData, Signature, Type,
    Value, types,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::FunctionBuilder;
use cranelift_module::{FuncId, Linkage, Module, ModuleResult};
use lastout::{Counting, Engine, Error, FunctionType, Unit};
use lastout_instrument::{GateOptions, check_gate, gate};

use crate::emit::Emitter;
use crate::random::Random;

/// Every argument and result has this much room in a buffer.
const ROOM: usize = 128;
/// How many arguments there may be, and how many results.
const MOST: usize = 20;
/// How much a callee writes through a struct-return pointer.
const STRUCT_RETURN: usize = 64;

/// A signature, and what to do with it.
#[derive(Clone, Debug)]
pub struct Case {
    /// How gates count.
    pub counting: Counting,
    /// Whether gates call a hook between any two steps, which spoils every register it may.
    pub interleave: bool,
    /// Cranelift's flags that widen what signatures can be.
    pub flags: Flags,
    /// The signature.
    pub signature: Signature,
    /// Where the bytes of the arguments come from.
    pub seed: u64,
}

/// Cranelift's flags that widen what signatures can be.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Flags {
    /// `enable_llvm_abi_extensions`: 128-bit integers in other conventions than Cranelift's own.
    pub llvm_abi_extensions: bool,
    /// `enable_multi_ret_implicit_sret`: more results than there are registers.
    pub multi_ret_implicit_sret: bool,
}

const TYPES: [Type; 15] = [
    types::I8,
    types::I16,
    types::I32,
    types::I64,
    types::I128,
    types::F32,
    types::F64,
    types::I8X16,
    types::I16X8,
    types::I32X4,
    types::I64X2,
    types::F32X4,
    types::F64X2,
    types::F16,
    types::F128,
];

const CALL_CONVS: [CallConv; 8] = [
    CallConv::SystemV,
    CallConv::Fast,
    CallConv::Tail,
    CallConv::SystemV,
    CallConv::WindowsFastcall,
    CallConv::PreserveAll,
    CallConv::Winch,
    CallConv::AppleAarch64,
];

impl<'a> Arbitrary<'a> for Case {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let counting = *u.choose(&[Counting::Plain, Counting::Atomic])?;
        let interleave = u.arbitrary()?;
        let flags = u.arbitrary()?;
        let seed = u.arbitrary()?;
        // The later ones are rarer: most of them are refused.
        let last = *u.choose(&[0, 2, 2, 4, 5, CALL_CONVS.len() - 1])?;
        let mut signature = Signature::new(CALL_CONVS[u.int_in_range(0..=last)?]);
        let results = *u.choose(&[0, 1, 2, 3, 4, MOST])?;
        for _ in 0..u.int_in_range(0..=14)? {
            signature.params.push(param(u)?);
        }
        for _ in 0..u.int_in_range(0..=results)? {
            signature.returns.push(scalar(u)?);
        }
        if u.int_in_range(0..=7)? == 7 {
            let pointer = AbiParam::special(types::I64, ArgumentPurpose::StructReturn);
            signature.params.insert(0, pointer);
            if u.int_in_range(0..=7)? < 7 {
                signature.returns.clear();
            }
        }
        Ok(Self { counting, interleave, flags, signature, seed })
    }
}

fn param(u: &mut Unstructured<'_>) -> arbitrary::Result<AbiParam> {
    if u.int_in_range(0..=15)? == 15 {
        let size = *u.choose(&[16, 24, 64, 8, ROOM as u32, 12])?;
        return Ok(AbiParam::special(types::I64, ArgumentPurpose::StructArgument(size)));
    }
    scalar(u)
}

fn scalar(u: &mut Unstructured<'_>) -> arbitrary::Result<AbiParam> {
    let param = AbiParam::new(TYPES[u.int_in_range(0..=TYPES.len() - 1)?]);
    if !param.value_type.is_int() || param.value_type.bits() > 32 {
        return Ok(param);
    }
    Ok(match u.int_in_range(0..=2)? {
        0 => param,
        1 => param.uext(),
        _ => param.sext(),
    })
}

/// Calls functions of the signature in all ways there are, and compares.
///
/// # Panics
///
/// If two ways differ in what they pass on or return, if one is refused and another is not, or if
/// the gate is not one that [`check_gate`] accepts.
pub fn check(case: &Case) {
    let engine = engine(case);
    let signature = &case.signature;
    let mut buffers = Box::new(Buffers::new(case.seed));
    let mut unit = engine.unit();
    let callee = unit.declare_function("callee", Linkage::Export, signature).unwrap();
    let defined = define_callee(&mut unit, callee, buffers.observed.as_mut_ptr());
    let declared = engine.declare("callee", signature);
    match (defined, declared) {
        (Ok(()), Ok(())) => {}
        (Err(_), Err(Error::Instrument(_) | Error::Module(_))) => return,
        (defined, declared) => {
            panic!("{signature}: defined: {defined:?}, declared: {declared:?}")
        }
    }
    let options = GateOptions { counting: case.counting, interleave: case.interleave };
    let gate = gate(signature, options, engine.isa()).unwrap();
    check_gate(&gate, engine.isa()).unwrap_or_else(|violation| panic!("{violation}\n{gate}"));

    // Direct as Cranelift has it: the callee is another function of the same unit.
    for by in [By::Call, By::Address] {
        define_caller(&mut unit, callee, by);
    }
    engine.install(unit).unwrap();
    let mut unit = engine.unit();
    let import = unit.declare_function("callee", Linkage::Import, signature).unwrap();
    for by in [By::Call, By::Address] {
        define_caller(&mut unit, import, by);
    }
    engine.install(unit).unwrap();

    for (oracle, other) in [("direct call", "call"), ("direct address", "entry")] {
        let oracle = buffers.call(&engine, oracle);
        assert_eq!(buffers.call(&engine, other), oracle, "{signature}: {other}, and directly");
    }
    let versions = engine.versions("callee").unwrap();
    assert_eq!(versions[0].frames(), 0, "{signature}: a count is left");
}

fn engine(case: &Case) -> Engine {
    let flag = |set: bool| if set { "true" } else { "false" };
    let mut builder = Engine::builder()
        .counting(case.counting)
        .quarantine(4 << 20)
        .flag("enable_llvm_abi_extensions", flag(case.flags.llvm_abi_extensions))
        .flag("enable_multi_ret_implicit_sret", flag(case.flags.multi_ret_implicit_sret));
    if case.interleave {
        builder = builder.interleave(spoil_registers);
    }
    builder.build().unwrap()
}

/// What the callers read and write, and what the callee notes.
struct Buffers {
    arguments: [u8; ROOM * MOST],
    results: [u8; ROOM * MOST],
    observed: [u8; ROOM * MOST],
}

impl Buffers {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed | 1);
        let arguments = std::array::from_fn(|_| random.number() as u8);
        Self { arguments, results: [0; ROOM * MOST], observed: [0; ROOM * MOST] }
    }

    /// What a caller gets, and what its callee got.
    fn call(&mut self, engine: &Engine, caller: &str) -> (Vec<u8>, Vec<u8>) {
        self.results.fill(0x5a);
        self.observed.fill(0xa5);
        let caller = engine.function::<Caller>(caller).unwrap();
        // SAFETY: callers read and write nothing but these buffers, and within their bounds.
        unsafe { caller.call(self.arguments.as_ptr(), self.results.as_mut_ptr()) }.unwrap();
        (self.results.to_vec(), self.observed.to_vec())
    }
}

/// Arguments, and where to put results.
type Caller = fn(*const u8, *mut u8);

fn offset(index: usize) -> i32 {
    (index * ROOM) as i32
}

/// Notes the arguments in `observed`, and returns what is there.
fn define_callee(unit: &mut Unit, callee: FuncId, observed: *mut u8) -> ModuleResult<()> {
    let emit = |builder: &mut FunctionBuilder<'_>, _: &mut Unit, arguments: &[Value]| {
        let signature = builder.func.signature.clone();
        let observed = builder.ins().iconst(types::I64, observed.expose_provenance() as i64);
        let flags = MemFlagsData::new();
        let mut struct_return = None;
        for (index, (param, &argument)) in signature.params.iter().zip(arguments).enumerate() {
            match param.purpose {
                ArgumentPurpose::StructArgument(size) => {
                    let to = builder.ins().iadd_imm_s(observed, i64::from(offset(index)));
                    copy(builder, argument, to, size as usize);
                }
                ArgumentPurpose::StructReturn => struct_return = Some(argument),
                _ => {
                    builder.ins().store(flags, argument, observed, offset(index));
                }
            }
        }
        if let Some(to) = struct_return {
            let from = builder.ins().iadd_imm_s(observed, i64::from(offset(1)));
            copy(builder, from, to, STRUCT_RETURN);
        }
        let params = signature.params.len().max(1);
        let results = signature.returns.iter().enumerate().map(|(index, result)| {
            // Each from another place: an argument's, or, if there are more results than
            // arguments, one that begins a byte later.
            let from = offset(index % params) + (index / params) as i32;
            builder.ins().load(result.value_type, flags, observed, from)
        });
        let results: Vec<_> = results.collect();
        builder.ins().return_(&results);
    };
    Emitter::default().define(unit, callee, emit)
}

/// How a caller calls.
#[derive(Clone, Copy)]
enum By {
    Call,
    /// By the callee's address. Where small integers are extended, it takes the results as what
    /// they are extended to, as callers do that were compiled by others.
    Address,
}

fn define_caller(unit: &mut Unit, callee: FuncId, by: By) {
    let direct = unit.declarations().get_function_decl(callee).linkage == Linkage::Export;
    let name = match (by, direct) {
        (By::Call, true) => "direct call",
        (By::Address, true) => "direct address",
        (By::Call, false) => "call",
        (By::Address, false) => "entry",
    };
    let caller = Caller::signature(unit.isa());
    let caller = unit.declare_function(name, Linkage::Export, &caller).unwrap();
    let emit = |builder: &mut FunctionBuilder<'_>, unit: &mut Unit, params: &[Value]| {
        let [from, to] = *params else { unreachable!("a caller has two parameters") };
        let signature = unit.declarations().get_function_decl(callee).signature.clone();
        let callee = unit.declare_func_in_func(callee, builder.func);
        let arguments: Vec<_> = signature
            .params
            .iter()
            .enumerate()
            .map(|(index, param)| match param.purpose {
                ArgumentPurpose::StructArgument(_) => {
                    builder.ins().iadd_imm_s(from, i64::from(offset(index)))
                }
                ArgumentPurpose::StructReturn => {
                    builder.ins().iadd_imm_s(to, i64::from(offset(MOST - 1)))
                }
                _ => {
                    let flags = MemFlagsData::new();
                    builder.ins().load(param.value_type, flags, from, offset(index))
                }
            })
            .collect();
        let call = match by {
            By::Call => builder.ins().call(callee, &arguments),
            By::Address => {
                let widened = builder.import_signature(widened(&signature));
                let address = builder.ins().func_addr(types::I64, callee);
                builder.ins().call_indirect(widened, address, &arguments)
            }
        };
        for (index, result) in builder.inst_results(call).to_vec().into_iter().enumerate() {
            builder.ins().store(MemFlagsData::new(), result, to, offset(index));
        }
        builder.ins().return_(&[]);
    };
    Emitter::default().define(unit, caller, emit).unwrap();
}

/// The signature with results that are extended taken for what they are extended to.
fn widened(signature: &Signature) -> Signature {
    let mut signature = signature.clone();
    for result in &mut signature.returns {
        if result.extension != ArgumentExtension::None {
            *result = AbiParam::new(types::I64);
        }
    }
    signature
}

/// Copies a number of bytes that is a multiple of 4.
fn copy(builder: &mut FunctionBuilder<'_>, from: Value, to: Value, bytes: usize) {
    for offset in (0..bytes as i32).step_by(4) {
        let word = builder.ins().load(types::I32, MemFlagsData::new(), from, offset);
        builder.ins().store(MemFlagsData::new(), word, to, offset);
    }
}

/// What gates call between steps: leaves nothing in the registers that it need not keep.
extern "C" fn spoil_registers() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: what is overwritten is declared to be.
    unsafe {
        std::arch::asm!(
            "mov rax, -1", "mov rcx, rax", "mov rdx, rax", "mov rsi, rax", "mov rdi, rax",
            "mov r8, rax", "mov r9, rax", "mov r10, rax", "mov r11, rax",
            "pcmpeqd xmm0, xmm0", "movdqa xmm1, xmm0", "movdqa xmm2, xmm0", "movdqa xmm3, xmm0",
            "movdqa xmm4, xmm0", "movdqa xmm5, xmm0", "movdqa xmm6, xmm0", "movdqa xmm7, xmm0",
            "movdqa xmm8, xmm0", "movdqa xmm9, xmm0", "movdqa xmm10, xmm0",
            "movdqa xmm11, xmm0", "movdqa xmm12, xmm0", "movdqa xmm13, xmm0",
            "movdqa xmm14, xmm0", "movdqa xmm15, xmm0",
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
            out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
            out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
            out("xmm15") _,
            options(nostack),
        );
    }
}
