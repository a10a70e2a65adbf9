; pass: tail_gate
; target: aarch64

; ---- after ----
head: none

gate: none
