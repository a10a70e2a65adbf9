//! The tests of this crate, in one executable: each would link all of Cranelift.
//!
//! - [`golden`] shows what the passes make of given functions, and [`code`] what Cranelift makes of
//!   that.
//! - [`checker`] is about `check_gate` and `check_entry`, which prove of CLIF that it is a gate or
//!   an entry; [`machine`] proves that of machine code.
//! - [`native`] runs entries, and gates that can be tail-called.
//! - [`resume`] is about functions with points, and runs what is made of them.

mod checker;
mod code;
mod golden;
mod machine;
#[cfg(all(target_arch = "x86_64", unix))]
mod native;
mod resume;
mod support;
