//! Functions with points, made at random: what is alive at a point is what a plain definition says,
//! and a frame that moves there does what it would have done where it was.
//! `golden/resume-loop.clif` and others show what the pass makes; what it does not take is here
//! again, in [`refused`].

mod liveness;
#[cfg(all(target_arch = "x86_64", unix))]
mod moves;
mod program;
mod refused;
#[cfg(all(target_arch = "x86_64", unix))]
mod world;
