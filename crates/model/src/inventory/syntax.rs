//! Syntax errors, each told once.
//!
//! A parser that stumbles over one slip stumbles again over what follows it: an array that isn't
//! closed swallows the next lines, and a table that stands twice has all its keys twice. So a file
//! with an error is looked at block by block, a block being a header and the lines up to the next
//! one. Each block tells its first error, and is then taken out of the text; what is left is read
//! and checked as ever, with the knowledge that something is lost.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use toml::de::DeTable;

use super::{source::Finding, words::listed};

/// Errors beyond those of single blocks that are looked for; each costs a reading of the whole text.
const MAX_ROUNDS: usize = 8;
/// Keys in a header that are made out; the inventory's have four at most.
const MAX_HEADER_KEYS: usize = 16;

/// A text without the blocks that can't be read.
pub(super) struct Mended<'t> {
    /// The text; what was taken out is blanks, so that all offsets stay.
    pub(super) text: Cow<'t, str>,
    /// What is wrong with the blocks that were taken out.
    pub(super) findings: Vec<Finding>,
    /// The headers of these blocks, as far as they could be made out.
    pub(super) lost: Vec<Vec<String>>,
    /// Whether nothing can be said of the rest.
    pub(super) hopeless: bool,
}

/// A header and the lines up to the next one, or the lines before the first.
struct Block {
    range: Range<usize>,
    /// The header's own range, and its keys.
    header: Option<(Range<usize>, Vec<String>)>,
    /// Whether the header has two brackets, and so may stand more than once.
    repeats: bool,
}

/// Takes out of a text what isn't TOML.
pub(super) fn mend(text: &str) -> Mended<'_> {
    let mut mended = Mended {
        text: Cow::Borrowed(text),
        findings: Vec::new(),
        lost: Vec::new(),
        hopeless: false,
    };
    if DeTable::parse_recoverable(text).1.is_empty() {
        return mended;
    }
    let blocks = blocks(text);
    let mut gone = vec![false; blocks.len()];
    for (block, gone) in blocks.iter().zip(&mut gone) {
        if let Some(finding) = own_error(text, block) {
            mended.findings.push(finding);
            *gone = true;
        }
    }
    doubled_headers(text, &blocks, &mut gone, &mut mended.findings);
    for round in 0..=MAX_ROUNDS {
        let left = without(text, &blocks, &gone);
        let errors = DeTable::parse_recoverable(&left).1;
        let first = errors.iter().min_by_key(|e| e.span().map(|s| s.start));
        let Some(error) = first else {
            mended.text = Cow::Owned(left);
            break;
        };
        let span = error.span().unwrap_or(0..0);
        let holder = blocks.iter().position(|b| b.range.contains(&span.start));
        let holder = holder.filter(|at| gone.get(*at) == Some(&false));
        mended.findings.push(told(error.message(), span));
        match holder.and_then(|at| gone.get_mut(at)) {
            Some(gone) if round < MAX_ROUNDS => *gone = true,
            _ => {
                mended.hopeless = true;
                break;
            }
        }
    }
    for (block, _) in blocks.iter().zip(&gone).filter(|(_, gone)| **gone) {
        match &block.header {
            Some((_, keys)) => mended.lost.push(keys.clone()),
            None => mended.hopeless = true,
        }
    }
    mended
}

/// The first error that a block has when it is read alone; keys that are given twice are one error
/// together.
fn own_error(text: &str, block: &Block) -> Option<Finding> {
    let own = text.get(block.range.clone())?;
    let errors = DeTable::parse_recoverable(own).1;
    let place = |error: &toml::de::Error| {
        let span = error.span().unwrap_or(0..0);
        span.start + block.range.start..span.end + block.range.start
    };
    let (doubled, others): (Vec<_>, Vec<_>) = errors
        .iter()
        .partition(|e| e.message().contains("duplicate key"));
    if let Some(first) = others.iter().min_by_key(|e| place(e).start) {
        return Some(told(first.message(), place(first)));
    }
    let first = place(doubled.first()?);
    if doubled.len() == 1 {
        return Some(told("duplicate key", first));
    }
    let names: Vec<&str> = doubled
        .iter()
        .filter_map(|e| text.get(place(e)))
        .map(str::trim)
        .collect();
    let message = format!("duplicate keys: {}", listed(names));
    Some(told(&message, first))
}

/// Tables whose header stands twice, each with the tables inside it that follow.
fn doubled_headers(text: &str, blocks: &[Block], gone: &mut [bool], findings: &mut Vec<Finding>) {
    let mut first: BTreeMap<&[String], &Range<usize>> = BTreeMap::new();
    let mut copy: Option<&[String]> = None;
    for (block, gone) in blocks.iter().zip(gone) {
        let Some((span, keys)) = &block.header else {
            continue;
        };
        if copy.is_some_and(|copy| keys.len() > copy.len() && keys.starts_with(copy)) {
            *gone = true;
            continue;
        }
        copy = None;
        if block.repeats || *gone {
            continue;
        }
        if let Some(before) = first.get(keys.as_slice()) {
            let header = text.get(span.clone()).unwrap_or("");
            let hint = if keys.len() > 1 {
                "Give one of the two a name of its own, or take it out."
            } else {
                "Put the keys of both under one header."
            };
            findings.push(
                Finding::error(
                    "syntax",
                    span.clone(),
                    format!("{header} stands here again"),
                )
                .related("it is first given here", (*before).clone())
                .hint(hint),
            );
            copy = Some(keys);
            *gone = true;
        } else {
            first.insert(keys, span);
        }
    }
}

fn told(message: &str, span: Range<usize>) -> Finding {
    Finding::error("syntax", span, message.to_owned()).hint(hint(message))
}

/// A text in which the blocks that are gone are blank.
fn without(text: &str, blocks: &[Block], gone: &[bool]) -> String {
    let mut out = String::with_capacity(text.len());
    for (block, gone) in blocks.iter().zip(gone) {
        let own = text.get(block.range.clone()).unwrap_or("");
        if *gone {
            out.extend(own.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(own);
        }
    }
    out
}

/// The blocks of a text: they follow each other without gaps.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = vec![Block {
        range: 0..0,
        header: None,
        repeats: false,
    }];
    // The quotes of a string that goes on over several lines.
    let mut open: Option<&str> = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        if open.is_none()
            && let Some((span, keys, repeats)) = header(line)
        {
            blocks.push(Block {
                range: start..start,
                header: Some((span.start + start..span.end + start, keys)),
                repeats,
            });
        }
        open = string_after(line, open);
        if let Some(last) = blocks.last_mut() {
            last.range.end = end;
        }
        start = end;
    }
    blocks
}

/// The quotes of the string of several lines that is open at a line's end.
fn string_after<'q>(line: &str, mut open: Option<&'q str>) -> Option<&'q str> {
    const QUOTES: [&str; 2] = ["\"\"\"", "'''"];
    let mut rest = line;
    loop {
        let next = match open {
            Some(quotes) => rest.find(quotes).map(|at| (at, quotes)),
            None => {
                let code = rest.split('#').next().unwrap_or("");
                let found = QUOTES
                    .iter()
                    .filter_map(|q| code.find(q).map(|at| (at, *q)));
                found.min()
            }
        };
        let Some((at, quotes)) = next else {
            return open;
        };
        open = if open.is_some() { None } else { Some(quotes) };
        rest = rest.get(at + quotes.len()..).unwrap_or("");
    }
}

/// A line's header, where it has one, even one that isn't closed: its range in the line, its keys,
/// and whether it has two brackets.
fn header(line: &str) -> Option<(Range<usize>, Vec<String>, bool)> {
    let text = line.trim_start();
    let start = line.len() - text.len();
    let text = text.split('#').next().unwrap_or("").trim_end();
    let inner = text.strip_prefix('[')?;
    let repeats = inner.starts_with('[');
    let inner = inner.strip_prefix('[').unwrap_or(inner);
    let inner = inner.trim_end_matches(']').trim();
    // An item of an array can begin with a bracket too; no section's name begins with a quote.
    if !inner.starts_with(|c: char| c.is_ascii_alphabetic()) || inner.contains([',', '=']) {
        return None;
    }
    let keys = inner
        .split('.')
        .take(MAX_HEADER_KEYS)
        .map(|key| key.trim().trim_matches(['"', '\'']).to_owned())
        .collect();
    Some((start..start + text.len(), keys, repeats))
}

/// What to do about an error that the TOML parser found, by its message.
fn hint(message: &str) -> &'static str {
    let has = |part: &str| message.contains(part);
    if has("duplicate key") {
        "Take one of the two out; a table's keys stand together under one header."
    } else if has("string") {
        "Close the string with the quote that it begins with, on the same line."
    } else if has("unclosed table") {
        "Close the header with `]`."
    } else if has("unclosed array") {
        "Close the array with `]`, and put a comma between its items."
    } else if has("unclosed inline table") {
        "Close the table with `}`, and put a comma between its keys."
    } else if has("key with no value") || has("expected `=`") {
        "Write `key = value`, one to a line."
    } else {
        "A line is `key = value` or a [header]; texts stand in double quotes."
    }
}
