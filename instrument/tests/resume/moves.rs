//! Frames that move between two versions do what a frame of the original does, which stays where it
//! is: the same calls of the host, with the same arguments, and the same result.
//!
//! There are no gates here. What is current changes while the host is called, as a script says.

use proptest::prelude::*;

use crate::program::programs;
use crate::world::{Options, World};

fn options() -> impl Strategy<Value = Options> {
    (any::<bool>(), any::<bool>(), any::<u64>()).prop_map(|(rooms, convert, marked)| Options {
        rooms,
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
            let happened = world.run(arguments, script);
            prop_assert_eq!(&happened, &expected, "{:b}\n{}", script, world.original());
        }
    }
}
