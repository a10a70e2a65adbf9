//! What an engine does, seen from one thread.

use lastout::{Engine, Error};
use lastout_tests::clif;

#[test]
fn a_function_is_called_replaced_and_removed() {
    let engine = Engine::builder().poison_freed_code(true).build().unwrap();
    let mut unit = engine.unit();
    clif::define(
        &mut unit,
        "function %step(i64) -> i64 system_v {
         block0(v0: i64):
            v1 = iconst.i64 1
            v2 = iadd v0, v1
            return v2
         }",
    )
    .unwrap();
    let first = engine.install(unit).unwrap();
    let step = engine.function::<fn(i64) -> i64>("step").unwrap();
    assert_eq!(unsafe { step.call(41) }.unwrap(), 42);
    let mut unit = engine.unit();
    clif::define(
        &mut unit,
        "function %step(i64) -> i64 system_v {
         block0(v0: i64):
            v1 = iconst.i64 2
            v2 = iadd v0, v1
            return v2
         }",
    )
    .unwrap();
    engine.install(unit).unwrap();
    assert_eq!(unsafe { step.call(41) }.unwrap(), 43);
    assert_eq!(first.versions()[0].state(), lastout::VersionState::Freed);
    engine.remove("step").unwrap();
    assert!(matches!(unsafe { step.call(41) }, Err(Error::Removed(name)) if &*name == "step"));
    assert_eq!(engine.stats().alive(), 0);
    println!("{:?}", engine.stats());
}
