//! Who claims to be which machine.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use undercroft_model::{InstallerReport, NodeName};

/// How many claims to be one machine are kept. One is the rule; two while a machine boots anew.
/// More than that are of somebody who uses the machine's own address.
pub(crate) const CLAIMS_MAX: usize = 8;
/// How long a claim that isn't repeated stays one: an installer repeats its report every 15
/// seconds, and a switch may need half a minute to bring a port up again.
pub(crate) const CLAIM_SILENCE: Duration = Duration::from_secs(60);

/// A report, and when it was heard.
#[derive(Debug, Clone)]
pub(crate) struct HeardReport {
    pub(crate) report: InstallerReport,
    heard: Instant,
}

impl HeardReport {
    fn is_fresh(&self) -> bool {
        self.heard.elapsed() < CLAIM_SILENCE
    }
}

/// The claims to be each machine, and a way to wait for the next one. A report is a claim until
/// its fingerprint is approved, and any number of them may come: none pushes out one that is
/// repeated, and what came first stays first.
#[derive(Debug)]
pub(crate) struct ReportBoard {
    claims: Mutex<BTreeMap<NodeName, Vec<HeardReport>>>,
    version: watch::Sender<u64>,
}

impl Default for ReportBoard {
    fn default() -> Self {
        Self {
            claims: Mutex::default(),
            version: watch::Sender::new(0),
        }
    }
}

impl ReportBoard {
    /// Takes a report in. Gives whether it is one that wasn't known.
    pub(crate) fn put(&self, node: &NodeName, report: InstallerReport) -> bool {
        let mut all = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = all.entry(node.clone()).or_default();
        let now = Instant::now();
        let same = |claim: &&mut HeardReport| {
            claim.report.fingerprint == report.fingerprint && claim.report.boot_id == report.boot_id
        };
        let new = if let Some(claim) = claims.iter_mut().find(same) {
            claim.heard = now;
            let new = claim.report != report;
            claim.report = report;
            new
        } else {
            if claims.len() >= CLAIMS_MAX {
                // What is silent makes room, and else what came last: whoever comes with more and
                // more reports pushes out their own.
                let silent = claims.iter().position(|claim| !claim.is_fresh());
                claims.remove(silent.unwrap_or(CLAIMS_MAX - 1));
            }
            claims.push(HeardReport { report, heard: now });
            true
        };
        drop(all);
        // Waiters look at what was heard anew as well as at what is new.
        self.version.send_modify(|version| *version += 1);
        new
    }

    /// The claims to be a machine that are still repeated, the first one first.
    pub(crate) fn claims(&self, node: &NodeName) -> Vec<HeardReport> {
        let all = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = all.get(node).into_iter().flatten();
        claims.filter(|claim| claim.is_fresh()).cloned().collect()
    }

    /// The boots of all claims to be a machine, silent ones too.
    pub(crate) fn boots(&self, node: &NodeName) -> Vec<String> {
        let all = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = all.get(node).into_iter().flatten();
        claims.map(|claim| claim.report.boot_id.clone()).collect()
    }

    /// Waits for a claim to be a machine that `wanted` takes.
    pub(crate) async fn wait(
        &self,
        node: &NodeName,
        wanted: impl Fn(&InstallerReport) -> bool,
    ) -> InstallerReport {
        let mut changes = self.version.subscribe();
        loop {
            changes.borrow_and_update();
            let mut claims = self.claims(node).into_iter();
            if let Some(claim) = claims.find(|claim| wanted(&claim.report)) {
                return claim.report;
            }
            if changes.changed().await.is_err() {
                // The sender is this board's own and lives as long as the wait.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_model::{INSTALLER_REPORT_VERSION, ReportedFirmware, System};

    fn report(number: u32) -> InstallerReport {
        InstallerReport {
            version: INSTALLER_REPORT_VERSION,
            nonce: String::new(),
            uuid: None,
            macs: vec![],
            address: "10.88.0.11".parse().unwrap(),
            boot_id: format!("boot-{number}"),
            host_key: String::new(),
            fingerprint: format!("SHA256:{number}"),
            system: System::X86_64Linux,
            firmware: ReportedFirmware::Uefi,
            memory_mb: 1,
            installer: String::new(),
            token: None,
            disks: vec![],
        }
    }

    #[test]
    fn a_flood_pushes_out_itself() {
        let board = ReportBoard::default();
        let node = NodeName::new("gpu-01").unwrap();
        assert!(board.put(&node, report(0)));
        for number in 1..10_000 {
            board.put(&node, report(number));
        }
        let claims = board.claims(&node);
        assert_eq!(claims.len(), CLAIMS_MAX);
        assert_eq!(claims[0].report, report(0));
        assert!(!board.put(&node, report(0)), "a repetition is no news");
    }
}
