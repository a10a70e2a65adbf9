//! Functions that can be tail-called, with lanes and a ledger that are made up.
//!
//! There is one such world on a thread at a time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use cranelift_codegen::ir::{Signature, Type};
use lastout_instrument::{
    Dispatch, GateOptions, Symbol, stack_bytes, tail_gate, tail_gate_head, zeros,
};

use super::caller::Caller;
use super::chain;
use super::link::{self, Image, Linker, Target};
use super::world::{self, Function, LAYOUT, Lane, spoil};
use crate::support;

/// What a world is made of.
pub(crate) struct Plan<'a> {
    pub(crate) options: GateOptions,
    pub(crate) dispatch: Dispatch,
    pub(crate) returns: &'a [Type],
    /// The parameters of each function that are not those of all in a chain.
    pub(crate) functions: &'a [&'a [Type]],
    /// For each lane of which function it is, and which function the body in it tail-calls. The
    /// first lane of a function is its current one.
    pub(crate) lanes: &'a [(usize, usize)],
}

/// What happens in the body of a lane.
type Inside = Box<dyn Fn(&World, usize)>;

pub(crate) struct World {
    functions: Box<[Function]>,
    lanes: Box<[Lane]>,
    ledger: Box<[AtomicU32]>,
    /// Of each function.
    others: Vec<Vec<Type>>,
    signatures: Vec<Signature>,
    /// The address of the gate of each lane.
    gates: Vec<usize>,
    happened: RefCell<Vec<Happened>>,
    /// How low the stack pointer was in bodies, and how high.
    stack: Cell<(u64, u64)>,
    /// What happens in the body of a lane.
    inside: RefCell<Option<Inside>>,
    _image: Image,
}

/// What was called with which lane, and which lanes were counted in then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    Body(usize, Vec<usize>),
    Leave(usize, Vec<usize>),
    Removed(usize, Vec<usize>),
}

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

impl World {
    pub(crate) fn new(plan: &Plan<'_>) -> Rc<Self> {
        let isa = support::isa("x86_64");
        let functions: Box<[_]> = plan.functions.iter().map(|_| Function::default()).collect();
        let lanes: Box<[_]> = plan.lanes.iter().map(|_| Lane::default()).collect();
        let signatures: Vec<_> =
            plan.functions.iter().map(|others| chain::signature(others, plan.returns)).collect();

        let mut linker = Linker::default();
        let [leave, removed, interleave] = world::stubs(&mut linker, [leave, removed, interleave]);
        let gate = tail_gate(LAYOUT, plan.options, &*isa).expect("this host has one");
        let gate = linker.put(&gate, |symbol| match symbol {
            Symbol::Leave => Target::Piece(leave),
            Symbol::Removed => Target::Piece(removed),
            Symbol::Interleave => Target::Piece(interleave),
            other => panic!("the gate does not refer to {other:?}"),
        });
        let nothing = |symbol| panic!("zeros do not refer to {symbol:?}");
        let zeros: Vec<_> = signatures
            .iter()
            .map(|signature| link::compile(zeros(signature, &*isa).expect("it is forwardable")))
            .collect();
        let heads: Vec<_> = plan
            .lanes
            .iter()
            .zip(&lanes)
            .map(|(&(function, _), lane)| {
                let bytes = stack_bytes(&zeros[function].bytes, &*isa);
                let bytes = bytes.expect("it ends with its return");
                let head = tail_gate_head(bytes, &*isa).unwrap();
                linker.put(&head, |symbol| match symbol {
                    Symbol::Lane => Target::Address(&raw const *lane as u64),
                    Symbol::TailGate => Target::Piece(gate),
                    other => panic!("heads do not refer to {other:?}"),
                })
            })
            .collect();
        let zeros: Vec<_> = zeros.iter().map(|zeros| linker.put(zeros, nothing)).collect();
        let first_lane = |function| {
            plan.lanes.iter().position(|&(of, _)| of == function).expect("it has a lane")
        };
        let bodies: Vec<_> = (0..)
            .zip(plan.lanes)
            .map(|(number, &(function, next))| {
                let (own, other) = (&signatures[function], &signatures[next]);
                let code =
                    chain::function(number, own, (next as u32, other), observe, plan.dispatch);
                linker.put(&code, |symbol| match symbol {
                    Symbol::Slot(of) => {
                        Target::Address(&raw const functions[of as usize].slot as u64)
                    }
                    Symbol::Gate(of) => Target::Piece(heads[first_lane(of as usize)]),
                    other => panic!("bodies do not refer to {other:?}"),
                })
            })
            .collect();

        let image = linker.link();
        for (number, (lane, &(function, _))) in lanes.iter().zip(plan.lanes).enumerate() {
            lane.body.store(image.at(bodies[number]) as u64, Relaxed);
            lane.cell_offset.store(number as u64 * 4, Relaxed);
            lane.function.store(&raw const functions[function] as u64, Relaxed);
        }
        let gates: Vec<_> = heads.iter().map(|&head| image.at(head)).collect();
        for (number, function) in functions.iter().enumerate() {
            let gate = gates[first_lane(number)] as u64;
            function.slot.store(gate, Relaxed);
            function.current.store(gate, Relaxed);
            function.no_version.store(image.at(zeros[number]) as u64, Relaxed);
        }
        let world = Rc::new(Self {
            functions,
            ledger: lanes.iter().map(|_| AtomicU32::new(0)).collect(),
            lanes,
            others: plan.functions.iter().map(|others| others.to_vec()).collect(),
            signatures,
            gates,
            happened: RefCell::default(),
            stack: Cell::new((u64::MAX, 0)),
            inside: RefCell::default(),
            _image: image,
        });
        WORLD.set(Some(Rc::clone(&world)));
        world
    }

    pub(crate) fn ledger(&self) -> u64 {
        self.ledger.as_ptr() as u64
    }

    pub(crate) fn function(&self, number: usize) -> u64 {
        &raw const self.functions[number] as u64
    }

    pub(crate) fn signature(&self, function: usize) -> &Signature {
        &self.signatures[function]
    }

    /// Calls function 0 by its gate, which goes on so often, and returns its results.
    pub(crate) fn call(&self, times: u64, hash: u64) -> Vec<Vec<u8>> {
        let bytes = |ty, seed| {
            let mut bytes = chain::bytes_from(ty, seed);
            bytes.resize(16, 0xee);
            u128::from_le_bytes(bytes.try_into().expect("these are 16"))
        };
        let others = (0..).zip(&self.others[0]);
        let others = others.map(|(number, &ty)| bytes(ty, hash.wrapping_add(number)));
        let arguments: Vec<_> = [times, hash].map(u128::from).into_iter().chain(others).collect();
        let caller = Caller::of(&self.signatures[0]);
        // SAFETY: what it may do is done to this world.
        unsafe { caller.call(self.gates[0], self.ledger(), &arguments) }
    }

    /// What is returned if those functions have run, one after the other.
    pub(crate) fn expected(&self, hash: u64, run: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
        let hash = run
            .into_iter()
            .fold(hash, |hash, function| chain::next_hash(hash, &self.others[function]));
        let returns = (0..).zip(&self.signatures[0].returns);
        returns
            .map(|(number, result)| chain::bytes_from(result.value_type, hash.wrapping_add(number)))
            .collect()
    }

    /// Makes something happen in the body of each lane.
    pub(crate) fn inside(&self, inside: impl Fn(&World, usize) + 'static) {
        *self.inside.borrow_mut() = Some(Box::new(inside));
    }

    /// Takes the body of a lane away.
    pub(crate) fn close(&self, lane: usize) {
        self.lanes[lane].body.store(0, Relaxed);
    }

    /// Sets where those go on that bail out of the gates of a function.
    pub(crate) fn set_current(&self, function: usize, lane: Option<usize>) {
        let gate = lane.map_or(0, |lane| self.gates[lane] as u64);
        self.functions[function].current.store(gate, Relaxed);
    }

    /// The lanes that are counted in.
    pub(crate) fn counted(&self) -> Vec<usize> {
        let mut counted = Vec::new();
        for (lane, count) in self.ledger.iter().enumerate() {
            counted.extend(vec![lane; count.load(Relaxed) as usize]);
        }
        counted
    }

    pub(crate) fn note(&self, happened: Happened) {
        self.happened.borrow_mut().push(happened);
    }

    pub(crate) fn take_happened(&self) -> Vec<Happened> {
        self.happened.take()
    }

    /// By how many bytes stack pointers of bodies differed.
    pub(crate) fn stack_range(&self) -> u64 {
        let (low, high) = self.stack.get();
        high - low
    }

    fn number(&self, lane: u64) -> usize {
        let mut lanes = self.lanes.iter();
        lanes.position(|it| &raw const *it as u64 == lane).expect("stubs get lanes")
    }
}

fn here() -> Rc<World> {
    WORLD.with_borrow(|world| Rc::clone(world.as_ref().expect("there is a world")))
}

extern "C" fn observe(lane: u64, stack: u64) {
    let world = here();
    let (low, high) = world.stack.get();
    world.stack.set((low.min(stack), high.max(stack)));
    match &*world.inside.borrow() {
        Some(inside) => inside(&world, lane as usize),
        None => assert_eq!(world.counted(), [lane as usize], "only its own lane is counted in"),
    }
    spoil();
}

extern "C" fn leave(lane: u64) {
    note(lane, Happened::Leave);
}

extern "C" fn removed(lane: u64) {
    note(lane, Happened::Removed);
}

fn note(lane: u64, what: fn(usize, Vec<usize>) -> Happened) {
    let world = here();
    world.note(what(world.number(lane), world.counted()));
    spoil();
}

extern "C" fn interleave(lane: u64) {
    here().number(lane);
    spoil();
}
