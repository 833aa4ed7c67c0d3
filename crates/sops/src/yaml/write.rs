//! A tree to YAML, in the form that SOPS itself gives its files: four blanks of indentation, and
//! two for what follows a dash.

use zeroize::Zeroizing;

use super::scalar::is_plain;
use crate::value::{Comment, Element, MapEntry, Value};

/// The indentation of SOPS' own writer, in blanks.
const INDENT: usize = 4;

/// A map as a document.
pub(crate) fn write(entries: &[MapEntry]) -> Zeroizing<String> {
    // Growing would leave copies of secrets behind in memory that was given back.
    let mut length = Length::default();
    document(entries, &mut length);
    let mut out = Zeroizing::new(String::with_capacity(length.0));
    document(entries, &mut *out);
    out
}

fn document<O: Out>(entries: &[MapEntry], out: &mut O) {
    map(entries, 0, out);
    if !has_pairs(entries) {
        out.push_str("{}\n");
    }
}

/// Where the text goes.
trait Out {
    fn push_str(&mut self, text: &str);

    fn push(&mut self, c: char) {
        self.push_str(c.encode_utf8(&mut [0; 4]));
    }
}

impl Out for String {
    fn push_str(&mut self, text: &str) {
        Self::push_str(self, text);
    }
}

/// How long the text is, in bytes.
#[derive(Default)]
struct Length(usize);

impl Out for Length {
    fn push_str(&mut self, text: &str) {
        self.0 += text.len();
    }
}

/// The column of what is set in under a column.
fn below(column: usize) -> usize {
    INDENT * ((column + INDENT) / INDENT)
}

fn blanks<O: Out>(count: usize, out: &mut O) {
    for _ in 0..count {
        out.push(' ');
    }
}

fn comment_line<O: Out>(comment: &Comment, column: usize, out: &mut O) {
    blanks(column, out);
    out.push('#');
    out.push_str(&comment.text);
    out.push('\n');
}

/// The lines of a map, each at the column.
fn map<O: Out>(entries: &[MapEntry], column: usize, out: &mut O) {
    map_after(entries, column, column, out);
}

/// The lines of a map of which the first may follow a dash, and then needs fewer blanks.
fn map_after<O: Out>(entries: &[MapEntry], first: usize, column: usize, out: &mut O) {
    let mut inline: Option<&Comment> = None;
    let mut lead = first;
    for entry in entries {
        match entry {
            MapEntry::Comment(comment) if comment.inline => inline = Some(comment),
            MapEntry::Comment(comment) => {
                comment_line(comment, lead, out);
                lead = column;
            }
            MapEntry::Pair(key, value) => {
                if let Some(comment) = inline.take_if(|_| !one_line(value)) {
                    comment_line(comment, lead, out);
                    lead = column;
                }
                blanks(lead, out);
                lead = column;
                key_text(key, out);
                out.push(':');
                pair_value(value, column, inline.take(), out);
            }
        }
    }
    if let Some(comment) = inline {
        comment_line(comment, column, out);
    }
}

/// Whether a value is written behind its key, in one line.
fn one_line(value: &Value) -> bool {
    match value {
        Value::Map(entries) => entries.is_empty(),
        Value::List(elements) => elements.is_empty(),
        Value::Text(text) => !is_block(text),
        _ => true,
    }
}

fn pair_value<O: Out>(value: &Value, column: usize, inline: Option<&Comment>, out: &mut O) {
    match value {
        Value::Map(entries) if !entries.is_empty() => {
            if entries.iter().all(|e| matches!(e, MapEntry::Comment(_))) {
                out.push_str(" {}\n");
            } else {
                out.push('\n');
            }
            map(entries, below(column), out);
        }
        Value::List(elements) if !elements.is_empty() => {
            if elements.iter().all(|e| matches!(e, Element::Comment(_))) {
                out.push_str(" []\n");
            } else {
                out.push('\n');
            }
            list(elements, below(column), out);
        }
        _ => {
            out.push(' ');
            scalar(value, below(column), inline, out);
        }
    }
}

fn list<O: Out>(elements: &[Element], column: usize, out: &mut O) {
    let mut inline: Option<&Comment> = None;
    for element in elements {
        match element {
            Element::Comment(comment) if comment.inline => inline = Some(comment),
            Element::Comment(comment) => comment_line(comment, column, out),
            Element::Value(value) => {
                if let Some(comment) = inline.take_if(|_| !one_line(value)) {
                    comment_line(comment, column, out);
                }
                // A comment right behind a dash would be read as the dash's.
                let lead = match value {
                    Value::Map(entries) => entries
                        .iter()
                        .map_while(|entry| match entry {
                            MapEntry::Comment(comment) if !comment.inline => Some(comment),
                            _ => None,
                        })
                        .collect(),
                    Value::List(elements) => elements
                        .iter()
                        .map_while(|element| match element {
                            Element::Comment(comment) if !comment.inline => Some(comment),
                            _ => None,
                        })
                        .collect(),
                    _ => Vec::new(),
                };
                for comment in &lead {
                    comment_line(comment, column, out);
                }
                blanks(column, out);
                out.push('-');
                match value {
                    Value::Map(entries) if has_pairs(entries) => {
                        let rest = entries.get(lead.len()..).unwrap_or_default();
                        out.push(' ');
                        map_after(rest, 0, column + 2, out);
                    }
                    Value::List(elements) if elements.len() > lead.len() => {
                        let rest = elements.get(lead.len()..).unwrap_or_default();
                        out.push('\n');
                        list(rest, column + 2, out);
                    }
                    _ => {
                        out.push(' ');
                        scalar(value, below(column), inline.take(), out);
                    }
                }
            }
        }
    }
    if let Some(comment) = inline {
        comment_line(comment, column, out);
    }
}

fn has_pairs(entries: &[MapEntry]) -> bool {
    entries.iter().any(|e| matches!(e, MapEntry::Pair(..)))
}

/// A value and the end of its line; `column` is where the lines of a longer text begin.
fn scalar<O: Out>(value: &Value, column: usize, inline: Option<&Comment>, out: &mut O) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Float(number) => out.push_str(&float(*number)),
        Value::Time(text) => out.push_str(text),
        Value::Text(text) if is_block(text) => {
            block(text, column, out);
            return;
        }
        Value::Text(text) if is_plain(text) => out.push_str(text),
        Value::Text(text) => quoted(text, out),
        Value::Map(_) => out.push_str("{}"),
        Value::List(_) => out.push_str("[]"),
    }
    if let Some(comment) = inline {
        out.push_str(" #");
        out.push_str(&comment.text);
    }
    out.push('\n');
}

/// A number so that it is read as one that isn't whole.
fn float(number: f64) -> String {
    let text = number.to_string();
    if text.contains('.') {
        text
    } else {
        format!("{text}.0")
    }
}

fn key_text<O: Out>(key: &str, out: &mut O) {
    if is_plain(key) {
        out.push_str(key);
    } else {
        quoted(key, out);
    }
}

/// Whether a text is written as a literal block: several lines, and nothing that a block can't
/// say.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text
            .chars()
            .all(|c| c == '\n' || (!c.is_control() && !is_break(c)))
        && text.lines().all(|line| !line.ends_with(' '))
        && !text.ends_with("\n\n")
}

fn block<O: Out>(text: &str, column: usize, out: &mut O) {
    out.push('|');
    if !text.ends_with('\n') {
        out.push('-');
    }
    out.push('\n');
    for line in text.lines() {
        if !line.is_empty() {
            blanks(column, out);
            out.push_str(line);
        }
        out.push('\n');
    }
}

/// Line breaks of Unicode, and the mark of byte order, which readers may change.
fn is_break(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn quoted<O: Out>(text: &str, out: &mut O) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || is_break(c) || u32::from(c) >= 0xfffe => {
                out.push_str(&match u32::from(c) {
                    code if code <= 0xff => format!("\\x{code:02x}"),
                    code if code <= 0xffff => format!("\\u{code:04x}"),
                    code => format!("\\U{code:08x}"),
                });
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
