//! Contexts, and the ledgers that they count in.

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Cells, HEADER, Ordering};

/// A registered execution context: a thread, as a rule, that may pass through gates.
///
/// ```text
///   ledger   +-----------------------+------+------+------+--
///            | header: HEADER_BYTES  | cell | cell | cell | ...
///            +-----------------------+------+------+------+--
/// ```
///
/// The header is for the program that runs the gates, to keep what belongs to the calls in progress
/// where they find it without asking which thread they are on: zeros at first, and left alone here.
///
/// Contexts are type-stable. A [`Domain`](crate::Domain) never frees one; a context whose owner
/// has gone is taken over by the next owner, counters and all, because counts are balanced within
/// a context: an owner that has left every gate has left zeros.
pub struct Context {
    /// The next context in the domain's list. Written before the context is published.
    next: *const CachePadded<Context>,
    /// The number of its owner; 0 while it has none.
    owner: AtomicU64,
    /// The thread that is running with it; 0 while none is, and [`VANISHED`].
    runner: AtomicU64,
    ledger: Cells,
}

/// The runner of a context that a fork has found with a thread that the child does not have.
const VANISHED: u64 = u64::MAX;

/// How many bytes at the start of a ledger are no lane's: a cache line, see [`Context`]. They are
/// aligned to sixteen.
pub const HEADER_BYTES: usize = HEADER as usize * size_of::<u32>();

// SAFETY: the link is written before the context is published and never after, and everything else
// in it is atomic.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// The start of the ledger: what the pinned register holds while generated code runs.
    ///
    /// The cell of a lane is the [`Lane::cell`](crate::Lane::cell)th word of it.
    pub fn ledger(&self) -> *const u32 {
        self.ledger.first().cast()
    }

    /// Its owner, as given to [`Domain::register`](crate::Domain::register); 0 if it has none.
    pub fn owner(&self) -> u64 {
        self.owner.load(Ordering::Relaxed)
    }

    /// Says which thread is running with it from now on, any number that tells threads apart; 0 if
    /// none is: what is inside a gate with it is suspended.
    ///
    /// # Safety
    ///
    /// The caller owns the context, and no other thread is running with it. A process that is
    /// forked takes its word for it: see [`Domain::forked`](crate::Domain::forked).
    pub unsafe fn set_runner(&self, thread: u64) {
        self.runner.store(thread, Ordering::Relaxed);
    }

    /// Which thread is running with it; 0 if none is.
    pub fn runner(&self) -> u64 {
        self.runner.load(Ordering::Relaxed)
    }

    /// Gives the context up, for another owner to take.
    ///
    /// # Safety
    ///
    /// The caller owns the context, is inside no gate with it, and enters none with it again. The
    /// header is all zeros again.
    pub unsafe fn release(&self) {
        self.runner.store(0, Ordering::Relaxed);
        // Pairs with the exchange in `take_over`: the next owner counts on from what this one
        // left. If it came to see the context free without seeing the counts, it would write
        // them over, and a frame would be lost or invented.
        self.owner.store(0, Ordering::Release);
    }

    fn take_over(&self, owner: u64) -> bool {
        self.owner.load(Ordering::Relaxed) == 0
            && self.owner.compare_exchange(0, owner, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The counter of one lane.
    pub(crate) fn cell(&self, cell: u32) -> &AtomicU32 {
        self.ledger.get(cell)
    }

    /// Whether this process does not have the thread that runs with it.
    pub(crate) fn has_vanished(&self) -> bool {
        self.runner() == VANISHED
    }

    /// See [`Domain::forked`](crate::Domain::forked).
    pub(crate) fn fork(&self, parent: u64, child: u64) {
        let runner = self.runner();
        if runner == parent {
            self.runner.store(child, Ordering::Relaxed);
            if self.owner() == parent {
                self.owner.store(child, Ordering::Relaxed);
            }
        } else if runner != 0 {
            self.runner.store(VANISHED, Ordering::Relaxed);
        }
    }

    /// Forgets what the thread that has vanished was inside of, and gives the context up. Only the
    /// first `cells` have ever been a lane's.
    pub(crate) fn empty(&self, cells: u32) {
        for cell in 0..cells {
            let cell = self.cell(cell);
            // Only pages that differ are copied.
            if cell.load(Ordering::Relaxed) != 0 {
                cell.store(0, Ordering::Relaxed);
            }
        }
        self.runner.store(0, Ordering::Relaxed);
        // As in `release`.
        self.owner.store(0, Ordering::Release);
    }
}

/// The contexts of a domain: a list that only grows, so that summing over it takes no lock.
///
/// Each context has cache lines of its own. A thread that runs coroutines writes the runner of one
/// context or another whenever it resumes or suspends, and contexts are small: two threads that do
/// would otherwise write to the same line.
pub(crate) struct Contexts {
    first: AtomicPtr<CachePadded<Context>>,
    cells: usize,
}

// SAFETY: contexts are shared between threads by design.
unsafe impl Send for Contexts {}
// SAFETY: as above.
unsafe impl Sync for Contexts {}

impl Contexts {
    /// No contexts yet; each will have a ledger of `cells` counters.
    pub(crate) fn new(cells: usize) -> Self {
        Self { first: AtomicPtr::new(std::ptr::null_mut()), cells }
    }

    /// A context for `owner`: one that another has given up, or else a new one. `None` if there
    /// is no memory for its ledger.
    pub(crate) fn register(&self, owner: u64) -> Option<&Context> {
        if let Some(context) = self.iter().find(|context| context.take_over(owner)) {
            return Some(context);
        }
        let ledger = Cells::zeroed(self.cells)?;
        let new = Box::into_raw(Box::new(CachePadded::new(Context {
            next: std::ptr::null(),
            owner: AtomicU64::new(owner),
            runner: AtomicU64::new(0),
            ledger,
        })));
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            // SAFETY: `new` is not published yet, so no other thread can reach it.
            unsafe { &mut *new }.next = first;
            // Release pairs with the acquire in `iter`: a thread that finds the context finds its
            // ledger. One that adds up counts and does not find the context yet misses no frame:
            // a frame that counts is one that the heavy fence has made visible, and so it has the
            // push before that frame. See "Entering against closing" in the chapter on the races.
            match self.first.compare_exchange_weak(first, new, Ordering::Release, Ordering::Relaxed)
            {
                // SAFETY: published contexts live as long as the domain does.
                Ok(_) => return Some(unsafe { &*new }),
                Err(newer) => first = newer,
            }
        }
    }

    /// Every context ever registered, newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Context> {
        let mut at = self.first.load(Ordering::Acquire).cast_const();
        std::iter::from_fn(move || {
            // SAFETY: a published context lives as long as the domain, which `self` borrows.
            let context = unsafe { at.as_ref() }?;
            at = context.next;
            Some(&**context)
        })
    }
}

impl Drop for Contexts {
    fn drop(&mut self) {
        let mut at = self.first.load(Ordering::Relaxed).cast_const();
        while !at.is_null() {
            // SAFETY: every context in the list came from `Box::into_raw` and is in it once;
            // `&mut self` says that no thread looks at the list any more.
            at = unsafe { Box::from_raw(at.cast_mut()) }.next;
        }
    }
}
