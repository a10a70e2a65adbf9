//! What files find on the host.

use lastout::EngineBuilder;

/// Adds `%__cranelift_throw`, the one function that Cranelift's own runner has for files to call.
pub(super) fn provide(builder: EngineBuilder) -> EngineBuilder {
    type Throw = extern "C-unwind" fn(i64, i64, i64, i32, i64, i64);
    builder.host_function("__cranelift_throw", throw as Throw)
}

/// The first three arguments say where in the stack the exception starts and ends, which lastout
/// finds out by itself.
extern "C-unwind" fn throw(_: i64, _: i64, _: i64, tag: i32, payload: i64, other_payload: i64) {
    let payload = [payload, other_payload].map(i64::cast_unsigned);
    // SAFETY: there is nothing to drop here.
    let uncaught = unsafe { lastout::throw(tag.cast_unsigned(), payload) };
    panic!("{uncaught}");
}
