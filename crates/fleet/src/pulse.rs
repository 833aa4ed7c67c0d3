//! Whether a service's own rounds go on: each part of one says how long it may be silent.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a part of a round may take that asks nobody but this machine's files, in milliseconds: a journal of
/// a million records is folded in a few seconds, on a disk that is busy in a minute.
pub const LOCAL_MS_MAX: u64 = 5 * 60_000;
/// How long a builder may say nothing, in milliseconds: Nix tells each line of a build's log, and a linker or a
/// test of a large package has none for an hour.
pub const BUILD_SILENCE_MS_MAX: u64 = 2 * 60 * 60_000;
/// How long a look at all machines may take, in milliseconds: as long as what it finds counts as fresh.
pub const LOOK_MS_MAX: u64 = undercroft_planner::LOOK_AGE_MS_MAX;
/// How long a run may do nothing at all, in milliseconds: it wakes once a minute when nothing happens, and each
/// step has its own limit beside that.
pub const RUN_SILENCE_MS_MAX: u64 = LOCAL_MS_MAX;
/// How much longer than it was told to a rest may take, in milliseconds.
pub const REST_MARGIN_MS: u64 = 2 * 60_000;

/// A part of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The inventory and the journal are read.
    Read,
    /// The boot servers are started, with their installers made.
    BootServers,
    /// Systems are built.
    Build,
    /// The machines are looked at.
    Look,
    /// A plan is made.
    Decide,
    /// A plan is carried out.
    Run,
    /// A rest of so many milliseconds.
    Rest(u64),
}

impl Part {
    /// How long it may give no sign of life.
    pub(crate) fn silence_max(self) -> Duration {
        Duration::from_millis(match self {
            Self::Read | Self::Decide => LOCAL_MS_MAX,
            Self::BootServers | Self::Build => BUILD_SILENCE_MS_MAX,
            Self::Look => LOOK_MS_MAX,
            Self::Run => RUN_SILENCE_MS_MAX,
            Self::Rest(ms) => ms.saturating_add(REST_MARGIN_MS),
        })
    }

    /// What is done in it, in words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Read => "reading the inventory and the journal",
            Self::BootServers => "starting the boot servers",
            Self::Build => "building systems",
            Self::Look => "looking at the machines",
            Self::Decide => "making a plan",
            Self::Run => "carrying out a plan",
            Self::Rest(_) => "resting",
        }
    }
}

/// The latest sign of life of the rounds.
#[derive(Debug)]
pub(crate) struct Pulse(Mutex<(Part, Instant)>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Mutex::new((Part::Read, Instant::now())))
    }
}

impl Pulse {
    /// A part begins.
    pub(crate) fn begin(&self, part: Part) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (part, Instant::now());
    }

    /// The part that was begun last goes on.
    pub(crate) fn beat(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = Instant::now();
    }

    /// The part that has been silent for longer than it may be, if that is so, and for how long.
    pub(crate) fn wedged(&self) -> Option<(Part, Duration)> {
        let (part, at) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = at.elapsed();
        (silent > part.silence_max()).then_some((part, silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_silent_for_too_long_is_wedged_until_it_beats_again() {
        let pulse = Pulse::default();
        for part in [
            Part::Read,
            Part::BootServers,
            Part::Build,
            Part::Look,
            Part::Decide,
            Part::Run,
            Part::Rest(86_400_000),
        ] {
            pulse.begin(part);
            tokio::time::advance(part.silence_max()).await;
            assert_eq!(pulse.wedged(), None, "{part:?}");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(pulse.wedged().map(|(part, _)| part), Some(part));
            pulse.beat();
            assert_eq!(pulse.wedged(), None, "{part:?}");
        }
    }
}
