//! The function that is called is replaced, at each instruction of the call in turn.

use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use lastout::{DropPolicy, Engine};
use lastout_tests::support::{
    COUNTINGS, Drops, Nullary, caller, constant, handle, install, install_counted, turn,
};
use lastout_tests::{builder, call};

use super::entry;
use super::stepping::{Wrong, stepping};

/// A thread that installs versions of `f` for others, who wait for it.
struct Replacing {
    asked: AtomicI64,
    done: AtomicI64,
}

impl Replacing {
    /// Installs versions until -1 is asked for.
    fn run(&self, engine: &Engine, drops: &Drops) {
        loop {
            match self.asked.load(Ordering::SeqCst) {
                -1 => break,
                version if version != self.done.load(Ordering::SeqCst) => {
                    install_counted(engine, &constant("f", version), drops);
                    self.done.store(version, Ordering::SeqCst);
                }
                _ => thread::yield_now(),
            }
        }
    }

    /// Has `f` replaced by its version of this number. May be done in a signal handler.
    fn replace(&self, version: i64) {
        self.asked.store(version, Ordering::SeqCst);
        while self.done.load(Ordering::SeqCst) != version {
            thread::yield_now();
        }
    }
}

/// How a function is called.
type Way<'a> = &'a dyn Fn() -> i64;

/// Calls `way`, which calls `f`, with `f` replaced after each of its instructions in turn, and
/// called by the handler after each. Returns how often the call met the old version, and the new.
fn replace_at_each(way: Way<'_>, f: &Nullary, replacing: &Replacing) -> [usize; 2] {
    let mut met = [0; 2];
    let wrong = Wrong::default();
    for replaced_at in 0.. {
        let version = replacing.done.load(Ordering::SeqCst);
        let at = |step: usize| {
            if step == replaced_at {
                replacing.replace(version + 1);
            }
            let current = version + i64::from(step >= replaced_at);
            // Around that it matters where; elsewhere only some do, as it takes its time.
            if step.abs_diff(replaced_at) < 20 || step.is_multiple_of(16) {
                wrong.unless(call!(f) == Ok(current));
            }
        };
        let (steps, result) = stepping(&at, way);
        if steps <= replaced_at {
            break;
        }
        assert!((version..=version + 1).contains(&result), "{result} at step {replaced_at}");
        met[usize::from(result > version)] += 1;
        assert_eq!(wrong.count(), 0, "at step {replaced_at}");
    }
    met
}

#[test]
fn a_call_gets_one_version_or_the_other_and_leaves_none_behind() {
    let _turn = turn();
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).drop_policy(DropPolicy::Collector);
        let engine = engine.build().unwrap();
        let drops = Drops::new();
        install_counted(&engine, &constant("f", 0), &drops);
        install(&engine, &caller("g", "f", 0));
        let [f, g] = ["f", "g"].map(|name| handle(&engine, name));
        let stable = entry(&f);
        let ways: [Way<'_>; 3] = [&|| call!(f).unwrap(), &|| call!(g).unwrap(), &move || stable()];
        let replacing = Replacing { asked: AtomicI64::new(0), done: AtomicI64::new(0) };
        thread::scope(|scope| {
            let replacer = scope.spawn(|| replacing.run(&engine, &drops));
            for way in ways {
                way();
                let met = replace_at_each(way, &f, &replacing);
                assert!(met[0] > 10 && met[1] > 10, "{met:?}");
                engine.collect();
                assert_eq!(engine.stats().alive(), 2);
                assert_eq!(drops.count() as i64, replacing.done.load(Ordering::SeqCst));
            }
            replacing.asked.store(-1, Ordering::SeqCst);
            replacer.join().unwrap();
        });
    }
}
