//! The system calls that engines make, in one place so that tests can refuse each of them.

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::io::{Errno, pwrite, retry_on_intr};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// The kinds of calls, each of which a test can refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    CreateFile,
    Resize,
    Reserve,
    MapFile,
    MapData,
    Write,
    Allocate,
    PunchHole,
    Discard,
    HeavyFence,
}

/// Makes an empty file in memory, of so many bytes, whose pages may be mapped to be executed.
pub(crate) fn memory_file(len: usize) -> io::Result<OwnedFd> {
    faults::check(Call::CreateFile)?;
    let flags = MemfdFlags::CLOEXEC;
    let file = match memfd_create(c"lastout", flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know the flag and do not need it.
        Err(Errno::INVAL) => memfd_create(c"lastout", flags)?,
        result => result?,
    };
    faults::check(Call::Resize)?;
    ftruncate(&file, len as u64)?;
    Ok(file)
}

/// Reserves addresses that can neither be read nor written nor executed.
fn reserve(len: usize) -> io::Result<NonNull<u8>> {
    faults::check(Call::Reserve)?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping at an address of the system's choice disturbs nothing.
    let start = unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), flags)? };
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Addresses that belong to their owner until this is dropped.
pub(crate) struct Reserved {
    pub(crate) start: usize,
    len: usize,
}

impl Reserved {
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        Ok(Self { start: reserve(len)?.as_ptr().expose_provenance(), len })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: the addresses were reserved for this, and its owner uses them no more.
        unsafe { unmap(self.start, self.len) };
    }
}

/// Maps zeros, which take memory only where something is written. They are to be [unmapped](unmap).
pub(crate) fn zeros(len: usize) -> io::Result<NonNull<u8>> {
    faults::check(Call::Reserve)?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping at an address of the system's choice disturbs nothing.
    let start = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, flags)? };
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// The purpose of a view of a file. No view can be both written and executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Execute,
    Read,
    Write,
}

/// Maps the first `len` bytes of a file at `address`, in the place of what is mapped there.
///
/// # Safety
///
/// The addresses are the caller's, and what can be read and executed there stays the same.
pub(crate) unsafe fn map_file(
    address: usize,
    len: usize,
    view: View,
    file: impl AsFd,
) -> io::Result<()> {
    faults::check(Call::MapFile)?;
    let protection = match view {
        View::Execute => ProtFlags::READ | ProtFlags::EXEC,
        View::Read => ProtFlags::READ,
        View::Write => ProtFlags::READ | ProtFlags::WRITE,
    };
    let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: as the caller says.
    unsafe { mmap(pointer(address), len, protection, flags, file, 0)? };
    Ok(())
}

/// Maps `len` bytes of zeros at `address`, to be read and written, in the place of what is mapped
/// there. A process that is forked has a copy of its own.
///
/// # Safety
///
/// The addresses are the caller's, and no thread uses them.
pub(crate) unsafe fn map_data(address: usize, len: usize) -> io::Result<()> {
    faults::check(Call::MapData)?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: as the caller says.
    unsafe { mmap_anonymous(pointer(address), len, protection, flags)? };
    Ok(())
}

/// Unmaps addresses. A failure would leave them mapped, and no caller could do better.
///
/// # Safety
///
/// The addresses are the caller's, and no thread uses them.
pub(crate) unsafe fn unmap(address: usize, len: usize) {
    // SAFETY: as the caller says.
    let _ = unsafe { munmap(pointer(address), len) };
}

/// Writes all of `bytes` to a file, at `offset`.
pub(crate) fn write(file: impl AsFd, mut bytes: &[u8], mut offset: usize) -> io::Result<()> {
    faults::check(Call::Write)?;
    while !bytes.is_empty() {
        let written = retry_on_intr(|| pwrite(&file, bytes, offset as u64))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written;
    }
    Ok(())
}

/// Gets memory for pages of a file, so that a store through a view of them cannot fail any more.
/// Only a signal could tell of such a failure.
pub(crate) fn allocate(file: impl AsFd, range: Range<usize>) -> io::Result<()> {
    faults::check(Call::Allocate)?;
    let (start, len) = (range.start as u64, range.len() as u64);
    Ok(retry_on_intr(|| fallocate(&file, FallocateFlags::empty(), start, len))?)
}

/// Gives pages of a file back. They read as zeros from now on.
pub(crate) fn punch_hole(file: impl AsFd, range: Range<usize>) -> io::Result<()> {
    faults::check(Call::PunchHole)?;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let len = range.len() as u64;
    Ok(retry_on_intr(|| fallocate(&file, flags, range.start as u64, len))?)
}

/// Gives pages that [`map_data`] has mapped back. They read as zeros from now on.
///
/// # Safety
///
/// The addresses are the caller's, and no thread uses them.
pub(crate) unsafe fn discard(range: Range<usize>) -> io::Result<()> {
    faults::check(Call::Discard)?;
    // SAFETY: as the caller says.
    unsafe { madvise(pointer(range.start), range.len(), Advice::LinuxDontNeed)? };
    Ok(())
}

/// The heavy fence of the protocol.
pub(crate) fn heavy_fence() -> io::Result<()> {
    faults::check(Call::HeavyFence)?;
    lastout_reclaim::membarrier()
}

fn pointer(address: usize) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address)
}

#[cfg(not(test))]
mod faults {
    /// Only the system refuses calls.
    #[inline]
    pub(super) fn check(_: super::Call) -> std::io::Result<()> {
        Ok(())
    }
}

/// Refusals that a test has asked for, on its own thread.
#[cfg(test)]
pub(crate) mod faults {
    use std::cell::Cell;
    use std::io;

    use super::Call;

    thread_local! {
        /// The kind of call to refuse, and how many such calls are to pass before.
        static PLAN: Cell<Option<(Call, usize)>> = const { Cell::new(None) };
    }

    /// Refuses the `nth` call of this kind from now on, counted from 0, and only that.
    pub(crate) fn refuse(call: Call, nth: usize) {
        PLAN.set(Some((call, nth)));
    }

    /// Forgets the refusal that was planned. Returns whether it has not happened yet.
    pub(crate) fn clear() -> bool {
        PLAN.take().is_some()
    }

    pub(super) fn check(call: Call) -> io::Result<()> {
        match PLAN.get() {
            Some((refused, 0)) if refused == call => {
                PLAN.set(None);
                Err(io::Error::from_raw_os_error(libc::ENOMEM))
            }
            Some((refused, nth)) if refused == call => {
                PLAN.set(Some((refused, nth - 1)));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
