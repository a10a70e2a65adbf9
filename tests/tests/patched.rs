//! The tests of others once more, with calls that are [patched](lastout::Dispatch::PatchedSites):
//! the engines of tests are made by macros, which know the name of this crate.

#[path = "adopted.rs"]
mod adopted;
#[path = "engine.rs"]
mod engine;
#[path = "entries.rs"]
mod entries;
#[path = "errors.rs"]
mod errors;
#[path = "exposed.rs"]
mod exposed;
#[path = "linkage.rs"]
mod linkage;
#[path = "payloads.rs"]
mod payloads;
#[path = "queries.rs"]
mod queries;
#[path = "refused.rs"]
mod refused;
#[path = "removed.rs"]
mod removed;
#[path = "steps.rs"]
mod steps;
#[path = "teardown.rs"]
mod teardown;

#[test]
fn calls_are_patched_here() {
    use lastout_tests::support::{caller, constant, install};

    let engine = lastout_tests::engine!();
    install(&engine, &constant("f", 1));
    install(&engine, &caller("g", "f", 1));
    let stats = engine.stats();
    assert_eq!(stats.patched_calls + stats.patched_calls_by_jump, 1);
}
