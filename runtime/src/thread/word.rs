//! A word that each thread has for itself, and that is the calling thread's whenever it is used.
//!
//! A `thread_local` is not quite that. To compilers its address is the same for as long as a
//! function runs, so they ask for it once and keep it, also in a loop, and also while a call
//! changes the thread that is running. In a program for x86-64 nobody sees this, since there such
//! an address is part of the instruction that uses it. In a shared library, a coroutine that makes
//! two calls would make the second one with the word of the thread that made the first.
//!
//! So this one is used by an instruction that compilers do not look into. Elsewhere it is used by
//! functions that are not inlined, which takes a nanosecond more.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(crate) use self::by_function::{find, get, set};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) use self::by_instruction::{find, get, set};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod by_instruction {
    use std::arch::{asm, global_asm};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The name of the word: a program may have several versions of this crate.
    macro_rules! word {
        () => {
            concat!(
                "lastout_thread_word_",
                env!("CARGO_PKG_VERSION_MAJOR"),
                "_",
                env!("CARGO_PKG_VERSION_MINOR"),
                "_",
                env!("CARGO_PKG_VERSION_PATCH")
            )
        };
    }

    global_asm!(
        ".pushsection .tbss.lastout, \"awT\", @nobits",
        concat!(".globl ", word!()),
        concat!(".hidden ", word!()),
        concat!(".type ", word!(), ", @object"),
        concat!(".size ", word!(), ", 8"),
        ".p2align 3",
        concat!(word!(), ": .zero 8"),
        ".popsection",
    );

    /// Where the word is, seen from what the register `fs` points to. As it is among those words
    /// that a thread has from its start, that is the same for all of them.
    static OFFSET: AtomicUsize = AtomicUsize::new(0);

    /// Finds where the word is. Nothing else here is of use before.
    pub(crate) fn find() {
        let offset: usize;
        // SAFETY: it loads a word that the linker has put there.
        unsafe {
            asm!(
                concat!("mov {}, qword ptr [rip + ", word!(), "@gottpoff]"),
                out(reg) offset,
                options(nostack, preserves_flags, readonly),
            );
        }
        OFFSET.store(offset, Ordering::Relaxed);
    }

    /// What the word is; null at first.
    #[inline]
    pub(crate) fn get() -> *const u32 {
        let word;
        // SAFETY: it loads the word, which every thread has.
        unsafe {
            asm!(
                "mov {}, qword ptr fs:[{}]",
                out(reg) word,
                in(reg) OFFSET.load(Ordering::Relaxed),
                options(nostack, preserves_flags, readonly),
            );
        }
        word
    }

    /// Changes the word.
    pub(crate) fn set(word: *const u32) {
        // SAFETY: it stores into the word, which nobody else uses.
        unsafe {
            asm!(
                "mov qword ptr fs:[{}], {}",
                in(reg) OFFSET.load(Ordering::Relaxed),
                in(reg) word,
                options(nostack, preserves_flags),
            );
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod by_function {
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, Ordering};

    thread_local! {
        static WORD: AtomicPtr<u32> = const { AtomicPtr::new(ptr::null_mut()) };
    }

    pub(crate) fn find() {}

    #[inline(never)]
    pub(crate) fn get() -> *const u32 {
        WORD.with(|word| word.load(Ordering::Relaxed))
    }

    #[inline(never)]
    pub(crate) fn set(word: *const u32) {
        WORD.with(|at| at.store(word.cast_mut(), Ordering::Relaxed));
    }
}
