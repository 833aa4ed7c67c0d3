//! What the owner asks, done.

use undercroft_lend::{
    Tenant,
    device::{Input, OwnerSays},
    job::Runtime,
    offer::Offer,
};
use undercroft_model::document::Version;

use super::{
    core::{Daemon, Waiting, WaitsFor},
    pause, views,
};
use crate::{
    clock, doctor,
    owner::{Narrow, OwnerAnswer, OwnerAsk, Paused, Question, Revoked},
    policy::{Narrowed, runtime_name},
};

/// How long a revocation may take before its owner is told what is left, in milliseconds. It takes some 100.
const REVOKE_MS_MAX: u64 = 15_000;
/// How long a consent may take to become durable, in milliseconds.
const CONSENT_MS_MAX: u64 = 10_000;
/// Parts of the day that an owner has narrowed to, at most: two are one, and more are a mistake.
const HOURS_MAX: usize = 16;
/// The longest pause with an end, in seconds: a year.
const PAUSE_S_MAX: u64 = 366 * 24 * 3600;

fn refused(why: impl Into<String>, hint: Option<&str>) -> OwnerAnswer {
    OwnerAnswer::Refused {
        why: why.into(),
        hint: hint.map(str::to_owned),
    }
}

impl Daemon {
    /// Does what the owner asks; the answer comes when it is so.
    pub(super) async fn heed(&mut self, question: Question) {
        let Question { ask, answer } = question;
        let now = clock::now();
        let said = match ask {
            OwnerAsk::Status => OwnerAnswer::Status(Box::new(self.status())),
            OwnerAsk::Offers => OwnerAnswer::Offers(Box::new(self.offers())),
            OwnerAsk::Pause { for_s } => self.pause(for_s).await,
            OwnerAsk::Resume => self.resume().await,
            OwnerAsk::Log { since_ms } => self.log(since_ms),
            OwnerAsk::Doctor => return self.doctor(answer),
            OwnerAsk::Revoke => {
                let ended = self.jobs.keys().map(|h| h.job.to_string()).collect();
                self.waiting.push(Waiting {
                    what: WaitsFor::Revoked { ended },
                    since_ms: now.mono_ms,
                    until_ms: now.mono_ms + REVOKE_MS_MAX,
                    answer,
                });
                return self.step(Input::Owner(OwnerSays::Revoke)).await;
            }
            OwnerAsk::Grant { until_ms } => {
                if until_ms.is_some_and(|until_ms| until_ms <= now.wall_ms) {
                    refused("that moment is over", None)
                } else if let Err(why) = self.widen() {
                    refused(why, None)
                } else {
                    let offer = Box::new(self.offered.clone());
                    self.await_consent(answer);
                    let says = OwnerSays::Grant { offer, until_ms };
                    return self.step(Input::Owner(says)).await;
                }
            }
            OwnerAsk::Narrow(narrow) => match self.narrow(&narrow) {
                Err(said) => said,
                Ok(None) => {
                    self.look().await;
                    OwnerAnswer::Offers(Box::new(self.offers()))
                }
                Ok(Some(offer)) => {
                    self.await_consent(answer);
                    let offer = Box::new(offer);
                    return self.step(Input::Owner(OwnerSays::Narrow { offer })).await;
                }
            },
        };
        // Whoever went away needs no answer.
        let _ = answer.send(said);
    }

    fn log(&self, since_ms: u64) -> OwnerAnswer {
        let device = self.policy.device.to_string();
        match self.usage.since(device, since_ms, self.policy.when.watts) {
            Ok(log) => OwnerAnswer::Log(Box::new(log)),
            Err(error) => refused(error.to_string(), None),
        }
    }

    /// Tries things out in the background: it takes a second or two.
    fn doctor(&self, answer: tokio::sync::oneshot::Sender<OwnerAnswer>) {
        let asked = doctor::Asked {
            device: self.policy.device.to_string(),
            url: self.policy.nats_url.clone(),
            link: self.bus.as_ref().map(|bus| bus.link().borrow().clone()),
            has_seat: self.policy.when.has_seat,
            seat: self.seat.as_ref().map(|seat| seat.borrow().clone()),
            wants_gpu: self.offered.features.iter().any(|f| f.as_str() == "gpu"),
            clock_is_off: self
                .device
                .why_not()
                .into_iter()
                .find(|w| w.contains("clock")),
            no_yard: self.no_yard.clone(),
        };
        tokio::spawn(async move {
            // Whoever went away needs no answer.
            let _ = answer.send(OwnerAnswer::Doctor(Box::new(doctor::look(asked).await)));
        });
    }

    fn await_consent(&mut self, answer: tokio::sync::oneshot::Sender<OwnerAnswer>) {
        let now_ms = clock::now().mono_ms;
        let head = self.device.ledger().head();
        self.waiting.push(Waiting {
            what: WaitsFor::Consent {
                number: head.map_or(0, |head| head.number.saturating_add(1)),
            },
            since_ms: now_ms,
            until_ms: now_ms + CONSENT_MS_MAX,
            answer,
        });
    }

    async fn pause(&mut self, for_s: Option<u64>) -> OwnerAnswer {
        // It holds at once, and is kept then: the owner sees where that fails.
        self.step(Input::Owner(OwnerSays::Pause)).await;
        let wall_ms = clock::now().wall_ms;
        let until_ms = for_s.map(|s| wall_ms.saturating_add(s.min(PAUSE_S_MAX) * 1000));
        let since_ms = self
            .paused
            .as_ref()
            .map_or(wall_ms, |paused| paused.since_ms);
        let paused = Paused { since_ms, until_ms };
        let kept = pause::write(&self.state, Some(&paused));
        self.paused = Some(paused);
        match kept {
            Ok(()) => OwnerAnswer::Status(Box::new(self.status())),
            Err(error) => refused(
                format!("it is paused, and that can't be kept: {error}"),
                Some(
                    "It is forgotten when the daemon or the PC is started anew; free some space and pause again.",
                ),
            ),
        }
    }

    async fn resume(&mut self) -> OwnerAnswer {
        if let Err(error) = pause::write(&self.state, None) {
            return refused(format!("the pause can't be taken back: {error}"), None);
        }
        self.go_on().await;
        OwnerAnswer::Status(Box::new(self.status()))
    }

    /// A pause has ended.
    pub(super) async fn go_on(&mut self) {
        self.paused = None;
        self.look().await;
        self.step(Input::Owner(OwnerSays::Resume)).await;
    }

    /// Keeps what is narrowed here alone; what is narrowed in the ledger is handed back.
    fn narrow(&mut self, narrow: &Narrow) -> Result<Option<Offer>, OwnerAnswer> {
        let Some(consent) = self.device.ledger().consent() else {
            return Err(refused(
                "there is nothing to narrow: this PC lends nothing",
                Some("`undercroft lend offers grant` lends what the policy offers."),
            ));
        };
        let offer = narrower(&consent.offer, narrow).map_err(|why| refused(why, None))?;
        let is_other = offer != consent.offer;
        let mut narrowed = self.narrowed.clone();
        let hours = narrow.hours.iter().map(|hours| hours.parse());
        let hours: Result<_, crate::hours::NoHours> = hours.collect();
        narrowed.and(&Narrowed {
            hours: hours.map_err(|e| refused(e.to_string(), None))?,
            idle_after_s: narrow.idle_after_s,
            exclusive_programs: narrow.exclusive.iter().cloned().collect(),
        });
        if narrowed.hours.len() > HOURS_MAX {
            let why = format!("it lends in {HOURS_MAX} parts of the day at once by now");
            let hint = "`undercroft lend offers grant` begins anew with what the policy says.";
            return Err(refused(why, Some(hint)));
        }
        if narrowed != self.narrowed {
            narrowed
                .write(&self.state)
                .map_err(|e| refused(e.to_string(), None))?;
            self.narrowed = narrowed;
            self.watch_seat();
        }
        Ok(is_other.then_some(offer))
    }

    /// A grant is all that the policy offers again: nothing that was narrowed before holds beside it.
    fn widen(&mut self) -> Result<(), String> {
        if self.narrowed == Narrowed::default() {
            return Ok(());
        }
        let written = Narrowed::default().write(&self.state);
        written.map_err(|error| format!("what was narrowed can't be taken back: {error}"))?;
        self.narrowed = Narrowed::default();
        self.watch_seat();
        Ok(())
    }

    /// Answers those whose wait is over.
    pub(super) fn settle(&mut self) {
        let now_ms = clock::now().mono_ms;
        let waiting = std::mem::take(&mut self.waiting);
        for one in waiting {
            let number = self.device.ledger().consent().map(|consent| consent.number);
            let is_so = match &one.what {
                WaitsFor::Revoked { .. } => !self.device.is_revoking(),
                WaitsFor::Consent { number: wanted } => number.is_some_and(|n| n >= *wanted),
            };
            let is_late = one.until_ms <= now_ms;
            let said = match (one.what, is_so) {
                (WaitsFor::Revoked { ended }, true) => self.revoked(ended, now_ms - one.since_ms),
                (WaitsFor::Consent { .. }, true) => OwnerAnswer::Offers(Box::new(self.offers())),
                (WaitsFor::Revoked { .. }, false) if is_late => {
                    let left: Vec<String> = self
                        .status()
                        .jobs
                        .iter()
                        .map(|j| format!("{} {}", j.job, j.phase))
                        .collect();
                    let trouble = self.trouble.clone().unwrap_or_default();
                    refused(
                        format!(
                            "not all is gone, and it is gone on with: {} {trouble}",
                            left.join(", ")
                        ),
                        Some("`undercroft lend status` shows how far it has come."),
                    )
                }
                (WaitsFor::Consent { .. }, false) if is_late => {
                    let trouble = self.trouble.clone().unwrap_or_default();
                    refused(format!("it can't be written down: {trouble}"), None)
                }
                (what, false) => {
                    self.waiting.push(Waiting { what, ..one });
                    continue;
                }
            };
            let _ = one.answer.send(said);
        }
    }

    fn revoked(&mut self, ended: Vec<String>, after_ms: u64) -> OwnerAnswer {
        if let Err(error) = self.content.forget() {
            return refused(
                format!("nothing is lent any more, and artefacts are left: {error}"),
                None,
            );
        }
        OwnerAnswer::Revoked(Box::new(Revoked {
            version: Version,
            device: self.policy.device.to_string(),
            after_ms,
            ended,
            ledger: views::ledger(self.device.ledger()),
        }))
    }
}

/// An offer with less in it.
fn narrower(offer: &Offer, narrow: &Narrow) -> Result<Offer, String> {
    let mut next = offer.clone();
    if let Some(names) = &narrow.runtimes {
        let known = [Runtime::Wasm, Runtime::Process, Runtime::Nix, Runtime::Adb];
        if let Some(name) = names
            .iter()
            .find(|name| !known.iter().any(|r| runtime_name(*r) == name.as_str()))
        {
            return Err(format!("{name:?} is no runtime: wasm, process, nix, adb"));
        }
        next.runtimes
            .retain(|runtime| names.iter().any(|name| name == runtime_name(*runtime)));
    }
    if let Some(names) = &narrow.tenants {
        let mut tenants = std::collections::BTreeSet::new();
        for name in names {
            let tenant: Tenant = name
                .parse()
                .map_err(|e: undercroft_model::InvalidId| e.to_string())?;
            if offer
                .tenants
                .as_ref()
                .is_none_or(|all| all.contains(&tenant))
            {
                tenants.insert(tenant);
            }
        }
        next.tenants = Some(tenants);
    }
    for (to, from) in [
        (&mut next.slots, narrow.slots),
        (&mut next.limits.cpu_percent, narrow.cpu_percent),
        (&mut next.limits.memory_mb, narrow.memory_mb),
        (&mut next.limits.disk_mb, narrow.disk_mb),
    ] {
        *to = from.map_or(*to, |from| from.min(*to));
    }
    Ok(next)
}
