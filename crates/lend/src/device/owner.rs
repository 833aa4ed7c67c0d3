//! What the owner says, and when the device works for others.

use undercroft_model::Now;

use super::{
    held::Phase,
    seam::{Effect, OwnerSays},
    state::{Device, Saying},
};
use crate::{
    consent::{Said, Sign, Verify},
    wire::{Ended, Holding},
};

/// What jobs that use the GPU need. Frozen, they would keep its memory, so they are killed instead.
const GPU: &str = "gpu";

impl<S: Sign + Verify> Device<S> {
    pub(super) fn owner(&mut self, now: Now, says: OwnerSays, effects: &mut Vec<Effect>) {
        match says {
            OwnerSays::Pause => {
                self.is_paused = true;
                self.yield_or_go_on(now, effects);
            }
            OwnerSays::Resume => {
                self.is_paused = false;
                self.yield_or_go_on(now, effects);
                self.ask_soon(now);
            }
            OwnerSays::Revoke => self.revoke(effects),
            OwnerSays::Grant { offer, until_ms } => {
                self.is_revoked = false;
                self.to_say
                    .push_back((Said::Granted { offer, until_ms }, Saying::Owner));
            }
            OwnerSays::Narrow { offer } => {
                self.let_go_of_unbegun("its owner lends less now");
                for held in self.held.values_mut() {
                    let fits = held
                        .assignment()
                        .is_none_or(|a| offer.fits(&a.job, Default::default()).is_ok());
                    if !fits {
                        let why = "its owner lends less now".to_owned();
                        Self::kill(held, Ended::Returned { why }, effects);
                    }
                }
                let is_granted = self.will_lend();
                if is_granted {
                    self.to_say
                        .push_back((Said::Narrowed { offer }, Saying::Owner));
                }
            }
        }
    }

    /// Whether there will be a consent when all that is to be said is said.
    fn will_lend(&self) -> bool {
        let waiting = self.to_say.iter().map(|(said, _)| said);
        let saying = self.saying.iter().map(|(_, record, _)| &record.claim.said);
        let mut last = saying.chain(waiting).filter_map(|said| match said {
            Said::Granted { .. } => Some(true),
            Said::Revoked => Some(false),
            _ => None,
        });
        last.next_back().unwrap_or(self.ledger.consent().is_some())
    }

    /// Whatever runs is killed now; the ledger says so as soon as it can be written.
    fn revoke(&mut self, effects: &mut Vec<Effect>) {
        self.is_revoked = true;
        let why = "its owner lends nothing any more";
        self.let_go_of_unbegun(why);
        for held in self.held.values_mut() {
            let why = why.to_owned();
            Self::kill(held, Ended::Returned { why }, effects);
        }
        self.overrule();
    }

    /// Of what the owner has said and isn't on its way to the disk, their revocation alone is left, where there is
    /// something to revoke. What they agreed to before, written behind an earlier revocation, would be lent by again
    /// after a restart; a revocation of what was never written is one of nothing, and no ledger takes it.
    pub(super) fn overrule(&mut self) {
        self.to_say
            .retain(|(_, saying)| !matches!(saying, Saying::Owner));
        if self.will_lend() {
            self.to_say.push_back((Said::Revoked, Saying::Owner));
        }
    }

    /// Gives back what isn't begun and has no record on its way.
    fn let_go_of_unbegun(&mut self, why: &str) {
        let mut unbegun: Vec<Holding> = Vec::new();
        self.to_say.retain(|(_, saying)| match saying {
            Saying::Begin(holding) => {
                unbegun.push(holding.clone());
                false
            }
            _ => true,
        });
        for holding in unbegun {
            let why = why.to_owned();
            self.never_begun(&holding, Ended::Returned { why });
        }
    }

    /// Freezes what runs, or lets it go on.
    pub(super) fn yield_or_go_on(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let is_wanted = self.is_paused || !self.why_not.is_empty();
        for held in self.held.values_mut() {
            let needs_gpu = held
                .assignment()
                .is_some_and(|a| a.job.needs.iter().any(|need| need.as_str() == GPU));
            match &mut held.phase {
                Phase::Running { .. } if is_wanted && needs_gpu => {
                    let why = "its owner wants the GPU".to_owned();
                    Self::kill(held, Ended::Returned { why }, effects);
                }
                Phase::Running { frozen_ms, .. } if is_wanted && frozen_ms.is_none() => {
                    *frozen_ms = Some(now.mono_ms);
                    effects.push(Effect::Freeze(held.holding.clone()));
                }
                Phase::Running { frozen_ms, .. } if !is_wanted && frozen_ms.is_some() => {
                    *frozen_ms = None;
                    effects.push(Effect::Thaw(held.holding.clone()));
                }
                _ => {}
            }
        }
    }
}
