; Two functions make one entry: the outer signature, then the inner one.
; pass: machine_entry

function u0:0() -> f64 system_v {
}
function u0:1() -> f64 system_v {
}

function u0:2(f64, i32 sext, f32x4) -> i64 system_v {
}
function u0:3(f64, i32, f32x4) -> i64 fast {
}

function u0:4(i64, i32, i16, i8) -> i64, f64 system_v {
}
function u0:5(i64, i32, i16, i8) -> i64, f64 system_v {
}

; With the ledger and the function there are more integers than registers for them.
function u0:6(i64, i64, i64, i64, i64) system_v {
}
function u0:7(i64, i64, i64, i64, i64) system_v {
}

; Nobody would extend the argument.
function u0:8(i32) system_v {
}
function u0:9(i32 uext) system_v {
}

; ---- after ----
entry, 144 bytes
  0x00  push r15
  0x02  push rbx
  0x03  push rcx
  0x04  mov r15, rdi
  0x07  mov rbx, [rsi + 0x10]
  0x0e  mov rax, [rbx + 8]
  0x15  add dword [r15 + rax], 1
  0x1a  mov rax, [rbx]
  0x1d  test rax, rax
  0x20  je short 0x45
  0x22  call rax
  0x24  mov rcx, [rbx + 8]
  0x2b  sub dword [r15 + rcx], 1
  0x30  cmp qword [rbx], 0
  0x34  je short 0x3b
  0x36  pop rcx
  0x37  pop rbx
  0x38  pop r15
  0x3a  ret
  0x3b  mov rdi, rbx
  0x3e  call Leave
  0x43  jmp short 0x36
  0x45  mov rax, [rbx + 8]
  0x4c  sub dword [r15 + rax], 1
  0x51  cmp qword [rbx], 0
  0x55  jne short 0x65
  0x57  mov r10, rdi
  0x5a  mov rdi, rbx
  0x5d  call Leave
  0x62  mov rdi, r10
  0x65  mov rax, [rbx + 0x128]
  0x6c  mov rax, [rax - 0x58]
  0x73  test rax, rax
  0x76  je short 0x7c
  0x78  call rax
  0x7a  jmp short 0x36
  0x7c  mov rdi, rbx
  0x7f  call Removed
  0x84  xor eax, eax
  0x86  xor edx, edx
  0x88  xorps xmm0, xmm0
  0x8b  xorps xmm1, xmm1
  0x8e  jmp short 0x36

entry, 147 bytes
  0x00  push r15
  0x02  push rbx
  0x03  push rcx
  0x04  mov r15, rdi
  0x07  mov rbx, [rsi + 0x10]
  0x0e  mov rdi, rdx
  0x11  mov rax, [rbx + 8]
  0x18  add dword [r15 + rax], 1
  0x1d  mov rax, [rbx]
  0x20  test rax, rax
  0x23  je short 0x48
  0x25  call rax
  0x27  mov rcx, [rbx + 8]
  0x2e  sub dword [r15 + rcx], 1
  0x33  cmp qword [rbx], 0
  0x37  je short 0x3e
  0x39  pop rcx
  0x3a  pop rbx
  0x3b  pop r15
  0x3d  ret
  0x3e  mov rdi, rbx
  0x41  call Leave
  0x46  jmp short 0x39
  0x48  mov rax, [rbx + 8]
  0x4f  sub dword [r15 + rax], 1
  0x54  cmp qword [rbx], 0
  0x58  jne short 0x68
  0x5a  mov r10, rdi
  0x5d  mov rdi, rbx
  0x60  call Leave
  0x65  mov rdi, r10
  0x68  mov rax, [rbx + 0x128]
  0x6f  mov rax, [rax - 0x58]
  0x76  test rax, rax
  0x79  je short 0x7f
  0x7b  call rax
  0x7d  jmp short 0x39
  0x7f  mov rdi, rbx
  0x82  call Removed
  0x87  xor eax, eax
  0x89  xor edx, edx
  0x8b  xorps xmm0, xmm0
  0x8e  xorps xmm1, xmm1
  0x91  jmp short 0x39

entry, 156 bytes
  0x00  push r15
  0x02  push rbx
  0x03  push rcx
  0x04  mov r15, rdi
  0x07  mov rbx, [rsi + 0x10]
  0x0e  mov rdi, rdx
  0x11  mov rsi, rcx
  0x14  mov rdx, r8
  0x17  mov rcx, r9
  0x1a  mov rax, [rbx + 8]
  0x21  add dword [r15 + rax], 1
  0x26  mov rax, [rbx]
  0x29  test rax, rax
  0x2c  je short 0x51
  0x2e  call rax
  0x30  mov rcx, [rbx + 8]
  0x37  sub dword [r15 + rcx], 1
  0x3c  cmp qword [rbx], 0
  0x40  je short 0x47
  0x42  pop rcx
  0x43  pop rbx
  0x44  pop r15
  0x46  ret
  0x47  mov rdi, rbx
  0x4a  call Leave
  0x4f  jmp short 0x42
  0x51  mov rax, [rbx + 8]
  0x58  sub dword [r15 + rax], 1
  0x5d  cmp qword [rbx], 0
  0x61  jne short 0x71
  0x63  mov r10, rdi
  0x66  mov rdi, rbx
  0x69  call Leave
  0x6e  mov rdi, r10
  0x71  mov rax, [rbx + 0x128]
  0x78  mov rax, [rax - 0x58]
  0x7f  test rax, rax
  0x82  je short 0x88
  0x84  call rax
  0x86  jmp short 0x42
  0x88  mov rdi, rbx
  0x8b  call Removed
  0x90  xor eax, eax
  0x92  xor edx, edx
  0x94  xorps xmm0, xmm0
  0x97  xorps xmm1, xmm1
  0x9a  jmp short 0x42

entry: none

entry: none
