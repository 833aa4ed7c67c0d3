//! Which machines are meant: by their names, their classes' names, or patterns.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use undercroft_model::{
    NodeName,
    advice::{Advice, ErrorKind},
    inventory::Inventory,
    view::FleetView,
    words::list,
};

/// A word that means no machine: a typo must not pass for "all", nor for "nothing to do".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The inventory has no such machine and no such class.
    #[error("{} has no node {word}", file.display())]
    NoNode {
        /// The inventory.
        file: PathBuf,
        /// The word.
        word: String,
        /// The machines that it has.
        nodes: Vec<NodeName>,
    },
    /// No machine's name is of a pattern.
    #[error("no node of {} is of the pattern {word}", file.display())]
    NoMatch {
        /// The inventory.
        file: PathBuf,
        /// The pattern.
        word: String,
        /// The machines that it has.
        nodes: Vec<NodeName>,
    },
    /// A class has no machine.
    #[error("no node of {} belongs to the class {word}", file.display())]
    EmptyClass {
        /// The inventory.
        file: PathBuf,
        /// The class.
        word: String,
    },
    /// The journal has no such machine, and the inventory can't be asked.
    #[error("the journal has no machine {word}")]
    NotInJournal {
        /// The word.
        word: String,
    },
}

impl Advice for SelectError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoNode { nodes, .. } | Self::NoMatch { nodes, .. } => {
                let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
                Some(format!("It has {}.", list(&names)))
            }
            Self::EmptyClass { .. } => None,
            Self::NotInJournal { .. } => {
                Some("The inventory can't be used; `undercroft check` says why.".to_owned())
            }
        }
    }
}

/// The machines of an inventory that words mean; `None` where there is no word, and so all are meant. A word is
/// a machine's name, its class's, or a pattern in which `*` stands for any characters and `?` for one.
///
/// # Errors
/// When a word means none. `file` is the inventory's name for that.
pub fn machines(
    file: &Path,
    inventory: &Inventory,
    words: &[String],
) -> Result<Option<BTreeSet<NodeName>>, SelectError> {
    if words.is_empty() {
        return Ok(None);
    }
    let mut meant = BTreeSet::new();
    for word in words {
        let found = one(inventory, word);
        if found.is_empty() {
            return Err(nothing(file, inventory, word));
        }
        meant.extend(found);
    }
    Ok(Some(meant))
}

/// The same of those that the inventory or the journal knows: what has happened to a machine can be asked for
/// when it isn't in the inventory any more.
///
/// # Errors
/// When a word means none.
pub fn known_machines(
    file: &Path,
    inventory: Option<&Inventory>,
    view: &FleetView,
    words: &[String],
) -> Result<Option<BTreeSet<NodeName>>, SelectError> {
    if words.is_empty() {
        return Ok(None);
    }
    let mut meant = BTreeSet::new();
    for word in words {
        let mut found = inventory.map(|i| one(i, word)).unwrap_or_default();
        let of_journal = view.nodes.keys();
        found.extend(
            of_journal
                .filter(|name| matches(word, name.as_str()))
                .cloned(),
        );
        match (found.is_empty(), inventory) {
            (false, _) => meant.extend(found),
            (true, Some(inventory)) => return Err(nothing(file, inventory, word)),
            (true, None) => return Err(SelectError::NotInJournal { word: word.clone() }),
        }
    }
    Ok(Some(meant))
}

/// The machines that words mean, told one by one as they are met in a journal that is read once.
#[derive(Debug)]
pub struct Meant<'a> {
    file: &'a Path,
    inventory: Option<&'a Inventory>,
    /// The words, and whether each has met a machine.
    words: Vec<(&'a str, bool)>,
    of_inventory: BTreeSet<NodeName>,
}

impl<'a> Meant<'a> {
    /// What those words mean; without any, all machines. `file` is the inventory's name for errors.
    pub fn new(file: &'a Path, inventory: Option<&'a Inventory>, words: &'a [String]) -> Self {
        let mut of_inventory = BTreeSet::new();
        let words = words.iter().map(|word| {
            let found = inventory.map(|i| one(i, word)).unwrap_or_default();
            let met = !found.is_empty();
            of_inventory.extend(found);
            (word.as_str(), met)
        });
        Self {
            file,
            inventory,
            words: words.collect(),
            of_inventory,
        }
    }

    /// Whether there is no word, and so everything is meant.
    pub fn is_all(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether a machine that was met is meant.
    pub fn is_meant(&mut self, name: &NodeName) -> bool {
        let mut is = self.is_all() || self.of_inventory.contains(name);
        for (word, met) in &mut self.words {
            if matches(word, name.as_str()) {
                *met = true;
                is = true;
            }
        }
        is
    }

    /// Whether each word has met a machine by now.
    ///
    /// # Errors
    /// When one hasn't.
    pub fn all_met(&self) -> Result<(), SelectError> {
        match (self.words.iter().find(|(_, met)| !met), self.inventory) {
            (None, _) => Ok(()),
            (Some((word, _)), Some(inventory)) => Err(nothing(self.file, inventory, word)),
            (Some((word, _)), None) => Err(SelectError::NotInJournal {
                word: (*word).to_owned(),
            }),
        }
    }
}

/// The machines that one word means: a machine's own name before its class's.
fn one(inventory: &Inventory, word: &str) -> Vec<NodeName> {
    let all = inventory.nodes.iter();
    if let Some((name, _)) = all.clone().find(|(name, _)| name.as_str() == word) {
        return vec![name.clone()];
    }
    let of_class = all.clone().filter(|(_, node)| node.class.as_str() == word);
    let of_class: Vec<NodeName> = of_class.map(|(name, _)| name.clone()).collect();
    if !of_class.is_empty() || !word.contains(['*', '?']) {
        return of_class;
    }
    all.filter(|(name, _)| matches(word, name.as_str()))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Whether a text is of a pattern, in which `*` stands for any characters and `?` for one.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and what it stands for so far: going back there alone is enough.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') => (p, t) = (p + 1, t + 1),
            Some(c) if text.get(t) == Some(c) => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((at, upto)) = star else {
                    return false;
                };
                star = Some((at, upto + 1));
                (p, t) = (at + 1, upto + 1);
            }
        }
    }
    pattern.iter().skip(p).all(|c| *c == b'*')
}

fn nothing(file: &Path, inventory: &Inventory, word: &str) -> SelectError {
    let (file, word) = (file.to_owned(), word.to_owned());
    let nodes = inventory.nodes.keys().cloned().collect();
    if word.contains(['*', '?']) {
        SelectError::NoMatch { file, word, nodes }
    } else if inventory.classes.keys().any(|class| class.as_str() == word) {
        SelectError::EmptyClass { file, word }
    } else {
        SelectError::NoNode { file, word, nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, is) in [
            ("gpu-*", "gpu-01", true),
            ("gpu-*", "gpu-", true),
            ("gpu-*", "xgpu-01", false),
            ("*-01", "gpu-01", true),
            ("*-01", "gpu-011", false),
            ("gpu-0?", "gpu-07", true),
            ("gpu-0?", "gpu-0", false),
            ("*", "anything", true),
            ("**a**b*", "xaxbx", true),
            ("*a*b", "aab", true),
            ("?", "", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }
}
