//! Who may fetch and bring what. The content itself lies outside.

use super::{
    record::{JobRecord, Unchanged},
    state::Server,
};
use crate::{
    ids::{DeviceName, JobId, Tenant},
    job::Runtime,
    wire::{Bring, CONTENT_BYTES_MAX, Fetch, Holding, LOG_BYTES_MAX, Made},
};

/// Bytes of a MiB.
const MIB: u64 = 1024 * 1024;

impl<V> Server<V> {
    /// All jobs that the store holds, as far as this server knows, by name.
    pub fn jobs(&self) -> impl Iterator<Item = &JobRecord> {
        self.jobs.values().filter_map(|slot| slot.record.as_ref())
    }

    /// One of them.
    pub fn job(&self, id: &JobId) -> Option<&JobRecord> {
        self.jobs.get(id)?.record.as_ref()
    }

    /// Whether a device may have a part of that content: its job reads or runs it, and is the device's at that
    /// epoch.
    ///
    /// # Errors
    /// Why not.
    pub fn may_fetch(&self, device: &DeviceName, fetch: &Fetch) -> Result<(), String> {
        let job = &self.held(device, &fetch.holding)?.job;
        let digest = fetch.fetching.digest;
        if job.artefact == digest || job.inputs.values().any(|input| *input == digest) {
            Ok(())
        } else {
            Err(format!("{} doesn't read {digest}", job.id))
        }
    }

    /// How many bytes a device may bring of what its job made.
    ///
    /// # Errors
    /// When the job isn't the device's at that epoch.
    pub fn may_bring(&self, device: &DeviceName, bring: &Bring) -> Result<u64, String> {
        let job = &self.held(device, &bring.holding)?.job;
        Ok(match bring.made {
            Made::Log => LOG_BYTES_MAX,
            Made::Output => {
                CONTENT_BYTES_MAX.min(u64::from(job.limits.disk_mb).saturating_mul(MIB))
            }
        })
    }

    /// The record by which a device's owner lends now, as far as this server knows.
    pub fn consent(&self, device: &DeviceName) -> Option<u64> {
        let ledger = &self.devices.get(device)?.ledger;
        ledger.consent().map(|consent| consent.number)
    }

    /// How many devices wait for work now that their owners lend for that tenant and runtime.
    pub fn lenders(&self, tenant: &Tenant, runtime: Runtime) -> usize {
        let waiting = self
            .devices
            .values()
            .filter(|device| device.waiting.is_some());
        let offers = waiting.filter_map(|device| Some(&device.ledger.consent()?.offer));
        offers
            .filter(|offer| offer.runtimes.contains(&runtime))
            .filter(|offer| {
                offer
                    .tenants
                    .as_ref()
                    .is_none_or(|all| all.contains(tenant))
            })
            .count()
    }

    fn held(&self, device: &DeviceName, holding: &Holding) -> Result<&JobRecord, String> {
        let record = self.job(&holding.job).ok_or("there is no such job")?;
        match record.held_by(device, holding.epoch) {
            Ok(_) => Ok(record),
            Err(Unchanged::No(why)) => Err(why),
            Err(Unchanged::Already) => Err("it has happened already".to_owned()),
        }
    }
}
