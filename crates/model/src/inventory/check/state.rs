//! What the checks of one file share: the draft, the text, and how findings get their places.

use std::{collections::BTreeMap, ops::Range};

use toml::{Spanned, de::DeValue};

use super::causes::Causes;
use crate::inventory::{draft::Draft, reader::Reader, source::Finding};

/// The state of the checks of one file.
pub(super) struct Check<'c, 's> {
    pub(super) draft: &'c Draft,
    pub(super) root: &'c Spanned<DeValue<'c>>,
    pub(super) cx: &'c mut Reader<'s>,
    pub(super) causes: Causes,
}

/// What is at a path.
pub(super) struct Found<'v> {
    pub(super) steps: usize,
    pub(super) key: Option<Range<usize>>,
    pub(super) value: &'v Spanned<DeValue<'v>>,
}

/// The value at a path, as far as the path goes: the number of steps that were found, the last
/// value, and the key that it stands under where that is a table's.
pub(super) fn find<'v>(root: &'v Spanned<DeValue<'v>>, path: &[&str]) -> Found<'v> {
    let mut found = Found {
        steps: 0,
        key: None,
        value: root,
    };
    for step in path {
        let next = match found.value.get_ref() {
            DeValue::Table(table) => table
                .get_key_value(*step)
                .map(|(key, value)| (Some(key.span()), value)),
            DeValue::Array(items) => {
                let item = step.parse().ok().and_then(|i: usize| items.get(i));
                item.map(|value| (None, value))
            }
            _ => None,
        };
        let Some((key, value)) = next else {
            break;
        };
        found = Found {
            steps: found.steps + 1,
            key,
            value,
        };
    }
    found
}

/// The marked text for a path: the value, or of a table its name in the header. Where the path ends
/// early, the last part that is there.
pub(crate) fn at(root: &Spanned<DeValue<'_>>, path: &[&str]) -> Range<usize> {
    let found = find(root, path);
    match found.key {
        _ if found.steps == 0 => 0..0,
        Some(key) if found.value.get_ref().is_table() => key,
        _ => found.value.span(),
    }
}

impl Check<'_, '_> {
    pub(super) fn find(&self, path: &[&str]) -> Found<'_> {
        find(self.root, path)
    }

    pub(super) fn at(&self, path: &[&str]) -> Range<usize> {
        at(self.root, path)
    }

    /// The marked text for a key rather than its value.
    pub(super) fn at_key(&self, path: &[&str], key: &str) -> Range<usize> {
        let path: Vec<&str> = path.iter().copied().chain([key]).collect();
        let found = self.find(&path);
        match found.key {
            Some(key) if found.steps == path.len() => key,
            _ => self.at(&path),
        }
    }

    /// Whether there is a value at a path in the file.
    pub(super) fn has(&self, path: &[&str]) -> bool {
        self.find(path).steps == path.len()
    }

    /// Whether everything under a path of two keys could be read, so that what is absent there
    /// is absent in the file too.
    pub(super) fn whole(&self, section: &str, name: &str) -> bool {
        self.cx.is_whole(section, name)
    }

    pub(super) fn report(&mut self, finding: Finding) {
        self.cx.findings.push(finding);
    }

    pub(super) fn error(
        &mut self,
        code: &'static str,
        path: &[&str],
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let finding = Finding::error(code, self.at(path), message.into()).hint(hint);
        self.report(finding);
    }

    pub(super) fn warning(
        &mut self,
        code: &'static str,
        path: &[&str],
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let finding = Finding::warning(code, self.at(path), message.into()).hint(hint);
        self.report(finding);
    }

    /// Reports what is given twice, at the later of the two places.
    pub(super) fn duplicate(
        &mut self,
        code: &'static str,
        first: &[&str],
        second: &[&str],
        message: String,
        hint: &str,
    ) {
        let finding = self.doubled(code, first, second, message, hint);
        self.report(finding);
    }

    pub(super) fn doubled(
        &self,
        code: &'static str,
        first: &[&str],
        second: &[&str],
        message: String,
        hint: &str,
    ) -> Finding {
        let (a, b) = (self.at(first), self.at(second));
        let (first, second) = if a.start <= b.start { (a, b) } else { (b, a) };
        Finding::error(code, second, message)
            .related("it is first given here", first)
            .hint(hint)
    }

    /// Whether every node of the file is in the draft, and is there once, and no other is spoken of: how
    /// many there are is certain then.
    pub(super) fn all_nodes_read(&self) -> bool {
        self.cx.knows_names("nodes")
            && self.names("nodes").len() == self.draft.nodes.len()
            && !self.has_copies("nodes")
            && !self.misses("nodes")
    }

    /// The names in a section as they stand in the file, whether or not they could be read.
    pub(super) fn names(&self, section: &str) -> Vec<&str> {
        match self.root.get_ref().get(section).map(Spanned::get_ref) {
            Some(DeValue::Table(table)) => table.keys().map(|k| &**k.get_ref()).collect(),
            _ => Vec::new(),
        }
    }
}

/// The places at which values were first seen.
pub(super) struct Seen<K, P> {
    first: BTreeMap<K, P>,
}

impl<K: Ord, P: Clone> Seen<K, P> {
    pub(super) fn new() -> Self {
        Self {
            first: BTreeMap::new(),
        }
    }

    /// Notes a value; gives the place where it was seen before.
    pub(super) fn note(&mut self, value: K, place: P) -> Option<P> {
        match self.first.entry(value) {
            std::collections::btree_map::Entry::Occupied(seen) => Some(seen.get().clone()),
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert(place);
                None
            }
        }
    }
}
