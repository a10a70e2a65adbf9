//! What a version owns, and where it is dropped.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use crate::code_map::Description;
use crate::memory::Block;
use crate::points::{Use, WaitingRoom};
use crate::sites::Callee;
use crate::version::{Version, VersionState};

/// Where the payload of a version is dropped once everyone has left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DropPolicy {
    /// By whoever frees the version: the last thread to leave it, or the one that replaced it if
    /// nobody was inside.
    #[default]
    Leaver,
    /// By [`Engine::collect`](crate::Engine::collect). Leaving a version then takes no lock,
    /// allocates nothing, calls nothing of the system and runs no destructor, as threads with
    /// deadlines need it. When the engine is dropped, which collects once more, there is nobody
    /// left to do that: from then on it is as with `Leaver`.
    Collector,
}

/// An installed unit: its code, its data, and what these need to live. Shared by the versions that
/// the unit has installed, one a function, and dropped with the last of them.
pub(crate) struct Image {
    // In the order in which they are dropped: what the user attached goes while the code that may
    // know of it is still there, and functions it calls, with the sites that call them, go before
    // it does.
    attached: Option<Box<Attached>>,
    callees: Box<[Callee]>,
    /// The points of its functions, if they have any.
    points: Option<Box<LinkedPoints>>,
    code: Code,
}

/// What a unit has to do with points at which frames move.
#[derive(Default)]
pub(crate) struct LinkedPoints {
    pub(crate) uses: Vec<Use>,
    pub(crate) rooms: Vec<Arc<WaitingRoom>>,
}

struct Attached(Vec<Box<dyn Any + Send>>);

// SAFETY: a shared reference to them gives nothing.
unsafe impl Sync for Attached {}

/// Who owns the code and data of a unit.
pub(crate) enum Code {
    /// The engine's memory.
    Block {
        /// Shared with the version that is written over this one.
        block: Arc<Block>,
        description: Arc<Description>,
        /// Where the code of the unit's function starts, if only one of them has a version.
        only: Option<usize>,
    },
    /// Something else, which is told to let go of it.
    Adopted { _owner: Owner },
    /// A waiting room.
    Room { _room: Arc<Block> },
}

/// Called once, when dropped.
pub(crate) struct Owner(Option<Box<dyn FnOnce() + Send>>);

impl Owner {
    pub(crate) fn new(release: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(release)))
    }
}

// SAFETY: a shared reference to an owner gives nothing.
unsafe impl Sync for Owner {}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            survive(release);
        }
    }
}

/// Runs what the user has us drop. The panic hook has reported a panic in it; it must not unwind
/// into the leaving thread, which is inside generated code and has done nothing wrong.
fn survive(release: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(release));
}

impl Image {
    pub(crate) fn new(
        code: Code,
        callees: Vec<Callee>,
        attached: Vec<Box<dyn Any + Send>>,
    ) -> Self {
        let attached = (!attached.is_empty()).then(|| Box::new(Attached(attached)));
        Self { attached, callees: callees.into(), points: None, code }
    }

    pub(crate) fn with_points(mut self, points: LinkedPoints) -> Self {
        let any = !points.uses.is_empty();
        self.points = any.then(|| Box::new(points));
        self
    }

    /// The points of its functions.
    fn uses(&self) -> &[Use] {
        self.points.as_ref().map_or(&[], |points| &points.uses)
    }

    /// Says which install its code is of, to whoever finds it on a stack.
    fn set_number(&self, number: u64) {
        if let Code::Block { description, .. } = &self.code
            && let Description::Unit(unit) = &**description
        {
            unit.number.store(number, Ordering::Relaxed);
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Each on its own: a panic in one must not keep the others from being dropped.
        for value in self.attached.take().into_iter().flat_map(|attached| attached.0) {
            survive(|| drop(value));
        }
        self.callees = Box::default();
        self.points = None;
    }
}

/// An engine's way of dropping payloads, and how many there have been.
pub(crate) struct Disposal {
    policy: DropPolicy,
    installed: AtomicU64,
    freed: AtomicU64,
    /// Payloads that wait for the collector: a stack, linked by `next`.
    drained: AtomicPtr<Resident>,
    /// Whether whoever adds a payload to them is to collect them too.
    collect_at_once: AtomicBool,
}

impl Disposal {
    pub(crate) fn new(policy: DropPolicy) -> Self {
        Self {
            policy,
            installed: AtomicU64::new(0),
            freed: AtomicU64::new(0),
            drained: AtomicPtr::new(ptr::null_mut()),
            collect_at_once: AtomicBool::new(false),
        }
    }

    /// How many versions were installed, and how many of them have been freed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        // In this order, so that nobody sees more freed than installed.
        let freed = self.freed.load(Ordering::Acquire);
        (self.installed.load(Ordering::Acquire), freed)
    }

    /// Frees all payloads that wait, and those that come to wait by that. Says how many versions
    /// have been freed.
    pub(crate) fn collect(&self) -> usize {
        let mut freed = 0;
        while let Some(more) = self.collect_once() {
            freed += more;
        }
        freed
    }

    /// The same without those; `None` if none wait.
    fn collect_once(&self) -> Option<usize> {
        // Acquire pairs with the release in `push`, release with the acquire there. The whole
        // stack is taken at once, so no payload can leave it and come back while somebody looks
        // at it.
        let mut top = self.drained.swap(ptr::null_mut(), Ordering::AcqRel);
        if top.is_null() {
            return None;
        }
        let mut freed = 0;
        while !top.is_null() {
            // SAFETY: what is on the stack came from `Box::into_raw` and is on it once.
            let resident = unsafe { Box::from_raw(top) };
            top = resident.next;
            freed += release(resident);
        }
        Some(freed)
    }

    /// Frees all payloads that wait, and has those that would wait from now on freed at once.
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
            // SAFETY: until the exchange succeeds, nobody else knows the resident.
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
        // Acquire above pairs with the release in `collect`. Either the last collection comes
        // later than this push and takes the payload, or it came earlier and what it did before
        // is visible here.
        if self.collect_at_once.load(Ordering::Relaxed) {
            self.collect();
        }
    }
}

impl Drop for Disposal {
    fn drop(&mut self) {
        self.collect();
    }
}

/// The payload of a version: what sits in a lane.
pub(crate) struct Payload {
    /// Taken when the payload is dropped.
    resident: Option<Box<Resident>>,
}

/// A payload's contents, in a box of its own that can wait for the collector as it is.
struct Resident {
    image: Arc<Image>,
    version: Version,
    disposal: Arc<Disposal>,
    next: *mut Resident,
}

// SAFETY: `next` is only used while the resident is on the stack of its `Disposal`; everything else
// can be sent.
unsafe impl Send for Resident {}

impl Payload {
    /// What a version will own, once it is [published](Self::publish).
    pub(crate) fn new(image: Arc<Image>, version: Version, disposal: Arc<Disposal>) -> Self {
        let resident = Resident { image, version, disposal, next: ptr::null_mut() };
        Self { resident: Some(Box::new(resident)) }
    }

    /// Notes that its version is about to be installed, and the number of that.
    pub(crate) fn publish(&self, number: u64) {
        let Resident { image, version, disposal, .. } = self.resident();
        version.set_number(number);
        image.set_number(number);
        disposal.installed.fetch_add(1, Ordering::Release);
    }

    /// The code that it shares with other versions of its unit.
    pub(crate) fn code(&self) -> &Code {
        &self.resident().image.code
    }

    /// Has no calls in its code patched any more, as that is written over. It is the only version
    /// of its unit.
    pub(crate) fn deregister_sites(&mut self) {
        let resident = self.resident.as_mut();
        let image = resident.and_then(|resident| Arc::get_mut(&mut resident.image));
        for callee in image.into_iter().flat_map(|image| &mut image.callees) {
            callee.deregister();
        }
    }

    /// Whose payload it is.
    pub(crate) fn version(&self) -> &Version {
        &self.resident().version
    }

    /// The points of the unit that it is of.
    pub(crate) fn uses(&self) -> &[Use] {
        self.resident().image.uses()
    }

    fn resident(&self) -> &Resident {
        self.resident.as_ref().expect("it is taken only when the payload is dropped")
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        let Some(resident) = self.resident.take() else { return };
        match resident.disposal.policy {
            DropPolicy::Leaver => {
                release(resident);
            }
            DropPolicy::Collector => Arc::clone(&resident.disposal).push(resident),
        }
    }
}

/// Frees a payload, and after it those that this brings down with it.
///
/// The last payload of a unit lets go of the functions that the unit called, whose payloads may
/// then be dropped in turn. They are put on a list instead of being freed one inside the other,
/// so that a long chain of units takes no stack. Returns how many versions have been freed by then.
fn release(resident: Box<Resident>) -> usize {
    thread_local! {
        /// What is still to be freed, while this thread is freeing; else `None`.
        static PENDING: RefCell<Option<Vec<Resident>>> = const { RefCell::new(None) };
    }

    // `None` where the thread is past having such variables: then one inside the other, after all.
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

/// Frees a payload; whether a version is freed with it.
fn free(resident: Resident) -> bool {
    let Resident { image, version, disposal, next: _ } = resident;
    drop(image);
    if !version.free_part() {
        return false;
    }
    // Waiting rooms are no versions, and what has not been installed is none either.
    let installed = version.number() > 0;
    if installed {
        disposal.freed.fetch_add(1, Ordering::Release);
    }
    version.advance(VersionState::Freed);
    installed
}
