//! How far a machine's own part of the cluster is.

use undercroft_model::NodeName;

/// The state of the unit that joins a machine, as systemd calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinUnit {
    /// It doesn't run.
    Inactive,
    /// It is at work.
    Activating,
    /// It came to its end.
    Active,
    /// It has failed.
    Failed,
    /// Something else, or it can't be told.
    Unknown,
}

/// How far a machine's part of the cluster is, as the machine itself says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinStatus {
    /// The boot.
    pub boot_id: String,
    /// Whether its unit has once brought it in.
    pub joined: bool,
    /// Whether its unit was ever started in this installation: what the cluster knows of the
    /// machine may then be this installation's.
    pub begun: bool,
    /// Whether kubeadm has come to its end there, so that it isn't called again.
    pub entered: bool,
    /// The unit that joins it.
    pub unit: JoinUnit,
    /// What the unit says, where it has failed.
    pub reason: Option<String>,
}

impl JoinStatus {
    /// Whether it is at work on its join: what it was told for that stands.
    pub(crate) fn is_at_work(&self) -> bool {
        self.unit == JoinUnit::Activating
    }

    /// Whether it is in the middle of its first join.
    pub(crate) fn is_joining(&self) -> bool {
        !self.joined && self.is_at_work()
    }
}

/// Another server of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherServer {
    /// Its name.
    pub name: NodeName,
    /// How far it is; `None` where it can't be asked.
    pub status: Option<JoinStatus>,
}
