//! Veneers, for calls that do not reach their targets.

use lastout_reclaim::Counting;
use std::str::FromStr;

use cranelift_codegen::binemit::Reloc;
use cranelift_module::ModuleRelocTarget;
use target_lexicon::Triple;

use super::super::{VENEER_SIZE, is_call, relocate, veneer};
use super::{PLACE, TOO_FAR, index_of, refusal, reloc};
use crate::Result;
use crate::code::{Memory, Room, Sizes};
use crate::host::process;

const FAR: usize = 0x7000_0000_0000;

/// Relocates a call at `PLACE`, with a veneer at `near`, and notes for which target it was asked.
fn by_way_of(
    kind: Reloc,
    addend: i64,
    symbol: usize,
    near: Option<usize>,
    asked: &mut Vec<usize>,
) -> Result<[u8; 4]> {
    let mut bytes = [0; 4];
    let near = |target| {
        asked.push(target);
        near
    };
    let resolve = |_: &ModuleRelocTarget| Ok(symbol);
    let name = |target: &ModuleRelocTarget| {
        assert_eq!(index_of(target), 7);
        "the symbol".to_owned()
    };
    relocate(&mut bytes, PLACE, &[reloc(kind, 0, addend)], resolve, near, name)?;
    Ok(bytes)
}

#[test]
fn calls_out_of_reach_go_by_way_of_a_veneer() {
    // The bytes with which each kind reaches a target 0x100 bytes further on.
    let calls = [
        (Reloc::X86CallPCRel4, -4, [0xfc, 0, 0, 0]),
        (Reloc::X86CallPLTRel4, -4, [0xfc, 0, 0, 0]),
        (Reloc::Arm64Call, 0, [0x40, 0, 0, 0]),
    ];
    for (kind, addend, expected) in calls {
        assert!(is_call(kind));
        let mut asked = Vec::new();
        let near = Some(PLACE + 0x100);
        assert_eq!(by_way_of(kind, addend, FAR, near, &mut asked).unwrap(), expected);
        // The veneer is for the symbol itself: the addend belongs to the place.
        assert_eq!(asked, [FAR]);
        // There may be no veneer, or it may be out of reach too.
        assert_eq!(refusal(by_way_of(kind, addend, FAR, None, &mut asked)), TOO_FAR);
        assert_eq!(refusal(by_way_of(kind, addend, FAR, Some(FAR), &mut asked)), TOO_FAR);
        // A target in reach is called directly.
        asked.clear();
        let direct = by_way_of(kind, addend, PLACE + 0x100, Some(PLACE + 0x200), &mut asked);
        assert_eq!(direct.unwrap(), expected);
        assert!(asked.is_empty(), "{asked:?}");
    }
}

#[test]
fn what_is_no_call_gets_no_veneer() {
    for kind in [Reloc::Abs4, Reloc::X86PCRel4, Reloc::Aarch64AdrPrelPgHi21] {
        assert!(!is_call(kind));
        let mut asked = Vec::new();
        let result = by_way_of(kind, 0, FAR, Some(PLACE + 0x100), &mut asked);
        assert_eq!(refusal(result), TOO_FAR);
        assert!(asked.is_empty(), "{kind:?}: {asked:?}");
    }
    assert!(!is_call(Reloc::Abs8) && !is_call(Reloc::Aarch64AddAbsLo12Nc));
}

/// A veneer helps only against a target out of reach.
#[test]
fn a_call_outside_of_its_code_gets_no_veneer() {
    let relocs = [reloc(Reloc::X86CallPCRel4, 2, -4)];
    let near = |_| panic!("it is in reach");
    let mut bytes = [0; 5];
    let result = relocate(&mut bytes, PLACE, &relocs, |_| Ok(PLACE), near, |_| String::new());
    assert!(result.is_err());
    assert_eq!(bytes, [0; 5]);
}

#[test]
fn veneers_jump_to_the_address_that_they_end_with() {
    let target = 0x1122_3344_5566_7788;
    let address = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];
    let x86_64 = veneer(&Triple::from_str("x86_64-unknown-linux-gnu").unwrap(), target);
    assert_eq!(x86_64[..6], [0xff, 0x25, 2, 0, 0, 0]); // jmp [rip + 2]
    assert_eq!(x86_64[6..8], [0xcc, 0xcc]); // never run
    assert_eq!(x86_64[8..], address);
    let aarch64 = veneer(&Triple::from_str("aarch64-unknown-linux-gnu").unwrap(), target);
    let instruction = |at: usize| u32::from_le_bytes(*aarch64[at..].first_chunk().unwrap());
    assert_eq!(instruction(0), 0x5800_0050); // ldr x16, . + 8
    assert_eq!(instruction(4), 0xd61f_0200); // br x16
    assert_eq!(aarch64[8..], address);
    assert_eq!((x86_64.len(), aarch64.len()), (VENEER_SIZE, VENEER_SIZE));
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ints(i64, i64);

#[repr(C)]
#[derive(Clone, Copy)]
struct Floats(f64, f64);

/// Too large for registers.
#[repr(C)]
struct Rest(i64, i64, f64);

#[repr(C)]
#[derive(Debug, PartialEq)]
struct Both(i64, f64);

/// Takes all registers that there are for arguments, and some of the stack.
type Callee = extern "C" fn(Ints, Ints, Ints, Floats, Floats, Floats, Floats, Rest) -> Both;

#[allow(clippy::too_many_arguments, reason = "as many as there are registers for")]
extern "C" fn callee(
    a: Ints,
    b: Ints,
    c: Ints,
    d: Floats,
    e: Floats,
    f: Floats,
    g: Floats,
    rest: Rest,
) -> Both {
    let ints = [a.0, a.1, b.0, b.1, c.0, c.1, rest.0, rest.1];
    let floats = [d.0, d.1, e.0, e.1, f.0, f.1, g.0, g.1, rest.2];
    Both(
        ints.iter().fold(0, |digits, int| 10 * digits + int),
        floats.iter().fold(0.0, |digits, float| 10.0 * digits + float),
    )
}

#[test]
fn a_veneer_passes_everything_on() {
    let _others = process::among_others();
    let memory = Memory::new(1 << 16, 0, true, Counting::Plain, false).unwrap();
    let code = Room { len: VENEER_SIZE, align: VENEER_SIZE };
    let mut draft = memory.allocate(Sizes { code, ..Sizes::default() }).unwrap();
    let target = callee as Callee as usize;
    draft.code().0.copy_from_slice(&veneer(&Triple::host(), target));
    let block = draft.publish().unwrap();
    let start = std::ptr::with_exposed_provenance::<u8>(block.address());
    // SAFETY: the block is code that jumps to a function of this type, and stays until the end.
    let call = unsafe { std::mem::transmute::<*const u8, Callee>(start) };
    let result = call(
        Ints(1, 2),
        Ints(3, 4),
        Ints(5, 6),
        Floats(1.0, 2.0),
        Floats(3.0, 4.0),
        Floats(5.0, 6.0),
        Floats(7.0, 8.0),
        Rest(7, 8, 9.0),
    );
    assert_eq!(result, Both(12_345_678, 123_456_789.0));
}
