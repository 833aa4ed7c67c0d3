//! What is wrong with a file, where, and what to do about it.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};
use unicode_width::UnicodeWidthChar;

/// How much a finding matters.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// What it is about can't be used, or carried out, as it is.
    Error,
    /// It can be used, and is probably not what was meant.
    Warning,
}

impl Severity {
    /// The severity as one word in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A place in a text: the line and column that a person counts, and the bytes.
#[derive(
    Debug,
    Clone,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub struct Place {
    /// Line, counted from 1.
    pub line: usize,
    /// Column, counted from 1 in characters (Unicode scalar values).
    pub column: usize,
    /// Offset of the first marked byte.
    pub start_byte: usize,
    /// Offset of the byte after the last marked one.
    pub end_byte: usize,
}

/// One finding about a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Diagnostic {
    /// Whether the file can be used all the same.
    pub severity: Severity,
    /// A word for the kind of finding that doesn't change between versions, such as `unknown-key`.
    pub code: Cow<'static, str>,
    /// What is wrong, without place and hint.
    pub message: String,
    /// The file's name as the caller gave it.
    pub file: String,
    /// Where it is.
    pub place: Place,
    /// The line of the place, shortened around it where long, with secrets masked.
    pub excerpt: Excerpt,
    /// Another place that belongs to the finding, such as the first use of a doubled address.
    pub related: Option<Related>,
    /// What to do, as a whole sentence.
    pub hint: Option<String>,
}

/// A piece of one line of source text with a part of it marked.
///
/// Tabs and control characters are already replaced by blanks and marks of one column, so that
/// the text can go to any terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Excerpt {
    /// The text before the mark.
    pub before: String,
    /// The marked text; empty where the place is the end of the line.
    pub marked: String,
    /// The text after the mark.
    pub after: String,
}

/// A second place of a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Related {
    /// What is there, as a phrase: "first given here".
    pub message: String,
    /// Where it is, in the same file.
    pub place: Place,
}

impl Diagnostic {
    /// Whether the finding keeps the file from being used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The finding in pieces that carry their meaning, for a caller that wants colours.
    pub fn pieces(&self) -> Vec<Piece> {
        let mut out = Pieces(Vec::new());
        let role = match self.severity {
            Severity::Error => Role::Error,
            Severity::Warning => Role::Warning,
        };
        out.push(role, format!("{}[{}]", self.severity.as_str(), self.code));
        out.push(Role::Strong, format!(": {}\n", self.message));
        let number = self.place.line.to_string();
        let gutter = number.len();
        out.push(Role::Gutter, format!("{:gutter$}--> ", ""));
        out.push(
            Role::Plain,
            format!("{}:{}:{}\n", self.file, self.place.line, self.place.column),
        );
        out.push(Role::Gutter, format!("{:gutter$} |\n{number} | ", ""));
        let Excerpt {
            before,
            marked,
            after,
        } = &self.excerpt;
        out.push(Role::Plain, format!("{before}{marked}{after}\n"));
        out.push(Role::Gutter, format!("{:gutter$} | ", ""));
        let carets = "^".repeat(width(marked).max(1));
        out.push(Role::Plain, " ".repeat(width(before)));
        out.push(role, format!("{carets}\n"));
        if let Some(related) = &self.related {
            out.push(Role::Gutter, format!("{:gutter$} = ", ""));
            out.push(Role::Strong, "note".to_owned());
            out.push(
                Role::Plain,
                format!(
                    ": {} ({}:{}:{})\n",
                    related.message, self.file, related.place.line, related.place.column
                ),
            );
        }
        if let Some(hint) = &self.hint {
            out.push(Role::Gutter, format!("{:gutter$} = ", ""));
            out.push(Role::Hint, "hint".to_owned());
            out.push(Role::Plain, format!(": {hint}\n"));
        }
        out.0
    }
}

impl fmt::Display for Diagnostic {
    /// The finding in several lines of plain text, ending with a line break.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.pieces() {
            f.write_str(&piece.text)?;
        }
        Ok(())
    }
}

/// A stretch of a rendered finding; the stretches together are its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What the stretch is.
    pub role: Role,
    /// Its text, with its line breaks.
    pub text: String,
}

/// What a stretch of a rendered finding is, for colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Text as it is.
    Plain,
    /// The head or the carets of an error.
    Error,
    /// The head or the carets of a warning.
    Warning,
    /// The message.
    Strong,
    /// Line numbers and the rule beside the source.
    Gutter,
    /// The word before a hint.
    Hint,
}

struct Pieces(Vec<Piece>);

impl Pieces {
    fn push(&mut self, role: Role, text: String) {
        self.0.push(Piece { role, text });
    }
}

/// Columns of a terminal that a text takes, where no character is a control character.
fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(1)).sum()
}
