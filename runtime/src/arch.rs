//! Facts that every layer may ask about the machine on which generated code runs.

/// Any number of these bytes is an instruction that traps: `int3` on x86-64; elsewhere zeros,
/// which are undefined instructions on aarch64 and riscv64.
pub(crate) const TRAP_BYTE: u8 = if cfg!(target_arch = "x86_64") { 0xcc } else { 0 };
