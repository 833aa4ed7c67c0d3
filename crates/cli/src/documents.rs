//! What commands print with `--json`, beside what `undercroft_fleet::documents` has; and all of it by name, for
//! `undercroft schema --of`.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use undercroft_build::installer::InstallerImage;
use undercroft_fleet::{
    documents::{
        Drift, EventLine, Notice, PlanDocument, ProgressLine, Status, SummaryLine, UpLine,
    },
    releases::ComponentUpdate,
};
use undercroft_journal::{Alarm, PendingReport, TimelineRow};
use undercroft_lending::{owner, server::ServerLine, submit::LendJob};
use undercroft_metal::power::PowerReading;
use undercroft_model::{
    DeviceName, Diagnostic, JobId, NodeName, NodeState,
    document::{Document, Version, schema},
};
use undercroft_netboot::timeline::Diagnosis;
use undercroft_rack::RackStatus;
use undercroft_render::Difference;
use undercroft_secrets::{Changed, Rekeyed, SecretsFinding};
use undercroft_sim::{Rehearsal, RehearsalReport, SeedsReport, Violation};

/// A document's name, and what makes its schema.
pub(crate) type Named = (&'static str, fn() -> Schema);

/// The documents by the names of their commands, and those that are a part of one.
pub(crate) const DOCUMENTS: &[Named] = &[
    ("approve", schema::<Approvals>),
    ("check", schema::<Checked>),
    ("dev-config", schema::<DevConfig>),
    ("doctor", schema::<Doctor>),
    ("drift", schema::<Drift>),
    ("events", schema::<EventLine>),
    ("installer-build", schema::<Image>),
    ("installer-path", schema::<Image>),
    ("journal", schema::<Journal>),
    ("lend-audit-verify", schema::<LendAudit>),
    ("lend-cancel", schema::<LendOneJob>),
    ("lend-demo", schema::<ServerLine>),
    ("lend-doctor", schema::<owner::Doctor>),
    ("lend-jobs", schema::<LendJobs>),
    ("lend-key", schema::<LendKey>),
    ("lend-log", schema::<owner::LendLog>),
    ("lend-offers", schema::<owner::Offers>),
    ("lend-pause", schema::<owner::Status>),
    ("lend-resume", schema::<owner::Status>),
    ("lend-revoke", schema::<owner::Revoked>),
    ("lend-server", schema::<ServerLine>),
    ("lend-status", schema::<owner::Status>),
    ("lend-submit", schema::<LendOneJob>),
    ("plan", schema::<PlanDocument>),
    ("power", schema::<Power>),
    ("progress", schema::<ProgressLine>),
    ("rack-status", schema::<Rack>),
    ("rehearse", schema::<Rehearsed>),
    ("render", schema::<Rendered>),
    ("secrets-check", schema::<SecretsCheck>),
    ("secrets-init", schema::<SecretsInit>),
    ("secrets-list", schema::<SecretsList>),
    ("secrets-rekey", schema::<SecretsRekey>),
    ("secrets-rotate", schema::<SecretsRotate>),
    ("serve", schema::<UpLine>),
    ("serve-notice", schema::<Notice>),
    ("status", schema::<Status>),
    ("summary", schema::<SummaryLine>),
    ("up", schema::<UpLine>),
    ("update", schema::<Updated>),
];

/// Declares documents, each with its name and its version.
macro_rules! documents {
    ($( $name:literal $version:literal $(#[$meta:meta])* $type:ident {
        $( $(#[$of_field:meta])* $field:ident: $of:ty, )*
    } )*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub(crate) struct $type {
            /// The version of this document.
            pub(crate) version: Version<$version>,
            $( $(#[$of_field])* pub(crate) $field: $of, )*
        }

        impl Document for $type {
            const NAME: &'static str = $name;
            const VERSION: u32 = $version;
        }
    )* };
}

documents! {
    "approve" 1
    /// Who waits for an approval.
    Approvals {
        /// The reports of installers that wait.
        waiting: Vec<PendingReport>,
    }

    "check" 1
    /// What is wrong with an inventory.
    Checked {
        /// The file.
        file: String,
        /// Whether it can be used, and with --strict has no warnings either.
        ok: bool,
        /// The fleet's name, where the file can be used.
        fleet: Option<String>,
        /// The inventory's digest, where the file can be used.
        digest: Option<String>,
        /// How many machines it has, where it can be used.
        nodes: usize,
        /// The findings.
        diagnostics: Vec<Diagnostic>,
    }

    "dev-config" 1
    /// A cluster on a developer's PC.
    DevConfig {
        /// Its name.
        cluster: String,
        /// The context of kubectl that it gets.
        context: String,
        /// The arguments of k3d that make it.
        create: Vec<String>,
        /// How many files are rendered.
        files: usize,
        /// The applications in the order in which they come, those of a wave together.
        waves: Vec<Vec<String>>,
        /// What was written.
        changes: Vec<Difference>,
    }

    "doctor" 1
    /// What is the matter with one machine.
    Doctor {
        /// The machine.
        node: NodeName,
        /// How far it has come.
        state: NodeState,
        /// What its boots have shown.
        diagnosis: Diagnosis,
        /// What is the matter.
        verdict: String,
        /// What to do next.
        next: Vec<String>,
        /// What somebody did in its name.
        alarms: Vec<Alarm>,
        /// What was seen of it, the oldest first.
        timeline: Vec<TimelineRow>,
    }

    "journal" 1
    /// How far the journal has come.
    Journal {
        /// How many entries it has.
        entries: u64,
        /// The digest of the last, and through it of all before, in hexadecimal.
        head: Option<String>,
    }

    "lend-audit-verify" 1
    /// Whether a ledger of consent holds.
    LendAudit {
        /// Whose.
        device: DeviceName,
        /// Whether all of it holds.
        holds: bool,
        /// How many records there are.
        records: u64,
        /// The digest of the last, where all hold.
        head: Option<String>,
        /// The record by which its owner lends, where all hold and something is lent.
        consent: Option<u64>,
        /// Jobs that were begun, where all hold.
        begun: Option<u64>,
        /// Receipts, where all hold.
        receipts: Option<u64>,
        /// Jobs that were begun and have no receipt.
        open: Vec<JobId>,
        /// The number of the first record that doesn't hold.
        first_broken: Option<u64>,
        /// Why it doesn't.
        why: Option<String>,
    }

    "lend-jobs" 1
    /// A tenant's lent jobs.
    LendJobs {
        /// By name.
        jobs: Vec<LendJob>,
    }

    "lend-submit" 1
    /// A lent job.
    LendOneJob {
        /// How it stands.
        job: LendJob,
    }

    "lend-key" 1
    /// A key of somebody who submits work, or of the server of lending.
    LendKey {
        /// Its public half.
        nkey: String,
        /// Whether it was made just now.
        is_new: bool,
    }

    "power" 1
    /// Whether a machine is on.
    Power {
        /// The machine.
        node: NodeName,
        /// Whether it is on, as it is afterwards.
        power: PowerReading,
    }

    "render" 1
    /// What a render wrote, or would write.
    Rendered {
        /// The fleet's name.
        fleet: String,
        /// How many files are rendered.
        files: usize,
        /// The applications in the order in which they come, those of a wave together.
        waves: Vec<Vec<String>>,
        /// Whether anything was written.
        written: bool,
        /// What changed, or would.
        changes: Vec<Difference>,
    }

    "secrets-check" 1
    /// What is wrong with the fleet's secrets.
    SecretsCheck {
        /// Whether there is no error.
        ok: bool,
        /// The findings.
        findings: Vec<SecretsFinding>,
    }

    "secrets-init" 1
    /// What was made of the fleet's secrets.
    SecretsInit {
        /// The fleet's own identity, where it was made just now.
        identity: Option<Identity>,
        /// Machines that got a host key.
        host_keys: Vec<NodeName>,
        /// Secrets that were made.
        made: Vec<Changed>,
        /// Secrets that a person must give.
        asked: Vec<Changed>,
        /// Whether the rules for `sops` itself were written.
        rules_written: bool,
    }

    "secrets-list" 1
    /// The fleet's secrets, by name alone.
    SecretsList {
        /// The secrets.
        secrets: Vec<SecretRow>,
    }

    "secrets-rekey" 1
    /// Who can read which files by now.
    SecretsRekey {
        /// The files that changed, or would.
        files: Vec<Rekeyed>,
    }

    "secrets-rotate" 1
    /// Secrets that are new.
    SecretsRotate {
        /// What was changed.
        changed: Vec<Changed>,
    }

    "update" 1
    /// What is newer.
    Updated {
        /// Whether the lock file was written.
        written: bool,
        /// The components that were looked at.
        components: Vec<ComponentUpdate>,
    }
}

/// The fleet's own identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Identity {
    /// Its file.
    pub(crate) path: PathBuf,
    /// Whom files are encrypted to.
    pub(crate) recipient: String,
}

/// One secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SecretRow {
    /// Its name.
    pub(crate) name: String,
    /// Its file, from the repository's folder.
    pub(crate) file: String,
    /// Who reads it.
    pub(crate) readers: String,
    /// Whether it is there, missing, or a person's to give.
    pub(crate) state: String,
    /// What it is for.
    pub(crate) about: String,
}

/// Declares documents that are another crate's type with a version before it.
macro_rules! versioned {
    ($( $name:literal $version:literal $(#[$meta:meta])* $type:ident of $of:ty; )*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub(crate) struct $type {
            /// The version of this document.
            version: Version<$version>,
            #[serde(flatten)]
            of: $of,
        }

        impl Document for $type {
            const NAME: &'static str = $name;
            const VERSION: u32 = $version;
        }

        impl From<$of> for $type {
            fn from(of: $of) -> Self {
                Self { version: Version, of }
            }
        }
    )* };
}

versioned! {
    "installer" 1
    /// An installer's image.
    Image of InstallerImage;

    "rack-status" 1
    /// A rack that is up.
    Rack of RackStatus;

    "rehearse" 1
    /// What many seeds have shown.
    Seeds of SeedsReport;
}

/// What a rehearsal has shown, or with `--seeds` many of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Rehearsed {
    /// One.
    One(Box<RehearsedOne>),
    /// Many.
    Seeds(Seeds),
}

impl Document for Rehearsed {
    const NAME: &'static str = "rehearse";
    const VERSION: u32 = 1;
}

/// What one rehearsal has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RehearsedOne {
    /// The version of this document.
    version: Version<1>,
    /// The SHA-256 of the simulated journal, in hexadecimal: the same wherever it is repeated.
    digest: String,
    /// How many entries the journal has.
    entries: u64,
    /// How many bytes the journal has.
    journal_bytes: u64,
    /// What happened, in figures.
    report: RehearsalReport,
    /// The rule that was broken: a bug in Undercroft.
    violation: Option<Violation>,
    /// The last events, where they were asked for.
    trace: Vec<String>,
}

impl From<Rehearsal> for Rehearsed {
    fn from(rehearsal: Rehearsal) -> Self {
        Self::One(Box::new(RehearsedOne {
            version: Version,
            digest: rehearsal.digest,
            entries: rehearsal.entries,
            journal_bytes: rehearsal.journal_bytes,
            report: rehearsal.report,
            violation: rehearsal.violation,
            trace: rehearsal.trace,
        }))
    }
}

#[cfg(test)]
mod tests;
