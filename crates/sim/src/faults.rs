//! What can go wrong, and how often it does under a seed.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// How much goes wrong in a rehearsal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
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

macro_rules! kinds {
    ($( $(#[doc = $doc:literal])* $variant:ident = $words:literal, $per_1024:literal; )*) => {
        /// One kind of fault.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(rename_all = "kebab-case")]
        pub enum FaultKind {
            $( $(#[doc = $doc])* $variant, )*
        }

        impl FaultKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];

            /// What happens, in a few words.
            pub fn words(self) -> &'static str {
                match self { $( Self::$variant => $words, )* }
            }

            /// How often it happens, in 1,024 opportunities: a quarter of that at the level `some`, up
            /// to sixteen times that at `many`.
            fn usual_per_1024(self) -> u32 {
                match self { $( Self::$variant => $per_1024, )* }
            }
        }
    };
}

kinds! {
    /// The firmware doesn't boot from the network, and goes on to the next device.
    PxeMissed = "missed its network boot", 60;
    /// After the installation the firmware starts something else than the disk that was installed.
    WrongBootDevice = "booted from the wrong device", 20;
    /// The disk has another serial than the inventory says. For good.
    WrongSerial = "has another disk than the inventory says", 8;
    /// The machine doesn't start. For good.
    DeadMachine = "is dead", 6;
    /// Power is lost in the middle of an action.
    PowerLoss = "lost its power", 30;
    /// The machine can't be reached for a while.
    NetworkLoss = "lost its network for a while", 30;
    /// The command succeeds, and the connection dies before that is known.
    SshDies = "lost the SSH session after the command had succeeded", 30;
    /// A copy takes three to twelve times as long.
    SlowCopy = "was copied to slowly", 40;
    /// A copy breaks off.
    FailingCopy = "had its copy broken off", 40;
    /// The disk is full.
    DiskFull = "ran out of disk space", 6;
    /// The boot loader can't be written, or only half.
    LoaderFails = "had its boot loader step fail", 25;
    /// The machine doesn't return from a reboot until someone cuts its power.
    RebootHangs = "hung in its reboot", 25;
    /// Another machine answers at the machine's address for a while, under another key.
    HostKeyChanged = "was answered for by another machine", 12;
    /// Somebody else reports in under the machine's Ethernet addresses.
    StolenMac = "had its Ethernet address used by another machine", 16;
    /// A machine keeps on answering under the machine's Ethernet addresses. For good.
    StolenForGood = "is impersonated", 4;
    /// The images of a machine's part of Kubernetes come slowly.
    SlowPull = "drew its images slowly", 40;
    /// The servers refuse a machine's token until someone puts that right.
    TokenRefused = "had its token refused", 12;
    /// The cluster's API doesn't answer for a while.
    ApiDown = "found the cluster's API away for a while", 30;
    /// The network of the pods takes long to be ready.
    NetworkSlow = "had the network of the pods come up late", 60;
    /// A node is NotReady for a while after it has joined.
    NotReadyFlap = "was NotReady for a while", 40;
    /// Argo CD is degraded before it is healthy.
    ArgoDegraded = "had Argo CD degraded for a while", 60;
    /// The root application is synced only after it was tried again.
    SyncRetries = "had the root application tried again", 60;
    /// Somebody deletes a machine's Node, whose kubelet goes on and doesn't register again.
    NodeDeleted = "had its Node deleted", 60;
    /// A member of the cluster loses what is on its disk, and keeps its place in etcd: at most once.
    DiskLost = "lost what was on its disk", 100;
    /// The controller's wall clock jumps.
    ClockJump = "the controller's clock jumped", 20;
    /// The controller dies between two effects, or while it writes its journal.
    ControllerKilled = "the controller was killed", 6;
    /// The operator presses Ctrl-C in the middle, and runs the command again.
    Interrupted = "the operator interrupted the run", 200;
    /// An outcome comes after the operation was called off.
    LateOutcome = "an outcome came late", 256;
    /// An outcome comes twice.
    DoubledOutcome = "an outcome came twice", 40;
}

impl FaultKind {
    /// Whether it stays when faults stop.
    pub fn is_permanent(self) -> bool {
        matches!(
            self,
            Self::WrongSerial | Self::DeadMachine | Self::StolenForGood
        )
    }
}

/// Decides at each opportunity whether a fault happens.
///
/// The mix differs from seed to seed: each seed draws which kinds occur at all, and how often
/// (Groce et al., "Swarm testing", ISSTA 2012), so that rare kinds are also seen without the
/// frequent ones that would hide them.
pub(crate) struct Dice {
    rng: Rng,
    rates: BTreeMap<FaultKind, u32>,
    stopped: bool,
    injected: Vec<(u64, Option<u32>, FaultKind)>,
}

impl Dice {
    pub(crate) fn new(seed: u64, level: Faults) -> Self {
        let mut rng = Rng::split(seed, 1);
        let mut rates = BTreeMap::new();
        for kind in FaultKind::ALL.iter().copied() {
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
    pub(crate) fn hit(&mut self, at_ms: u64, node: Option<u32>, kind: FaultKind) -> bool {
        if self.stopped {
            return false;
        }
        let rate = self.rates.get(&kind).copied().unwrap_or(0);
        let hit = rate > 0 && self.rng.chance(rate);
        if hit {
            self.injected.push((at_ms, node, kind));
        }
        hit
    }

    /// From now on nothing new goes wrong.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(crate) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    pub(crate) fn injected(&self) -> &[(u64, Option<u32>, FaultKind)] {
        &self.injected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_faults_nothing_is_drawn() {
        let mut dice = Dice::new(5, Faults::None);
        let before = dice.rng.clone();
        assert!(FaultKind::ALL.iter().all(|kind| !dice.hit(0, None, *kind)));
        assert_eq!(dice.rng, before);
    }

    #[test]
    fn seeds_differ_in_which_kinds_occur() {
        let mixes: std::collections::BTreeSet<Vec<bool>> = (0..20)
            .map(|seed| {
                let dice = Dice::new(seed, Faults::Many);
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
