//! The latest report of each machine's installer.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;
use undercroft_model::{InstallerReport, NodeName};

/// The latest report of each machine, and a way to wait for the next one. A report is a claim
/// until its fingerprint is approved.
#[derive(Debug)]
pub(crate) struct ReportBoard {
    latest: Mutex<BTreeMap<NodeName, InstallerReport>>,
    version: watch::Sender<u64>,
}

impl Default for ReportBoard {
    fn default() -> Self {
        Self {
            latest: Mutex::default(),
            version: watch::Sender::new(0),
        }
    }
}

impl ReportBoard {
    /// Takes a report in. Gives whether it differs from the one before.
    pub(crate) fn put(&self, node: &NodeName, report: InstallerReport) -> bool {
        let before = self
            .latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node.clone(), report.clone());
        let new = before.as_ref() != Some(&report);
        if new {
            self.version.send_modify(|version| *version += 1);
        }
        new
    }

    /// The latest report of a machine.
    pub(crate) fn latest(&self, node: &NodeName) -> Option<InstallerReport> {
        self.latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(node)
            .cloned()
    }

    /// Waits for a report of a machine that `wanted` takes.
    pub(crate) async fn wait(
        &self,
        node: &NodeName,
        wanted: impl Fn(&InstallerReport) -> bool,
    ) -> InstallerReport {
        let mut changes = self.version.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(report) = self.latest(node).filter(&wanted) {
                return report;
            }
            if changes.changed().await.is_err() {
                // The sender is this board's own and lives as long as the wait.
                std::future::pending::<()>().await;
            }
        }
    }
}
