//! Which pairs of signatures get an entry in machine code: those whose arguments and results it
//! can leave as they are, or move as many integers as it says.

use cranelift_codegen::ir::{
    AbiParam, ArgumentExtension, ArgumentPurpose, Signature, Type, types::*,
};
use cranelift_codegen::isa::CallConv;
use lastout_instrument::{GateOptions, MachineCode, machine_entry, machine_gate};
use lastout_reclaim::Counting;

use super::edit::{Edit, LAYOUT, PLAIN};
use super::kind::{ENTRY, Kind};
use super::registers::{SUPPORTED, mixed, numbers, signature, wide_isa};
use crate::support;

fn entry(outer: &Signature, inner: &Signature) -> Option<MachineCode> {
    machine_entry(outer, inner, LAYOUT, PLAIN, &*wide_isa())
}

/// The entry of functions that the host calls as they are declared, but by C's convention.
fn entry_of(inner: &Signature) -> Option<MachineCode> {
    entry(&Signature { call_conv: CallConv::SystemV, ..inner.clone() }, inner)
}

/// And it is the entry that is proven for that number of integers.
#[test]
fn what_leaves_two_integer_registers_gets_an_entry() {
    let proven = [0, 1, 2, 3, 4].map(|integers| Edit::whole(Kind::Entry { integers }, LAYOUT));
    for call_conv in SUPPORTED {
        for (integers, others) in numbers(4, 8) {
            for (integer_results, other_results) in numbers(2, 2) {
                let params = mixed(integers, others);
                let inner = signature(call_conv, &params, &mixed(integer_results, other_results));
                let code = entry_of(&inner).unwrap_or_else(|| panic!("{inner}"));
                assert_eq!(code.bytes, proven[integers].part(ENTRY).bytes, "{inner}");
            }
        }
        let mut pointer = signature(call_conv, &[I64; 3], &[]);
        pointer.params.insert(0, AbiParam::special(I64, ArgumentPurpose::StructReturn));
        let code = entry_of(&pointer).unwrap_or_else(|| panic!("{pointer}"));
        assert_eq!(code.bytes, proven[4].part(ENTRY).bytes, "{pointer}");
    }
}

#[test]
fn more_integers_get_none() {
    for call_conv in SUPPORTED {
        for integers in [5, 6] {
            for others in 0..=8 {
                let inner = signature(call_conv, &mixed(integers, others), &[]);
                assert!(machine_gate(&inner, PLAIN, &*wide_isa()).is_some(), "{inner}");
                assert!(entry_of(&inner).is_none(), "{inner}");
            }
        }
    }
}

#[test]
fn what_has_no_gate_gets_no_entry() {
    let cases: [(&[Type], &[Type]); 8] = [
        (&[F64; 9], &[]),
        (&[I32X4; 9], &[]),
        (&[], &[I64; 3]),
        (&[], &[F64; 3]),
        (&[I128], &[]),
        (&[F128], &[]),
        (&[I32X2], &[]),
        (&[], &[I128]),
    ];
    for (params, returns) in cases {
        let inner = signature(CallConv::SystemV, params, returns);
        assert!(entry_of(&inner).is_none(), "{inner}");
    }
}

/// By value, it would be on the stack for the host, and its address in a register for the function.
#[test]
fn struct_arguments_get_none() {
    let pointer = signature(CallConv::SystemV, &[I64], &[]);
    let mut by_value = pointer.clone();
    by_value.params[0].purpose = ArgumentPurpose::StructArgument(16);
    assert!(entry(&pointer, &pointer).is_some());
    for (outer, inner) in [(&by_value, &by_value), (&by_value, &pointer), (&pointer, &by_value)] {
        assert!(entry(outer, inner).is_none(), "{outer}, {inner}");
    }
}

/// A function that takes an extended value gets it from a caller that extends it likewise.
#[test]
fn nothing_has_to_be_extended() {
    use ArgumentExtension::{None, Sext, Uext};
    for given in [None, Sext, Uext] {
        for taken in [None, Sext, Uext] {
            let plain = signature(CallConv::SystemV, &[F64, I32, I16], &[F64, I8]);
            let (mut outer, mut inner) = (plain.clone(), plain);
            let passes = taken == None || taken == given;
            (outer.params[2].extension, inner.params[2].extension) = (given, taken);
            assert_eq!(entry(&outer, &inner).is_some(), passes, "{outer}, {inner}");

            let plain = signature(CallConv::SystemV, &[I8], &[F64, I8]);
            let (mut outer, mut inner) = (plain.clone(), plain);
            (inner.returns[1].extension, outer.returns[1].extension) = (given, taken);
            assert_eq!(entry(&outer, &inner).is_some(), passes, "{outer}, {inner}");
        }
    }
}

#[test]
fn other_conventions_get_none() {
    let of = |call_conv| signature(call_conv, &[I64], &[]);
    let (system_v, fast) = (of(CallConv::SystemV), of(CallConv::Fast));
    assert!(entry(&system_v, &fast).is_some());
    assert!(entry(&fast, &system_v).is_none());
    for call_conv in [CallConv::Tail, CallConv::WindowsFastcall, CallConv::PreserveAll] {
        let other = of(call_conv);
        assert!(entry(&system_v, &other).is_none(), "{other}");
        assert!(entry(&other, &system_v).is_none(), "{other}");
        assert!(entry(&other, &other).is_none(), "{other}");
    }
}

#[test]
fn signatures_of_other_types_get_none() {
    let of = |params: &[Type], returns: &[Type]| signature(CallConv::SystemV, params, returns);
    let inner = of(&[I64, F64], &[I32]);
    for outer in [
        of(&[I64, F64], &[I64]),
        of(&[I64, F32], &[I32]),
        of(&[F64, I64], &[I32]),
        of(&[I64], &[I32]),
        of(&[I64, F64, I64], &[I32]),
        of(&[I64, F64], &[]),
        of(&[I64, F64], &[I32, I32]),
    ] {
        assert!(entry(&outer, &inner).is_none(), "{outer}");
    }
}

#[test]
fn other_entries_are_left_to_cranelift() {
    let signature = signature(CallConv::SystemV, &[I64], &[I64]);
    let has_entry =
        |options, isa| machine_entry(&signature, &signature, LAYOUT, options, isa).is_some();
    let isa = wide_isa();
    assert!(has_entry(PLAIN, &*isa));
    for (counting, interleave) in
        [(Counting::Atomic, false), (Counting::Plain, true), (Counting::Atomic, true)]
    {
        assert!(!has_entry(GateOptions { counting, interleave }, &*isa));
    }
    assert!(!has_entry(PLAIN, &*support::isa("aarch64")));
}
