//! Holding the callers of a lane while its version is replaced where it is.

use std::sync::Arc;

use crate::sync::{AtomicU32, Mutant, Ordering, fence, mutated};
use crate::{Domain, Frames, Lane};

/// Has the callers of a lane wait, until all frames inside have left and the code has been written
/// over.
///
/// While a hold is on, the body of the lane is a *detour*, code that calls [`wait`](Self::wait) and
/// then goes on to the body itself. So a caller that waits is counted in like any other, and noted
/// besides as one that waits, in a cell of its own in the caller's ledger. The lane is empty when
/// each context has as many frames there as it has callers that wait.
///
/// ```text
///    31                                   2 1     0
///   +--------------------------------------+-------+
///   | number: advances with each hold      | phase |
///   +--------------------------------------+-------+
///
///           begin          decide, no frame inside        end
///      Off -------> On <----------------------> Deciding -----> Off
///                       decide, a frame inside
/// ```
pub struct Hold {
    word: AtomicU32,
    /// Which word of every ledger counts the callers that wait.
    cell: u32,
    domain: Arc<Domain>,
}

const PHASE: u32 = 3;
/// Nobody holds the callers.
const OFF: u32 = 0;
/// Callers wait, but for those that may pass.
const ON: u32 = 1;
/// All of them wait: the holder looks whether a frame is inside, or writes.
const DECIDING: u32 = 2;

impl Hold {
    pub(crate) fn new(domain: Arc<Domain>, cell: u32) -> Self {
        Self { word: AtomicU32::new(OFF), cell, domain }
    }

    /// The word that callers wait for to change.
    pub fn word(&self) -> &AtomicU32 {
        &self.word
    }

    /// Which word of every ledger counts the callers that wait.
    #[cfg(test)]
    pub(crate) fn cell(&self) -> u32 {
        self.cell
    }

    /// Whether the holder decides, when the word is this.
    #[cfg(test)]
    pub(crate) fn is_deciding(word: u32) -> bool {
        word & PHASE == DECIDING
    }

    /// Whether the callers are held.
    pub fn is_on(&self) -> bool {
        self.word.load(Ordering::Relaxed) & PHASE != OFF
    }

    /// Has callers that come to the detour wait from now on. To be called before they do.
    ///
    /// # Safety
    ///
    /// Nobody else holds them. What held them before, in the process that this one was forked
    /// from, is not there any more.
    pub unsafe fn begin(&self) {
        let number = (self.word.load(Ordering::Relaxed) & !PHASE).wrapping_add(PHASE + 1);
        // Release: a caller that goes on from an earlier hold may find this, and not the end of
        // that.
        let ordering = match mutated(Mutant::BeginWithoutRelease) {
            true => Ordering::Relaxed,
            false => Ordering::Release,
        };
        self.word.store(number | ON, ordering);
    }

    /// The frames that are inside of the lane at some moment during the call, and do not wait. A
    /// caller that has come and does not wait yet is among them.
    pub fn inside<P>(&self, lane: &Lane<P>) -> Vec<Frames> {
        let waiting = if mutated(Mutant::WaitersInside) { None } else { Some(self.cell) };
        self.domain.frames_but(lane.cell(), waiting)
    }

    /// Makes sure that no frame is inside, nor will be before the [end](Self::end). If one is, the
    /// callers are held as before, and those that wait for the decision are to be woken.
    ///
    /// # Errors
    ///
    /// The frames that are inside.
    ///
    /// # Safety
    ///
    /// The caller holds the callers, and has executed a heavy fence since the body of the lane is
    /// the detour.
    pub unsafe fn decide<P>(&self, lane: &Lane<P>) -> Result<(), Vec<Frames>> {
        let on = self.word.load(Ordering::Relaxed);
        self.word.store(on & !PHASE | DECIDING, Ordering::Relaxed);
        // Pairs with the fence in `wait`. A caller that is not to wait has counted in, and is noted
        // no longer, before its fence, and reads the word after it; here it is the other way
        // around. So either it finds that this is being decided, or it is found inside.
        fence(Ordering::SeqCst);
        let inside = self.inside(lane);
        if inside.is_empty() {
            return Ok(());
        }
        // Release: as in `begin`.
        self.word.store(on, Ordering::Release);
        Err(inside)
    }

    /// Lets the callers go on. Those that wait are to be woken.
    ///
    /// # Safety
    ///
    /// The caller holds them, and calls of the lane go to what they are to run.
    pub unsafe fn end(&self) {
        let number = self.word.load(Ordering::Relaxed) & !PHASE;
        // Release pairs with the load in `wait`: a caller that goes on finds the code that was
        // written.
        self.word.store(number | OFF, Ordering::Release);
    }

    /// What the detour calls, for a caller that is counted in at the lane: returns when the caller
    /// is to go on to the body.
    ///
    /// It does not wait if it is called from inside of the lane, directly or not, since it would
    /// wait for itself; nor if it `may_pass`; nor for a second hold after a first. So it waits, but
    /// for the moment of a decision, for one replacement at most.
    ///
    /// `sleep` may wait for the word to be another than it is told, and need not. If it returns
    /// `false`, there is no thread to end the hold.
    ///
    /// # Safety
    ///
    /// The ledger is that of the calling context, which is counted in at the lane.
    pub unsafe fn wait<P>(
        &self,
        lane: &Lane<P>,
        ledger: *const u32,
        may_pass: bool,
        sleep: impl FnMut(&AtomicU32, u32) -> bool,
    ) {
        // SAFETY: as the caller says: it is the ledger of a context of this domain.
        let cell = |cell: u32| unsafe { &*ledger.add(cell as usize).cast::<AtomicU32>() };
        self.wait_as(cell(lane.cell()), cell(self.cell), may_pass, sleep);
    }

    /// The same for a context with these counts, of the frames in the lane and of those that wait.
    pub(crate) fn wait_as(
        &self,
        frames: &AtomicU32,
        waiting: &AtomicU32,
        may_pass: bool,
        mut sleep: impl FnMut(&AtomicU32, u32) -> bool,
    ) {
        let mut waited = None;
        loop {
            if !mutated(Mutant::WaitWithoutFence) {
                // Pairs with the fence in `decide`, see there.
                fence(Ordering::SeqCst);
            }
            let seen = self.word.load(Ordering::Acquire);
            // Of a context that a signal handler has interrupted here, or on its way here, some
            // frames wait and others are about to. They count as inside, which is why there is a
            // decision to wait for.
            let inside = frames.load(Ordering::Relaxed) - waiting.load(Ordering::Relaxed) > 1;
            let inside = inside && !mutated(Mutant::RecursionWaits);
            let passes = inside || may_pass || waited.is_some_and(|number| number != seen & !PHASE);
            let deciding = seen & PHASE == DECIDING && !mutated(Mutant::PassDecision);
            if seen & PHASE == OFF || passes && !deciding || mutated(Mutant::NobodyWaits) {
                return;
            }
            waited.get_or_insert(seen & !PHASE);
            // Release: what this context has done in the lane before, it has done when the holder
            // finds that it waits.
            waiting.store(waiting.load(Ordering::Relaxed) + 1, Ordering::Release);
            let there = loop {
                let now = self.word.load(Ordering::Relaxed);
                let same = now & !PHASE == seen & !PHASE;
                if !same || now & PHASE == OFF || passes && now & PHASE == ON {
                    break true;
                }
                if !sleep(&self.word, now) {
                    break false;
                }
            };
            waiting.store(waiting.load(Ordering::Relaxed) - 1, Ordering::Release);
            if !there {
                return;
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.domain.return_cell(self.cell);
    }
}
