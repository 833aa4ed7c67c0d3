//! What a service tells somebody's webhook.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use undercroft_model::document::{Document, Version};

use crate::standing::{Course, ToldWait};

/// Machines that a notice has one by one; of the others it says how many they are.
pub const NOTICE_WAITS_MAX: usize = 50;

/// What a service posts to a webhook when what it waits for changes, when something fails, and when all goes on
/// again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Notice {
    /// The version of this document.
    pub version: Version<1>,
    /// The fleet's name.
    pub fleet: String,
    /// When it was written, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What the service is about now.
    pub course: Course,
    /// What it was about at the notice before, or at the start.
    pub before: Course,
    /// One sentence: why nothing moves, or what does.
    pub sentence: String,
    /// The machines that aren't gone on with, the first of them.
    pub waits: Vec<ToldWait>,
    /// How many more there are.
    pub more_waits: u64,
    /// What has drifted, by the words of its kinds; kinds of which nothing has aren't there.
    #[serde(default)]
    pub drift: BTreeMap<String, u64>,
    /// Notices before this one that were given up, as nobody took them.
    pub missed: u64,
}

impl Document for Notice {
    const NAME: &'static str = "serve-notice";
    const VERSION: u32 = 1;
}
