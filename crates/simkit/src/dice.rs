//! Whether something goes wrong now, and how often it does under a seed.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// How much goes wrong in a simulation.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Faults {
    /// Nothing.
    #[default]
    None,
    /// Now and then something, as on an ordinary day.
    Some,
    /// Nearly everything, often.
    Many,
}

impl Faults {
    /// All levels.
    pub const ALL: [Self; 3] = [Self::None, Self::Some, Self::Many];

    /// The level's name as people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Some => "some",
            Self::Many => "many",
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no level of faults.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of none, some, many")]
pub struct UnknownFaults(String);

impl FromStr for Faults {
    type Err = UnknownFaults;
    fn from_str(text: &str) -> Result<Self, UnknownFaults> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| UnknownFaults(text.to_owned()))
    }
}

/// The kinds of faults that a simulation knows.
pub trait Kind: Copy + Ord + 'static {
    /// All of them. Their order is part of what a seed means.
    const ALL: &'static [Self];

    /// How often it happens, in 1,024 opportunities: a quarter of that at the level `some`, up to
    /// sixteen times that at `many`.
    fn usual_per_1024(self) -> u32;
}

/// Which party a fault happened to, by its number; nobody's are those of the whole simulation.
type Party = Option<u32>;

/// Decides at each opportunity whether a fault happens.
///
/// The mix differs from seed to seed: each seed draws which kinds occur at all, and how often
/// (Groce et al., "Swarm testing", ISSTA 2012), so that rare kinds are also seen without the
/// frequent ones that would hide them.
#[derive(Debug, Clone)]
pub struct Dice<K> {
    rng: Rng,
    rates: BTreeMap<K, u32>,
    stopped: bool,
    injected: Vec<(u64, Party, K)>,
}

impl<K: Kind> Dice<K> {
    /// The dice of a seed.
    pub fn new(seed: u64, level: Faults) -> Self {
        let mut rng = Rng::split(seed, 1);
        let mut rates = BTreeMap::new();
        for kind in K::ALL.iter().copied() {
            let (enabled, factor) = (rng.below(1024), rng.below(5));
            let rate = match level {
                Faults::None => 0,
                Faults::Some => kind.usual_per_1024().div_ceil(4),
                Faults::Many if enabled < 512 => 0,
                // One to sixteen times as often as usual.
                Faults::Many => kind.usual_per_1024() << factor,
            };
            rates.insert(kind, rate.min(900));
        }
        Self {
            rng,
            rates,
            stopped: level == Faults::None,
            injected: Vec::new(),
        }
    }

    /// Whether the fault happens now. Draws nothing where it can't.
    pub fn hit(&mut self, at_ms: u64, who: Party, kind: K) -> bool {
        if self.stopped {
            return false;
        }
        let rate = self.rates.get(&kind).copied().unwrap_or(0);
        let hit = rate > 0 && self.rng.chance(rate);
        if hit {
            self.injected.push((at_ms, who, kind));
        }
        hit
    }

    /// From now on nothing new goes wrong.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether nothing new goes wrong any more.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The stream that the dice draw from, for how a fault goes on.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// What went wrong: when, in milliseconds; to whom; what.
    pub fn injected(&self) -> &[(u64, Party, K)] {
        &self.injected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct Fault(u8);

    impl Kind for Fault {
        const ALL: &'static [Self] = &[
            Self(0),
            Self(1),
            Self(2),
            Self(3),
            Self(4),
            Self(5),
            Self(6),
            Self(7),
        ];
        fn usual_per_1024(self) -> u32 {
            30
        }
    }

    #[test]
    fn without_faults_nothing_is_drawn() {
        let mut dice = Dice::<Fault>::new(5, Faults::None);
        let before = dice.rng.clone();
        assert!(Fault::ALL.iter().all(|kind| !dice.hit(0, None, *kind)));
        assert_eq!(dice.rng, before);
    }

    #[test]
    fn seeds_differ_in_which_kinds_occur() {
        let mixes: std::collections::BTreeSet<Vec<bool>> = (0..20)
            .map(|seed| {
                let dice = Dice::<Fault>::new(seed, Faults::Many);
                dice.rates.values().map(|rate| *rate > 0).collect()
            })
            .collect();
        assert!(mixes.len() > 15, "{}", mixes.len());
    }

    #[test]
    fn levels_read_what_they_print() {
        for level in Faults::ALL {
            assert_eq!(level.to_string().parse::<Faults>().unwrap(), level);
        }
        assert_eq!(
            "lots".parse::<Faults>().unwrap_err().to_string(),
            "\"lots\" is not one of none, some, many"
        );
    }
}
