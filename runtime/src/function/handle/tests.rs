use cranelift_codegen::ir::TrapCode;
use lastout_tests::clif::define;
use lastout_tests::registers::call_address;

use super::Handle;
use crate::host::context;
use crate::host::process::among_others;
use crate::{CallError, Counting, Dispatch, Engine, TrapCause};

/// Calls the entry with known values in all registers. No Rust code in between saves registers for
/// itself.
fn call_from_known(handle: &Handle<fn() -> i64>) -> Result<i64, CallError> {
    let slot = handle.function.slot().expose_provenance();
    context::enter(|ledger| {
        // SAFETY: an entry for this type is called in this way, and the function is sound.
        unsafe { call_address(handle.address, ledger.expose_provenance(), slot as i64) }
    })
}

#[test]
fn entries_give_the_host_its_registers_back() {
    let _others = among_others();
    for counting in [Counting::Plain, Counting::Atomic] {
        for dispatch in [Dispatch::Slot, Dispatch::PatchedSites] {
            let engine =
                Engine::builder().counting(counting).dispatch(dispatch).traps(true).build();
            let engine = engine.unwrap();
            for convention in ["system_v", "tail"] {
                let text = format!(
                    "function %returning() -> i64 {convention} {{
                     block0:
                        v0 = iconst.i64 5
                        return v0
                     }}
                     function %trapping() -> i64 {convention} {{
                     block0:
                        trap user7
                     }}
                     function %calling() -> i64 {convention} {{
                        fn0 = %trapping() -> i64 {convention}
                     block0:
                        v0 = call fn0()
                        return v0
                     }}"
                );
                let mut unit = engine.unit();
                define(&mut unit, &text).unwrap();
                engine.install(unit).unwrap();
                let call = |name| call_from_known(&engine.function(name).unwrap());
                assert!(matches!(call("returning"), Ok(5)));
                for name in ["trapping", "calling"] {
                    let Err(CallError::Trap(trap)) = call(name) else { panic!("it has returned") };
                    assert_eq!(trap.cause, TrapCause::Code(TrapCode::unwrap_user(7)));
                }
                for name in ["returning", "trapping", "calling"] {
                    engine.remove(name).unwrap();
                }
            }
        }
    }
}
