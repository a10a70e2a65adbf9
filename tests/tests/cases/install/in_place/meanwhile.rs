//! What others do with a function whose callers are held.

use super::*;

/// Has callers of `f` held, and another wait, while `meanwhile` runs; returns what replacing has
/// returned, and what the waiting call has.
fn while_held(
    engine: &Engine,
    limit: Duration,
    meanwhile: impl FnOnce(),
) -> (Result<Installed, Error>, Result<i64, lastout::CallError>) {
    let f: CallingBack = engine.function("f").unwrap();
    let door = Door::default();
    let (stays, returns) = (door.callback(), Callback::new(|x| x));
    thread::scope(|scope| {
        let inside = scope.spawn(|| call!(f, stays.address(), 1).unwrap());
        door.arrived();
        let replacing = begin(scope, engine, &calling_back("f", 20), limit);
        let waits = scope.spawn(|| call!(f, returns.address(), 1));
        wait_until(|| engine.versions("f").map_or(true, |it| it[0].frames() == 2));
        some_time();
        meanwhile();
        door.open();
        assert_eq!(inside.join().unwrap(), 11);
        (replacing.join().unwrap(), waits.join().unwrap())
    })
}

fn lost(replaced: Result<Installed, Error>) {
    let Err(Error::NotInPlace { function, why }) = replaced else { panic!("{replaced:?}") };
    assert_eq!((&*function, why), ("f", "it was replaced or removed meanwhile"));
}

#[test]
fn the_function_is_installed_anew() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let first = install_roomy(&engine, &calling_back("f", 10));
        let (replaced, waited) = while_held(&engine, LIMIT, || {
            install(&engine, &calling_back("f", 30));
            let f: CallingBack = engine.function("f").unwrap();
            // Nobody holds the callers of this one.
            assert_eq!(call!(f, Callback::new(|x| x).address(), 1).unwrap(), 31);
        });
        lost(replaced);
        // It was in the gate of the one before.
        assert_eq!(waited.unwrap(), 11);
        assert!(first.versions()[0].wait_freed(LIMIT));
        assert_eq!(engine.stats().alive(), 1);
        replace(&engine, &calling_back("f", 40));
        let f: CallingBack = engine.function("f").unwrap();
        assert_eq!(call!(f, Callback::new(|x| x).address(), 1).unwrap(), 41);
    }
}

#[test]
fn the_function_is_removed() {
    let engine = engine!();
    let first = install_roomy(&engine, &calling_back("f", 10));
    let (replaced, waited) = while_held(&engine, LIMIT, || engine.remove("f").unwrap());
    lost(replaced);
    assert_eq!(waited.unwrap(), 11);
    assert!(first.versions()[0].wait_freed(LIMIT));
    assert_eq!(engine.stats().alive(), 0);
}

/// The second waits for its turn, if it has time.
#[test]
fn another_thread_replaces_it_in_its_place() {
    let engine = engine!();
    install_roomy(&engine, &calling_back("f", 10));
    thread::scope(|scope| {
        let mut other = None;
        let (replaced, waited) = while_held(&engine, LIMIT, || {
            let error = try_replace(&engine, &calling_back("f", 30), Duration::from_millis(20));
            let Err(Error::NotInPlace { why, .. }) = error else { panic!("{error:?}") };
            assert_eq!(why, "another replacement in its place is under way");
            other = Some(scope.spawn(|| replace(&engine, &calling_back("f", 40))));
            some_time();
        });
        let (replaced, other) = (replaced.unwrap(), other.unwrap().join().unwrap());
        assert!([21, 41].contains(&waited.unwrap()));
        assert_eq!(replaced.versions()[0].state(), VersionState::Freed);
        assert_eq!(other.versions()[0].state(), VersionState::Live);
        assert_eq!(other.address("f"), replaced.address("f"));
    });
    let f: CallingBack = engine.function("f").unwrap();
    assert_eq!(call!(f, Callback::new(|x| x).address(), 1).unwrap(), 41);
}

/// A function that can be tail-called gives its lanes back when it goes.
#[test]
fn handles_are_all_that_keeps_the_function() {
    let engine = engine!();
    let text = |plus: i64| {
        format!(
            "function %f(i64, i64) -> i64 tail {{
                fn0 = %call_back(i64, i64) -> i64 system_v
             block0(v0: i64, v1: i64):
                v2 = call fn0(v0, v1)
                v4 = iconst.i64 {plus}
                v3 = iadd v2, v4
                return v3
             }}"
        )
    };
    for round in 0..3 {
        install_roomy(&engine, &text(10));
        let f: CallingBack = engine.function("f").unwrap();
        let door = Door::default();
        let stays = door.callback();
        thread::scope(|scope| {
            let f = &f;
            let inside = scope.spawn(|| call!(f, stays.address(), 1).unwrap());
            door.arrived();
            let replacing = begin(scope, &engine, &text(20), LIMIT);
            let waits = scope.spawn(move || call!(f, Callback::new(|x| x).address(), 1).unwrap());
            wait_until(|| engine.versions("f").unwrap()[0].frames() == 2);
            engine.remove("f").unwrap();
            lost(replacing.join().unwrap());
            assert_eq!(waits.join().unwrap(), 11);
            door.open();
            assert_eq!(inside.join().unwrap(), 11);
        });
        drop(f);
        assert_eq!(engine.stats().alive(), 0, "{round}");
    }
}
