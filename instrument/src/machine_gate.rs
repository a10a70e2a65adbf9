//! The plain gate in machine code, for x86-64.
//!
//! Cranelift makes three times as much of the same steps: it sets up a frame, moves arguments out
//! of the way of calls that are hardly ever made, and loads addresses that it could do without.
//! Written down, what every call runs fits into one cache line, which matters more than the
//! instructions do: programs have many gates, and go through one after the other.
//!
//! This is for signatures whose arguments and results are all in registers, which the gate then
//! does not touch. Others, atomic counts, and gates with a hook between steps are lowered to CLIF
//! by [`gate`](crate::gate()), from the same list.
//!
//! ```text
//!   head         add   dword [r15 + cell], 1     count in
//!                mov   r11, lane
//!                mov   r10, [r11]                load the body
//!                test  r10, r10
//!                jz    bail
//!                sub   rsp, 8                    for the alignment that calls want
//!                call  r10                       call the body
//!                add   rsp, 8
//!                sub   dword [r15 + cell], 1     count out
//!                mov   r11, lane
//!                cmp   qword [r11], 0            check the body
//!                je    leave
//!                ret
//!   leave        jmp   leave tail
//!   bail         sub   dword [r15 + cell], 1     count out
//!                jmp   bail tail
//! ```
//!
//! The light fences are no instructions here, since the processor keeps loads in order with loads,
//! stores with stores, and loads before later stores; r10 and r11 carry neither arguments nor
//! results. The *tails* are shared by all gates of an engine. They are entered with the stack as
//! the caller of the gate has left it, and with the lane in r11:
//!
//! ```text
//!   leave tail   push  rdi
//!                mov   rdi, r11
//!                call  leave stub                which keeps every register
//!                pop   rdi
//!                ret
//!
//!   bail tail    push  rdi
//!                mov   rdi, r11
//!                cmp   qword [r11], 0            check the body
//!                jne   restart
//!                call  leave stub
//!   restart      mov   r11, [r11 + function]
//!                mov   r11, [r11 + current]
//!                test  r11, r11
//!                jz    removed
//!                pop   rdi
//!                jmp   r11                       restart
//!   removed      call  removed stub
//!                pop   rdi
//!                zero  rax, rdx, xmm0, xmm1
//!                ret
//! ```

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::{AbiParam, ArgumentPurpose, Signature, Type};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use lastout_reclaim::{Counting, Step};
use target_lexicon::Architecture;

use crate::{GateOptions, Symbol, check_signature};

/// Instructions, and the places in them that depend on where things are.
#[derive(Clone, Debug, Default)]
pub struct MachineCode {
    /// The instructions.
    pub bytes: Vec<u8>,
    /// What is to be filled in.
    pub fixups: Vec<Fixup>,
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

/// What the [tails](machine_tails) of gates find in memory, as distances in bytes.
#[derive(Clone, Copy, Debug)]
pub struct LaneLayout {
    /// From the lane to a word that holds the address of its function.
    pub function: i32,
    /// From there to the word that [`Symbol::Current`] is.
    pub current: i32,
}

/// The gate of a lane of a function with this signature, if it can be had in machine code.
///
/// It refers to [`Symbol::Lane`], [`Symbol::CellOffset`], and to the [tails](machine_tails) that
/// are [`Symbol::LeaveTail`] and [`Symbol::BailTail`].
pub fn machine_gate(
    signature: &Signature,
    options: GateOptions,
    isa: &dyn TargetIsa,
) -> Option<MachineCode> {
    let plain = options == GateOptions { counting: Counting::Plain, interleave: false };
    let fits = is_x86_64(isa) && plain && check_signature(signature, isa).is_ok();
    (fits && in_registers(signature)).then(lower)
}

/// The two tails of gates: of those that find the version gone on their way out, and of those that
/// bail. They call the [preserving stubs](crate::preserving_stub) [`Symbol::Leave`] and
/// [`Symbol::Removed`], which have to be in reach of a relative call. `None` where there are no
/// gates in machine code.
pub fn machine_tails(layout: LaneLayout, isa: &dyn TargetIsa) -> Option<[MachineCode; 2]> {
    if !is_x86_64(isa) {
        return None;
    }
    let mut leave = MachineCode::default();
    leave.put(&[0x57]); // push rdi
    leave.put(&[0x4c, 0x89, 0xdf]); // mov rdi, r11
    leave.jump(0xe8, Symbol::Leave); // call
    leave.put(&[0x5f, 0xc3]); // pop rdi; ret

    let mut bail = MachineCode::default();
    bail.put(&[0x57]); // push rdi
    bail.put(&[0x4c, 0x89, 0xdf]); // mov rdi, r11
    bail.compare_body();
    let restart = bail.short_jump(0x75); // jne
    bail.jump(0xe8, Symbol::Leave); // call
    bail.land(restart);
    bail.load_r11(layout.function);
    bail.load_r11(layout.current);
    bail.put(&[0x4d, 0x85, 0xdb]); // test r11, r11
    let removed = bail.short_jump(0x74); // jz
    bail.put(&[0x5f]); // pop rdi
    bail.put(&[0x41, 0xff, 0xe3]); // jmp r11
    bail.land(removed);
    bail.jump(0xe8, Symbol::Removed); // call
    bail.put(&[0x5f]); // pop rdi
    bail.put(&[0x31, 0xc0, 0x31, 0xd2]); // xor eax, eax; xor edx, edx
    bail.put(&[0x0f, 0x57, 0xc0, 0x0f, 0x57, 0xc9]); // xorps xmm0, xmm0; xorps xmm1, xmm1
    bail.put(&[0xc3]); // ret
    Some([leave, bail])
}

fn is_x86_64(isa: &dyn TargetIsa) -> bool {
    matches!(isa.triple().architecture, Architecture::X86_64)
}

/// Whether all arguments and results are in registers: in C's calling convention, six integers
/// and eight floats or vectors, and two of each as results.
fn in_registers(signature: &Signature) -> bool {
    let fit = |params: &[AbiParam], integers: usize, others: usize| {
        let class = |class: fn(Type) -> bool| {
            params.iter().filter(move |param| class(param.value_type)).count()
        };
        let integer = class(|ty| ty.is_int() && ty.bits() <= 64);
        let other =
            class(|ty| ty.is_float() && ty.bits() <= 64 || ty.is_vector() && ty.bits() == 128);
        integer <= integers && other <= others && integer + other == params.len()
    };
    let on_stack = |param: &AbiParam| matches!(param.purpose, ArgumentPurpose::StructArgument(_));
    matches!(signature.call_conv, CallConv::SystemV | CallConv::Fast)
        && fit(&signature.params, 6, 8)
        && fit(&signature.returns, 2, 2)
        && !signature.params.iter().any(on_stack)
}

fn lower() -> MachineCode {
    let mut code = MachineCode::default();
    let (mut bail, mut leave) = (None, None);
    for step in Counting::Plain.gate() {
        match step {
            Step::CountIn => code.count(0x87), // add
            Step::LightFence => {}
            Step::LoadBody => {
                code.lane();
                code.put(&[0x4d, 0x8b, 0x13]); // mov r10, [r11]
                code.put(&[0x4d, 0x85, 0xd2]); // test r10, r10
                bail = Some(code.short_jump(0x74)); // jz
            }
            Step::CallBody => {
                code.put(&[0x48, 0x83, 0xec, 8]); // sub rsp, 8
                code.put(&[0x41, 0xff, 0xd2]); // call r10
                code.put(&[0x48, 0x83, 0xc4, 8]); // add rsp, 8
            }
            Step::CountOut => code.count(0xaf), // sub
            Step::CheckBody => {
                code.lane();
                code.compare_body();
                leave = Some(code.short_jump(0x74)); // je
            }
            Step::CountInFenced | Step::CountOutFenced | Step::Restart => {
                unreachable!("not a step of the plain gate")
            }
        }
    }
    code.put(&[0xc3]); // ret
    code.land(leave.expect("a gate checks the body"));
    code.jump(0xe9, Symbol::LeaveTail);
    code.land(bail.expect("a gate loads the body"));
    let [Step::CountOut, Step::LightFence, Step::CheckBody, Step::Restart] = Counting::Plain.bail()
    else {
        unreachable!("the last two steps are the bail tail's")
    };
    code.count(0xaf); // sub
    code.jump(0xe9, Symbol::BailTail);
    code
}

/// A jump that is to be told where to.
struct ShortJump {
    /// After its distance, from where that counts.
    end: usize,
}

impl MachineCode {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Leaves room to be filled in.
    fn fixup<const SIZE: usize>(&mut self, kind: Reloc, symbol: Symbol, addend: i64) {
        let offset = self.bytes.len() as u32;
        self.fixups.push(Fixup { offset, kind, symbol, addend });
        self.put(&[0; SIZE]);
    }

    /// `add` or `sub dword [r15 + cell], 1`.
    fn count(&mut self, mod_rm: u8) {
        self.put(&[0x41, 0x83, mod_rm]);
        self.fixup::<4>(Reloc::Abs4, Symbol::CellOffset, 0);
        self.put(&[1]);
    }

    /// `mov r11, lane`.
    fn lane(&mut self) {
        self.put(&[0x49, 0xbb]);
        self.fixup::<8>(Reloc::Abs8, Symbol::Lane, 0);
    }

    /// `cmp qword [r11], 0`.
    fn compare_body(&mut self) {
        self.put(&[0x49, 0x83, 0x3b, 0]);
    }

    /// `mov r11, [r11 + distance]`.
    fn load_r11(&mut self, distance: i32) {
        self.put(&[0x4d, 0x8b, 0x9b]);
        self.put(&distance.to_le_bytes());
    }

    /// A jump or call of what may be two gigabytes away.
    fn jump(&mut self, opcode: u8, symbol: Symbol) {
        self.put(&[opcode]);
        // The distance counts from the end of the instruction.
        self.fixup::<4>(Reloc::X86CallPCRel4, symbol, -4);
    }

    /// A jump to what is [landed](Self::land) at.
    fn short_jump(&mut self, opcode: u8) -> ShortJump {
        self.put(&[opcode, 0]);
        ShortJump { end: self.bytes.len() }
    }

    fn land(&mut self, jump: ShortJump) {
        let distance = self.bytes.len() - jump.end;
        self.bytes[jump.end - 1] = i8::try_from(distance).expect("it is near") as u8;
    }
}
