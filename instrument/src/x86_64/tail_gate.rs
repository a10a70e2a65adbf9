//! The gate of functions that can be tail-called, in machine code, for x86-64.
//!
//! A gate that calls and returns keeps a frame until the body is done. Functions that tail-call
//! each other would grow the stack by one frame for each call, and pin each other's versions. So
//! where functions have Cranelift's calling convention for tail calls, the frame of a gate says
//! which lane is to be counted out of, and the frame is handed on. A gate that is entered with the
//! return address of such a frame has been tail-called by the body of that frame, which is gone:
//! the gate takes the frame over, and counts that body out. See [`Counting::transfer`].
//!
//! All these gates of an engine share their code, so that there is one address to know the frames
//! by. A lane has only a head of its own, with the address of the lane and the number of bytes of
//! arguments on the stack:
//!
//! ```text
//!   head         mov   r11, lane
//!                mov   eax, bytes
//!                jmp   gate
//!
//!   gate         lea   r10, [rip + returned]
//!                cmp   [rsp], r10
//!                je    transfer
//!                mov   r10, [r11 + cell offset]
//!                inc   dword [r15 + r10]         count in
//!                mov   r10, [r11]                load the body
//!                test  r10, r10
//!                jz    bail
//!                push  rbp                       a frame like any other
//!                mov   rbp, rsp
//!                push  r11                       push the lane
//!                push  rax
//!                test  eax, eax
//!                jnz   copy
//!   call         call  r10                       call the body, which takes its arguments away
//!   returned     mov   r11, [rbp - 8]            pop the lane
//!                mov   r11, [r11 + cell offset]
//!                dec   dword [r15 + r11]         count out
//!                mov   r11, [rbp - 8]
//!                cmp   qword [r11], 0            check the body
//!                je    leave
//!   done         mov   r11, [rbp - 16]
//!                add   rsp, 16
//!                pop   rbp
//!                test  r11d, r11d
//!                jnz   take away
//!                ret
//!
//!   copy         push  qword [rbp + rax + 8]     the arguments, the last one first
//!                sub   eax, 8
//!                jnz   copy
//!                jmp   call
//!   take away    add   r11, rsp                  return with that much less on the stack
//!                pop   qword [r11]
//!                mov   rsp, r11
//!                ret
//!   leave        call  leave stub                with the lane in rdi; it keeps every register
//!                jmp   done
//!
//!   transfer     mov   r10, [r11 + cell offset]
//!                inc   dword [r15 + r10]         count in
//!                mov   r10, [r11]                load the body
//!                test  r10, r10
//!                jz    bail
//!                mov   rax, [rbp - 8]            swap the lane
//!                mov   [rbp - 8], r11
//!                mov   r11, [rax + cell offset]
//!                dec   dword [r15 + r11]         count out of the taken lane
//!                cmp   qword [rax], 0            check the body of the taken lane
//!                jne   jump
//!                call  leave stub
//!   jump         jmp   r10                       jump to the body
//!
//!   bail         mov   r10, [r11 + cell offset]
//!                dec   dword [r15 + r10]         count out
//!                cmp   qword [r11], 0            check the body
//!                jne   restart
//!                call  leave stub
//!   restart      mov   r10, r11
//!                mov   r11, [r11 + function]
//!                mov   r11, [r11 + current]
//!                test  r11, r11
//!                jz    removed
//!                jmp   r11                       restart
//!   removed      mov   r11, r10
//!                call  removed stub
//!                mov   r11, [r11 + function]
//!                jmp   [r11 + no version]
//! ```
//!
//! Results are in any of the registers but r11, rbx, rbp and r12 to r15. A body that tail-calls has
//! put back what it must keep, the frame pointer too: so the gate finds the frame by the frame
//! pointer, however many arguments there are between. Where gates count atomically, the counts have
//! a `lock` prefix. Where there is a hook between steps, its stub is called before each.

use lastout_reclaim::{Counting, Step};

use super::encoder::{Encoder, Jump};
use crate::{GateFrame, GateOptions, LaneLayout, MachineCode, Symbol};

/// The head of the gate of a lane.
pub(super) fn head(stack_bytes: u32) -> MachineCode {
    let mut code = Encoder::default();
    code.lane();
    code.put(&[0xb8]); // mov eax, bytes
    code.put(&stack_bytes.to_le_bytes());
    code.jump(0xe9, Symbol::TailGate);
    code.finish()
}

/// How many bytes of arguments a function takes off the stack whose last instruction is its return.
pub(super) fn stack_bytes(code: &[u8]) -> Option<u32> {
    match *code {
        [.., 0x5d, 0xc3] => Some(0), // pop rbp; ret
        [.., 0x5d, 0xc2, low, high] => Some(u32::from(u16::from_le_bytes([low, high]))),
        _ => None,
    }
}

/// The gate that all lanes share.
pub(super) fn tail_gate(layout: LaneLayout, options: GateOptions) -> MachineCode {
    Lowering { code: Encoder::default(), layout, options }.lower()
}

/// Where a lane is.
#[derive(Clone, Copy)]
enum Lane {
    /// In r11.
    Own,
    /// In rax.
    Taken,
}

struct Lowering {
    code: Encoder,
    layout: LaneLayout,
    options: GateOptions,
}

impl Lowering {
    fn lower(mut self) -> MachineCode {
        self.code.put(&[0x4c, 0x8d, 0x15]); // lea r10, [rip + returned]
        let returned = self.code.forward();
        self.code.put(&[0x4c, 0x39, 0x14, 0x24]); // cmp [rsp], r10
        let transfer = self.code.near_jump(&[0x0f, 0x84]); // je
        let mut bails = Vec::new();
        self.called(returned, &mut bails);
        self.code.land_near(transfer);
        self.tail_called(&mut bails);
        bails.into_iter().for_each(|bail| self.code.land_near(bail));
        self.bail();
        self.code.finish()
    }

    /// Where it returns to its caller.
    fn called(&mut self, returned: Jump, bails: &mut Vec<Jump>) {
        let (mut copy, mut call, mut leave, mut returned) = (None, 0, None, Some(returned));
        for &step in self.options.counting.tail_gate() {
            match step {
                Step::CountIn | Step::CountInFenced | Step::LightFence | Step::LoadBody => {
                    bails.extend(self.enter(step));
                }
                Step::PushLane => {
                    self.hook(Lane::Own, false);
                    self.code.put(&[0x55, 0x48, 0x89, 0xe5]); // push rbp; mov rbp, rsp
                    self.code.put(&[0x41, 0x53, 0x50]); // push r11; push rax
                }
                Step::CallBody => {
                    self.hook(Lane::Own, true);
                    self.code.put(&[0x85, 0xc0]); // test eax, eax
                    copy = Some(self.code.near_jump(&[0x0f, 0x85])); // jnz
                    call = self.code.here();
                    self.code.put(&[0x41, 0xff, 0xd2]); // call r10
                    returned.take().into_iter().for_each(|it| self.code.land_near(it));
                    let body_return = Some(self.code.here());
                    *self.code.frame() = GateFrame { body_return, lane: Some(-8), outer: None };
                }
                Step::PopLane => {
                    self.code.put(&LANE_FROM_FRAME);
                    self.hook(Lane::Own, true);
                }
                Step::CountOutTaken | Step::CountOutTakenFenced => {
                    self.hook(Lane::Own, true);
                    self.code.load_r11(self.layout.cell_offset);
                    self.count(&[0x43, 0xff, 0x0c, 0x1f]); // dec dword [r15 + r11]
                }
                Step::CheckTaken => {
                    self.code.put(&LANE_FROM_FRAME);
                    self.hook(Lane::Own, true);
                    self.code.compare_body();
                    leave = Some(self.code.near_jump(&[0x0f, 0x84])); // je
                }
                _ => unreachable!("not a step of the gate that was called"),
            }
        }
        let done = self.code.here();
        self.code.put(&[0x4c, 0x8b, 0x5d, 0xf0]); // mov r11, [rbp - 16]
        self.code.put(&[0x48, 0x83, 0xc4, 16]); // add rsp, 16
        self.code.put(&[0x5d]); // pop rbp
        self.code.put(&[0x45, 0x85, 0xdb]); // test r11d, r11d
        let take_away = self.code.short_jump(0x75); // jnz
        self.code.put(&[0xc3]); // ret

        self.code.land_near(copy.expect("a gate calls the body"));
        let again = self.code.here();
        self.code.put(&[0xff, 0x74, 0x05, 8]); // push qword [rbp + rax + 8]
        self.code.put(&[0x83, 0xe8, 8]); // sub eax, 8
        let after = self.code.here() + 2;
        self.code.put(&[0x75, (again as i32 - after as i32) as u8]); // jnz
        self.code.near_jump_back(call);

        self.code.land(take_away);
        self.code.put(&[0x49, 0x01, 0xe3]); // add r11, rsp
        self.code.put(&[0x41, 0x8f, 0x03]); // pop qword [r11]
        self.code.put(&[0x4c, 0x89, 0xdc]); // mov rsp, r11
        self.code.put(&[0xc3]); // ret

        self.code.land_near(leave.expect("a gate checks the body"));
        self.stub(Symbol::Leave, Lane::Own, true);
        self.code.near_jump_back(done);
    }

    /// Where it takes over the frame of the gate that its caller would have returned to.
    fn tail_called(&mut self, bails: &mut Vec<Jump>) {
        for &step in self.options.counting.transfer() {
            match step {
                Step::CountIn | Step::CountInFenced | Step::LightFence | Step::LoadBody => {
                    bails.extend(self.enter(step));
                }
                Step::SwapLane => {
                    self.hook(Lane::Own, false);
                    self.code.put(&[0x48, 0x8b, 0x45, 0xf8]); // mov rax, [rbp - 8]
                    self.code.put(&[0x4c, 0x89, 0x5d, 0xf8]); // mov [rbp - 8], r11
                }
                Step::CountOutTaken | Step::CountOutTakenFenced => {
                    self.hook(Lane::Taken, false);
                    self.code.put(&[0x4c, 0x8b, 0x98]); // mov r11, [rax + cell offset]
                    self.code.put(&self.layout.cell_offset.to_le_bytes());
                    self.count(&[0x43, 0xff, 0x0c, 0x1f]); // dec dword [r15 + r11]
                }
                Step::CheckTaken => {
                    self.hook(Lane::Taken, false);
                    self.code.put(&[0x48, 0x83, 0x38, 0]); // cmp qword [rax], 0
                    let kept = self.code.near_jump(&[0x0f, 0x85]); // jne
                    self.stub(Symbol::Leave, Lane::Taken, false);
                    self.code.land_near(kept);
                }
                Step::JumpBody => {
                    self.hook(Lane::Taken, false);
                    self.code.put(&[0x41, 0xff, 0xe2]); // jmp r10
                }
                _ => unreachable!("not a step of a transfer"),
            }
        }
    }

    /// The steps that both begin with.
    fn enter(&mut self, step: Step) -> Option<Jump> {
        match step {
            Step::CountIn | Step::CountInFenced => {
                self.hook(Lane::Own, false);
                self.load_r10_cell();
                self.count(&[0x43, 0xff, 0x04, 0x17]); // inc dword [r15 + r10]
                None
            }
            Step::LoadBody => {
                self.hook(Lane::Own, false);
                self.code.put(&[0x4d, 0x8b, 0x13]); // mov r10, [r11]
                self.code.put(&[0x4d, 0x85, 0xd2]); // test r10, r10
                Some(self.code.near_jump(&[0x0f, 0x84])) // jz
            }
            // The processor keeps to the order of the program.
            _ => None,
        }
    }

    fn bail(&mut self) {
        for &step in self.options.counting.bail() {
            match step {
                Step::CountOut | Step::CountOutFenced => {
                    self.hook(Lane::Own, false);
                    self.load_r10_cell();
                    self.count(&[0x43, 0xff, 0x0c, 0x17]); // dec dword [r15 + r10]
                }
                Step::LightFence => {}
                Step::CheckBody => {
                    self.hook(Lane::Own, false);
                    self.code.compare_body();
                    let kept = self.code.near_jump(&[0x0f, 0x85]); // jne
                    self.stub(Symbol::Leave, Lane::Own, false);
                    self.code.land_near(kept);
                }
                Step::Restart => {
                    self.hook(Lane::Own, false);
                    self.code.put(&[0x4d, 0x89, 0xda]); // mov r10, r11
                    self.code.put(&[0x4d, 0x8b, 0x9b]); // mov r11, [r11 + function]
                    self.code.put(&self.layout.function.to_le_bytes());
                    self.code.put(&[0x4d, 0x8b, 0x9b]); // mov r11, [r11 + current]
                    self.code.put(&self.layout.current.to_le_bytes());
                    self.code.put(&[0x4d, 0x85, 0xdb]); // test r11, r11
                    let removed = self.code.short_jump(0x74); // jz
                    self.code.put(&[0x41, 0xff, 0xe3]); // jmp r11
                    self.code.land(removed);
                    self.code.put(&[0x4d, 0x89, 0xd3]); // mov r11, r10
                    self.stub(Symbol::Removed, Lane::Own, false);
                    self.code.put(&[0x4d, 0x8b, 0x9b]); // mov r11, [r11 + function]
                    self.code.put(&self.layout.function.to_le_bytes());
                    self.code.put(&[0x41, 0xff, 0xa3]); // jmp [r11 + no version]
                    self.code.put(&self.layout.no_version.to_le_bytes());
                }
                _ => unreachable!("not a step of bailing"),
            }
        }
    }

    /// `mov r10, [r11 + cell offset]`.
    fn load_r10_cell(&mut self) {
        self.code.put(&[0x4d, 0x8b, 0x93]);
        self.code.put(&self.layout.cell_offset.to_le_bytes());
    }

    fn count(&mut self, instruction: &[u8]) {
        if self.options.counting == Counting::Atomic {
            self.code.put(&[0xf0]); // lock
        }
        self.code.put(instruction);
    }

    fn hook(&mut self, lane: Lane, in_frame: bool) {
        if self.options.interleave {
            self.stub(Symbol::Interleave, lane, in_frame);
        }
    }

    /// Calls a stub with a lane: from within the frame, where the stack is aligned, or without one.
    fn stub(&mut self, stub: Symbol, lane: Lane, in_frame: bool) {
        let pushes = if in_frame { 2 } else { 1 };
        (0..pushes).for_each(|_| self.code.put(&[0x57])); // push rdi
        self.code.put(match lane {
            Lane::Own => &[0x4c, 0x89, 0xdf],   // mov rdi, r11
            Lane::Taken => &[0x48, 0x89, 0xc7], // mov rdi, rax
        });
        self.code.jump(0xe8, stub); // call
        (0..pushes).for_each(|_| self.code.put(&[0x5f])); // pop rdi
    }
}

/// `mov r11, [rbp - 8]`.
const LANE_FROM_FRAME: [u8; 4] = [0x4c, 0x8b, 0x5d, 0xf8];
