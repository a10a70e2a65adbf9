//! Machine code in the making, for x86-64.

use cranelift_codegen::binemit::Reloc;

use crate::{GateFrame, Symbol};

/// Instructions, and the places in them that depend on where things are.
#[derive(Clone, Debug, Default)]
pub struct MachineCode {
    /// The instructions.
    pub bytes: Vec<u8>,
    /// What is to be filled in.
    pub fixups: Vec<Fixup>,
    /// What is where in its frame, if it has one.
    pub frame: GateFrame,
}

/// A place that is to be filled in with an address, or a number that depends on a lane.
#[derive(Clone, Copy, Debug)]
pub struct Fixup {
    /// Where, in bytes from the start.
    pub offset: u32,
    /// How.
    pub kind: Reloc,
    /// With what.
    pub symbol: Symbol,
    /// What is added to it.
    pub addend: i64,
}

/// A jump that is to be told where to.
pub(crate) struct Jump {
    /// After its distance, from where that counts.
    end: usize,
}

/// The same, with a distance of one byte.
pub(crate) struct ShortJump {
    /// After its distance, from where that counts.
    end: usize,
}

impl MachineCode {
    /// Where the next instruction will be.
    pub(crate) fn here(&self) -> u32 {
        self.bytes.len() as u32
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Leaves room to be filled in.
    pub(crate) fn fixup<const SIZE: usize>(&mut self, kind: Reloc, symbol: Symbol, addend: i64) {
        let offset = self.bytes.len() as u32;
        self.fixups.push(Fixup { offset, kind, symbol, addend });
        self.put(&[0; SIZE]);
    }

    /// `inc` or `dec dword [r15 + cell]`.
    pub(crate) fn count(&mut self, mod_rm: u8) {
        self.put(&[0x41, 0xff, mod_rm]);
        self.fixup::<4>(Reloc::Abs4, Symbol::CellOffset, 0);
    }

    /// `mov r11, lane`.
    pub(crate) fn lane(&mut self) {
        self.put(&[0x49, 0xbb]);
        self.fixup::<8>(Reloc::Abs8, Symbol::Lane, 0);
    }

    /// `cmp qword [r11], 0`.
    pub(crate) fn compare_body(&mut self) {
        self.put(&[0x49, 0x83, 0x3b, 0]);
    }

    /// `mov r11, [r11 + distance]`.
    pub(crate) fn load_r11(&mut self, distance: i32) {
        self.put(&[0x4d, 0x8b, 0x9b]);
        self.put(&distance.to_le_bytes());
    }

    /// `mov register, [base + distance]`, both registers as in the byte.
    pub(crate) fn load(&mut self, mod_rm: u8, distance: i32) {
        self.put(&[0x48, 0x8b, mod_rm]);
        self.put(&distance.to_le_bytes());
    }

    /// `jmp` to what is at `target`, not far above.
    pub(crate) fn jump_back(&mut self, target: usize) {
        self.put(&[0xeb, 0]);
        let end = self.bytes.len();
        let distance = target as isize - end as isize;
        self.bytes[end - 1] = i8::try_from(distance).expect("it is near") as u8;
    }

    /// `xor eax, eax; xor edx, edx; xorps xmm0, xmm0; xorps xmm1, xmm1`.
    pub(crate) fn zero_results(&mut self) {
        self.put(&[0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x57, 0xc0, 0x0f, 0x57, 0xc9]);
    }

    /// A jump or call of what may be two gigabytes away.
    pub(crate) fn jump(&mut self, opcode: u8, symbol: Symbol) {
        self.put(&[opcode]);
        // The distance counts from the end of the instruction.
        self.fixup::<4>(Reloc::X86CallPCRel4, symbol, -4);
    }

    /// Room for a distance to what is [landed](Self::land_near) at, from the end of that room.
    pub(crate) fn forward(&mut self) -> Jump {
        self.put(&[0; 4]);
        Jump { end: self.bytes.len() }
    }

    /// A jump to what is [landed](Self::land_near) at, however far that is.
    pub(crate) fn near_jump(&mut self, opcode: &[u8]) -> Jump {
        self.put(opcode);
        self.forward()
    }

    pub(crate) fn land_near(&mut self, jump: Jump) {
        let distance = (self.bytes.len() - jump.end) as u32;
        self.bytes[jump.end - 4..jump.end].copy_from_slice(&distance.to_le_bytes());
    }

    /// `jmp` to what is at `target`, above.
    pub(crate) fn near_jump_back(&mut self, target: usize) {
        self.put(&[0xe9]);
        let distance = target as i32 - (self.bytes.len() as i32 + 4);
        self.put(&distance.to_le_bytes());
    }

    /// A jump to what is [landed](Self::land) at.
    pub(crate) fn short_jump(&mut self, opcode: u8) -> ShortJump {
        self.put(&[opcode, 0]);
        ShortJump { end: self.bytes.len() }
    }

    pub(crate) fn land(&mut self, jump: ShortJump) {
        let distance = self.bytes.len() - jump.end;
        self.bytes[jump.end - 1] = i8::try_from(distance).expect("it is near") as u8;
    }
}
