//! The heavy fence.

use std::io;

// From the kernel's `linux/membarrier.h`.
const PRIVATE_EXPEDITED_SYNC_CORE: libc::c_int = 1 << 5;
const REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: libc::c_int = 1 << 6;

/// Whether this process can use [`membarrier`]: tells the kernel that it will.
///
/// False on kernels before 4.16, on those built without it, and in sandboxes that forbid the
/// call; gates must then count with [`Counting::Atomic`](crate::Counting::Atomic).
pub fn register_membarrier() -> bool {
    call(REGISTER_PRIVATE_EXPEDITED_SYNC_CORE).is_ok() && membarrier().is_ok()
}

/// Makes every running thread of this process execute a full fence, and whatever its processor
/// needs to see new code, before it returns: `membarrier(2)`, private expedited, `SYNC_CORE`.
///
/// # Errors
///
/// What the kernel says. Where [`register_membarrier`] has returned true, it has no reason to
/// refuse.
pub fn membarrier() -> io::Result<()> {
    call(PRIVATE_EXPEDITED_SYNC_CORE)
}

fn call(command: libc::c_int) -> io::Result<()> {
    // SAFETY: membarrier takes two integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
