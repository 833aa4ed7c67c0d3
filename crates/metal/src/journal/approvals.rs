//! Reports that wait for an operator, and what operators said.

use rusqlite::{OptionalExtension, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use undercroft_model::{Approval, InstallerReport, NodeName};

use super::{
    entries::{signed, unsigned},
    store::{Store, StoreError},
};

/// A machine whose installer waits until somebody confirms its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingReport {
    /// The machine that it claims to be.
    pub node: NodeName,
    /// What it reported.
    pub report: InstallerReport,
    /// Since when it waits, in milliseconds since the Unix epoch.
    pub since_wall_ms: u64,
}

/// What became of an `undercroft approve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedApproval {
    /// The machine.
    pub node: NodeName,
    /// The approval.
    pub approval: Approval,
}

/// Why a fingerprint was not approved.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// No machine of that name waits.
    #[error("{node} isn't waiting for an approval{}", waiting(.others))]
    NotWaiting {
        /// The machine that was named.
        node: NodeName,
        /// The machines that do wait.
        others: Vec<NodeName>,
    },
    /// The machine reported another fingerprint.
    #[error(
        "{node} reported the fingerprint {reported}, and {given} was given; nothing was approved"
    )]
    Mismatch {
        /// The machine.
        node: NodeName,
        /// The fingerprint that its installer reported.
        reported: String,
        /// The fingerprint that was given.
        given: String,
    },
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ApprovalError {
    /// What to try, in a sentence.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotWaiting { .. } => {
                Some("`undercroft approve` without a name lists the machines that wait.")
            }
            Self::Mismatch { .. } => Some(
                "Compare with the machine's own screen. If the screen shows what you gave, something else on the boot network reported in its place: don't approve it.",
            ),
            Self::Store(error) => error.hint(),
        }
    }
}

fn waiting(others: &[NodeName]) -> String {
    if others.is_empty() {
        return "; no machine is".to_owned();
    }
    let names: Vec<&str> = others.iter().map(NodeName::as_str).collect();
    format!(
        "; {} {}",
        names.join(", "),
        if names.len() == 1 { "is" } else { "are" }
    )
}

impl Store {
    /// Puts a machine's report among those that wait, in place of an older one.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn set_pending(&self, pending: &PendingReport) -> Result<(), StoreError> {
        // A report is plain data whose serialization can't fail; were it to, an empty text would
        // be refused when it is read.
        let report = serde_json::to_string(&pending.report).unwrap_or_default();
        self.connection
            .execute(
                "INSERT INTO pending (node, fingerprint, report, since_wall_ms)
                 VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (node) DO UPDATE SET
                     fingerprint = excluded.fingerprint,
                     report = excluded.report,
                     since_wall_ms = excluded.since_wall_ms
                 WHERE pending.report <> excluded.report",
                params![
                    pending.node.as_str(),
                    pending.report.fingerprint,
                    report,
                    signed(pending.since_wall_ms)
                ],
            )
            .map(drop)
            .map_err(|e| self.err(e))
    }

    /// Takes a machine's report with this fingerprint from those that wait.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn clear_pending(&self, node: &NodeName, fingerprint: &str) -> Result<(), StoreError> {
        self.connection
            .execute(
                "DELETE FROM pending WHERE node = ?1 AND fingerprint = ?2",
                params![node.as_str(), fingerprint],
            )
            .map(drop)
            .map_err(|e| self.err(e))
    }

    /// Takes all machines from those that wait.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn clear_all_pending(&self) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM pending", [])
            .map(drop)
            .map_err(|e| self.err(e))
    }

    /// The machines that wait, by name.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn pending(&self) -> Result<Vec<PendingReport>, StoreError> {
        let read = || -> rusqlite::Result<Vec<(String, String, i64)>> {
            let mut statement = self
                .connection
                .prepare_cached("SELECT node, report, since_wall_ms FROM pending ORDER BY node")?;
            let rows =
                statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect()
        };
        let rows = read().map_err(|e| self.err(e))?;
        // A row that can't be understood is another version's; it is nothing to approve.
        Ok(rows
            .into_iter()
            .filter_map(|(node, report, since)| {
                Some(PendingReport {
                    node: NodeName::new(node).ok()?,
                    report: serde_json::from_str(&report).ok()?,
                    since_wall_ms: unsigned(since),
                })
            })
            .collect())
    }

    /// Approves the fingerprint that a machine waits with. A controller that runs sees it within
    /// [`crate::approval::APPROVAL_POLL_INTERVAL`]; one that is started later, when it asks.
    ///
    /// # Errors
    /// When the machine doesn't wait, or with another fingerprint.
    pub fn approve(
        &mut self,
        node: &NodeName,
        approval: Approval,
    ) -> Result<GrantedApproval, ApprovalError> {
        let pending = self.pending()?;
        let Some(waiting) = pending.iter().find(|p| p.node == *node) else {
            return Err(ApprovalError::NotWaiting {
                node: node.clone(),
                others: pending.into_iter().map(|p| p.node).collect(),
            });
        };
        if waiting.report.fingerprint != approval.fingerprint {
            return Err(ApprovalError::Mismatch {
                node: node.clone(),
                reported: waiting.report.fingerprint.clone(),
                given: approval.fingerprint,
            });
        }
        let write = |store: &mut Self| -> rusqlite::Result<()> {
            let tx = store
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute(
                "INSERT INTO approvals
                     (node, fingerprint, granted_by, granted_wall_ms, expires_wall_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (node, fingerprint) DO UPDATE SET
                     granted_by = excluded.granted_by,
                     granted_wall_ms = excluded.granted_wall_ms,
                     expires_wall_ms = excluded.expires_wall_ms",
                params![
                    node.as_str(),
                    approval.fingerprint,
                    approval.by,
                    signed(approval.granted_wall_ms),
                    signed(approval.expires_wall_ms)
                ],
            )?;
            tx.commit()
        };
        write(self).map_err(|e| self.err(e))?;
        Ok(GrantedApproval {
            node: node.clone(),
            approval,
        })
    }

    /// The approval of a machine's fingerprint that is good at `wall_ms`, if there is one.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn approval(
        &self,
        node: &NodeName,
        fingerprint: &str,
        wall_ms: u64,
    ) -> Result<Option<Approval>, StoreError> {
        self.connection
            .prepare_cached(
                "SELECT granted_by, granted_wall_ms, expires_wall_ms FROM approvals
                 WHERE node = ?1 AND fingerprint = ?2 AND expires_wall_ms > ?3",
            )
            .and_then(|mut statement| {
                statement
                    .query_row(
                        params![node.as_str(), fingerprint, signed(wall_ms)],
                        |row| {
                            Ok(Approval {
                                fingerprint: fingerprint.to_owned(),
                                by: row.get(0)?,
                                granted_wall_ms: unsigned(row.get(1)?),
                                expires_wall_ms: unsigned(row.get(2)?),
                            })
                        },
                    )
                    .optional()
            })
            .map_err(|e| self.err(e))
    }
}
