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

; No code would extend the argument.
function u0:8(i32) system_v {
}
function u0:9(i32 uext) system_v {
}

; ---- after ----
entry, 147 bytes
  0x00  push rbp
  0x01  mov rbp, rsp
  0x04  push r15
  0x06  push rbx
  0x07  mov r15, rdi
  0x0a  mov rbx, [rsi + 0x10]
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
  0x39  pop rbx
  0x3a  pop r15
  0x3c  pop rbp
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

entry, 150 bytes
  0x00  push rbp
  0x01  mov rbp, rsp
  0x04  push r15
  0x06  push rbx
  0x07  mov r15, rdi
  0x0a  mov rbx, [rsi + 0x10]
  0x11  mov rdi, rdx
  0x14  mov rax, [rbx + 8]
  0x1b  add dword [r15 + rax], 1
  0x20  mov rax, [rbx]
  0x23  test rax, rax
  0x26  je short 0x4b
  0x28  call rax
  0x2a  mov rcx, [rbx + 8]
  0x31  sub dword [r15 + rcx], 1
  0x36  cmp qword [rbx], 0
  0x3a  je short 0x41
  0x3c  pop rbx
  0x3d  pop r15
  0x3f  pop rbp
  0x40  ret
  0x41  mov rdi, rbx
  0x44  call Leave
  0x49  jmp short 0x3c
  0x4b  mov rax, [rbx + 8]
  0x52  sub dword [r15 + rax], 1
  0x57  cmp qword [rbx], 0
  0x5b  jne short 0x6b
  0x5d  mov r10, rdi
  0x60  mov rdi, rbx
  0x63  call Leave
  0x68  mov rdi, r10
  0x6b  mov rax, [rbx + 0x128]
  0x72  mov rax, [rax - 0x58]
  0x79  test rax, rax
  0x7c  je short 0x82
  0x7e  call rax
  0x80  jmp short 0x3c
  0x82  mov rdi, rbx
  0x85  call Removed
  0x8a  xor eax, eax
  0x8c  xor edx, edx
  0x8e  xorps xmm0, xmm0
  0x91  xorps xmm1, xmm1
  0x94  jmp short 0x3c

entry, 159 bytes
  0x00  push rbp
  0x01  mov rbp, rsp
  0x04  push r15
  0x06  push rbx
  0x07  mov r15, rdi
  0x0a  mov rbx, [rsi + 0x10]
  0x11  mov rdi, rdx
  0x14  mov rsi, rcx
  0x17  mov rdx, r8
  0x1a  mov rcx, r9
  0x1d  mov rax, [rbx + 8]
  0x24  add dword [r15 + rax], 1
  0x29  mov rax, [rbx]
  0x2c  test rax, rax
  0x2f  je short 0x54
  0x31  call rax
  0x33  mov rcx, [rbx + 8]
  0x3a  sub dword [r15 + rcx], 1
  0x3f  cmp qword [rbx], 0
  0x43  je short 0x4a
  0x45  pop rbx
  0x46  pop r15
  0x48  pop rbp
  0x49  ret
  0x4a  mov rdi, rbx
  0x4d  call Leave
  0x52  jmp short 0x45
  0x54  mov rax, [rbx + 8]
  0x5b  sub dword [r15 + rax], 1
  0x60  cmp qword [rbx], 0
  0x64  jne short 0x74
  0x66  mov r10, rdi
  0x69  mov rdi, rbx
  0x6c  call Leave
  0x71  mov rdi, r10
  0x74  mov rax, [rbx + 0x128]
  0x7b  mov rax, [rax - 0x58]
  0x82  test rax, rax
  0x85  je short 0x8b
  0x87  call rax
  0x89  jmp short 0x45
  0x8b  mov rdi, rbx
  0x8e  call Removed
  0x93  xor eax, eax
  0x95  xor edx, edx
  0x97  xorps xmm0, xmm0
  0x9a  xorps xmm1, xmm1
  0x9d  jmp short 0x45

entry: none

entry: none
