//! Reports that wait for an operator, and what operators said.

use rusqlite::{OptionalExtension, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use undercroft_model::advice::{Advice, ErrorKind, FileFailure};
use undercroft_model::{Approval, InstallerReport, NodeName};

use super::{
    entries::{signed, unsigned},
    store::{Store, StoreError},
};

/// One of those who claim to be a machine and wait until somebody confirms their fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PendingReport {
    /// The machine that it claims to be.
    pub node: NodeName,
    /// What it reported.
    pub report: InstallerReport,
    /// The word of the boot script that it came from, as the machine's screen shows it; `None` for
    /// an installer that knows of none.
    pub word: Option<String>,
    /// Since when it waits, in milliseconds since the Unix epoch.
    pub since_wall_ms: u64,
}

impl PendingReport {
    /// A report that waits since then.
    pub fn new(node: NodeName, report: InstallerReport, since_wall_ms: u64) -> Self {
        let word = report.token.as_deref();
        let word = word.map(undercroft_netboot::token::word_of);
        Self {
            node,
            report,
            word,
            since_wall_ms,
        }
    }
}

/// What became of an `undercroft approve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
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
    /// Nobody reported that fingerprint in the machine's name.
    #[error(
        "{node} reported the fingerprint {reported}, and {given} was given; nothing was approved"
    )]
    Mismatch {
        /// The machine.
        node: NodeName,
        /// The fingerprints that were reported.
        reported: String,
        /// The fingerprint that was given.
        given: String,
    },
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Advice for ApprovalError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            _ => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotWaiting { .. } => {
                Some("`undercroft approve` without a name lists the machines that wait.")
            }
            Self::Mismatch { .. } => Some(
                "Compare with the machine's own screen. If the screen shows what you gave, something else on the boot network reported in its place: approve none of it, and wait until the machine itself is listed, or run `undercroft doctor NODE` to see who reports.",
            ),
            Self::Store(error) => return error.hint(),
        };
        hint.map(str::to_owned)
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Store(error) => error.file(),
            _ => None,
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
    /// Says who waits in a machine's name, in place of those who did. Who waits already does so
    /// since then.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn set_pending(
        &self,
        node: &NodeName,
        pending: &[PendingReport],
    ) -> Result<(), StoreError> {
        let known = self.pending()?;
        let write = || -> rusqlite::Result<()> {
            let tx = self.connection.unchecked_transaction()?;
            tx.execute("DELETE FROM claims WHERE node = ?1", [node.as_str()])?;
            for (place, waiting) in (0_i64..).zip(pending) {
                let same = |known: &&PendingReport| {
                    known.node == *node && known.report.fingerprint == waiting.report.fingerprint
                };
                let since = known.iter().find(same).unwrap_or(waiting).since_wall_ms;
                // A report is plain data whose serialization can't fail; were it to, an empty text
                // would be refused when it is read.
                let report = serde_json::to_string(&waiting.report).unwrap_or_default();
                tx.execute(
                    "INSERT OR REPLACE INTO claims (node, fingerprint, place, report, since_wall_ms)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        node.as_str(),
                        waiting.report.fingerprint,
                        place,
                        report,
                        signed(since)
                    ],
                )?;
            }
            tx.commit()
        };
        write().map_err(|e| self.err(e))
    }

    /// Says how long the plan that a machine waits by gives an approval, in milliseconds.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn set_approval_term(&self, node: &NodeName, good_for_ms: u64) -> Result<(), StoreError> {
        self.connection
            .execute(
                "INSERT OR REPLACE INTO approval_terms (node, good_for_ms) VALUES (?1, ?2)",
                params![node.as_str(), signed(good_for_ms)],
            )
            .map(drop)
            .map_err(|e| self.err(e))
    }

    /// How long the plan that a machine waits by gives an approval, in milliseconds; `None` where
    /// none has said so.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn approval_term(&self, node: &NodeName) -> Result<Option<u64>, StoreError> {
        self.connection
            .query_row(
                "SELECT good_for_ms FROM approval_terms WHERE node = ?1",
                [node.as_str()],
                |row| Ok(unsigned(row.get(0)?)),
            )
            .optional()
            .map_err(|e| self.err(e))
    }

    /// Takes all who wait in a machine's name from those that wait.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn clear_pending(&self, node: &NodeName) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM claims WHERE node = ?1", [node.as_str()])
            .map(drop)
            .map_err(|e| self.err(e))
    }

    /// Takes all machines from those that wait.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn clear_all_pending(&self) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM claims", [])
            .map(drop)
            .map_err(|e| self.err(e))
    }

    /// Those who wait, by machine; of those in one machine's name the first first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn pending(&self) -> Result<Vec<PendingReport>, StoreError> {
        let read = || -> rusqlite::Result<Vec<(String, String, i64)>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT node, report, since_wall_ms FROM claims ORDER BY node, place",
            )?;
            let rows =
                statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect()
        };
        let rows = read().map_err(|e| self.err(e))?;
        // A row that can't be understood is another version's; it is nothing to approve.
        Ok(rows
            .into_iter()
            .filter_map(|(node, report, since)| {
                let node = NodeName::new(node).ok()?;
                let report = serde_json::from_str(&report).ok()?;
                Some(PendingReport::new(node, report, unsigned(since)))
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
        let waiting = pending.iter().filter(|p| p.node == *node);
        let reported: Vec<&str> = waiting.map(|p| p.report.fingerprint.as_str()).collect();
        if reported.is_empty() {
            let mut others: Vec<NodeName> = pending.into_iter().map(|p| p.node).collect();
            others.dedup();
            let node = node.clone();
            return Err(ApprovalError::NotWaiting { node, others });
        }
        if !reported.contains(&approval.fingerprint.as_str()) {
            return Err(ApprovalError::Mismatch {
                node: node.clone(),
                reported: reported.join(", "),
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
