//! What a domain hands out, and takes back. (The protocol itself is in the models.)

use lastout_reclaim::{Domain, Error, Lane, State};

#[test]
fn a_lane_that_is_gone_makes_room_for_another() {
    let domain = Domain::new(2);
    let first: Lane<()> = domain.lane().unwrap();
    let second: Lane<()> = domain.lane().unwrap();
    assert_ne!(first.cell(), second.cell());
    assert_eq!(domain.lane::<()>().err(), Some(Error::TooManyLanes));
    let cell = first.cell();
    drop(first);
    let third: Lane<()> = domain.lane().unwrap();
    assert_eq!(third.cell(), cell);
    assert_eq!(third.state().state(), State::Free);
}

#[test]
fn a_context_that_is_given_up_is_taken_over() {
    let domain = Domain::new(1);
    let first = domain.register(1).unwrap();
    let second = domain.register(2).unwrap();
    assert_ne!(first.ledger(), second.ledger());
    assert_eq!(domain.contexts(), (2, 2));
    // SAFETY: it has never been used, and is not used again.
    unsafe { first.release() };
    assert_eq!(domain.contexts(), (2, 1));
    let third = domain.register(3).unwrap();
    assert_eq!(third.ledger(), first.ledger());
    assert_eq!((third.owner(), domain.contexts()), (3, (2, 2)));
}
