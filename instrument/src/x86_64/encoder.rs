//! Instructions of x86-64, one after the other.

use cranelift_codegen::binemit::Reloc;

use crate::{Fixup, GateFrame, MachineCode, Symbol};

/// Instructions in the making.
#[derive(Default)]
pub(super) struct Encoder {
    made: MachineCode,
}

/// A jump whose target is not known yet.
pub(super) struct Jump {
    /// The end of its distance, from which the distance counts.
    end: usize,
}

/// Such a jump with a distance of one byte.
pub(super) struct ShortJump {
    /// The end of its distance, from which the distance counts.
    end: usize,
}

impl Encoder {
    /// The code, once all jumps have landed.
    pub(super) fn finish(self) -> MachineCode {
        self.made
    }

    /// What is where in the frame of the code.
    pub(super) fn frame(&mut self) -> &mut GateFrame {
        &mut self.made.frame
    }

    /// Where the next instruction will be.
    pub(super) fn here(&self) -> u32 {
        self.made.bytes.len() as u32
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.made.bytes.extend(bytes);
    }

    /// Leaves room to be filled in.
    pub(super) fn fixup<const SIZE: usize>(&mut self, kind: Reloc, symbol: Symbol, addend: i64) {
        let offset = self.here();
        self.made.fixups.push(Fixup { offset, kind, symbol, addend });
        self.put(&[0; SIZE]);
    }

    /// `inc` or `dec dword [r15 + cell]`.
    pub(super) fn count(&mut self, mod_rm: u8) {
        self.put(&[0x41, 0xff, mod_rm]);
        self.fixup::<4>(Reloc::Abs4, Symbol::CellOffset, 0);
    }

    /// `mov r11, lane`.
    pub(super) fn lane(&mut self) {
        self.put(&[0x49, 0xbb]);
        self.fixup::<8>(Reloc::Abs8, Symbol::Lane, 0);
    }

    /// `cmp qword [r11], 0`.
    pub(super) fn compare_body(&mut self) {
        self.put(&[0x49, 0x83, 0x3b, 0]);
    }

    /// `mov r11, [r11 + distance]`.
    pub(super) fn load_r11(&mut self, distance: i32) {
        self.put(&[0x4d, 0x8b, 0x9b]);
        self.put(&distance.to_le_bytes());
    }

    /// `mov register, [base + distance]`, both registers as in the byte.
    pub(super) fn load(&mut self, mod_rm: u8, distance: i32) {
        self.put(&[0x48, 0x8b, mod_rm]);
        self.put(&distance.to_le_bytes());
    }

    /// `jmp` to what is at `target`, not far above.
    pub(super) fn jump_back(&mut self, target: u32) {
        self.put(&[0xeb, 0]);
        let end = self.made.bytes.len();
        let distance = target as isize - end as isize;
        self.made.bytes[end - 1] = i8::try_from(distance).expect("it is near") as u8;
    }

    /// `xor eax, eax; xor edx, edx; xorps xmm0, xmm0; xorps xmm1, xmm1`.
    pub(super) fn zero_results(&mut self) {
        self.put(&[0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x57, 0xc0, 0x0f, 0x57, 0xc9]);
    }

    /// A jump or call of what may be two gigabytes away.
    pub(super) fn jump(&mut self, opcode: u8, symbol: Symbol) {
        self.put(&[opcode]);
        // The distance counts from the end of the instruction.
        self.fixup::<4>(Reloc::X86CallPCRel4, symbol, -4);
    }

    /// Room for a distance to what is [landed](Self::land_near) at, from the end of that room.
    pub(super) fn forward(&mut self) -> Jump {
        self.put(&[0; 4]);
        Jump { end: self.made.bytes.len() }
    }

    /// A jump to what is [landed](Self::land_near) at, however far that is.
    pub(super) fn near_jump(&mut self, opcode: &[u8]) -> Jump {
        self.put(opcode);
        self.forward()
    }

    pub(super) fn land_near(&mut self, jump: Jump) {
        let distance = (self.made.bytes.len() - jump.end) as u32;
        self.made.bytes[jump.end - 4..jump.end].copy_from_slice(&distance.to_le_bytes());
    }

    /// `jmp` to what is at `target`, above.
    pub(super) fn near_jump_back(&mut self, target: u32) {
        self.put(&[0xe9]);
        let distance = target as i32 - (self.made.bytes.len() as i32 + 4);
        self.put(&distance.to_le_bytes());
    }

    /// A jump to what is [landed](Self::land) at.
    pub(super) fn short_jump(&mut self, opcode: u8) -> ShortJump {
        self.put(&[opcode, 0]);
        ShortJump { end: self.made.bytes.len() }
    }

    pub(super) fn land(&mut self, jump: ShortJump) {
        let distance = self.made.bytes.len() - jump.end;
        self.made.bytes[jump.end - 1] = i8::try_from(distance).expect("it is near") as u8;
    }
}
