//! The cases, with calls that are [patched](lastout::Dispatch::PatchedSites), and what holds of such
//! calls only.

mod call_sites;
#[path = "../cases/mod.rs"]
mod cases;

#[test]
fn calls_are_patched_here() {
    use lastout_tests::support::{caller, constant, install};

    let engine = lastout_tests::engine!();
    install(&engine, &constant("f", 1));
    install(&engine, &caller("g", "f", 1));
    let stats = engine.stats();
    assert_eq!(stats.patched_calls + stats.patched_calls_by_jump, 1);
}
