//! What a server of lending goes by: the inventory's word on devices, submitters and limits, as it is and in the file
//! that a server without the repository is given.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use undercroft_model::inventory::{self, Inventory, Sensitivity};

use crate::{
    DeviceName, SubmitterName, Tenant,
    consent::{Keys, PublicKey},
    job::{Label, Rules, Runtime},
};

/// Whoever brings work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSubmitter {
    /// For whom.
    pub tenant: Tenant,
    /// How sensitive what they bring is at least.
    pub brings: Label,
}

/// What the server goes by.
#[derive(Debug, Clone)]
pub struct LendingFleet {
    /// The fleet's name.
    pub name: String,
    /// The devices that may take work, and the keys that their ledgers are signed with.
    pub devices: BTreeMap<DeviceName, Keys>,
    /// Who brings work.
    pub submitters: BTreeMap<SubmitterName, KnownSubmitter>,
    /// What may be lent.
    pub rules: Rules,
    /// How long a lease holds without renewal, in milliseconds.
    pub lease_ms: u64,
}

/// Why an inventory has nothing for a server of lending.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLending {
    /// It isn't switched on.
    #[error("this fleet doesn't lend: `lending.enabled` is false")]
    Disabled,
}

impl undercroft_model::advice::Advice for NoLending {
    fn kind(&self) -> undercroft_model::advice::ErrorKind {
        undercroft_model::advice::ErrorKind::Input
    }

    fn hint(&self) -> Option<String> {
        Some("Set `enabled = true` under [lending], with `nats_url` and `tenants`.".to_owned())
    }
}

impl LendingFleet {
    /// What an inventory says. A PC without keys isn't enrolled yet, and is no device.
    ///
    /// # Errors
    /// When it doesn't lend.
    pub fn of(inventory: &Inventory) -> Result<Self, NoLending> {
        let lending = &inventory.lending;
        if !lending.enabled {
            return Err(NoLending::Disabled);
        }
        let tenant = |name: &String| Tenant::new(name.as_str()).ok();
        Ok(Self {
            name: inventory.fleet.name.clone(),
            devices: devices(inventory),
            submitters: lending
                .submitters
                .iter()
                .filter_map(|(name, submitter)| {
                    let known = KnownSubmitter {
                        tenant: tenant(&submitter.tenant)?,
                        brings: label(submitter.brings),
                    };
                    Some((name.clone(), known))
                })
                .collect(),
            rules: Rules {
                tenants: lending.tenants.iter().filter_map(tenant).collect(),
                runtimes: lending
                    .runtimes
                    .iter()
                    .filter_map(|r| runtime(*r))
                    .collect(),
                max_sensitivity: lending.max_sensitivity,
                wall_s_max: lending.job_wall_s,
                attempts_max: lending.attempts,
            },
            lease_ms: u64::from(lending.lease_s).saturating_mul(1000),
        })
    }
}

/// The devices of an inventory that lend, with the keys of their ledgers.
pub fn devices(inventory: &Inventory) -> BTreeMap<DeviceName, Keys> {
    let pcs = inventory.pcs.iter().filter(|(_, pc)| pc.lend.enabled);
    pcs.filter_map(|(name, pc)| {
        let keys = Keys {
            owner: PublicKey(pc.lend.owner_key.clone()?),
            device: PublicKey(pc.lend.nkey.clone()?),
        };
        // A PC's name is a DNS label as a device's is.
        Some((DeviceName::new(name.as_str()).ok()?, keys))
    })
    .collect()
}

/// A runtime of the inventory as work is lent in it. Containers aren't: a static program or a store path does.
pub fn runtime(runtime: inventory::Runtime) -> Option<Runtime> {
    match runtime {
        inventory::Runtime::Wasm => Some(Runtime::Wasm),
        inventory::Runtime::Process => Some(Runtime::Process),
        inventory::Runtime::Nix => Some(Runtime::Nix),
        inventory::Runtime::Oci => None,
    }
}

fn label(sensitivity: Sensitivity) -> Label {
    match sensitivity {
        Sensitivity::Public => Label::Public,
        Sensitivity::Internal => Label::Internal,
    }
}

/// The form in which a server without the repository is told: what the flake writes for a machine, and the rendered
/// tree has for the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetFile {
    /// The version of this form.
    pub version: u32,
    /// The fleet's name.
    pub fleet: String,
    /// Devices and their two keys.
    pub devices: BTreeMap<DeviceName, FileKeys>,
    /// Who brings work.
    pub submitters: BTreeMap<SubmitterName, FileSubmitter>,
    /// For whom.
    pub tenants: BTreeSet<Tenant>,
    /// What jobs may run in.
    pub runtimes: BTreeSet<Runtime>,
    /// The most sensitive work that is lent.
    #[serde(rename = "maxSensitivity")]
    pub max_sensitivity: Label,
    /// Seconds for which a lease holds without renewal.
    #[serde(rename = "leaseS")]
    pub lease_s: u32,
    /// Times that a job may be started.
    pub attempts: u32,
    /// The longest that a job may run, in seconds.
    #[serde(rename = "jobWallS")]
    pub job_wall_s: u32,
}

/// A device's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileKeys {
    /// The device's.
    pub nkey: String,
    /// Its owner's.
    #[serde(rename = "ownerKey")]
    pub owner_key: String,
}

/// Whoever brings work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSubmitter {
    /// For whom.
    pub tenant: Tenant,
    /// How sensitive what they bring is at least.
    pub brings: Label,
}

/// The version of [`FleetFile`].
const FILE_VERSION: u32 = 1;

/// Why a file says nothing for a server.
#[derive(Debug, thiserror::Error)]
pub enum BadFleetFile {
    /// It isn't such a file.
    #[error("it can't be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It is of another version.
    #[error("it is of version {0}, and this program reads {FILE_VERSION}")]
    Version(u32),
    /// It would lend what can't be lent.
    #[error("`maxSensitivity` is secret, and secret work is never lent")]
    Secret,
}

impl FleetFile {
    /// What a server goes by, as such a file says it.
    pub fn of(fleet: &LendingFleet) -> Self {
        let rules = &fleet.rules;
        let devices = fleet.devices.iter().map(|(name, keys)| {
            let keys = FileKeys {
                nkey: keys.device.0.clone(),
                owner_key: keys.owner.0.clone(),
            };
            (name.clone(), keys)
        });
        let submitters = fleet.submitters.iter().map(|(name, known)| {
            let submitter = FileSubmitter {
                tenant: known.tenant.clone(),
                brings: known.brings,
            };
            (name.clone(), submitter)
        });
        Self {
            version: FILE_VERSION,
            fleet: fleet.name.clone(),
            devices: devices.collect(),
            submitters: submitters.collect(),
            tenants: rules.tenants.clone(),
            runtimes: rules.runtimes.clone(),
            max_sensitivity: label(rules.max_sensitivity),
            // A lease is whole seconds, as it comes from the inventory or from such a file.
            lease_s: u32::try_from(fleet.lease_ms / 1000).unwrap_or(u32::MAX),
            attempts: rules.attempts_max,
            job_wall_s: rules.wall_s_max,
        }
    }

    /// Reads a file that the flake, or the rendered tree, has.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(bytes: &[u8]) -> Result<LendingFleet, BadFleetFile> {
        let file: Self = serde_json::from_slice(bytes)?;
        if file.version != FILE_VERSION {
            return Err(BadFleetFile::Version(file.version));
        }
        let max_sensitivity = file.max_sensitivity.lendable();
        let keys = |keys: FileKeys| Keys {
            owner: PublicKey(keys.owner_key),
            device: PublicKey(keys.nkey),
        };
        Ok(LendingFleet {
            name: file.fleet,
            devices: file
                .devices
                .into_iter()
                .map(|(n, k)| (n, keys(k)))
                .collect(),
            submitters: file
                .submitters
                .into_iter()
                .map(|(name, submitter)| {
                    let known = KnownSubmitter {
                        tenant: submitter.tenant,
                        brings: submitter.brings,
                    };
                    (name, known)
                })
                .collect(),
            rules: Rules {
                tenants: file.tenants,
                runtimes: file.runtimes,
                max_sensitivity: max_sensitivity.ok_or(BadFleetFile::Secret)?,
                wall_s_max: file.job_wall_s,
                attempts_max: file.attempts,
            },
            lease_ms: u64::from(file.lease_s).saturating_mul(1000),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_the_inventory_says() {
        let text = "[fleet]\nname = \"lent\"\n[network]\nnode_cidr = \"10.0.0.0/24\"\nserver_address = \"10.0.0.1\"\n\
             [users.kim]\n[lending]\nenabled = true\nnats_url = \"tls://nats.lent.example:4222\"\nlease_s = 90\n\
             tenants = [\"research\"]\nruntimes = [\"oci\", \"process\"]\nmax_sensitivity = \"internal\"\n\
             [lending.submitters.ci]\nnkey = \"UANRLCBZ7CVDHHUJXNILCYB6SDWGRYH5KVS74EFHZMZHFH6564DQVGKZ\"\ntenant = \"research\"\n\
             [pcs.kims]\nos = \"linux\"\nsystem = \"x86_64-linux\"\nusers = [\"kim\"]\n\
             lend = { enabled = true, nkey = \"UD664QYNIC6VPXXKYGDM3F4QAM6Q6BXZBGUIA3T443TRPK34PVICTSWH\", \
             owner_key = \"UBGBAKLJP3RVQ4K5HIKKFLOYC7CLAFSRIQG6QCBXD54BMWWJBXCYCPAP\" }\n";
        let parsed = inventory::parse("undercroft.toml", text.as_bytes());
        let inventory = parsed.inventory.expect("an inventory");
        let fleet = LendingFleet::of(&inventory).unwrap();
        assert_eq!((fleet.devices.len(), fleet.submitters.len()), (1, 1));
        let file = serde_json::to_vec(&FleetFile::of(&fleet)).unwrap();
        let read = FleetFile::read(&file).unwrap();
        assert_eq!(format!("{read:?}"), format!("{fleet:?}"));
    }
}
