//! What a trap leaves on its way: the same as what returns.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lastout::CallError;
use lastout_tests::child::child;
use lastout_tests::layers::{KINDS, engines, frames};
use lastout_tests::measure::leaves_nothing;
use lastout_tests::registers::keeps;
use lastout_tests::support::{
    Callback, CallingBack, Drops, calling_back, calls, install, install_counted,
};
use lastout_tests::{builder, call};

use super::{SEVEN, trap_in, trap_of, trapping_at_seven};

/// A function `(callback, i64) -> i64` that calls back, and then traps with `user7` if it has got
/// a 7.
const CALLING_BACK: &str = "function %f(i64, i64) -> i64 system_v {
    fn0 = %call_back(i64, i64) -> i64 system_v
 block0(v0: i64, v1: i64):
    v2 = call fn0(v0, v1)
    v3 = iconst.i64 7
    v4 = icmp eq v2, v3
    trapnz v4, user7
    return v2
 }";

#[test]
fn what_was_replaced_meanwhile_is_freed_by_the_trap() {
    for (name, engine) in engines(|| builder!().traps(true)) {
        let drops = Drops::new();
        let build = || {
            install_counted(&engine, CALLING_BACK, &drops);
            let mut below = "f";
            for kind in &KINDS {
                kind.install(&engine, kind.name, below, 8, &drops);
                below = kind.name;
            }
        };
        let count = 1 + 2 * KINDS.len();
        build();
        let top = calls(&engine, KINDS.last().unwrap().name);
        let callback = Callback::new(|argument| {
            build();
            assert_eq!(drops.count(), 0);
            argument
        });
        let result = keeps(|| call!(top, callback.address(), 7));
        assert_eq!(trap_of(result), Some((SEVEN, "f".into(), 1)), "{name}");
        assert_eq!(drops.count(), count, "{name}");
        let functions: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(frames(&engine, &functions), 0);
        drop((top, callback));
        drop(engine);
        assert_eq!(drops.count(), 2 * count);
    }
}

#[test]
fn of_nested_calls_the_innermost_fails() {
    for (name, engine) in engines(|| builder!().traps(true)) {
        install(&engine, &trapping_at_seven("inner"));
        install(&engine, CALLING_BACK);
        let (inner, outer) = (calls(&engine, "inner"), calls(&engine, "f"));
        let callback = Callback::new(|argument| {
            assert_eq!(trap_in(keeps(|| call!(inner, 0, 7)), "inner"), Some(SEVEN));
            assert_eq!(call!(inner, 0, 8), Ok(8));
            argument
        });
        assert_eq!(keeps(|| call!(outer, callback.address(), 6)), Ok(6), "{name}");
        // Both fail, one after the other.
        let result = keeps(|| call!(outer, callback.address(), 7));
        assert_eq!(trap_in(result, "f"), Some(SEVEN), "{name}");
        assert_eq!(frames(&engine, &["f", "inner"]), 0);
    }
}

#[test]
fn a_call_that_has_met_a_removed_function_says_so_although_it_traps() {
    // Zeros are what it then divides by.
    const DIVIDING: &str = "function %dividing(i64, i64) -> i64 system_v {
        fn0 = %gone() -> i64 system_v
     block0(v0: i64, v1: i64):
        v2 = call fn0()
        v3 = udiv v1, v2
        return v3
     }";
    const GONE: &str = "function %gone() -> i64 system_v {
     block0:
        v0 = iconst.i64 2
        return v0
     }";

    for (name, engine) in engines(|| builder!().traps(true)) {
        install(&engine, GONE);
        install(&engine, DIVIDING);
        let dividing = calls(&engine, "dividing");
        assert_eq!(call!(dividing, 0, 8), Ok(4));
        engine.remove("gone").unwrap();
        for _ in 0..3 {
            let result = keeps(|| call!(dividing, 0, 8));
            assert!(matches!(&result, Err(CallError::Removed(it)) if &**it == "gone"), "{name}");
            assert_eq!(frames(&engine, &["dividing"]), 0);
        }
        install(&engine, GONE);
        assert_eq!(call!(dividing, 0, 8), Ok(4), "{name}");
    }
}

#[test]
fn ten_thousand_frames_are_left_at_once() {
    const DEEP: i64 = 10_000;

    for (name, engine) in engines(|| builder!().traps(true)) {
        for convention in ["system_v", "tail"] {
            let drops = Drops::new();
            let text = format!(
                "function %deep(i64, i64) -> i64 {convention} {{
                    fn0 = %deep(i64, i64) -> i64 {convention}
                 block0(v0: i64, v1: i64):
                    trapz v1, user7
                    v2 = iconst.i64 -1
                    v3 = iadd v1, v2
                    v4 = call fn0(v0, v3)
                    v5 = iadd v4, v1
                    return v5
                 }}"
            );
            install_counted(&engine, &text, &drops);
            let deep = calls(&engine, "deep");
            let result = keeps(|| call!(deep, 0, DEEP));
            assert_eq!(trap_in(result, "deep"), Some(SEVEN), "{name}");
            assert_eq!(frames(&engine, &["deep"]), 0);
            drop(deep);
            engine.remove("deep").unwrap();
            assert_eq!(drops.count(), 1);
        }
    }
}

#[test]
fn a_hundred_thousand_traps_leave_nothing() {
    let ended = child("traps", || {
        let engine = builder!().traps(true).build().unwrap();
        install(&engine, &trapping_at_seven("f"));
        KINDS[0].install(&engine, "layer", "f", 8, &Drops::new());
        install(&engine, &calling_back("where", 0));
        let (layer, at) = (calls(&engine, "layer"), calls(&engine, "where"));
        // Where the stack is when generated code is called from here.
        let callback = Callback::new(|_| {
            let here = 0_u8;
            std::ptr::from_ref(std::hint::black_box(&here)).expose_provenance() as i64
        });
        let stack: &dyn Fn() -> i64 = &|| call!(at, callback.address(), 0).unwrap();
        let stack = std::hint::black_box(stack);
        // The first call makes a context for the thread.
        let before = [stack(), stack()][1];
        leaves_nothing(100_000, |_| {
            assert_eq!(trap_in(call!(layer, 0, 7), "f"), Some(SEVEN));
        });
        assert_eq!(stack(), before);
    });
    if let Some(ended) = ended {
        assert!(ended.well(), "{}", ended.errors);
    }
}

#[test]
fn threads_trap_in_what_others_replace() {
    for (name, engine) in engines(|| builder!().traps(true)) {
        let drops = Drops::new();
        let kinds = ["plain", "structs", "windows", "tail_stack"];
        let kinds = kinds.map(|name| KINDS.into_iter().find(|kind| kind.name == name).unwrap());
        let install_all = || {
            install_counted(&engine, &trapping_at_seven("f"), &drops);
            let mut below = "f";
            for kind in &kinds {
                kind.install(&engine, kind.name, below, 8, &drops);
                below = kind.name;
            }
        };
        install_all();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let top = calls(&engine, "tail_stack");
                    while !over.load(Ordering::Relaxed) {
                        let result = keeps(|| call!(top, 0, 7));
                        assert_eq!(trap_in(result, "f"), Some(SEVEN));
                        assert_eq!(call!(top, 0, 1), Ok(5));
                    }
                });
            }
            (0..20).for_each(|_| install_all());
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(drops.count(), 20 * 9, "{name}");
        assert_eq!(frames(&engine, &["f", "plain", "structs", "windows", "tail_stack"]), 0);
    }
}

#[test]
fn a_thread_without_a_stack_for_signals_traps_as_well() {
    use std::ffi::c_void;
    use std::ptr::{null, null_mut};

    struct Trapping<'a>(&'a CallingBack, AtomicBool);

    extern "C" fn trap(trapping: *mut c_void) -> *mut c_void {
        // SAFETY: it outlives the thread.
        let trapping = unsafe { &*trapping.cast::<Trapping<'_>>() };
        for _ in 0..100 {
            assert_eq!(trap_in(keeps(|| call!(trapping.0, 0, 7)), "f"), Some(SEVEN));
        }
        trapping.1.store(true, Ordering::Relaxed);
        null_mut()
    }

    let engine = builder!().traps(true).build().unwrap();
    install(&engine, &trapping_at_seven("f"));
    let f = calls(&engine, "f");
    let trapping = Trapping(&f, AtomicBool::new(false));
    let argument = std::ptr::from_ref(&trapping).cast_mut().cast();
    let mut thread = 0;
    // SAFETY: the argument outlives the thread, which is waited for.
    unsafe {
        assert_eq!(libc::pthread_create(&mut thread, null(), trap, argument), 0);
        assert_eq!(libc::pthread_join(thread, null_mut()), 0);
    }
    assert!(trapping.1.load(Ordering::Relaxed));
    assert_eq!(frames(&engine, &["f"]), 0);
}

#[test]
fn a_trap_passes_entries_that_generated_code_has_called() {
    const BY_ADDRESS: &str = "function %by_address(i64, i64) -> i64 system_v {
        sig0 = (i64, i64) -> i64 system_v
        fn0 = %f(i64, i64) -> i64 system_v
     block0(v0: i64, v1: i64):
        v2 = func_addr.i64 fn0
        v3 = call_indirect sig0, v2(v0, v1)
        return v3
     }";

    for (name, engine) in engines(|| builder!().traps(true)) {
        install(&engine, &trapping_at_seven("f"));
        install(&engine, BY_ADDRESS);
        let by_address = calls(&engine, "by_address");
        assert_eq!(trap_in(keeps(|| call!(by_address, 0, 7)), "f"), Some(SEVEN), "{name}");
        assert_eq!(call!(by_address, 0, 6), Ok(6));
        assert_eq!(frames(&engine, &["f", "by_address"]), 0, "{name}");
    }
}

#[test]
fn a_function_that_a_signal_handler_calls_traps_there() {
    static F: std::sync::OnceLock<CallingBack> = std::sync::OnceLock::new();
    static TRAPPED: AtomicBool = AtomicBool::new(false);

    extern "C" fn handle(_signal: i32) {
        let result = keeps(|| call!(F.get().unwrap(), 0, 7));
        TRAPPED.store(trap_in(result, "inner") == Some(SEVEN), Ordering::Relaxed);
    }

    let engine =
        builder!().traps(true).drop_policy(lastout::DropPolicy::Collector).build().unwrap();
    install(&engine, &trapping_at_seven("inner"));
    install(&engine, CALLING_BACK);
    F.get_or_init(|| calls(&engine, "inner"));
    // SAFETY: the handler's thread has called functions of the engine before.
    unsafe { libc::signal(libc::SIGUSR1, handle as extern "C" fn(i32) as usize) };
    let callback = Callback::new(|argument| {
        // SAFETY: sending this thread a signal.
        unsafe { libc::raise(libc::SIGUSR1) };
        argument
    });
    let outer = calls(&engine, "f");
    for _ in 0..3 {
        TRAPPED.store(false, Ordering::Relaxed);
        assert_eq!(keeps(|| call!(outer, callback.address(), 6)), Ok(6));
        assert!(TRAPPED.load(Ordering::Relaxed));
        let result = keeps(|| call!(outer, callback.address(), 7));
        assert_eq!(trap_in(result, "f"), Some(SEVEN));
        assert_eq!(frames(&engine, &["f", "inner"]), 0);
    }
}
