//! From bytes to an inventory or findings.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Class, Fleet, Gitops, Inventory, Kubernetes, Lending, Network, Node, NodeEntry, Parsed, Pc,
    Secrets, User, check,
    declare::{Rule, Value},
    reader::Reader,
    source::{Finding, Source},
};
use crate::{ClassName, Diagnostic, NodeName, PcName, UserName};

/// The largest file that is read, in bytes; a hundred thousand nodes need about 50 MiB.
const MAX_BYTES: usize = 256 << 20;

/// What could be read of an inventory; a section that couldn't is absent.
pub(crate) struct Draft {
    pub(crate) fleet: Option<Fleet>,
    pub(crate) network: Option<Network>,
    pub(crate) kubernetes: Option<Kubernetes>,
    pub(crate) gitops: Option<Gitops>,
    pub(crate) secrets: Option<Secrets>,
    pub(crate) lending: Option<Lending>,
    pub(crate) classes: BTreeMap<ClassName, Class>,
    pub(crate) nodes: BTreeMap<NodeName, Node>,
    pub(crate) pcs: BTreeMap<PcName, Pc>,
    pub(crate) users: BTreeMap<UserName, User>,
    /// Nodes whose class isn't there, with its name.
    pub(crate) unknown_classes: Vec<(NodeName, ClassName)>,
}

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
    if bytes.len() > MAX_BYTES {
        let message = format!("the file has over {MAX_BYTES} bytes");
        cx.findings.push(Finding::error("too-large", 0..0, message));
    }
    if let Some(at) = source.bad_byte {
        let message = format!("the byte at offset {at} is not UTF-8");
        cx.findings.push(
            Finding::error("not-utf-8", at..at + 1, message)
                .hint("Save the file as UTF-8, which TOML demands."),
        );
    }
    for secret in &source.secrets {
        let message = format!("{} stands here in plain text", secret.what);
        cx.findings.push(
            Finding::error("secret-in-plain-text", secret.span.clone(), message).hint(
                "Take it out, put it in a SOPS file, and make a new one: this one counts as known.",
            ),
        );
    }
    let (root, errors) = DeTable::parse_recoverable(source.text());
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().to_owned();
        let hint = syntax_hint(&message);
        cx.findings
            .push(Finding::error("syntax", span, message).hint(hint));
        cx.incomplete();
    }
    let span = root.span();
    let root = Spanned::new(span, DeValue::Table(root.into_inner()));
    let draft = read(&root, &mut cx);
    check::check(&draft, &root, &mut cx);
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

/// What to do about an error that the TOML parser found, by its message.
fn syntax_hint(message: &str) -> &'static str {
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

fn read(root: &Spanned<DeValue<'_>>, cx: &mut Reader<'_>) -> Draft {
    fn key<T: Value>(
        root: &Spanned<DeValue<'_>>,
        table: &DeTable<'_>,
        name: &'static str,
        cx: &mut Reader<'_>,
    ) -> Option<T> {
        cx.key(root, table, name, Rule::Any, T::absent)
    }
    let empty = DeTable::new();
    let table = cx.section(root, SECTIONS).unwrap_or(&empty);
    let classes: BTreeMap<ClassName, Class> = key(root, table, "classes", cx).unwrap_or_default();
    let entries: BTreeMap<NodeName, NodeEntry> = key(root, table, "nodes", cx).unwrap_or_default();
    let mut nodes = BTreeMap::new();
    let mut unknown_classes = Vec::new();
    for (name, entry) in entries {
        match classes.get(&entry.class) {
            Some(class) => {
                nodes.insert(name, Node::resolve(entry, class));
            }
            None => unknown_classes.push((name, entry.class)),
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
        unknown_classes,
    }
}

impl Draft {
    fn finish(self) -> Option<Inventory> {
        Some(Inventory {
            fleet: self.fleet?,
            network: self.network?,
            kubernetes: self.kubernetes?,
            gitops: self.gitops?,
            secrets: self.secrets?,
            lending: self.lending?,
            classes: self.classes,
            nodes: self.nodes,
            pcs: self.pcs,
            users: self.users,
        })
    }
}
