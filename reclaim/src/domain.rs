//! A domain: the contexts whose counts are summed together, and the cells that lanes own in them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::context::{Context, Contexts};
use crate::sync::{HEADER, Ordering};
use crate::{Error, Hold, Lane};

/// The threads and lanes of one world of gates; a program has one.
///
/// Every context has a cell for every lane of the domain, so a thread needs to register once,
/// whatever it then calls.
pub struct Domain {
    contexts: Contexts,
    cells: Mutex<Cells>,
}

/// Which cells of the ledgers belong to a lane.
struct Cells {
    /// Given back by lanes that are gone, to be used first. In each, every context's count is 0.
    free: Vec<u32>,
    /// From here on no cell was ever used.
    unused: u32,
    limit: u32,
}

impl Domain {
    /// A domain for at most `lanes` lanes at a time.
    ///
    /// Each context will have a ledger of `lanes` counters of four bytes, zeroed memory of which
    /// a page is used only once a lane in it is.
    pub fn new(lanes: u32) -> Arc<Self> {
        Arc::new(Self {
            contexts: Contexts::new(HEADER as usize + lanes as usize),
            cells: Mutex::new(Cells { free: Vec::new(), unused: HEADER, limit: HEADER + lanes }),
        })
    }

    /// Registers a context for `owner`, any number but 0 that tells the caller's contexts apart
    /// (the operating system's thread number, say). No thread is
    /// [running](Context::set_runner) with it yet.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyContexts`] if there is no memory for another ledger.
    ///
    /// # Panics
    ///
    /// If `owner` is 0.
    pub fn register(&self, owner: u64) -> Result<&Context, Error> {
        assert_ne!(owner, 0, "0 says that nobody owns a context");
        self.contexts.register(owner).ok_or(Error::TooManyContexts)
    }

    /// A new lane, with nothing in it.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyLanes`] if the domain has as many as it was made for.
    pub fn lane<P>(self: &Arc<Self>) -> Result<Lane<P>, Error> {
        Ok(Lane::new(Arc::clone(self), self.take_cell()?))
    }

    /// What the callers of a lane can be held with. It has a cell like a lane.
    ///
    /// # Errors
    ///
    /// As for a lane.
    pub fn hold(self: &Arc<Self>) -> Result<Hold, Error> {
        Ok(Hold::new(Arc::clone(self), self.take_cell()?))
    }

    fn take_cell(&self) -> Result<u32, Error> {
        let mut cells = self.lock_cells();
        match cells.free.pop() {
            Some(cell) => Ok(cell),
            None if cells.unused < cells.limit => {
                cells.unused += 1;
                Ok(cells.unused - 1)
            }
            None => Err(Error::TooManyLanes),
        }
    }

    /// Takes back the cell of a lane or hold that is gone.
    pub(crate) fn return_cell(&self, cell: u32) {
        self.lock_cells().free.push(cell);
    }

    fn lock_cells(&self) -> MutexGuard<'_, Cells> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `context` is counted in nowhere: no thread is inside a gate with it.
    ///
    /// Meant for the owner of the context, which knows of every frame. It looks at a cell for each
    /// lane there has ever been at a time.
    pub fn is_idle(&self, context: &Context) -> bool {
        let unused = self.lock_cells().unused;
        (HEADER..unused).all(|cell| context.cell(cell).load(Ordering::Relaxed) == 0)
    }

    /// Says that this process is the child of a fork. Contexts with which the thread that has
    /// forked was running are its own, under its new number; those of other threads, which this
    /// process does not have, are to be [emptied](Self::empty_vanished); those with which none
    /// was running are as they were.
    ///
    /// Takes no lock and allocates nothing, as there may be no thread to give a lock back.
    ///
    /// # Safety
    ///
    /// It is, the thread that has forked was `parent` and is `child` now, and there is no other
    /// thread yet.
    pub unsafe fn forked(&self, parent: u64, child: u64) {
        self.contexts.iter().for_each(|context| context.fork(parent, child));
    }

    /// Forgets what was inside with the contexts of threads that a [fork](Self::forked) has left
    /// behind, and gives those contexts up. Every lane with a retired version is to be
    /// [left](Lane::leave) then, since the last frame inside may have been among them.
    pub fn empty_vanished(&self) {
        // One at a time, and no lane gets a cell meanwhile.
        let cells = self.lock_cells();
        let vanished = self.contexts.iter().filter(|context| context.has_vanished());
        vanished.for_each(|context| context.empty(cells.unused));
    }

    /// Holds the domain's one lock, which lanes take when they come and go, so that no other
    /// thread is holding it while the process forks: in the child no thread would release it.
    pub fn freeze(&self) -> Frozen<'_> {
        Frozen { _cells: self.lock_cells() }
    }

    /// Whether no context is counted in at `cell`.
    ///
    /// The answer is meant for a caller that has executed a full fence after whatever makes it
    /// ask. Acquire pairs with the release of the count that brought the cell to 0: a thread that
    /// reads 0 may free what that frame was using, since the frame is over.
    pub(crate) fn is_empty(&self, cell: u32) -> bool {
        self.contexts.iter().all(|context| context.cell(cell).load(Ordering::Acquire) == 0)
    }

    /// The contexts that are counted in at `cell`, and how deep.
    pub(crate) fn frames(&self, cell: u32) -> Vec<Frames> {
        self.frames_but(cell, None)
    }

    /// The same, less the counts in another cell.
    ///
    /// The other is read first, with acquire: a holder that finds there that a frame waits finds
    /// that frame counted in. And acquire pairs with the release of the count that brought the cell
    /// to that number, as in [`is_empty`](Self::is_empty).
    pub(crate) fn frames_but(&self, cell: u32, waiting: Option<u32>) -> Vec<Frames> {
        let frames = |context: &Context| {
            let waiting = waiting.map_or(0, |cell| context.cell(cell).load(Ordering::Acquire));
            let counted = context.cell(cell).load(Ordering::Acquire);
            // A caller that goes on from a hold may be seen between the two.
            let frames = counted.saturating_sub(waiting).max(1);
            let (owner, runner) = (context.owner(), context.runner());
            (counted != waiting).then_some(Frames { owner, runner, frames })
        };
        let present = self.contexts.iter().filter(|context| !context.has_vanished());
        present.filter_map(frames).collect()
    }

    /// How many contexts there are, and how many of them have an owner.
    pub fn contexts(&self) -> (usize, usize) {
        let owned = self.contexts.iter().filter(|context| context.owner() != 0).count();
        (self.contexts.iter().count(), owned)
    }
}

/// No lane comes or goes until this is dropped. See [`Domain::freeze`].
pub struct Frozen<'a> {
    _cells: MutexGuard<'a, Cells>,
}

/// The frames of one context in one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
    /// The context's owner, as given to [`Domain::register`].
    pub owner: u64,
    /// The thread that is [running](Context::set_runner) with it; 0 if none is.
    pub runner: u64,
    /// How many of its frames are inside.
    pub frames: u32,
}
