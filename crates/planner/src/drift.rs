//! Drift: what of the fleet isn't as the inventory and its systems want it.
//!
//! A look ([`DriftLook`]) is judged into what was found and what couldn't be seen; both are taken into what is
//! remembered ([`DriftMemory`]), and only a finding that two looks had counts. Silence is no drift: what doesn't
//! answer begins no finding and ends none.

mod answer;
mod judge;
mod memory;
mod seen;
mod words;

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use undercroft_model::NodeName;

pub use self::{
    answer::{ANSWER_BYTES_MAX, AnswerError, machine_answer},
    judge::FINDINGS_KIND_MAX,
    memory::{
        DriftFinding, DriftHold, DriftMemory, DriftReport, HOLD_BYTES_MAX, HOLDS_MAX, HoldError,
        LOOKS_COUNT,
    },
    seen::{
        ApplicationLook, AuthorizedKey, BootReport, CheckLook, ClusterLook, DriftLook, FellBack,
        FoundKeys, HealthReport, MachineLook, NodeLook, Room,
    },
};

/// What can drift.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum DriftKind {
    /// The system that is active isn't the one that was built for the machine.
    System,
    /// The system that was booted isn't the one that is active.
    Booted,
    /// The next boot isn't that of the generation that proved itself.
    BootDefault,
    /// A generation on trial was left, and no other has proved itself since.
    FellBack,
    /// A unit of systemd's has failed.
    Unit,
    /// A check of the machine's own health has failed.
    Health,
    /// An SSH key lets somebody in that the machine's system doesn't name.
    Key,
    /// The Nix store has little room.
    StoreRoom,
    /// The EFI system partition has no room for another kernel.
    EspRoom,
    /// The clock is off.
    Clock,
    /// A label that the inventory asks for is missing or another.
    Label,
    /// An annotation that the inventory asks for is missing or another.
    Annotation,
    /// A taint that the inventory asks for is missing.
    Taint,
    /// The Node is cordoned, and nobody has said why.
    Cordon,
    /// The kubelet is newer than the API, or more than one minor older.
    Kubelet,
    /// An application of Argo CD's is out of sync, or isn't healthy.
    Application,
}

impl DriftKind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 16] = [
        Self::System,
        Self::Booted,
        Self::BootDefault,
        Self::FellBack,
        Self::Unit,
        Self::Health,
        Self::Key,
        Self::StoreRoom,
        Self::EspRoom,
        Self::Clock,
        Self::Label,
        Self::Annotation,
        Self::Taint,
        Self::Cordon,
        Self::Kubelet,
        Self::Application,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Booted => "booted",
            Self::BootDefault => "boot-default",
            Self::FellBack => "fell-back",
            Self::Unit => "unit",
            Self::Health => "health",
            Self::Key => "key",
            Self::StoreRoom => "store-room",
            Self::EspRoom => "esp-room",
            Self::Clock => "clock",
            Self::Label => "label",
            Self::Annotation => "annotation",
            Self::Taint => "taint",
            Self::Cordon => "cordon",
            Self::Kubelet => "kubelet",
            Self::Application => "application",
        }
    }

    /// Whether the cluster's API tells of it, rather than the machine over SSH.
    pub fn is_of_api(self) -> bool {
        matches!(
            self,
            Self::Label
                | Self::Annotation
                | Self::Taint
                | Self::Cordon
                | Self::Kubelet
                | Self::Application
        )
    }

    /// Who mends it.
    pub fn fix(self) -> Fix {
        match self {
            Self::Label | Self::Annotation | Self::Taint => Fix::Auto,
            Self::System | Self::Kubelet => Fix::Plan,
            _ => Fix::Person,
        }
    }
}

impl fmt::Display for DriftKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no kind of drift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKind;

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = DriftKind::ALL.map(DriftKind::as_str);
        write!(
            f,
            "no kind of drift has that name; there are {}",
            words.join(", ")
        )
    }
}

impl std::error::Error for UnknownKind {}

impl FromStr for DriftKind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.as_str() == word).ok_or(UnknownKind)
    }
}

/// Who mends what has drifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fix {
    /// `undercroft up` or `serve`, without disturbing anything.
    Auto,
    /// A plan that a person has seen: it restarts or changes what runs.
    Plan,
    /// A person, who decides.
    Person,
}

impl Fix {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Plan => "plan",
            Self::Person => "person",
        }
    }
}

/// What a look could not see: nothing of it is found, and nothing of it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unseen {
    /// The machine; `None` for what the cluster's API tells of all.
    pub node: Option<NodeName>,
    /// What couldn't be seen.
    pub kinds: Vec<DriftKind>,
    /// Which of these alone, such as a check; `None` for all.
    pub subject: Option<String>,
    /// Why.
    pub why: String,
}
