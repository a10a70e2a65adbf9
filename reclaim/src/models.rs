//! Models of the protocol: loom runs small programs of calls and replacements in every order, and
//! with every stale value, that the memory model allows.
//!
//! How they stand for a machine, what is proved and what is not is the chapter
//! [`docs::models`](crate::docs::models). This is where to find what:
//!
//! - [`machine`] is what can vary.
//! - [`memory`], [`function`], [`ownership`], [`point`] and [`world`] are what there is, and refer
//!   to each other as functions, versions and owners do.
//! - [`call`], [`install`], [`in_place`] and [`offers`] are what threads do with it.
//! - [`scenarios`] are the programs that run, and [`events`] what must happen in them.
//! - [`sound`] says what holds in them. [`mutants`] and [`literal`] are mistakes, each of which
//!   loom has to refute in a scenario that passes without it.
//! - [`explore`] calls loom.
//!
//! `cargo test -p lastout-reclaim -- --nocapture` prints how many executions each takes.

mod call;
mod events;
mod explore;
mod function;
mod in_place;
mod install;
mod literal;
mod machine;
mod memory;
mod mutants;
mod offers;
mod ownership;
mod point;
mod scenarios;
mod sound;
mod world;
