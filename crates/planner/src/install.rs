//! What a machine is given beside what the inventory says of it.

use undercroft_model::{PlannedDisk, SystemTarget};

/// Everything that a machine's steps need beside the inventory.
#[derive(Debug)]
pub(crate) struct Install {
    /// What is put on the machine; `None` where it is only looked at.
    pub(crate) system: Option<SystemToInstall>,
    pub(crate) generation: u32,
    pub(crate) disks: Vec<PlannedDisk>,
    /// An installer was seen on the machine.
    pub(crate) installer_seen: bool,
}

/// What is put on a machine.
#[derive(Debug)]
pub(crate) struct SystemToInstall {
    pub(crate) target: SystemTarget,
    pub(crate) host_key_fingerprint: String,
}
