//! From bytes to an inventory or findings.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Class, Node, NodeEntry, Parsed, check,
    declare::{Rule, Value},
    draft::Draft,
    reader::Reader,
    source::{Finding, Source},
    syntax,
};
use crate::{ClassName, Diagnostic, NodeName};

/// The largest file that is read, in bytes; a hundred thousand nodes need about 50 MiB.
const MAX_BYTES: usize = 256 << 20;

/// The names of the sections, in the order of the reference page.
pub(crate) const SECTIONS: &[&str] = &[
    "fleet",
    "network",
    "kubernetes",
    "gitops",
    "secrets",
    "lending",
    "classes",
    "nodes",
    "pcs",
    "users",
];

/// Reads an inventory.
///
/// Total: any bytes give an inventory or at least one error. `file` is the name that findings
/// carry. All findings of the file come in one run, except that a part that can't be read at all
/// isn't checked further.
pub fn parse(file: &str, bytes: &[u8]) -> Parsed {
    let bytes_read = bytes.get(..MAX_BYTES).unwrap_or(bytes);
    let source = Source::new(file, bytes_read);
    let mut cx = Reader::new(&source);
    for secret in &source.secrets {
        let message = format!("{} stands here in plain text", secret.what);
        cx.findings.push(
            Finding::error("secret-in-plain-text", secret.span.clone(), message).hint(
                "Take it out, put it in a SOPS file, and make a new one: this one counts as known.",
            ),
        );
    }
    // What can't be read as text, or was read to its middle, has no other faults that one could
    // trust.
    if let Some(finding) = unreadable(bytes, &source) {
        cx.findings.push(finding);
        return Parsed {
            inventory: None,
            diagnostics: cx.findings.finish(&source),
        };
    }
    // Whatever is missing from a file of nothing has one cause.
    if says_nothing(source.text()) {
        let finding = Finding::error("empty", 0..0, "the file says nothing".to_owned()).hint(
            "If it should, `git checkout` or a copy brings it back; `undercroft init` makes a new one.",
        );
        cx.findings.push(finding);
        return Parsed {
            inventory: None,
            diagnostics: cx.findings.finish(&source),
        };
    }
    let mended = syntax::mend(source.text());
    if !mended.findings.is_empty() {
        cx.incomplete();
    }
    for finding in mended.findings {
        cx.findings.push(finding);
    }
    let (root, _) = DeTable::parse_recoverable(&mended.text);
    let span = root.span();
    let mut table = root.into_inner();
    for header in &mended.lost {
        forget(&mut table, header, &mut cx);
    }
    let root = Spanned::new(span, DeValue::Table(table));
    if mended.hopeless {
        return Parsed {
            inventory: None,
            diagnostics: cx.findings.finish(&source),
        };
    }
    let draft = read(&root, &mut cx);
    check::check(&draft, &root, &mut cx);
    if cx.strays {
        cx.findings.forget("missing-key");
    }
    let inventory = if cx.findings.errors {
        None
    } else {
        draft.finish()
    };
    Parsed {
        inventory,
        diagnostics: cx.findings.finish(&source),
    }
}

/// An error about a key that was found by others, who compared the inventory with something else:
/// it gets its place in the text. `path` are the keys that lead to it; where the text hasn't got
/// it, the error is at the last of them that it has.
pub fn diagnose(
    file: &str,
    bytes: &[u8],
    path: &[&str],
    code: &'static str,
    message: &str,
    hint: Option<&str>,
) -> Diagnostic {
    let source = Source::new(file, bytes.get(..MAX_BYTES).unwrap_or(bytes));
    let (root, _) = DeTable::parse_recoverable(source.text());
    let span = root.span();
    let root = Spanned::new(span, DeValue::Table(root.into_inner()));
    let mut finding = Finding::error(code, check::at(&root, path), message.to_owned());
    if let Some(hint) = hint {
        finding = finding.hint(hint);
    }
    finding.place(&source)
}

/// Why a file's bytes can't be read as text.
fn unreadable(bytes: &[u8], source: &Source<'_>) -> Option<Finding> {
    if bytes.len() > MAX_BYTES {
        let message = format!("the file has over {MAX_BYTES} bytes");
        return Some(
            Finding::error("too-large", 0..0, message)
                .hint("An inventory is text, and 100,000 machines need a fifth of that: is it the right file?"),
        );
    }
    if let Some(at) = bytes.iter().position(|b| *b == 0) {
        let utf_16 = bytes.iter().filter(|b| **b == 0).count() > bytes.len() / 4;
        let hint = if utf_16 || source.bad_byte == Some(0) {
            UTF_16
        } else {
            "An inventory is text, and this byte is in none: is it the right file, and whole?"
        };
        let code = if utf_16 || source.bad_byte.is_some() {
            "not-utf-8"
        } else {
            "syntax"
        };
        let at = source.bad_byte.map_or(at, |bad| bad.min(at));
        let message = format!("the byte at offset {at} is not text");
        return Some(Finding::error(code, at..at + 1, message).hint(hint));
    }
    let at = source.bad_byte?;
    let byte = bytes.get(at).copied().unwrap_or(0);
    let rest = bytes.get(at..).unwrap_or(&[]);
    let more = rest
        .utf8_chunks()
        .map(|chunk| usize::from(!chunk.invalid().is_empty()))
        .sum::<usize>()
        .saturating_sub(1);
    let mut message = format!("the byte at offset {at} (0x{byte:02x}) is not UTF-8");
    if more > 0 {
        message.push_str(&format!(", and so it is in {more} more places"));
    }
    Some(
        Finding::error("not-utf-8", at..at + 1, message)
            .hint("Save the file as UTF-8, which TOML demands."),
    )
}

/// Whether there is nothing but blanks and comments.
fn says_nothing(text: &str) -> bool {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().map(str::trim);
    lines.all(|line| line.is_empty() || line.starts_with('#'))
}

const UTF_16: &str = "This looks like UTF-16: save the file as UTF-8, which TOML demands.";

/// Takes a section, or an entry of one, out of what was read, because a part of it is lost.
fn forget(table: &mut DeTable<'_>, header: &[String], cx: &mut Reader<'_>) {
    let Some(section) = header.first() else {
        return;
    };
    let entries = ["classes", "nodes", "pcs", "users"].contains(&section.as_str());
    match (entries, header.get(1)) {
        (true, Some(name)) => {
            let Some(section) = table.get_mut(section.as_str()) else {
                return;
            };
            if let DeValue::Table(entries) = section.get_mut() {
                entries.remove(name.as_str());
            }
        }
        _ => {
            cx.lost(section);
            table.remove(section.as_str());
        }
    }
}

fn read(root: &Spanned<DeValue<'_>>, cx: &mut Reader<'_>) -> Draft {
    fn key<T: Value>(
        root: &Spanned<DeValue<'_>>,
        table: &DeTable<'_>,
        name: &'static str,
        cx: &mut Reader<'_>,
    ) -> Option<T> {
        let lost = cx.is_lost(name);
        let absent = || if lost { None } else { T::absent() };
        cx.key(root, table, name, Rule::Any, absent)
    }
    let empty = DeTable::new();
    let table = cx.section(root, SECTIONS).unwrap_or(&empty);
    let classes: BTreeMap<ClassName, Class> = key(root, table, "classes", cx).unwrap_or_default();
    let entries: BTreeMap<NodeName, NodeEntry> = key(root, table, "nodes", cx).unwrap_or_default();
    let mut nodes = BTreeMap::new();
    let mut without_class = BTreeMap::new();
    for (name, entry) in entries {
        match classes.get(&entry.class) {
            Some(class) => {
                nodes.insert(name, Node::resolve(entry, class));
            }
            None => {
                without_class.insert(name, entry);
            }
        }
    }
    Draft {
        fleet: key(root, table, "fleet", cx),
        network: key(root, table, "network", cx),
        kubernetes: key(root, table, "kubernetes", cx),
        gitops: key(root, table, "gitops", cx),
        secrets: key(root, table, "secrets", cx),
        lending: key(root, table, "lending", cx),
        classes,
        nodes,
        pcs: key(root, table, "pcs", cx).unwrap_or_default(),
        users: key(root, table, "users", cx).unwrap_or_default(),
        without_class,
    }
}
