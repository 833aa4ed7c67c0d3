//! What an owner is shown.

use undercroft_lend::{
    consent::{Consent, Ledger},
    device::held::{Held, Phase},
    offer::Offer,
};
use undercroft_model::document::Version;

use super::{core::Daemon, job::lock};
use crate::{
    bus::BusLink,
    owner::{BusView, ConsentView, JobView, LedgerView, OfferView, Offers, Status},
    policy::runtime_name,
};

pub(super) fn offer(of: &Offer) -> OfferView {
    OfferView {
        runtimes: of
            .runtimes
            .iter()
            .map(|r| runtime_name(*r).to_owned())
            .collect(),
        tenants: of
            .tenants
            .as_ref()
            .map(|all| all.iter().map(ToString::to_string).collect()),
        max_sensitivity: of.max_sensitivity.as_str().to_owned(),
        features: of.features.iter().map(ToString::to_string).collect(),
        slots: of.slots,
        cpu_percent: of.limits.cpu_percent,
        memory_mb: of.limits.memory_mb,
        disk_mb: of.limits.disk_mb,
        wall_s: of.limits.wall_s,
    }
}

pub(super) fn consent(of: &Consent) -> ConsentView {
    ConsentView {
        record: of.number,
        until_ms: of.until_ms,
        offer: offer(&of.offer),
    }
}

pub(super) fn ledger(of: &Ledger) -> LedgerView {
    let head = of.head();
    LedgerView {
        records: head.map_or(0, |head| head.number.saturating_add(1)),
        head: head.map(|head| head.digest.to_string()),
    }
}

fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Beginning => "is written down",
        Phase::Running {
            frozen_ms: None, ..
        } => "runs",
        Phase::Running { .. } => "is frozen",
        Phase::Killing { .. } => "is being killed",
        Phase::Keeping { .. } => "has ended",
        Phase::Reporting { .. } => "is reported",
        Phase::Wiping { .. } => "is wiped",
        Phase::Receipt { .. } => "gets its receipt",
    }
}

impl Daemon {
    fn job(&self, held: &Held) -> JobView {
        let job = self.jobs.get(&held.holding);
        let usage = job.and_then(|job| lock(&job.seen).running.as_ref().map(|r| r.usage()));
        let assignment = held.assignment();
        JobView {
            job: held.holding.job.to_string(),
            epoch: held.holding.epoch.0,
            tenant: assignment.map(|a| a.job.tenant.to_string()),
            phase: phase(&held.phase).to_owned(),
            consent: assignment.map(|a| a.consent),
            since_ms: job.map(|job| job.began_ms),
            cpu_ms: usage.map(|usage| usage.cpu_ms),
            memory_peak_bytes: usage.and_then(|usage| usage.memory_peak_bytes),
        }
    }

    fn server(&self) -> BusView {
        let why_not = match &self.bus {
            None => Some("the daemon isn't running".to_owned()),
            Some(bus) => match &*bus.link().borrow() {
                BusLink::Up => None,
                BusLink::Down { why } => Some(why.clone()),
            },
        };
        BusView {
            url: self.policy.nats_url.clone(),
            connected: why_not.is_none(),
            why_not,
        }
    }

    pub(super) fn status(&self) -> Status {
        let mut why_not = self.device.why_not();
        let server = self.server();
        if let Some(why) = &server.why_not
            && self.bus.is_some()
        {
            why_not.push(format!("the server can't be reached: {why}"));
        }
        if let Some(why) = &self.unanswered {
            why_not.push(format!("the server doesn't answer: {why}"));
        }
        if self.bus.is_none() {
            why_not = vec!["the daemon isn't running".to_owned()];
        }
        if let Some(trouble) = &self.trouble {
            why_not.push(format!("of late: {trouble}"));
        }
        Status {
            version: Version,
            device: self.policy.device.to_string(),
            fleet: self.policy.fleet.clone(),
            running: self.bus.is_some(),
            consent: self.device.ledger().consent().map(consent),
            paused: self.paused.clone(),
            why_not,
            server,
            jobs: self.device.held().map(|held| self.job(held)).collect(),
            ledger: ledger(self.device.ledger()),
        }
    }

    pub(super) fn offers(&self) -> Offers {
        let when = &self.policy.when;
        let hours = self.narrowed.all_hours(when);
        Offers {
            version: Version,
            device: self.policy.device.to_string(),
            policy: offer(&self.offered),
            consent: self.device.ledger().consent().map(consent),
            hours: hours.iter().map(ToString::to_string).collect(),
            idle_after_s: self.narrowed.idle_after_s(when),
            exclusive: self.narrowed.exclusive(when).map(str::to_owned).collect(),
        }
    }
}
