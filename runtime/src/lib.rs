//! Functions that can be replaced while threads run them.

mod engine;
mod error;
mod function;
mod handle;
mod install;
mod link;
mod memory;
mod names;
mod payload;
mod shared;
mod template;
mod thread;
mod types;
mod unit;
mod version;

pub use engine::{Engine, EngineBuilder, Stats};
pub use error::{Error, Result};
pub use handle::Handle;
pub use install::Installed;
pub use payload::DropPolicy;
pub use types::{FunctionType, HostFunction, Returned, Value};
pub use unit::Unit;
pub use version::{ThreadFrames, Version, VersionInfo, VersionState};

pub use cranelift_codegen;
pub use cranelift_module;
pub use lastout_reclaim::Counting;
