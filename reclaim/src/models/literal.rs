//! The scheme that this crate is not: a counter that the function itself counts in.
//!
//! It was proposed as: count frames on entry to the function and on exit from it, and free a
//! deleted function whose count is zero. All accesses are sequentially consistent here, and only
//! one thread ever wins the right to free, so what goes wrong is the idea itself. The count is
//! made by instructions of the very code that it protects:
//!
//! ```text
//!   address = slot              entry window: the address is known, the frame not yet counted
//!   -- code of the version ---------------------------
//!   count += 1
//!   ...
//!   count -= 1
//!   ret                         exit window: the frame is no longer counted, and not yet gone
//!   --------------------------------------------------
//! ```

use std::rc::Rc;

use loom::sync::atomic::{AtomicBool, AtomicUsize};
use loom::thread;

use super::explore::{Fault, explore, refute};
use crate::sync::{Ordering::SeqCst, fence};

/// A step of a call.
#[derive(Clone, Copy)]
enum Step {
    /// Find the version in the slot. If it is another one already, there is no more to see.
    Load,
    /// `count += 1`, in the code.
    CountIn,
    /// What the function is there for.
    Run,
    /// `count -= 1`, in the code.
    CountOut,
    /// The epilogue and the return, in the code.
    Return,
    /// Free the code if it is deleted and the count is zero, from outside of it.
    Clean,
}

/// Calls that are on their way as the version is deleted. There is no window at their end: from
/// the count on, they are out of the code.
#[test]
fn the_entry_window() {
    use Step::*;
    refute(1, Fault::UseAfterFree, || deleted(&[], &[Load, CountIn, Run, CountOut, Clean]));
}

/// Calls that are counted in before anyone deletes the version.
#[test]
fn the_exit_window() {
    use Step::*;
    refute(2, Fault::UseAfterFree, || {
        deleted(&[Load, CountIn], &[Run, CountOut, Return, Clean]);
    });
}

/// Without either window the same program is right.
#[test]
fn neither_window() {
    use Step::*;
    explore(5, || deleted(&[Load, CountIn], &[Run, CountOut, Clean]));
}

/// A call takes the steps in `before`, and then those in `meanwhile` while another thread deletes
/// the version.
fn deleted(before: &[Step], meanwhile: &'static [Step]) {
    let function = Rc::new(Function::new());
    if function.follow(before) {
        let caller = Rc::clone(&function);
        let calls = thread::spawn(move || {
            caller.follow(meanwhile);
        });
        function.delete();
        calls.join().unwrap();
    }
}

/// A function that has one version, and then none.
struct Function {
    slot: AtomicBool,
    count: AtomicUsize,
    deleted: AtomicBool,
    /// Set by the thread that frees.
    freeing: AtomicBool,
    /// Whether the code is in memory.
    code: AtomicBool,
}

impl Function {
    fn new() -> Self {
        Self {
            slot: AtomicBool::new(true),
            count: AtomicUsize::new(0),
            deleted: AtomicBool::new(false),
            freeing: AtomicBool::new(false),
            code: AtomicBool::new(true),
        }
    }

    /// Takes the steps of a call. Returns whether the version was there.
    fn follow(&self, steps: &[Step]) -> bool {
        for step in steps {
            match step {
                Step::Load if !self.slot.load(SeqCst) => return false,
                Step::Load => {}
                Step::CountIn => {
                    self.execute();
                    self.count.fetch_add(1, SeqCst);
                    fence(SeqCst);
                }
                Step::Run | Step::Return => self.execute(),
                Step::CountOut => {
                    self.execute();
                    self.count.fetch_sub(1, SeqCst);
                    fence(SeqCst);
                }
                Step::Clean => self.clean(),
            }
        }
        true
    }

    fn delete(&self) {
        self.slot.store(false, SeqCst);
        self.deleted.store(true, SeqCst);
        fence(SeqCst);
        self.clean();
    }

    fn clean(&self) {
        if self.deleted.load(SeqCst)
            && self.count.load(SeqCst) == 0
            && !self.freeing.swap(true, SeqCst)
        {
            self.code.store(false, SeqCst);
        }
    }

    fn execute(&self) {
        assert!(self.code.load(SeqCst), "use after free: a thread is in code that is gone");
    }
}
