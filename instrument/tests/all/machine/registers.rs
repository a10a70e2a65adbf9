//! Which signatures get a gate in machine code: those that Cranelift keeps in registers, in the
//! ones that the gate leaves alone.

use std::collections::HashMap;

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::immediates::{Ieee16, Ieee32, Ieee64};
use cranelift_codegen::ir::{
    AbiParam, ArgumentPurpose, ConstantData, ExtFuncData, ExternalName, Function, InstBuilder,
    MemFlagsData, Signature, Type, UserExternalName, UserFuncName, Value, types::*,
};
use cranelift_codegen::isa::{self, CallConv, OwnedTargetIsa, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use iced_x86::{Code, OpKind, Register};
use lastout_instrument::{GateOptions, MachineCode, check_signature, machine_gate, machine_tails};
use lastout_reclaim::Counting;

use super::edit::{LAYOUT, PLAIN};
use super::kind::{RESULTS, arguments};
use super::listing::decode;
use super::processor::whole;
use crate::support;

fn has_gate(signature: &Signature) -> bool {
    let isa = wide_isa();
    // So that what is refused is refused because of registers.
    check_signature(signature, &*isa).unwrap_or_else(|error| panic!("{error}"));
    machine_gate(signature, PLAIN, &*isa).is_some()
}

/// An instruction set on which more signatures can be had.
pub(crate) fn wide_isa() -> OwnedTargetIsa {
    let mut flags = settings::builder();
    let on = ["enable_pinned_reg", "enable_llvm_abi_extensions", "enable_multi_ret_implicit_sret"];
    for flag in on {
        flags.enable(flag).expect("Cranelift has this setting");
    }
    let builder = isa::lookup_by_name("x86_64").expect("the tests enable this target");
    builder.finish(settings::Flags::new(flags)).expect("the settings agree")
}

pub(crate) fn signature(call_conv: CallConv, params: &[Type], returns: &[Type]) -> Signature {
    let plain = |types: &[Type]| types.iter().copied().map(AbiParam::new).collect();
    Signature { params: plain(params), returns: plain(returns), call_conv }
}

/// Types of which a list takes turns.
fn first<const N: usize>(types: [Type; N], count: usize) -> impl Iterator<Item = Type> {
    types.into_iter().cycle().take(count)
}

/// Up to as many arguments, or results, of either kind, mixed.
pub(crate) fn mixed(integers: usize, others: usize) -> Vec<Type> {
    let mut integer = first([I64, I8, I32, I16], integers);
    let mut other = first([F64, F32X4, F32, I8X16, F64X2], others);
    let mut all = Vec::new();
    while all.len() < integers + others {
        all.extend(integer.next());
        all.extend(other.next());
    }
    all
}

pub(crate) const SUPPORTED: [CallConv; 2] = [CallConv::SystemV, CallConv::Fast];

#[test]
fn what_fits_into_registers_gets_a_gate() {
    for call_conv in SUPPORTED {
        for (integers, others) in numbers(6, 8) {
            for (integer_results, other_results) in numbers(2, 2) {
                let params = mixed(integers, others);
                let returns = mixed(integer_results, other_results);
                let signature = signature(call_conv, &params, &returns);
                assert!(has_gate(&signature), "{signature}");
            }
        }
    }
    for signature in special() {
        assert!(has_gate(&signature), "{signature}");
    }
}

pub(crate) fn numbers(integers: usize, others: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..=integers).flat_map(move |integers| (0..=others).map(move |others| (integers, others)))
}

/// Signatures in registers that are not only about numbers of them.
fn special() -> Vec<Signature> {
    let mut all = Vec::new();
    for call_conv in SUPPORTED {
        for purpose in [ArgumentPurpose::StructReturn, ArgumentPurpose::VMContext] {
            let mut pointer = signature(call_conv, &mixed(5, 8), &[]);
            pointer.params.insert(0, AbiParam::special(I64, purpose));
            all.push(pointer);
        }
        let mut extended = signature(call_conv, &[], &[]);
        extended.params = vec![AbiParam::new(I8).sext(), AbiParam::new(I16).uext()];
        extended.returns = extended.params.clone();
        all.push(extended);
        all.push(signature(call_conv, &[F16; 8], &[F16; 2]));
    }
    all
}

#[test]
fn what_does_not_fit_gets_none() {
    let too_many: [(&[Type], &[Type]); 15] = [
        (&[I64; 7], &[]),
        (&[I8; 7], &[]),
        (&[F64; 9], &[]),
        (&[F32; 9], &[]),
        (&[I32X4; 9], &[]),
        (&[F16; 9], &[]),
        (&[], &[I64; 3]),
        (&[], &[F64; 3]),
        (&[], &[F64X2, F32, F32X4]),
        // In two registers, or in memory.
        (&[I128], &[]),
        (&[], &[I128]),
        (&[F128], &[F128]),
        (&[I32X2], &[]),
        (&[I32X8], &[]),
        (&[I32X4XN], &[]),
    ];
    for call_conv in SUPPORTED {
        for (params, returns) in too_many {
            let signature = signature(call_conv, params, returns);
            assert!(!has_gate(&signature), "{signature}");
        }
        let mut by_value = signature(call_conv, &[I64], &[]);
        by_value.params.push(AbiParam::special(I64, ArgumentPurpose::StructArgument(8)));
        assert!(!has_gate(&by_value), "{by_value}");
    }
}

#[test]
fn other_conventions_have_no_machine_gate() {
    for call_conv in [CallConv::Tail, CallConv::WindowsFastcall, CallConv::PreserveAll] {
        let signature = signature(call_conv, &[I64], &[]);
        assert!(!has_gate(&signature), "{signature}");
    }
}

#[test]
fn other_gates_are_left_to_cranelift() {
    let isa = wide_isa();
    let signature = signature(CallConv::SystemV, &[I64], &[I64]);
    for (counting, interleave) in
        [(Counting::Atomic, false), (Counting::Plain, true), (Counting::Atomic, true)]
    {
        let options = GateOptions { counting, interleave };
        assert!(machine_gate(&signature, options, &*isa).is_none(), "{options:?}");
    }
    let other = support::isa("aarch64");
    assert!(machine_gate(&signature, PLAIN, &*other).is_none());
    assert!(machine_tails(LAYOUT, &*other).is_none());
}

/// The other half of the first test: Cranelift has the arguments and results of those signatures
/// in registers that the gate leaves alone, and nothing on the stack.
#[test]
fn cranelift_keeps_what_gets_a_gate_in_registers() {
    let isa = wide_isa();
    for call_conv in SUPPORTED {
        for (integers, others) in numbers(6, 8) {
            check(&signature(call_conv, &mixed(integers, others), &mixed(2, 2)), &*isa);
        }
        for (integers, others) in numbers(2, 2) {
            check(&signature(call_conv, &mixed(6, 8), &mixed(integers, others)), &*isa);
        }
    }
    for signature in special() {
        check(&signature, &*isa);
    }
}

fn check(signature: &Signature, isa: &dyn TargetIsa) {
    assert!(has_gate(signature), "{signature}");
    let checks = [
        ("arguments", callee(signature), &signature.params, arguments().collect()),
        ("results", caller(signature), &signature.returns, RESULTS.to_vec()),
    ];
    for (what, func, params, registers) in checks {
        let found = Found::in_code_of(func, isa);
        assert!(!found.stack, "{signature}: {what} on the stack\n{}", found.listing);
        // There is no instruction that stores an f16 from where it is.
        if params.iter().all(|param| param.value_type != F16) {
            let mut stored = found.stored.clone();
            stored.sort();
            stored.dedup();
            let all = stored.len() == params.len();
            let kept = stored.iter().all(|register| registers.contains(register));
            assert!(all && kept, "{signature}: {what} in {stored:?}\n{}", found.listing);
        }
    }
}

/// The test above would notice.
#[test]
fn cranelift_puts_the_rest_on_the_stack() {
    let isa = wide_isa();
    for call_conv in SUPPORTED {
        for params in [&[I64; 7][..], &[F64; 9], &[I32X4; 9]] {
            let signature = signature(call_conv, params, &[]);
            for func in [callee(&signature), caller(&signature)] {
                let found = Found::in_code_of(func, &*isa);
                assert!(found.stack, "{signature}\n{}", found.listing);
            }
        }
    }
}

/// A function of the signature that stores its parameters, and returns zeros.
fn callee(signature: &Signature) -> Function {
    let mut func = Function::with_name_signature(UserFuncName::default(), signature.clone());
    let block = func.dfg.make_block();
    for param in &signature.params {
        func.dfg.append_block_param(block, param.value_type);
    }
    let params = func.dfg.block_params(block).to_vec();
    let mut pos = FuncCursor::new(&mut func);
    pos.insert_block(block);
    store_all(&mut pos, &params);
    let zeros = zeros(&mut pos, &signature.returns);
    pos.ins().return_(&zeros);
    func
}

/// A function that calls one of the signature with zeros, and stores the results.
fn caller(signature: &Signature) -> Function {
    let own = Signature::new(CallConv::SystemV);
    let mut func = Function::with_name_signature(UserFuncName::default(), own);
    let block = func.dfg.make_block();
    let name = func.declare_imported_user_function(UserExternalName::new(0, 1));
    let name = ExternalName::user(name);
    let signature_ref = func.import_signature(signature.clone());
    let callee = ExtFuncData { name, signature: signature_ref, colocated: true, patchable: false };
    let callee = func.import_function(callee);
    let mut pos = FuncCursor::new(&mut func);
    pos.insert_block(block);
    let arguments = zeros(&mut pos, &signature.params);
    let call = pos.ins().call(callee, &arguments);
    let results = pos.func.dfg.inst_results(call).to_vec();
    store_all(&mut pos, &results);
    pos.ins().return_(&[]);
    func
}

fn store_all(pos: &mut FuncCursor<'_>, values: &[Value]) {
    let to = pos.ins().iconst(I64, 0x1234_5678_9abc);
    for (index, &value) in values.iter().enumerate() {
        pos.ins().store(MemFlagsData::trusted(), value, to, index as i32 * 16);
    }
}

fn zeros(pos: &mut FuncCursor<'_>, params: &[AbiParam]) -> Vec<Value> {
    let zero = |param: &AbiParam| match param.value_type {
        F16 => pos.ins().f16const(Ieee16::with_bits(0)),
        F32 => pos.ins().f32const(Ieee32::with_bits(0)),
        F64 => pos.ins().f64const(Ieee64::with_bits(0)),
        ty if ty.is_vector() => {
            let bytes = vec![0; ty.bytes() as usize];
            let zero = pos.func.dfg.constants.insert(ConstantData::from(bytes));
            pos.ins().vconst(ty, zero)
        }
        ty => pos.ins().iconst(ty, 0),
    };
    params.iter().map(zero).collect()
}

/// What the instructions of a function show of where its arguments are, or its callee's.
struct Found {
    /// Whether something is read or written relative to the stack, but for saved registers.
    stack: bool,
    /// The registers that are stored in memory.
    stored: Vec<Register>,
    listing: String,
}

impl Found {
    fn in_code_of(func: Function, isa: &dyn TargetIsa) -> Self {
        support::verify(&func, isa);
        let mut context = Context::for_function(func);
        let compiled = context.compile(isa, &mut ControlPlane::default()).expect("it compiles");
        let bytes = compiled.code_buffer().to_vec();
        let code = MachineCode { bytes, ..MachineCode::default() };
        let mut found = Self { stack: false, stored: Vec::new(), listing: String::new() };
        // What the register allocator has moved to make room, and from where.
        let mut moved = HashMap::new();
        // Constants may follow the return.
        for line in decode(&code) {
            let it = &line.instruction;
            found.listing += &format!("  {}\n", line.text());
            if (0..it.op_count()).any(|operand| it.op_kind(operand) == OpKind::Memory) {
                found.stack |= matches!(it.memory_base(), Register::RSP | Register::RBP);
                if it.op0_kind() == OpKind::Memory && it.op1_kind() == OpKind::Register {
                    let from = whole(it.op1_register());
                    found.stored.push(moved.get(&from).copied().unwrap_or(from));
                }
            } else if it.code() == Code::Mov_rm64_r64 {
                moved.insert(it.op0_register(), it.op1_register());
            }
            if line.text() == "ret" {
                break;
            }
        }
        found
    }
}
