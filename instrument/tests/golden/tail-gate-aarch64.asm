; pass: tail_gate
; target: aarch64

; ---- after ----
head, 20 bytes
  0x00  mov r11, Lane
  0x0a  mov eax, 0x30
  0x0f  jmp TailGate

gate: none
