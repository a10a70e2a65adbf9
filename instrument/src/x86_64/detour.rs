//! The detour: what the gates of a lane call instead of the body while callers are held.
//!
//! It is entered like the body, which may have any calling convention, and jumps to the body with
//! every register and the stack as it has found them. It has no frame, so an unwinder does not meet
//! it between the body and the gate.
//!
//! ```text
//!   detour       push  rdi
//!                mov   rdi, held                 what the stub is told
//!                call  hold stub                 which keeps every register
//!                mov   rdi, [rdi]                the body
//!                xchg  [rsp], rdi
//!                ret                             jump to the body
//! ```

use cranelift_codegen::binemit::Reloc;

use super::encoder::Encoder;
use crate::{MachineCode, Symbol};

/// The detour of a lane.
pub(super) fn detour() -> MachineCode {
    let mut code = Encoder::default();
    code.put(&[0x57]); // push rdi
    code.put(&[0x48, 0xbf]); // mov rdi, held
    code.fixup::<8>(Reloc::Abs8, Symbol::Held, 0);
    code.jump(0xe8, Symbol::Hold); // call
    code.put(&[0x48, 0x8b, 0x3f]); // mov rdi, [rdi]
    code.put(&[0x48, 0x87, 0x3c, 0x24]); // xchg [rsp], rdi
    code.put(&[0xc3]); // ret
    code.finish()
}
