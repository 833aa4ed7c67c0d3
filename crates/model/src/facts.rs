//! What the records have shown of a machine, as far as its next steps stand on it: the one fold that the engine resumes
//! from and that people are shown.

use serde::{Deserialize, Serialize};

use crate::{Approval, Evidence, InstallerReport, NodeState, Step};

/// What the journal has shown of one machine so far, as far as a step may need it. It holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NodeFacts {
    /// The installer's report that the machine's current steps stand on.
    pub report: Option<InstallerReport>,
    /// The approval of that report's fingerprint.
    pub approval: Option<Approval>,
    /// The boot id that the last successful step saw.
    pub boot_id: Option<String>,
    /// The boot in which its next system was staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged_boot_id: Option<String>,
    /// The system to which it goes back by itself where it isn't well with that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goes_back_to: Option<String>,
    /// The devices of the planned disks, in the plan's order, as the inspection found them.
    pub disk_paths: Vec<String>,
    /// The host key under which the machine was proved to run its own system, since its steps began last. A view has
    /// what it was ever proved to have in this plan.
    // A view that holds these facts has a `host_key_fingerprint` of its own beside them.
    #[serde(rename = "proved_host_key_fingerprint")]
    pub host_key_fingerprint: Option<String>,
}

impl NodeFacts {
    /// What the evidence of a step that succeeded shows. A report that had to give way to another comes back.
    pub fn learn(&mut self, evidence: &Evidence) -> Option<InstallerReport> {
        match evidence {
            Evidence::Seen { report } => {
                self.reported(report);
            }
            Evidence::Approved { approval, report } => {
                let before = report.as_deref().and_then(|report| self.reported(report));
                self.approval = Some(approval.clone());
                return before;
            }
            Evidence::Inspected {
                boot_id,
                disk_paths,
            } => {
                self.boot_id = Some(boot_id.clone());
                self.disk_paths.clone_from(disk_paths);
            }
            Evidence::Partitioned { boot_id, .. }
            | Evidence::Copied { boot_id, .. }
            | Evidence::Installed { boot_id, .. }
            | Evidence::Rebooted { boot_id }
            | Evidence::Joined { boot_id, .. }
            | Evidence::Ready { boot_id, .. } => self.boot_id = Some(boot_id.clone()),
            Evidence::Up {
                boot_id,
                host_key_fingerprint,
                ..
            } => {
                self.boot_id = Some(boot_id.clone());
                self.host_key_fingerprint = Some(host_key_fingerprint.clone());
            }
            Evidence::Fetched { boot_id } | Evidence::Restarted { boot_id } => {
                self.boot_id = Some(boot_id.clone());
            }
            Evidence::Staged {
                boot_id,
                goes_back_to,
            } => {
                self.goes_back_to.clone_from(goes_back_to);
                self.boot_id = Some(boot_id.clone());
                self.staged_boot_id = Some(boot_id.clone());
            }
            Evidence::Bootstrapped { .. }
            | Evidence::Drained { .. }
            | Evidence::Released { .. } => {}
        }
        None
    }

    /// A new boot of the installer has a new key: an approval never outlives the report that it was given for.
    fn reported(&mut self, report: &InstallerReport) -> Option<InstallerReport> {
        let new = Self {
            boot_id: Some(report.boot_id.clone()),
            report: Some(report.clone()),
            ..Self::default()
        };
        std::mem::replace(self, new).report
    }

    /// The machine begins again at a step, and what that step and those after it have shown is forgotten. A report that
    /// no step stands on any longer comes back.
    pub fn begin_again(&mut self, from: &Step) -> Option<InstallerReport> {
        let state = from.requires;
        if state >= NodeState::Up {
            // What the machine has shown of itself stands: its system and its key are as they were.
            return None;
        }
        if state < NodeState::Seen {
            return std::mem::take(self).report;
        }
        if state < NodeState::Approved {
            self.approval = None;
        }
        if state < NodeState::InstallerReady {
            self.disk_paths.clear();
        }
        self.host_key_fingerprint = None;
        self.boot_id = self.report.as_ref().map(|report| report.boot_id.clone());
        None
    }
}
