//! Contexts, and the ledgers that they count in.

use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering, zeroed_counters};

/// A registered execution context: a thread, as a rule, that may pass through gates.
///
/// Contexts are type-stable. A [`Domain`](crate::Domain) never frees one; a context whose owner
/// has gone is taken over by the next owner, counters and all, because counts are balanced within
/// a context: whoever has left every gate has left zeros.
pub struct Context {
    /// The next context in the domain's list. Written before the context is published.
    next: *const Context,
    /// Who counts here; 0 while nobody does.
    owner: AtomicU64,
    ledger: Box<[AtomicU32]>,
}

impl Context {
    /// The first cell of the ledger: what the pinned register holds while generated code runs.
    ///
    /// The cell of a lane is the [`Lane::cell`](crate::Lane::cell)th of it.
    pub fn ledger(&self) -> *const u32 {
        self.ledger.as_ptr().cast()
    }

    /// Who counts here, as given to [`Domain::register`](crate::Domain::register); 0 for nobody.
    pub fn owner(&self) -> u64 {
        self.owner.load(Ordering::Relaxed)
    }

    /// Gives the context up, for another owner to take.
    ///
    /// # Safety
    ///
    /// The caller owns the context, is inside no gate with it, and enters none with it again.
    pub unsafe fn release(&self) {
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
        &self.ledger[cell as usize]
    }
}

/// The contexts of a domain: a list that only grows, so that summing over it takes no lock.
pub(crate) struct Contexts {
    first: AtomicPtr<Context>,
    cells: usize,
}

// SAFETY: contexts are shared between threads by design. The list's links are written before a
// context is published and never after, and everything else in a context is atomic.
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
        let ledger = zeroed_counters(self.cells)?;
        let new = Box::into_raw(Box::new(Context {
            next: std::ptr::null(),
            owner: AtomicU64::new(owner),
            ledger,
        }));
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            // SAFETY: `new` is not published yet, so nobody else can reach it.
            unsafe { (*new).next = first };
            // Release pairs with the acquire in `iter`: whoever finds the context finds its
            // ledger. A summer that does not find it yet misses no frame: see the crate docs on
            // why a frame that counts is one that the heavy fence has made visible, the push
            // before it included.
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
        let mut at: *const Context = self.first.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            // SAFETY: a published context lives as long as the domain, which `self` borrows.
            let context = unsafe { at.as_ref() }?;
            at = context.next;
            Some(context)
        })
    }
}

impl Drop for Contexts {
    fn drop(&mut self) {
        let mut at: *const Context = self.first.load(Ordering::Relaxed);
        while !at.is_null() {
            // SAFETY: every context in the list came from `Box::into_raw` and is in it once;
            // `&mut self` says that nobody looks at the list any more.
            at = unsafe { Box::from_raw(at.cast_mut()) }.next;
        }
    }
}
