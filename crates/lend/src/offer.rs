//! What a device offers, and whether a job fits into it. The server asks this before it hands a job out, and the
//! device asks it again before it starts one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use undercroft_model::inventory::Sensitivity;

use crate::{
    ids::{DeviceClass, Feature, Tenant},
    job::{Job, Limits, Runtime},
};

/// What an owner lends. A job has to fit into all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The kind of device.
    pub class: DeviceClass,
    /// What jobs may run in.
    pub runtimes: BTreeSet<Runtime>,
    /// For whom; `None` for all of the fleet's tenants.
    pub tenants: Option<BTreeSet<Tenant>>,
    /// The most sensitive work that the owner wants on the device.
    pub max_sensitivity: Sensitivity,
    /// What the device has, and jobs may use.
    pub features: BTreeSet<Feature>,
    /// Jobs at a time.
    pub slots: u32,
    /// For all jobs together, each with its own share below it; the time is that of a single job.
    pub limits: Limits,
}

/// What jobs take of an offer already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    slots: u32,
    cpu_percent: u32,
    memory_mb: u32,
    disk_mb: u32,
}

impl Used {
    /// With one more job.
    pub fn with(self, limits: &Limits) -> Self {
        Self {
            slots: self.slots.saturating_add(1),
            cpu_percent: self.cpu_percent.saturating_add(limits.cpu_percent),
            memory_mb: self.memory_mb.saturating_add(limits.memory_mb),
            disk_mb: self.disk_mb.saturating_add(limits.disk_mb),
        }
    }
}

/// Why a job doesn't fit into an offer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Another kind of device is asked for.
    #[error("it asks for a {asked}, and this is a {found}")]
    Class {
        /// What is asked for.
        asked: DeviceClass,
        /// What this is.
        found: DeviceClass,
    },
    /// The runtime isn't offered.
    #[error("{0:?} is not among the runtimes that the owner lends")]
    Runtime(Runtime),
    /// The tenant isn't lent to.
    #[error("the owner doesn't lend to {0}")]
    Tenant(Tenant),
    /// It is more sensitive than the owner wants.
    #[error("it is {0}, which is more than the owner wants here")]
    Sensitivity(Sensitivity),
    /// Something that it needs is absent or not lent.
    #[error("it needs {0}, which is not offered")]
    Feature(Feature),
    /// There is not enough left of something.
    #[error("it takes {asked} {of}, and {left} are left")]
    Room {
        /// Of what, in words, with the unit.
        of: &'static str,
        /// What it takes.
        asked: u32,
        /// What is left.
        left: u32,
    },
}

impl Offer {
    /// What both offer: never more than either.
    pub fn narrowed_by(&self, other: &Self) -> Self {
        let both = |a: &BTreeSet<Feature>, b: &BTreeSet<Feature>| a & b;
        Self {
            class: self.class.clone(),
            runtimes: &self.runtimes & &other.runtimes,
            tenants: match (&self.tenants, &other.tenants) {
                (Some(a), Some(b)) => Some(a & b),
                (some, None) | (None, some) => some.clone(),
            },
            max_sensitivity: self.max_sensitivity.min(other.max_sensitivity),
            features: both(&self.features, &other.features),
            slots: self.slots.min(other.slots),
            limits: Limits {
                cpu_percent: self.limits.cpu_percent.min(other.limits.cpu_percent),
                memory_mb: self.limits.memory_mb.min(other.limits.memory_mb),
                disk_mb: self.limits.disk_mb.min(other.limits.disk_mb),
                wall_s: self.limits.wall_s.min(other.limits.wall_s),
            },
        }
    }

    /// Whether this offers nothing that the other doesn't.
    pub fn is_within(&self, other: &Self) -> bool {
        self.class == other.class && self.narrowed_by(other) == *self
    }

    /// Whether a job fits beside what is used already.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn fits(&self, job: &Job, used: Used) -> Result<(), Misfit> {
        if let Some(asked) = job.class.as_ref().filter(|class| **class != self.class) {
            return Err(Misfit::Class {
                asked: asked.clone(),
                found: self.class.clone(),
            });
        }
        if !self.runtimes.contains(&job.runtime) {
            return Err(Misfit::Runtime(job.runtime));
        }
        if self
            .tenants
            .as_ref()
            .is_some_and(|t| !t.contains(&job.tenant))
        {
            return Err(Misfit::Tenant(job.tenant.clone()));
        }
        if job.sensitivity > self.max_sensitivity {
            return Err(Misfit::Sensitivity(job.sensitivity));
        }
        if let Some(needed) = job.needs.difference(&self.features).next() {
            return Err(Misfit::Feature(needed.clone()));
        }
        let (has, takes) = (&self.limits, &job.limits);
        for (of, asked, has, used) in [
            ("slots", 1, self.slots, used.slots),
            (
                "percent of a processor",
                takes.cpu_percent,
                has.cpu_percent,
                used.cpu_percent,
            ),
            (
                "MiB of memory",
                takes.memory_mb,
                has.memory_mb,
                used.memory_mb,
            ),
            ("MiB of disk", takes.disk_mb, has.disk_mb, used.disk_mb),
            ("seconds", takes.wall_s, has.wall_s, 0),
        ] {
            let left = has.saturating_sub(used);
            if asked > left {
                return Err(Misfit::Room { of, asked, left });
            }
        }
        Ok(())
    }
}
