//! The disks of a plan.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{MachineUuid, inventory::DiskRole};

/// What tells one disk from all others. At least one of the two is set.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct DiskIdentity {
    /// The serial number as the disk reports it.
    pub serial: Option<String>,
    /// The World Wide Name or NVMe EUI.
    pub wwn: Option<String>,
}

impl DiskIdentity {
    /// Whether a disk that reports these two is the disk that is meant: every identity that the
    /// inventory gives must be reported and be the same, and at least one must be given. Serial
    /// numbers are the same letter by letter; WWNs are numbers, whose hexadecimal digits may be of
    /// either case.
    ///
    /// The installer's `find_disk` and nix/lib/disks.nix say the same in their languages.
    pub fn matches(&self, serial: Option<&str>, wwn: Option<&str>) -> bool {
        let same_serial = self
            .serial
            .as_deref()
            .is_none_or(|want| serial == Some(want));
        let same_wwn = self
            .wwn
            .as_deref()
            .is_none_or(|want| wwn.is_some_and(|got| got.eq_ignore_ascii_case(want)));
        (self.serial.is_some() || self.wwn.is_some()) && same_serial && same_wwn
    }
}

impl fmt::Display for DiskIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.serial, &self.wwn) {
            (Some(serial), _) => write!(f, "serial {serial}"),
            (None, Some(wwn)) => write!(f, "WWN {wwn}"),
            (None, None) => f.write_str("a disk without identity"),
        }
    }
}

/// A disk that a step writes to, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PlannedDisk {
    /// Which disk.
    pub identity: DiskIdentity,
    /// The inventory's role for it; never [`DiskRole::Keep`].
    pub role: DiskRole,
    /// The least size that the layout needs, in bytes.
    pub size_bytes_min: u64,
    /// The GUID that the disk's partition table gets. It is derived from the fleet, the machine, the
    /// disk's identity, the layout and the machine's `generation`, so that a step that is carried
    /// out again, by this plan or by a later one of the same intent, can tell its own work from
    /// another's and never wipes twice. What the machine is to run has no part in it.
    pub table_guid: MachineUuid,
}
