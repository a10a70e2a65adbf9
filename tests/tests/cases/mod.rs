//! What holds however functions are called: `slot` and `patched` run all of it, each with its own
//! [dispatch](lastout_tests::dispatch!).

mod calls;
mod install;
mod leaving;
mod lifetime;
mod resuming;
