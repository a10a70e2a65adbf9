//! Payloads: what versions own, and where that is dropped.

use std::any::Any;
use std::cell::RefCell;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::version::{Version, VersionState};

/// What a version owns, shared by the versions that one install has made. It is dropped with the
/// last of them. Only the layer that made it knows its type, and [asks](Payload::owned) for it.
pub(crate) type Owned = Arc<dyn Any + Send + Sync>;

/// Where the payload of a version is dropped once all frames have left the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DropPolicy {
    /// By the thread that frees the version: the last to leave it, or the one that replaced it if
    /// no other was inside.
    #[default]
    Leaver,
    /// By [`Engine::collect`](crate::Engine::collect). The leaving of a version then takes no lock,
    /// allocates nothing, calls nothing of the system and runs no destructor, as threads with
    /// deadlines need it. An engine that is dropped collects once more. From then on no call can
    /// collect, so payloads are dropped as with `Leaver`.
    Collector,
}

/// How an engine drops payloads, and how many it has dropped.
pub(crate) struct DropQueue {
    policy: DropPolicy,
    // Installers write the first of these, and leaving threads the others: on lines of their own.
    installed: CachePadded<AtomicU64>,
    freed: CachePadded<AtomicU64>,
    /// Payloads that wait for the collector: a stack, linked by `next`.
    drained: CachePadded<AtomicPtr<Resident>>,
    /// Whether a thread that adds a payload to these must collect them, too.
    collect_at_once: AtomicBool,
}

impl DropQueue {
    pub(crate) fn new(policy: DropPolicy) -> Self {
        Self {
            policy,
            installed: CachePadded::new(AtomicU64::new(0)),
            freed: CachePadded::new(AtomicU64::new(0)),
            drained: CachePadded::new(AtomicPtr::new(ptr::null_mut())),
            collect_at_once: AtomicBool::new(false),
        }
    }

    /// How many versions were installed, and how many of them have been freed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        // The order makes sure that no reader sees more freed versions than installed ones.
        let freed = self.freed.load(Ordering::Acquire);
        (self.installed.load(Ordering::Acquire), freed)
    }

    /// Frees all payloads that wait, and those that begin to wait meanwhile. Returns how many
    /// versions have been freed.
    pub(crate) fn collect(&self) -> usize {
        let mut freed = 0;
        while let Some(more) = self.collect_once() {
            freed += more;
        }
        freed
    }

    /// Frees the payloads that wait, but not those that begin to; `None` if none wait.
    fn collect_once(&self) -> Option<usize> {
        // Acquire pairs with the release in `push`, release with the acquire there. The whole stack
        // is taken at once, so no payload can leave it and come back while a thread looks at it.
        let mut top = self.drained.swap(ptr::null_mut(), Ordering::AcqRel);
        if top.is_null() {
            return None;
        }
        let mut freed = 0;
        while !top.is_null() {
            // SAFETY: every resident on the stack came from `Box::into_raw` and is on it once.
            let resident = unsafe { Box::from_raw(top) };
            top = resident.next;
            freed += release(resident);
        }
        Some(freed)
    }

    /// Frees all payloads that wait. Those that would wait from now on are freed at once.
    pub(crate) fn collect_from_now_on(&self) {
        self.collect_at_once.store(true, Ordering::Relaxed);
        self.collect();
    }

    fn push(&self, resident: Box<Resident>) {
        if resident.version.drain_part() {
            resident.version.advance(VersionState::Drained);
        }
        let resident = Box::into_raw(resident);
        let mut top = self.drained.load(Ordering::Relaxed);
        loop {
            // SAFETY: until the exchange succeeds, no other thread knows the resident.
            unsafe { (*resident).next = top };
            match self.drained.compare_exchange_weak(
                top,
                resident,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(newer) => top = newer,
            }
        }
        // Acquire above pairs with the release in `collect`. Either the last collection comes later
        // than this push and takes the payload, or it came earlier and its stores are visible here.
        if self.collect_at_once.load(Ordering::Relaxed) {
            self.collect();
        }
    }
}

impl Drop for DropQueue {
    fn drop(&mut self) {
        self.collect();
    }
}

/// The payload of a version, which its lane keeps.
pub(crate) struct Payload {
    /// The contents, taken when the payload is dropped.
    resident: Option<Box<Resident>>,
}

/// A payload's contents, in a box of its own that can wait for the collector as it is.
struct Resident {
    owned: Owned,
    version: Version,
    drop_queue: Arc<DropQueue>,
    next: *mut Resident,
}

// SAFETY: `next` is only used while the resident is on the stack of its `DropQueue`; all else can
// be sent.
unsafe impl Send for Resident {}

impl Payload {
    /// What a version will own, once it is [published](Self::publish).
    pub(crate) fn new(owned: Owned, version: Version, drop_queue: Arc<DropQueue>) -> Self {
        let resident = Resident { owned, version, drop_queue, next: ptr::null_mut() };
        Self { resident: Some(Box::new(resident)) }
    }

    /// Notes that the version is about to be installed, and the number of the install.
    pub(crate) fn publish(&self, number: u64) {
        let Resident { version, drop_queue, .. } = self.resident();
        version.set_number(number);
        drop_queue.installed.fetch_add(1, Ordering::Release);
    }

    /// What the version owns, if that is a `T`.
    pub(crate) fn owned<T: Any>(&self) -> Option<&T> {
        self.resident().owned.downcast_ref()
    }

    /// What the version owns, to be changed, if it is a `T` and no other version owns it too.
    pub(crate) fn owned_mut<T: Any>(&mut self) -> Option<&mut T> {
        Arc::get_mut(&mut self.resident.as_mut()?.owned)?.downcast_mut()
    }

    /// The version whose payload this is.
    pub(crate) fn version(&self) -> &Version {
        &self.resident().version
    }

    fn resident(&self) -> &Resident {
        self.resident.as_ref().expect("it is taken only when the payload is dropped")
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        let Some(resident) = self.resident.take() else { return };
        match resident.drop_queue.policy {
            DropPolicy::Leaver => {
                release(resident);
            }
            DropPolicy::Collector => Arc::clone(&resident.drop_queue).push(resident),
        }
    }
}

/// Frees a payload, and after it those that it brings down with it.
///
/// The last payload of a unit drops references to the functions that the unit called, whose
/// payloads may then be dropped in turn. These are put on a list instead of being freed one inside
/// the other, so that a long chain of units takes no stack. Returns how many versions have been
/// freed by then.
fn release(resident: Box<Resident>) -> usize {
    thread_local! {
        /// The payloads still to be freed, while this thread is freeing; otherwise `None`.
        static PENDING: RefCell<Option<Vec<Resident>>> = const { RefCell::new(None) };
    }

    // `None` where the thread's variables are gone: then payloads are freed one inside the other.
    let nested = PENDING.try_with(|pending| pending.borrow_mut().is_some()).ok();
    match nested {
        Some(true) => {
            PENDING.with(|pending| {
                pending.borrow_mut().get_or_insert_default().push(*resident);
            });
            0
        }
        Some(false) => {
            PENDING.set(Some(Vec::new()));
            let mut next = Some(*resident);
            let mut freed = 0;
            while let Some(resident) = next {
                freed += usize::from(free(resident));
                next = PENDING.with(|pending| pending.borrow_mut().as_mut()?.pop());
            }
            PENDING.set(None);
            freed
        }
        None => usize::from(free(*resident)),
    }
}

/// Frees a payload. Returns whether a version is freed with it.
fn free(resident: Resident) -> bool {
    let Resident { owned, version, drop_queue, next: _ } = resident;
    drop(owned);
    if !version.free_part() {
        return false;
    }
    // A payload that was not installed counts for no version: those of parked calls, for one.
    let installed = version.number() > 0;
    if installed {
        drop_queue.freed.fetch_add(1, Ordering::Release);
    }
    version.advance(VersionState::Freed);
    installed
}
