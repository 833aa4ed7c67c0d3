//! What keeps a tree from being rendered.

use serde::Serialize;

/// Name of the inventory's file.
pub const INVENTORY_FILE: &str = "undercroft.toml";

/// Where in its file a problem is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spot {
    /// A line and a column, counted from 1.
    Line {
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// The keys that lead to it, of the inventory or of a file of values. Whoever has the file's
    /// text finds the line.
    Keys(Vec<String>),
}

/// One thing that is wrong with what was given, found before anything is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// A word for the kind of problem that doesn't change between versions, such as `cycle`.
    pub code: &'static str,
    /// File that it is in, from the inventory's folder, where it is in one.
    pub file: Option<String>,
    /// Where in the file, where that is known.
    pub spot: Option<Spot>,
    /// What is wrong.
    pub message: String,
    /// What to do, as a whole sentence.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of a kind.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            file: None,
            spot: None,
            message: message.into(),
            hint: None,
        }
    }

    /// The same problem in a file.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// The same problem at a line and a column of its file, counted from 1.
    #[must_use]
    pub fn at(mut self, place: Option<(usize, usize)>) -> Self {
        self.spot = place.map(|(line, column)| Spot::Line { line, column });
        self
    }

    /// The same problem at keys of its file.
    #[must_use]
    pub fn at_keys(mut self, keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.spot = Some(Spot::Keys(keys.into_iter().map(Into::into).collect()));
        self
    }

    /// The same problem at a key of the inventory, by the keys that lead to it.
    #[must_use]
    pub fn in_inventory(self, keys: &[&str]) -> Self {
        self.in_file(INVENTORY_FILE).at_keys(keys.iter().copied())
    }

    /// The same problem with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A problem from the error of a TOML file's reader, at its place. Texts of the file aren't shown.
pub fn toml_problem(
    code: &'static str,
    file: &str,
    text: &str,
    error: &toml::de::Error,
) -> Problem {
    let place = error.span().and_then(|span| {
        let before = text.get(..span.start)?;
        let line = before.rsplit('\n').next().unwrap_or_default();
        Some((before.matches('\n').count() + 1, line.chars().count() + 1))
    });
    let message = error.message().trim_end().replace('\n', "; ");
    Problem::new(code, message).in_file(file).at(place)
}
