//! The text of a file: where its lines begin, and which parts of it must not be shown.

use std::{borrow::Cow, ops::Range};

use super::secret;
use crate::{
    Severity,
    diagnostic::{Diagnostic, Excerpt, Place, Related},
};

/// Characters of a line that an excerpt shows before the mark.
const EXCERPT_BEFORE_CHARS: usize = 60;
/// Characters that an excerpt shows of the mark, and of what follows it.
const EXCERPT_CHARS: usize = 100;
/// Findings that one run reports; a file with more is not read by anybody to its end.
const MAX_FINDINGS: usize = 1000;

/// The text of a file.
pub(crate) struct Source<'a> {
    file: &'a str,
    text: Cow<'a, str>,
    /// Offsets at which lines begin; the first is 0.
    line_starts: Vec<usize>,
    /// Secrets, in order and apart from each other.
    pub(crate) secrets: Vec<secret::Secret>,
    /// Offset of the first byte that isn't UTF-8.
    pub(crate) bad_byte: Option<usize>,
}

impl<'a> Source<'a> {
    /// Takes a file's bytes. Those that aren't UTF-8 are read as `?`, one for one, so that all
    /// offsets stay what they are in the file.
    pub(crate) fn new(file: &'a str, bytes: &'a [u8]) -> Self {
        let mut bad_byte = None;
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(first) => {
                bad_byte = Some(first.valid_up_to());
                let mut text = String::with_capacity(bytes.len());
                for chunk in bytes.utf8_chunks() {
                    text.push_str(chunk.valid());
                    text.extend(chunk.invalid().iter().map(|_| '?'));
                }
                Cow::Owned(text)
            }
        };
        let line_starts = std::iter::once(0)
            .chain(
                text.bytes()
                    .enumerate()
                    .filter(|(_, b)| *b == b'\n')
                    .map(|(i, _)| i + 1),
            )
            .collect();
        let secrets = secret::find(&text);
        Self {
            file,
            text,
            line_starts,
            secrets,
            bad_byte,
        }
    }

    /// The text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a range has something in it that must not be shown.
    pub(crate) fn is_secret(&self, span: &Range<usize>) -> bool {
        let next = self.secrets.partition_point(|s| s.span.end <= span.start);
        self.secrets
            .get(next)
            .is_some_and(|s| s.span.start < span.end.max(span.start + 1))
    }

    /// Number of the line (from 0) of an offset, and the line's range without its line break.
    fn line(&self, offset: usize) -> (usize, Range<usize>) {
        let number = self.line_starts.partition_point(|s| *s <= offset).max(1) - 1;
        let start = self.line_starts.get(number).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or("");
        let line = rest.split('\n').next().unwrap_or("");
        let line = line.strip_suffix('\r').unwrap_or(line);
        (number, start..start + line.len())
    }

    /// The largest offset not over the given one that lies between two characters.
    fn floor(&self, offset: usize) -> usize {
        let mut at = offset.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    /// The place of a range.
    pub(crate) fn place(&self, span: &Range<usize>) -> Place {
        let start = self.floor(span.start);
        let (number, line) = self.line(start);
        let before = self.text.get(line.start..start).unwrap_or("");
        Place {
            line: number + 1,
            column: before.chars().count() + 1,
            start_byte: start,
            end_byte: self.floor(span.end.max(start)),
        }
    }

    /// A range's text, made fit to be shown: secrets masked, nothing that moves the cursor.
    fn shown(&self, range: Range<usize>) -> String {
        let text = self.text.get(range.clone()).unwrap_or("");
        let mut next = self.secrets.partition_point(|s| s.span.end <= range.start);
        let mut out = String::with_capacity(text.len());
        for (i, c) in text.char_indices() {
            let at = range.start + i;
            while self.secrets.get(next).is_some_and(|s| s.span.end <= at) {
                next += 1;
            }
            if self.secrets.get(next).is_some_and(|s| s.span.contains(&at)) {
                out.push('*');
            } else {
                push_shown(&mut out, c);
            }
        }
        out
    }

    /// A message, made fit to be shown: names from the file stand in it, and a name can be
    /// anything.
    fn fit(&self, message: &str) -> String {
        let mut message = Cow::Borrowed(message);
        for secret in &self.secrets {
            let text = self.text.get(secret.span.clone()).unwrap_or("");
            if !text.is_empty() && message.contains(text) {
                message = message.replace(text, "***").into();
            }
        }
        let mut out = String::with_capacity(message.len());
        for c in message.chars() {
            push_shown(&mut out, c);
        }
        out
    }

    fn excerpt(&self, place: &Place) -> Excerpt {
        let (_, line) = self.line(place.start_byte);
        let mark_end = place
            .end_byte
            .clamp(place.start_byte, line.end.max(place.start_byte));
        let mut before = self.shown(line.start..place.start_byte);
        let length = before.chars().count();
        if length > EXCERPT_BEFORE_CHARS {
            let kept = before.chars().skip(length - EXCERPT_BEFORE_CHARS + 1);
            before = std::iter::once('…').chain(kept).collect();
        }
        let marked = shortened(self.shown(self.cut(place.start_byte..mark_end)));
        let after = if marked.ends_with('…') {
            String::new()
        } else {
            shortened(self.shown(self.cut(mark_end..line.end.max(mark_end))))
        };
        Excerpt {
            before,
            marked,
            after,
        }
    }

    /// A range without what an excerpt wouldn't show anyway, so that very long lines cost little.
    fn cut(&self, range: Range<usize>) -> Range<usize> {
        // A character has at most four bytes.
        let end = self.floor(range.end.min(range.start + 4 * (EXCERPT_CHARS + 2)));
        range.start..end.max(range.start)
    }
}

/// Adds a character, or what stands for it: tabs would shift the marks below, and control and
/// bidirectional formatting characters could make the terminal show something else.
fn push_shown(out: &mut String, c: char) {
    match c {
        '\t' => out.push_str("    "),
        c if crate::text::is_unseen(c) => out.push('\u{fffd}'),
        c => out.push(c),
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => {
            let mut text = text;
            text.truncate(end);
            text.push('…');
            text
        }
        None => text,
    }
}

/// A finding before it has its place in the text.
pub(crate) struct Finding {
    severity: Severity,
    code: &'static str,
    message: String,
    span: Range<usize>,
    related: Option<(String, Range<usize>)>,
    hint: Option<String>,
}

impl Finding {
    /// A finding that keeps the file from being used.
    pub(crate) fn error(code: &'static str, span: Range<usize>, message: String) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message,
            span,
            related: None,
            hint: None,
        }
    }

    /// A finding that doesn't.
    pub(crate) fn warning(code: &'static str, span: Range<usize>, message: String) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, span, message)
        }
    }

    /// Where it is.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Adds to the message.
    pub(crate) fn add(&mut self, more: &str) {
        self.message.push_str(more);
    }

    /// Says what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names a second place.
    #[must_use]
    pub(crate) fn related(mut self, message: impl Into<String>, span: Range<usize>) -> Self {
        self.related = Some((message.into(), span));
        self
    }

    /// The finding with its place in the text.
    pub(crate) fn place(self, source: &Source<'_>) -> Diagnostic {
        let place = source.place(&self.span);
        Diagnostic {
            severity: self.severity,
            code: self.code.into(),
            message: source.fit(&self.message),
            file: source.file.to_owned(),
            excerpt: source.excerpt(&place),
            place,
            related: self.related.map(|(message, span)| Related {
                message,
                place: source.place(&span),
            }),
            hint: self.hint.map(|hint| source.fit(&hint)),
        }
    }
}

/// The findings of a run.
#[derive(Default)]
pub(crate) struct Findings {
    found: Vec<Finding>,
    /// Findings that were beyond the limit.
    more: usize,
    /// Whether one of them all is an error.
    pub(crate) errors: bool,
}

impl Findings {
    /// Takes a finding.
    pub(crate) fn push(&mut self, finding: Finding) {
        self.errors |= finding.severity == Severity::Error;
        if self.found.len() < MAX_FINDINGS {
            self.found.push(finding);
        } else {
            self.more += 1;
        }
    }

    /// Adds to the message of what was found of a kind at a place, where something was.
    pub(crate) fn add_to(&mut self, code: &str, span: &Range<usize>, more: &str) -> bool {
        let same = |f: &&mut Finding| f.code == code && f.span == *span;
        let Some(finding) = self.found.iter_mut().rev().find(same) else {
            return false;
        };
        finding.add(more);
        true
    }

    /// Takes out what was found of a kind, because something else turned out to be its cause.
    pub(crate) fn forget(&mut self, code: &str) {
        self.found.retain(|finding| finding.code != code);
    }

    /// Gives all findings their places, in the order of the file.
    pub(crate) fn finish(mut self, source: &Source<'_>) -> Vec<Diagnostic> {
        self.found
            .sort_by_key(|f| (f.span.start, f.span.end, f.code));
        if self.more > 0 {
            let end = source.text().len();
            let message = format!("there are {} more findings", self.more);
            let last = Finding::error("too-many-findings", end..end, message)
                .hint("Correct those above, then check again.");
            self.found.push(last);
        }
        self.found
            .into_iter()
            .map(|finding| finding.place(source))
            .collect()
    }
}
