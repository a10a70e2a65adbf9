//! Instructions of aarch64 get addresses in some of their fields, and keep all others.

use cranelift_codegen::binemit::Reloc;

use super::{PLACE, TOO_FAR, instruction, refusal};
use crate::Result;

const BL: u32 = 0x9400_0000;
const B: u32 = 0x1400_0000;
/// `adrp x0, .`
const ADRP_X0: u32 = 0x9000_0000;
/// `adrp x7, .`
const ADRP_X7: u32 = 0x9000_0007;
/// `add x0, x0, #0`
const ADD: u32 = 0x9100_0000;

fn branch(word: u32, symbol: usize) -> Result<u32> {
    instruction(word, Reloc::Arm64Call, PLACE, symbol)
}

#[test]
fn branches_count_in_instructions() {
    assert_eq!(branch(BL, PLACE).unwrap(), 0x9400_0000);
    assert_eq!(branch(BL, PLACE + 4).unwrap(), 0x9400_0001);
    assert_eq!(branch(BL, PLACE + 0x1000).unwrap(), 0x9400_0400);
    assert_eq!(branch(BL, PLACE - 4).unwrap(), 0x97ff_ffff);
    assert_eq!(branch(BL, PLACE - 0x1000).unwrap(), 0x97ff_fc00);
    assert_eq!(branch(B, PLACE + 0x1000).unwrap(), 0x1400_0400);
    assert_eq!(branch(B, PLACE - 4).unwrap(), 0x17ff_ffff);
}

#[test]
fn branches_reach_128_mebibytes_and_nothing_beyond() {
    for (word, last, first) in [(BL, 0x95ff_ffff, 0x9600_0000), (B, 0x15ff_ffff, 0x1600_0000)] {
        assert_eq!(branch(word, PLACE + 0x07ff_fffc).unwrap(), last);
        assert_eq!(branch(word, PLACE - 0x0800_0000).unwrap(), first);
        assert_eq!(refusal(branch(word, PLACE + 0x0800_0000)), TOO_FAR);
        assert_eq!(refusal(branch(word, PLACE - 0x0800_0004)), TOO_FAR);
        // Only the low half of this distance would be in reach.
        assert_eq!(refusal(branch(word, PLACE + 0x1_0000_0000)), TOO_FAR);
    }
}

fn adrp(word: u32, place: usize, symbol: usize) -> Result<u32> {
    instruction(word, Reloc::Aarch64AdrPrelPgHi21, place, symbol)
}

#[test]
fn adrp_counts_pages_from_its_own() {
    assert_eq!(adrp(ADRP_X0, PLACE, PLACE).unwrap(), 0x9000_0000);
    // The two low bits are in bits 29 and 30.
    assert_eq!(adrp(ADRP_X0, PLACE, PLACE + 0x1000).unwrap(), 0xb000_0000);
    assert_eq!(adrp(ADRP_X0, PLACE, PLACE + 0x2000).unwrap(), 0xd000_0000);
    assert_eq!(adrp(ADRP_X0, PLACE, PLACE + 0x3000).unwrap(), 0xf000_0000);
    assert_eq!(adrp(ADRP_X0, PLACE, PLACE + 0x4000).unwrap(), 0x9000_0020);
    assert_eq!(adrp(ADRP_X7, PLACE, PLACE + 0x5000).unwrap(), 0xb000_0027);
    assert_eq!(adrp(ADRP_X0, PLACE, PLACE - 0x1000).unwrap(), 0xf0ff_ffe0);
    assert_eq!(adrp(ADRP_X7, PLACE, PLACE - 0x4000).unwrap(), 0x90ff_ffe7);
}

#[test]
fn adrp_counts_the_borders_between_pages_and_not_the_distance() {
    // Four bytes away, over a border.
    assert_eq!(adrp(ADRP_X0, PLACE + 0xffc, PLACE + 0x1000).unwrap(), 0xb000_0000);
    assert_eq!(adrp(ADRP_X0, PLACE + 0x1000, PLACE + 0xffc).unwrap(), 0xf0ff_ffe0);
    // Nearly a page away, and over none.
    assert_eq!(adrp(ADRP_X0, PLACE, PLACE + 0xfff).unwrap(), 0x9000_0000);
    assert_eq!(adrp(ADRP_X0, PLACE + 0xffc, PLACE).unwrap(), 0x9000_0000);
    // Nearly two pages away, and over one.
    assert_eq!(adrp(ADRP_X0, PLACE, PLACE + 0x1fff).unwrap(), 0xb000_0000);
}

#[test]
fn adrp_reaches_4_gibibytes_and_nothing_beyond() {
    assert_eq!(adrp(ADRP_X0, PLACE, PLACE + 0xffff_f000).unwrap(), 0xf07f_ffe0);
    assert_eq!(adrp(ADRP_X7, PLACE, PLACE - 0x1_0000_0000).unwrap(), 0x9080_0007);
    // These reach the last byte of the last page, from the last instruction of this one.
    assert_eq!(adrp(ADRP_X0, PLACE + 0xffc, PLACE + 0xffff_ffff).unwrap(), 0xf07f_ffe0);
    assert_eq!(adrp(ADRP_X0, PLACE + 0xffc, PLACE - 0x1_0000_0000).unwrap(), 0x9080_0000);
    assert_eq!(refusal(adrp(ADRP_X0, PLACE, PLACE + 0x1_0000_0000)), TOO_FAR);
    assert_eq!(refusal(adrp(ADRP_X0, PLACE + 0xffc, PLACE + 0x1_0000_0000)), TOO_FAR);
    assert_eq!(refusal(adrp(ADRP_X0, PLACE, PLACE - 0x1_0000_0001)), TOO_FAR);
}

#[test]
fn add_gets_the_offset_within_the_page_wherever_that_is() {
    let add = |word, symbol| instruction(word, Reloc::Aarch64AddAbsLo12Nc, PLACE, symbol).unwrap();
    assert_eq!(add(ADD, 0x123), 0x9104_8c00);
    assert_eq!(add(ADD, PLACE + 0x123), 0x9104_8c00);
    assert_eq!(add(ADD, 0), 0x9100_0000);
    assert_eq!(add(ADD, 0xffff_ffff_ffff_ffff), 0x913f_fc00);
    assert_eq!(add(ADD, 0xffff_ffff_ffff_f001), 0x9100_0400);
    // `add x3, x7, #0x800`
    assert_eq!(add(0x9100_00e3, 0x7654_3800), 0x9120_00e3);
}
