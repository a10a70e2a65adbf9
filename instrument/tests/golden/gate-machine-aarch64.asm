; pass: machine_gate
; target: aarch64

function u0:0(i64) -> i64 system_v {
}

; ---- after ----
gate: none

leave tail: none

bail tail: none
