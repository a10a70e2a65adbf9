; pass: machine_gate

; Registers only.
function u0:0(i64, f64, i32, i8x16) -> i64, f64 system_v {
}

; One integer is on the stack.
function u0:1(i64, i64, i64, i64, i64, i64, i64) system_v {
}

; ---- after ----
gate, 74 bytes
  0x00  inc dword [r15 + CellOffset]
  0x07  mov r11, Lane
  0x11  mov r10, [r11]
  0x14  test r10, r10
  0x17  je short 0x3e
  0x19  push rbp
  0x1a  mov rbp, rsp
  0x1d  call r10
  0x20  pop rbp
  0x21  dec dword [r15 + CellOffset]
  0x28  mov r11, Lane
  0x32  cmp qword [r11], 0
  0x36  je short 0x39
  0x38  ret
  0x39  jmp LeaveTail
  0x3e  dec dword [r15 + CellOffset]
  0x45  jmp BailTail

gate: none

leave tail, 11 bytes
  0x00  push rdi
  0x01  mov rdi, r11
  0x04  call Leave
  0x09  pop rdi
  0x0a  ret

bail tail, 55 bytes
  0x00  push rdi
  0x01  mov rdi, r11
  0x04  cmp qword [r11], 0
  0x08  jne short 0xf
  0x0a  call Leave
  0x0f  mov r11, [r11 + 0x128]
  0x16  mov r11, [r11 - 0x58]
  0x1d  test r11, r11
  0x20  je short 0x26
  0x22  pop rdi
  0x23  jmp r11
  0x26  call Removed
  0x2b  pop rdi
  0x2c  xor eax, eax
  0x2e  xor edx, edx
  0x30  xorps xmm0, xmm0
  0x33  xorps xmm1, xmm1
  0x36  ret
