//! How long something takes that doesn't always take as long.

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// A duration that differs from time to time: between the two, the middle most often (the sum of
/// two even draws).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// The shortest, in milliseconds.
    pub ms_min: u64,
    /// The longest, in milliseconds.
    pub ms_max: u64,
}

impl Spread {
    /// From one to the other, in milliseconds.
    pub const fn ms(ms_min: u64, ms_max: u64) -> Self {
        Self { ms_min, ms_max }
    }

    /// From one to the other, in seconds.
    pub const fn s(s_min: u64, s_max: u64) -> Self {
        Self::ms(s_min * 1000, s_max * 1000)
    }

    /// One duration of these, in milliseconds.
    pub fn draw(self, rng: &mut Rng) -> u64 {
        let span = self.ms_max.saturating_sub(self.ms_min);
        let half = span / 2;
        self.ms_min + rng.below(half + 1) + rng.below(span - half + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_stays_in_its_limits_and_reaches_both() {
        let mut rng = Rng::new(3);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            seen.insert(Spread::ms(5, 10).draw(&mut rng));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10]);
        assert_eq!(Spread::ms(4, 4).draw(&mut rng), 4);
    }
}
