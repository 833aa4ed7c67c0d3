//! How a rehearsal is done.

use undercroft_simkit::Faults;

use crate::profile::Profile;

/// How a rehearsal is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RehearseOptions {
    /// The seed that all chance follows from.
    pub seed: u64,
    /// How much goes wrong.
    pub faults: Faults,
    /// How long things take.
    pub profile: Profile,
    /// The number of machines to rehearse with, where it isn't the inventory's.
    pub nodes: Option<usize>,
    /// Whether the last events are kept for people to read.
    pub trace: bool,
    /// Whether the journal's bytes are kept.
    pub keep_journal: bool,
}

impl Default for RehearseOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            faults: Faults::None,
            profile: Profile::metal(),
            nodes: None,
            trace: false,
            keep_journal: false,
        }
    }
}
