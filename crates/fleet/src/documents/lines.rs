//! What happens, a line of JSON each: the journal's entries, what a run tells while it works, and what it has
//! come to.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use undercroft_metal::world::RunProgress;
use undercroft_model::{
    Entry, JOURNAL_VERSION, Record, RunEnd,
    document::{Document, Version},
    view::FleetView,
};

/// One entry of the journal, as `undercroft events --json` prints it, in the journal's own written form: its
/// version is that form's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLine {
    /// The entry.
    pub entry: Entry,
}

impl Document for EventLine {
    const NAME: &'static str = "events";
    const VERSION: u32 = JOURNAL_VERSION;
}

/// An entry with the version before it. The journal's first record names the version itself.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(flatten)]
    entry: &'a Entry,
}

impl Serialize for EventLine {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let names_it = matches!(self.entry.record, Record::Opened { .. });
        let written = Written {
            version: (!names_it).then_some(JOURNAL_VERSION),
            entry: &self.entry,
        };
        written.serialize(to)
    }
}

impl<'de> Deserialize<'de> for EventLine {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let fields = serde_json::Value::deserialize(from)?;
        let version = fields.get("version").cloned().unwrap_or_default();
        serde_json::from_value::<Version<JOURNAL_VERSION>>(version).map_err(D::Error::custom)?;
        let entry = serde_json::from_value(fields).map_err(D::Error::custom)?;
        Ok(Self { entry })
    }
}

impl JsonSchema for EventLine {
    fn schema_name() -> Cow<'static, str> {
        "EventLine".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Entry::json_schema(generator);
        let version = Version::<JOURNAL_VERSION>::json_schema(generator);
        if let Some(fields) = schema.get_mut("properties").and_then(|f| f.as_object_mut()) {
            fields.insert("version".to_owned(), version.to_value());
        }
        if let Some(required) = schema.get_mut("required").and_then(|r| r.as_array_mut()) {
            required.push("version".into());
        }
        schema
    }
}

/// What a run tells while it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProgressLine {
    /// The version of this document.
    pub version: Version<1>,
    /// What it tells.
    #[serde(flatten)]
    pub progress: RunProgress,
}

impl Document for ProgressLine {
    const NAME: &'static str = "progress";
    const VERSION: u32 = 1;
}

/// What a run has come to: the last line of `undercroft up --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SummaryLine {
    /// The version of this document.
    pub version: Version<1>,
    /// What it has come to.
    pub summary: Summary,
}

impl Document for SummaryLine {
    const NAME: &'static str = "summary";
    const VERSION: u32 = 1;
}

/// What a run has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// How it ended; `None` where it didn't.
    pub end: Option<RunEnd>,
    /// How many machines are where the plan brings them.
    pub up: usize,
    /// How many machines the plan has.
    pub nodes: usize,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What the journal says of the fleet.
    pub view: FleetView,
}

impl SummaryLine {
    /// The summary of what a journal says.
    pub fn of(view: FleetView, end: Option<RunEnd>) -> Self {
        Self {
            version: Version,
            summary: Summary {
                end,
                up: view.counts().done,
                nodes: view.nodes.len(),
                took_ms: view.took_ms(),
                view,
            },
        }
    }
}

/// A line of `undercroft up --json` or `undercroft serve --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum UpLine {
    /// Something happened.
    Event(EventLine),
    /// Something is under way.
    Progress(ProgressLine),
    /// The run has ended.
    Summary(Box<SummaryLine>),
}

impl Document for UpLine {
    const NAME: &'static str = "up";
    const VERSION: u32 = 1;
}
