//! Distances of x86-64 are counted from the end of the instruction, which is mostly the end of the
//! place: hence the addend of -4.

use cranelift_codegen::binemit::Reloc;

use super::{PLACE, TOO_FAR, apply, refusal, reloc};
use crate::Result;

const KINDS: [Reloc; 3] = [Reloc::X86PCRel4, Reloc::X86CallPCRel4, Reloc::X86CallPLTRel4];

/// The `call` before `PLACE`, relocated to reach `symbol`.
fn call(kind: Reloc, symbol: usize) -> Result<[u8; 5]> {
    let mut bytes = [0xe8, 0xaa, 0xaa, 0xaa, 0xaa];
    apply(&mut bytes, PLACE - 1, reloc(kind, 1, -4), symbol)?;
    Ok(bytes)
}

/// The address after the instruction, from which the processor counts.
const NEXT: usize = PLACE + 4;

#[test]
fn distances_are_from_the_next_instruction() {
    for kind in KINDS {
        assert_eq!(call(kind, NEXT).unwrap(), [0xe8, 0, 0, 0, 0]);
        assert_eq!(call(kind, NEXT + 0x10).unwrap(), [0xe8, 0x10, 0, 0, 0]);
        assert_eq!(call(kind, NEXT + 0x1234_5678).unwrap(), [0xe8, 0x78, 0x56, 0x34, 0x12]);
        // This calls itself.
        assert_eq!(call(kind, NEXT - 5).unwrap(), [0xe8, 0xfb, 0xff, 0xff, 0xff]);
        assert_eq!(call(kind, NEXT - 0x1000).unwrap(), [0xe8, 0, 0xf0, 0xff, 0xff]);
    }
}

#[test]
fn both_ends_are_in_reach_and_nothing_beyond() {
    for kind in KINDS {
        assert_eq!(call(kind, NEXT + 0x7fff_ffff).unwrap(), [0xe8, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(call(kind, NEXT - 0x8000_0000).unwrap(), [0xe8, 0, 0, 0, 0x80]);
        assert_eq!(refusal(call(kind, NEXT + 0x8000_0000)), TOO_FAR);
        assert_eq!(refusal(call(kind, NEXT - 0x8000_0001)), TOO_FAR);
        // Only the low half of this distance would be in reach.
        assert_eq!(refusal(call(kind, NEXT + 0x1_0000_0010)), TOO_FAR);
        assert_eq!(refusal(call(kind, 0x10)), TOO_FAR);
    }
}

/// A constant that an instruction has after the place makes its end lie further on.
#[test]
fn any_addend_is_added() {
    let mut bytes = [0xaa; 4];
    apply(&mut bytes, PLACE, reloc(Reloc::X86PCRel4, 0, -5), PLACE + 0x100).unwrap();
    assert_eq!(bytes, [0xfb, 0, 0, 0]);
    apply(&mut bytes, PLACE, reloc(Reloc::X86PCRel4, 0, 0x20), PLACE + 0x100).unwrap();
    assert_eq!(bytes, [0x20, 0x01, 0, 0]);
}
