//! Relocations, compared with encodings taken from the processors' manuals by hand.

mod aarch64;
mod veneers;
mod x86_64;

use cranelift_codegen::binemit::Reloc;
use cranelift_module::{ModuleReloc, ModuleRelocTarget};

use super::relocate;
use crate::{Error, Result};

const fn target(index: u32) -> ModuleRelocTarget {
    ModuleRelocTarget::User { namespace: 0, index }
}

#[track_caller]
fn index_of(target: &ModuleRelocTarget) -> u32 {
    match *target {
        ModuleRelocTarget::User { namespace: 0, index } => index,
        _ => panic!("{target:?}"),
    }
}

/// A place in the middle of all addresses, so that all distances stay within.
const PLACE: usize = 0x4000_0000_0000;

fn reloc(kind: Reloc, offset: u32, addend: i64) -> ModuleReloc {
    ModuleReloc { offset, kind, name: target(7), addend }
}

/// Relocates `bytes` as if they were at `address`; there are no veneers.
fn apply(bytes: &mut [u8], address: usize, reloc: ModuleReloc, symbol: usize) -> Result<()> {
    let resolve = |target: &ModuleRelocTarget| {
        assert_eq!(index_of(target), 7);
        Ok(symbol)
    };
    relocate(bytes, address, &[reloc], resolve, |_| None, |_| "the symbol".to_owned())
}

/// The instruction that a relocation makes of another, at `place`.
fn instruction(word: u32, kind: Reloc, place: usize, symbol: usize) -> Result<u32> {
    let mut bytes = word.to_le_bytes();
    apply(&mut bytes, place, reloc(kind, 0, 0), symbol)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Why the symbol cannot be linked.
#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    match result {
        Err(Error::Link { symbol, why }) => {
            assert_eq!(symbol, "the symbol");
            why
        }
        result => panic!("{result:?}"),
    }
}

const TOO_FAR: &str = "it is too far away";
const OUTSIDE: &str = "the relocation is outside of what it relocates";

#[test]
fn full_addresses_reach_everything() {
    for (symbol, addend, expected) in [
        (0, 0, [0; 8]),
        (0x1122_3344_5566_7788, 0, [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]),
        (0x1122_3344_5566_7788, -8, [0x80, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]),
        (0x1000, i64::from(u32::MAX), [0xff, 0x0f, 0, 0, 1, 0, 0, 0]),
        (usize::MAX, 0, [0xff; 8]),
    ] {
        let mut bytes = [0xaa; 12];
        apply(&mut bytes, PLACE, reloc(Reloc::Abs8, 2, addend), symbol).unwrap();
        assert_eq!(bytes[2..10], expected);
        // And nothing around it.
        assert_eq!((&bytes[..2], &bytes[10..]), (&[0xaa; 2][..], &[0xaa; 2][..]));
    }
}

#[test]
fn addresses_of_four_bytes_have_no_sign() {
    let word = |symbol, addend| {
        let mut bytes = [0xaa; 6];
        apply(&mut bytes, PLACE, reloc(Reloc::Abs4, 1, addend), symbol)?;
        assert_eq!((bytes[0], bytes[5]), (0xaa, 0xaa));
        Ok([bytes[1], bytes[2], bytes[3], bytes[4]])
    };
    assert_eq!(word(0, 0).unwrap(), [0; 4]);
    assert_eq!(word(0x1234_5678, 0).unwrap(), [0x78, 0x56, 0x34, 0x12]);
    assert_eq!(word(0xffff_ffff, 0).unwrap(), [0xff; 4]);
    assert_eq!(word(0x1_0000_0003, -4).unwrap(), [0xff; 4]);
    assert_eq!(refusal(word(0x1_0000_0000, 0)), TOO_FAR);
    assert_eq!(refusal(word(0xffff_ffff, 1)), TOO_FAR);
    assert_eq!(refusal(word(0, -1)), TOO_FAR);
}

#[test]
fn nothing_is_written_outside() {
    let kinds = [
        (Reloc::Abs8, 8),
        (Reloc::Abs4, 4),
        (Reloc::X86PCRel4, 4),
        (Reloc::X86CallPCRel4, 4),
        (Reloc::Arm64Call, 4),
        (Reloc::Aarch64AdrPrelPgHi21, 4),
        (Reloc::Aarch64AddAbsLo12Nc, 4),
    ];
    for (kind, len) in kinds {
        let mut bytes = [0; 16];
        for offset in [16 - len + 1, 15, 16, 17, u32::MAX] {
            let result = apply(&mut bytes, 0x1000, reloc(kind, offset, 0), 0x1000);
            let why = refusal(result);
            // The symbol may be out of reach from there, too.
            assert!(why == OUTSIDE || offset == u32::MAX && why == TOO_FAR, "{kind:?}: {why}");
            assert_eq!(bytes, [0; 16]);
        }
        apply(&mut bytes, 0x1000, reloc(kind, 16 - len, 0), 0x2ffc).unwrap();
        assert_ne!(bytes, [0; 16]);
    }
}

#[test]
fn kinds_that_no_supported_host_has_are_refused() {
    for kind in [Reloc::S390xPCRel32Dbl, Reloc::X86SecRel, Reloc::MachOX86_64Tlv] {
        let result = apply(&mut [0; 16], PLACE, reloc(kind, 0, 0), PLACE);
        assert_eq!(refusal(result), "this kind of relocation is not supported");
    }
}

#[test]
fn each_relocation_is_applied_and_the_first_that_fails_is_told() {
    let relocs = [
        ModuleReloc { offset: 0, kind: Reloc::Abs4, name: target(1), addend: 0 },
        ModuleReloc { offset: 4, kind: Reloc::Abs4, name: target(2), addend: 5 },
        ModuleReloc { offset: 8, kind: Reloc::Abs4, name: target(3), addend: 0 },
    ];
    let symbol = |target: &ModuleRelocTarget| Ok(index_of(target) as usize * 0x10);
    let called = |target: &ModuleRelocTarget| format!("<{target}>");
    let mut bytes = [0; 12];
    relocate(&mut bytes, PLACE, &relocs, symbol, |_| None, called).unwrap();
    assert_eq!(bytes, [0x10, 0, 0, 0, 0x25, 0, 0, 0, 0x30, 0, 0, 0]);

    let unknown = |target: &ModuleRelocTarget| match index_of(target) {
        2 => Err(Error::MissingImport("two".to_owned())),
        _ => Ok(0x40),
    };
    let result = relocate(&mut bytes, PLACE, &relocs, unknown, |_| None, called);
    assert!(matches!(result, Err(Error::MissingImport(two)) if two == "two"));

    let far = |target: &ModuleRelocTarget| Ok(if index_of(target) == 3 { PLACE } else { 0 });
    let result = relocate(&mut bytes, PLACE, &relocs, far, |_| None, called);
    let Err(Error::Link { symbol, why: TOO_FAR }) = result else { panic!("{result:?}") };
    assert_eq!(symbol, format!("<{}>", target(3)));
}
