//! What must hold whatever happens, judged by the truth of the simulated world.

use std::collections::{BTreeMap, BTreeSet};

use undercroft_lend::{
    DeviceName, Digest, JobId,
    consent::{Ledger, Said},
    server::record::{JobRecord, State},
    wire::Holding,
};

/// How long after its owner has revoked a process may still be there, in milliseconds.
pub(crate) const REVOKE_MS_MAX: u64 = 2_000;

/// What a job makes that makes the same each time.
pub(crate) fn right_output(job: &JobId) -> Digest {
    Digest::of(format!("of {job}").as_bytes())
}

/// What is known of what has happened so far.
#[derive(Default)]
pub(crate) struct Checkers {
    /// The holder of each time that a job was handed out.
    holders: BTreeMap<Holding, DeviceName>,
    /// Jobs with their results.
    results: BTreeMap<JobId, State>,
    /// What runs, and where.
    running: BTreeMap<JobId, (DeviceName, Holding)>,
    /// What devices have said that wasn't true.
    lies: BTreeSet<(DeviceName, Holding)>,
    /// Jobs of which some device has said that it made what it doesn't make.
    wrong: BTreeSet<JobId>,
    /// Receipts that were given.
    receipts: BTreeSet<(DeviceName, Holding)>,
    /// Since when owners lend nothing.
    revoked: BTreeMap<DeviceName, u64>,
    pub(crate) failure: Option<String>,
}

impl Checkers {
    pub(crate) fn fail(&mut self, why: String) {
        self.failure.get_or_insert(why);
    }

    /// The store holds another record of a job.
    pub(crate) fn stored(&mut self, before: Option<&JobRecord>, after: &JobRecord) {
        let id = &after.job.id;
        if let Some(result) = self.results.get(id)
            && *result != after.state
        {
            self.fail(format!(
                "one result per job: {id} had {result:?}, and has {:?}",
                after.state
            ));
        }
        if let State::Done {
            device,
            output,
            verified_by: Some(other),
            ..
        } = &after.state
            && (device == other || *output != right_output(id))
        {
            self.fail(format!(
                "what is verified is right: {id} of {device} is {output}, and {other} came to the same"
            ));
        }
        let waits = before.is_some_and(|before| before.first().is_some());
        if after.lease().map(|lease| &lease.device) == after.first().map(|first| &first.device)
            && waits
        {
            self.fail(format!("nobody verifies their own: {id}"));
        }
        if let State::Done { .. } = after.state {
            self.results.insert(id.clone(), after.state.clone());
        }
        if let Some(lease) = after.lease() {
            let holding = Holding {
                job: id.clone(),
                epoch: after.epoch,
            };
            let holder = self
                .holders
                .entry(holding)
                .or_insert_with(|| lease.device.clone());
            if *holder != lease.device {
                let (first, second) = (holder.clone(), &lease.device);
                self.fail(format!(
                    "no epoch twice: {id} at {} was {first}'s, and is {second}'s",
                    after.epoch
                ));
            }
        }
        let ended = before
            .and_then(|before| Some((before.lease()?, before.epoch)))
            .filter(|(lease, epoch)| {
                let now = after.lease().map(|now| (&now.device, after.epoch));
                now != Some((&lease.device, *epoch))
            });
        if let (Some((lease, epoch)), Some((device, holding))) = (ended, self.running.get(id))
            && (&lease.device, epoch) == (device, holding.epoch)
            && !self.lies.contains(&(device.clone(), holding.clone()))
        {
            let state = &after.state;
            self.fail(format!(
                "a lease ends when nothing runs: {id} at {epoch} runs on {device}, and the store says {state:?}"
            ));
        }
    }

    /// A process begins. `ledger` is what is durable on the device.
    pub(crate) fn runs(
        &mut self,
        device: &DeviceName,
        holding: &Holding,
        wall_ms: u64,
        ledger: &Ledger,
    ) {
        let job = &holding.job;
        let running = self.running.get(job);
        // Whoever has said that it is done, and runs it still, isn't believed by being run again elsewhere.
        let running = running.filter(|running| !self.lies.contains(running));
        if let Some((other, running)) = running {
            let epoch = running.epoch;
            let why = format!(
                "never two at once: {job} begins on {device} at {} and runs on {other} at {epoch}",
                holding.epoch
            );
            self.fail(why);
        }
        if self.receipts.contains(&(device.clone(), holding.clone())) {
            self.fail(format!(
                "nothing after a receipt: {job} begins on {device} at {}",
                holding.epoch
            ));
        }
        if ledger.open().get(job) != Some(&holding.epoch) {
            self.fail(format!(
                "journal first: {job} begins on {device} without a record of it"
            ));
        }
        let is_good = ledger
            .consent()
            .is_some_and(|consent| consent.is_good_at(wall_ms));
        if !is_good || self.revoked.contains_key(device) {
            self.fail(format!("no work without consent: {job} begins on {device}"));
        }
        self.running
            .insert(job.clone(), (device.clone(), holding.clone()));
    }

    /// No process is left of a job on a device.
    pub(crate) fn gone(&mut self, device: &DeviceName, holding: &Holding) {
        if self.running.get(&holding.job) == Some(&(device.clone(), holding.clone())) {
            self.running.remove(&holding.job);
        }
    }

    /// A record is durable. `files`: the jobs of which the device has files.
    pub(crate) fn said(&mut self, device: &DeviceName, said: &Said, files: &BTreeSet<Holding>) {
        let Said::Receipt { job, epoch, .. } = said else {
            return;
        };
        let holding = Holding {
            job: job.clone(),
            epoch: *epoch,
        };
        if self.running.get(job) == Some(&(device.clone(), holding.clone())) {
            self.fail(format!(
                "a receipt is true: {job} runs on {device} when its receipt is given"
            ));
        }
        if files.contains(&holding) {
            self.fail(format!(
                "a receipt is true: {device} has files of {job} when its receipt is given"
            ));
        }
        self.receipts.insert((device.clone(), holding));
    }

    /// A device says that a job makes what it doesn't make.
    pub(crate) fn makes_wrong(&mut self, job: &JobId) {
        self.wrong.insert(job.clone());
    }

    pub(crate) fn is_wrong(&self, job: &JobId) -> bool {
        self.wrong.contains(job)
    }

    pub(crate) fn lends(&mut self, device: &DeviceName) {
        self.revoked.remove(device);
    }

    pub(crate) fn revokes(&mut self, device: &DeviceName, now_ms: u64) {
        self.revoked.entry(device.clone()).or_insert(now_ms);
    }

    /// A device says of a job that it isn't given that it is done. When it is given the job after all, that is its
    /// word as any other.
    pub(crate) fn lies(&mut self, device: DeviceName, holding: Holding) {
        self.lies.insert((device, holding));
    }

    /// Time has passed.
    pub(crate) fn time(&mut self, now_ms: u64) {
        let mut late = None;
        for (job, (device, _)) in &self.running {
            if let Some(since) = self.revoked.get(device)
                && now_ms > since + REVOKE_MS_MAX
            {
                late = Some(format!(
                    "the owner comes first: {job} runs on {device} {} ms after it was revoked",
                    now_ms - since
                ));
            }
        }
        if let Some(why) = late {
            self.fail(why);
        }
    }
}
