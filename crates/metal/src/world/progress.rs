//! What a run tells people while it works.

use std::{borrow::Cow, sync::Arc};

use undercroft_model::NodeName;

/// What a run tells people while it works. Nothing is decided by it, and losing some is no harm.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case", tag = "progress")]
pub enum RunProgress {
    /// Bytes under way to a machine.
    Bytes {
        /// The machine.
        node: NodeName,
        /// The step, as [`Action::verb`] names it.
        phase: Cow<'static, str>,
        /// How many bytes have arrived.
        done_bytes: u64,
        /// How many there are, where known.
        total_bytes: Option<u64>,
        /// The rate of the last seconds, in bytes a second.
        bytes_per_s: u64,
        /// The time left at that rate, in seconds, where it can be told.
        left_s: Option<u64>,
    },
    /// A line for people.
    Line {
        /// The machine that it is about, if it is about one.
        node: Option<NodeName>,
        /// The line.
        text: String,
    },
    /// A machine waits for `undercroft approve`.
    WaitsForApproval {
        /// The machine.
        node: NodeName,
        /// The fingerprint that it reported.
        fingerprint: String,
    },
}

/// Where progress goes.
pub type ProgressSink = Arc<dyn Fn(RunProgress) + Send + Sync>;
