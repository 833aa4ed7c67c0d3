//! Who will be able to read secrets, or no longer.

/// Somebody who will be able to read a file of secrets, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReaderChange {
    /// The file, as messages name it.
    pub file: String,
    /// Who it is, such as `operator ada` or `gpu-01`.
    pub who: String,
    /// The recipient, as age writes it.
    pub key: String,
    /// Whether the reader comes, and doesn't go.
    pub comes: bool,
}

/// Changes, each in a line.
pub(super) fn lines(changes: &[ReaderChange]) -> String {
    /// The most that an error lists; a terminal is shown all.
    const LINES_MAX: usize = 20;
    let mut lines: Vec<String> = changes
        .iter()
        .take(LINES_MAX)
        .map(ToString::to_string)
        .collect();
    if changes.len() > LINES_MAX {
        lines.push(format!("and {} more", changes.len() - LINES_MAX));
    }
    lines.join("\n")
}

impl std::fmt::Display for ReaderChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.comes { '+' } else { '-' };
        if self.who == self.key {
            write!(f, "{sign} {} in {}", self.key, self.file)
        } else {
            write!(f, "{sign} {}, {}, in {}", self.who, self.key, self.file)
        }
    }
}
