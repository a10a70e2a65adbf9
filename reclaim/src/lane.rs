//! Lanes, and the slow path of the protocol: occupy, close, retire, leave, free.

use std::sync::Arc;

use crate::sync::{
    AtomicU32, AtomicU64, AtomicUsize, Mutant, Ordering, UnsafeCell, fence, mutated,
};
use crate::{Counting, Domain, Frames, State, StateWord, Step};

/// What one version after another occupies, each from [`occupy`](Self::occupy) until its payload
/// `P` has been dropped.
///
/// Lanes are type-stable: gates hold the addresses of a lane's words and are entered by threads
/// that have been on their way for any length of time, so a lane must stay where it is, and
/// belong to the same function, for as long as a thread can reach its gate. Where there are tail
/// calls, a leaver may look at it even later: rule 11 of the [protocol](crate::docs::protocol) says
/// how long.
#[repr(C)]
pub struct Lane<P> {
    /// The address to call; 0 while the lane cannot be entered. First, so that one address serves
    /// a gate for both the lane and its body word.
    body: AtomicUsize,
    /// A [`StateWord`].
    state: AtomicU64,
    payload: UnsafeCell<Option<P>>,
    cell: u32,
    domain: Arc<Domain>,
}

// SAFETY: the words are atomic. The payload is written by `occupy`, whose caller is the only one to
// do so, while the state is `Free`, and taken by the one thread that brings the state from
// `Retired` to `Freeing`, which may be any thread: hence `P: Send`. Nobody gets a reference to it:
// hence no `P: Sync`.
unsafe impl<P: Send> Sync for Lane<P> {}
// SAFETY: as above.
unsafe impl<P: Send> Send for Lane<P> {}

impl<P> Lane<P> {
    pub(crate) fn new(domain: Arc<Domain>, cell: u32) -> Self {
        Self {
            body: AtomicUsize::new(0),
            state: AtomicU64::new(StateWord::NEW.bits()),
            payload: UnsafeCell::new(None),
            cell,
            domain,
        }
    }

    /// Which word of every ledger counts the frames in this lane.
    pub fn cell(&self) -> u32 {
        self.cell
    }

    /// The state and generation at some moment during the call.
    pub fn state(&self) -> StateWord {
        StateWord::from_bits(self.state.load(Ordering::Acquire))
    }

    /// The body word, as a modelled gate loads it.
    #[cfg(test)]
    pub(crate) fn body(&self, ordering: Ordering) -> usize {
        self.body.load(ordering)
    }

    /// The contexts that were inside at some moment during the call. Bailing callers count.
    pub fn frames(&self) -> Vec<Frames> {
        self.domain.frames(self.cell)
    }

    /// Puts a version into the lane: from now on a gate that is entered calls `body`.
    ///
    /// # Safety
    ///
    /// - The lane is `Free`, and nobody else occupies it at the same time.
    /// - `body` is not 0, is code that gates of this lane may call, and stays so until `payload`
    ///   is dropped.
    pub unsafe fn occupy(&self, body: usize, payload: P) {
        let free = self.state();
        debug_assert_eq!(free.state(), State::Free);
        self.payload.with_mut(|contents| {
            // SAFETY: the state is `Free`, so the last payload was taken, which the acquire load
            // of it above makes visible, and nobody takes the next before it is `Retired`.
            unsafe { *contents = Some(payload) }
        });
        // Both releases pair with the loads of the threads that will read the words: the state's
        // with the freer, that it may find the payload; the body's with gates, that they may find
        // the code.
        self.state.store(free.with(State::Live).bits(), Ordering::Release);
        self.body.store(body, Ordering::Release);
    }

    /// Has gates call other code instead: the [detour](crate::Hold) while callers are held, and the
    /// body again.
    ///
    /// # Safety
    ///
    /// - The lane is `Live`, and nobody closes it or does this at the same time.
    /// - `body` is not 0, and is code that gates of this lane may call for as long as they could
    ///   call what `occupy` was given.
    pub unsafe fn divert(&self, body: usize) {
        debug_assert_eq!(self.state().state(), State::Live);
        // Release: as in `occupy`.
        self.body.store(body, Ordering::Release);
    }

    /// Puts the payload of another version into the lane, in the place of the one there, which is
    /// the caller's from now on.
    ///
    /// # Safety
    ///
    /// - The lane is `Live`, and nobody closes it or does this at the same time.
    /// - Callers are held, and [no frame is inside](crate::Hold::decide).
    pub unsafe fn exchange(&self, payload: P) -> Option<P> {
        debug_assert_eq!(self.state().state(), State::Live);
        self.payload.with_mut(|contents| {
            // SAFETY: only threads that are inside or may close the lane look at the payload, and
            // only the freer takes it, of which there is none before the lane is closed.
            unsafe { (*contents).replace(payload) }
        })
    }

    /// Makes the lane impossible to enter: the first step of retiring, to be followed by a heavy
    /// fence, [`retire`](Self::retire) and [`leave`](Self::leave).
    ///
    /// Callers that reach the gate from now on bail out of it, so another lane is made current
    /// first, or the function has none.
    ///
    /// # Safety
    ///
    /// The lane is `Live`, and nobody else closes it at the same time.
    pub unsafe fn close(&self) {
        let live = self.state();
        debug_assert_eq!(live.state(), State::Live);
        let next = if mutated(Mutant::EarlyRetired) { State::Retired } else { State::Closing };
        // The state needs no ordering. A leaver that sees the body gone but not yet the state does
        // nothing, as it would on `Closing`; the heavy fence orders both before `Retired`.
        self.state.store(live.with(next).bits(), Ordering::Relaxed);
        // Release pairs with the load in gates: a caller that finds 0, and starts again, finds what
        // was made current before, and does not come back here for ever.
        self.body.store(0, Ordering::Release);
    }

    /// Lets the version go, and runs nothing of the payload's: from now on the last thread that
    /// [leaves](Self::leave) the lane frees the version. The caller is to leave it, too, though it
    /// has not been inside: the lane may be empty already, and then nobody else will.
    ///
    /// Several lanes may be closed, then retired after one heavy fence, and then left.
    ///
    /// # Safety
    ///
    /// The caller has [closed](Self::close) the lane and executed a heavy fence since: every
    /// context in the domain has, since the close, executed a full fence or was not running.
    pub unsafe fn retire(&self) {
        let closing = self.state();
        // Release pairs with the acquire in `try_free`: a leaver that sees `Retired` sees, by way
        // of the heavy fence, every count of a frame that has passed the gate's check. Published
        // any earlier, it could add up a frame's count as 0 and free the code under it.
        if !mutated(Mutant::EarlyRetired) {
            self.state.store(closing.with(State::Retired).bits(), Ordering::Release);
        }
    }

    /// Frees the version if it is retired and this was the last to leave. Returns whether this call
    /// freed it.
    ///
    /// A gate calls it that has counted out and found the body gone, and so does the retirer, once
    /// it has [retired](Self::retire) the version.
    pub fn leave(&self) -> bool {
        if !mutated(Mutant::LeaveWithoutFence) {
            // Pairs with itself, in another thread. A leaver has counted out before the fence, the
            // retirer has published `Retired` before it, and both read state and counts after it.
            //
            // - Of a leaver and the retirer either the leaver's fence is later, and it sees
            //   `Retired`; or the retirer's is, and it sees the leaver gone. One of the two frees.
            // - Of two leavers the one whose fence is later sees the count of the other gone.
            //
            // Without the fence each could miss what the other has done, and nobody would free. It
            // also keeps a caller that bails from going back to an older version: what it reads
            // from now on is no older.
            fence(Ordering::SeqCst);
        }
        self.try_free()
    }

    /// Does for a frame that is left otherwise than by returning, as when a panic unwinds it, what
    /// the gate would have done after its body has returned. (A gate that can be tail-called would
    /// do the same, to the lane that is in its frame.)
    ///
    /// # Safety
    ///
    /// The frame is counted in at this lane in the ledger, which is that of the calling context.
    /// The gate does not go on.
    pub unsafe fn leave_by_unwinding(&self, ledger: *const u32, counting: Counting) {
        // SAFETY: as the caller says: it is the ledger of a context of this lane's domain.
        let cell = unsafe { &*ledger.add(self.cell as usize).cast::<AtomicU32>() };
        let after_body = counting.gate().iter().skip_while(|&&step| step != Step::CallBody).skip(1);
        for step in after_body {
            match step {
                Step::CountOut => {
                    let count = cell.load(Ordering::Relaxed);
                    cell.store(count.wrapping_sub(1), Ordering::Release);
                }
                Step::CountOutFenced => {
                    cell.fetch_sub(1, Ordering::SeqCst);
                    fence(Ordering::SeqCst);
                }
                Step::LightFence => std::sync::atomic::compiler_fence(Ordering::SeqCst),
                Step::CheckBody => {
                    if self.body.load(Ordering::Acquire) == 0 {
                        self.leave();
                    }
                }
                _ => unreachable!("a gate does nothing else after its body"),
            }
        }
    }

    /// Lets a thread that is inside look at the payload.
    ///
    /// # Safety
    ///
    /// The calling context is counted in at this lane, past the check of the gate; or the lane is
    /// `Live`, and the caller keeps others from closing it. What `look` does with the payload may
    /// be done by several threads at once.
    pub unsafe fn look<R>(&self, look: impl FnOnce(&P) -> R) -> Option<R> {
        self.payload.with(|contents| {
            // SAFETY: no thread takes a payload or puts one in while a frame is inside, nor while
            // the lane cannot be closed.
            unsafe { (*contents).as_ref() }.map(look)
        })
    }

    /// Frees the version if the lane is `Retired` and empty.
    fn try_free(&self) -> bool {
        let seen = self.state();
        if seen.state() != State::Retired || !self.domain.is_empty(self.cell) {
            return false;
        }
        // The exchange expects the generation that was read before the sum. If the lane has been
        // freed and occupied again in between, the sum says nothing about its new version.
        let freeing = seen.with(State::Freeing);
        if self
            .state
            .compare_exchange(seen.bits(), freeing.bits(), Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return false;
        }
        let payload = self.payload.with_mut(|contents| {
            // SAFETY: this thread alone has brought the state to `Freeing`, and until it stores
            // `Free` nobody else touches the payload.
            unsafe { (*contents).take() }
        });
        // Also if the payload panics as it is dropped: the lane must not stay `Freeing`.
        let _vacate = Vacate { state: &self.state, freeing };
        drop(payload);
        true
    }
}

/// Sets a lane free when dropped.
struct Vacate<'a> {
    state: &'a AtomicU64,
    freeing: StateWord,
}

impl Drop for Vacate<'_> {
    fn drop(&mut self) {
        let free = if mutated(Mutant::NoGeneration) {
            self.freeing.with(State::Free)
        } else {
            self.freeing.freed()
        };
        // Release pairs with the acquire in `occupy`: the next version moves in only after the
        // last one's payload is gone.
        self.state.store(free.bits(), Ordering::Release);
    }
}

impl<P> Drop for Lane<P> {
    fn drop(&mut self) {
        self.domain.return_cell(self.cell);
    }
}
