//! An install that is refused gives back the lanes that it has reserved for its versions.

use lastout_tests::clif::define;
use lastout_tests::support::constant;

use crate::Engine;
use crate::host::process;
use crate::host::sys::{Call, faults};

fn install(engine: &Engine, text: &str) -> crate::Result<()> {
    let mut unit = engine.unit();
    define(&mut unit, text).unwrap();
    engine.install(unit).map(drop)
}

/// Installs two functions at once, of which the second one needs a new lane, with a write refused.
/// Returns how much code there is then, and whether there was no write to refuse.
fn install_without(nth: usize) -> (usize, bool) {
    let engine = Engine::builder().strict(true).build().unwrap();
    let [a, b] = ["a", "b"].map(|name| constant(name, 1));
    install(&engine, &a).unwrap();
    install(&engine, &a).unwrap();
    install(&engine, &b).unwrap();
    faults::refuse(Call::Write, nth);
    let refused = install(&engine, &format!("{a}{b}")).is_err();
    let never = faults::clear();
    if refused {
        install(&engine, &format!("{a}{b}")).unwrap();
    }
    // The next free also frees code whose freeing was refused.
    install(&engine, &constant("c", 1)).unwrap();
    engine.remove("c").unwrap();
    (engine.stats().code_bytes, never)
}

#[test]
fn lanes_of_a_refused_install_are_free() {
    let _alone = process::alone();
    let (expected, never) = install_without(usize::MAX);
    assert!(never);
    for nth in 0.. {
        let (code_bytes, never) = install_without(nth);
        assert_eq!(code_bytes, expected, "the write {nth} was refused");
        if never {
            // The writes are for the unit, the gate, and the freeing of the two older units.
            assert!(nth >= 4);
            break;
        }
    }
}
