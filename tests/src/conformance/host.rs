//! What files find on the host.

use lastout::EngineBuilder;

/// Adds `%__cranelift_throw`, the one function that Cranelift's own runner has for files to call.
///
/// As a symbol, since on hosts that cannot unwind engines take no functions that may.
pub(super) fn provide(builder: EngineBuilder) -> EngineBuilder {
    builder.host_symbol("__cranelift_throw", throw as *const u8)
}

/// The first three arguments say where in the stack the exception starts and ends, which lastout
/// finds out by itself.
extern "C-unwind" fn throw(_: i64, _: i64, _: i64, tag: i32, payload: i64, other_payload: i64) {
    let payload = [payload, other_payload].map(i64::cast_unsigned);
    // SAFETY: there is nothing to drop here.
    let uncaught = unsafe { lastout::throw(tag.cast_unsigned(), payload) };
    panic!("{uncaught}");
}
