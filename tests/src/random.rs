//! Numbers that look random, and are the same in every run.

/// Marsaglia's xorshift64, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// `seed` is not 0, from which there is no way to any other number.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number: never 0, and what a generator could go on from.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`.
    ///
    /// # Panics
    ///
    /// If that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }
}
