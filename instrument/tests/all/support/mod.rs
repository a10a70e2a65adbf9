//! What the tests of this crate share.

pub(crate) mod signatures;

use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::verify_function;

/// Code generation as gates need it, for a processor with no features beyond the base, and with
/// results in memory where there are too many for registers.
pub(crate) fn isa(architecture: &str) -> OwnedTargetIsa {
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", "none"),
        ("enable_pinned_reg", "true"),
        ("enable_multi_ret_implicit_sret", "true"),
        ("is_pic", "false"),
        ("preserve_frame_pointers", "true"),
    ] {
        flags.set(name, value).expect("Cranelift has this setting");
    }
    let builder = isa::lookup_by_name(architecture).expect("the tests enable this target");
    builder.finish(settings::Flags::new(flags)).expect("the settings agree")
}

/// Panics, with the function, unless Cranelift finds it valid.
pub(crate) fn verify(func: &Function, isa: &dyn isa::TargetIsa) {
    if let Err(errors) = verify_function(func, isa) {
        panic!("{errors}\n{func}");
    }
}
