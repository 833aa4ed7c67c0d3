//! A tree to YAML, in the form that SOPS itself gives its files: four blanks of indentation, and
//! two for what follows a dash.

use zeroize::Zeroizing;

use super::scalar::is_plain;
use crate::value::{Comment, Element, Entry, Value};

/// The indentation of SOPS' own writer, in blanks.
const INDENT: usize = 4;

/// A map as a document.
pub(crate) fn write(entries: &[Entry]) -> Zeroizing<String> {
    // Growing would leave copies of secrets behind in memory that was given back.
    let mut out = Zeroizing::new(String::with_capacity(entries_bytes(entries, 0)));
    if entries.iter().any(|entry| matches!(entry, Entry::Pair(..))) {
        map(entries, 0, &mut out);
    } else {
        map(entries, 0, &mut out);
        out.push_str("{}\n");
    }
    out
}

/// More than enough room, in bytes.
fn entries_bytes(entries: &[Entry], column: usize) -> usize {
    entries
        .iter()
        .map(|entry| match entry {
            Entry::Comment(comment) => comment.text.len() + column + 8,
            Entry::Pair(key, value) => 4 * key.len() + column + 8 + value_bytes(value, column),
        })
        .sum::<usize>()
        + 8
}

fn value_bytes(value: &Value, column: usize) -> usize {
    let next = column + INDENT;
    match value {
        Value::Map(entries) => entries_bytes(entries, next),
        Value::List(elements) => elements
            .iter()
            .map(|element| match element {
                Element::Comment(comment) => comment.text.len() + next + 8,
                Element::Value(value) => next + 8 + value_bytes(value, next),
            })
            .sum(),
        Value::Text(text) | Value::Time(text) => {
            let lines = text.bytes().filter(|b| *b == b'\n').count();
            4 * text.len() + (lines + 1) * (next + INDENT) + 16
        }
        Value::Null | Value::Bool(_) | Value::Int(_) => 32,
        // The longest notation without an exponent of a finite number.
        Value::Float(_) => 512,
    }
}

/// The column of what is set in under a column.
fn below(column: usize) -> usize {
    INDENT * ((column + INDENT) / INDENT)
}

fn blanks(count: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', count));
}

fn comment_line(comment: &Comment, column: usize, out: &mut String) {
    blanks(column, out);
    out.push('#');
    out.push_str(&comment.text);
    out.push('\n');
}

/// The lines of a map, each at the column.
fn map(entries: &[Entry], column: usize, out: &mut String) {
    map_after(entries, column, column, out);
}

/// The lines of a map of which the first may follow a dash, and then needs fewer blanks.
fn map_after(entries: &[Entry], first: usize, column: usize, out: &mut String) {
    let mut inline: Option<&Comment> = None;
    let mut lead = first;
    for entry in entries {
        match entry {
            Entry::Comment(comment) if comment.inline => inline = Some(comment),
            Entry::Comment(comment) => {
                comment_line(comment, lead, out);
                lead = column;
            }
            Entry::Pair(key, value) => {
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

fn pair_value(value: &Value, column: usize, inline: Option<&Comment>, out: &mut String) {
    match value {
        Value::Map(entries) if !entries.is_empty() => {
            if entries.iter().all(|e| matches!(e, Entry::Comment(_))) {
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

fn list(elements: &[Element], column: usize, out: &mut String) {
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
                            Entry::Comment(comment) if !comment.inline => Some(comment),
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
                out.push_str("- ");
                match value {
                    Value::Map(entries) if has_pairs(entries) => {
                        let rest = entries.get(lead.len()..).unwrap_or_default();
                        map_after(rest, 0, column + 2, out);
                    }
                    Value::List(elements) if elements.len() > lead.len() => {
                        out.pop();
                        out.push('\n');
                        let rest = elements.get(lead.len()..).unwrap_or_default();
                        list(rest, column + 2, out);
                    }
                    _ => scalar(value, below(column), inline.take(), out),
                }
            }
        }
    }
    if let Some(comment) = inline {
        comment_line(comment, column, out);
    }
}

fn has_pairs(entries: &[Entry]) -> bool {
    entries.iter().any(|e| matches!(e, Entry::Pair(..)))
}

/// A value and the end of its line; `column` is where the lines of a longer text begin.
fn scalar(value: &Value, column: usize, inline: Option<&Comment>, out: &mut String) {
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

fn key_text(key: &str, out: &mut String) {
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

fn block(text: &str, column: usize, out: &mut String) {
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

fn quoted(text: &str, out: &mut String) {
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
