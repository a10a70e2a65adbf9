//! Frames that move between two versions do what a frame of the original does, which stays where it
//! is: the same calls of the host, with the same arguments, and the same result.
//!
//! There are no gates here. What is current changes while the host is called, as a script says.

use proptest::prelude::*;

use super::program::{End, Op, Program, programs};
use super::world::{Options, World};

fn options() -> impl Strategy<Value = Options> {
    (any::<bool>(), any::<bool>(), any::<u64>()).prop_map(|(parked, convert, marked)| Options {
        parked,
        convert,
        marked,
    })
}

/// Which calls of the host change what is current: the first, if the first bit is set, and so on.
fn scripts(script: u64) -> impl Iterator<Item = u64> {
    let once = (0..24).map(|call| 1 << call);
    [0, u64::MAX, script].into_iter().chain(once)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn a_frame_that_moves_does_what_it_would_have_done(
        program in programs(),
        options in options(),
        arguments in any::<[i64; 3]>(),
        script in any::<u64>(),
    ) {
        let world = World::new(&program, options);
        let expected = world.run_original(arguments);
        for script in scripts(script) {
            let (happened, _) = world.run(arguments, script);
            prop_assert_eq!(&happened, &expected, "{:b}\n{}", script, world.original());
        }
    }
}

const ALL: Options = Options { parked: true, convert: false, marked: u64::MAX };

fn callers(program: &Program, options: Options, script: u64) -> Vec<usize> {
    let (_, callers) = World::new(program, options).run([3, 5, 7], script);
    callers
}

#[test]
fn a_loop_moves_in_the_next_round() {
    let blocks = vec![(vec![Op::Tick(0), Op::Tick(1)], End::Jump(0))];
    let program = Program { fuel: 4, blocks };
    assert_eq!(callers(&program, ALL, 0), [0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(callers(&program, ALL, 0b100), [0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!(callers(&program, ALL, 0b10010), [0, 0, 1, 1, 1, 1, 0, 0]);
    let unmarked = Options { marked: 0, ..ALL };
    assert_eq!(callers(&program, unmarked, 0b100), [0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_call_goes_on_in_what_is_current_when_it_returns() {
    let blocks = vec![(vec![Op::Ask(1, 0), Op::Tick(1)], End::Return)];
    let program = Program { fuel: 2, blocks };
    assert_eq!(callers(&program, ALL, 0), [0, 0]);
    assert_eq!(callers(&program, ALL, 1), [0, 1]);
    let in_its_version = Options { parked: false, ..ALL };
    assert_eq!(callers(&program, in_its_version, 1), [0, 0]);
}
