//! Which machines are meant: by their names, their classes' names, or patterns.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use undercroft_model::{NodeName, inventory::Inventory, view::FleetView};

use crate::{
    args::one_folder,
    complete,
    error::CliError,
    project::{INVENTORY_FILE, Project},
};

/// The machines that a command is about, and its folder.
#[derive(Debug, Args, Clone)]
pub(crate) struct WhereArgs {
    /// Machines, as NODE, CLASS or PATTERN ("gpu-*"); or the folder with undercroft.toml, as -C
    #[arg(value_name = "NODE|DIR", add = ArgValueCompleter::new(complete::selectors_or_folders))]
    words: Vec<String>,
}

/// The words of [`WhereArgs`], told apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Where {
    /// The folder, where one is named.
    pub(crate) folder: Option<PathBuf>,
    /// The words for machines.
    pub(crate) machines: Vec<String>,
}

impl WhereArgs {
    /// The folder, given here or by `-C`, and the words for machines.
    pub(crate) fn split(&self, global: Option<&Path>) -> Result<Where, CliError> {
        let mut folder: Option<&Path> = None;
        let mut machines = Vec::new();
        for word in &self.words {
            if !is_folder(word) {
                machines.extend(word.split(',').map(str::to_owned));
            } else if let Some(other) = folder {
                return Err(CliError::usage(format!(
                    "two folders are given: {} and {word}",
                    other.display()
                ))
                .hint("Give one of them."));
            } else {
                folder = Some(Path::new(word));
            }
        }
        Ok(Where {
            folder: one_folder(folder, global)?.map(Path::to_owned),
            machines,
        })
    }
}

/// Whether a word is a folder's rather than a machine's: no machine's name has a slash or a dot, and
/// a bare word is a folder where it holds an inventory.
fn is_folder(word: &str) -> bool {
    let path = Path::new(word);
    word.contains('/') || word.contains('.') || path.join(INVENTORY_FILE).is_file()
}

/// The machines that are meant; `None` where no word says any, and so all are.
///
/// # Errors
/// When a word means none: a typo must not pass for "all", nor for "nothing to do".
pub(crate) fn machines(
    project: &Project,
    inventory: &Inventory,
    words: &[String],
) -> Result<Option<BTreeSet<NodeName>>, CliError> {
    if words.is_empty() {
        return Ok(None);
    }
    let mut meant = BTreeSet::new();
    for word in words {
        let found = one(inventory, word);
        if found.is_empty() {
            return Err(nothing(project, inventory, word));
        }
        meant.extend(found);
    }
    Ok(Some(meant))
}

/// The machines that are meant, of those that the inventory or the journal knows: what has happened to
/// a machine can be asked for when it isn't in the inventory any more.
pub(crate) fn known(
    project: &Project,
    inventory: Option<&Inventory>,
    view: &FleetView,
    words: &[String],
) -> Result<Option<BTreeSet<NodeName>>, CliError> {
    if words.is_empty() {
        return Ok(None);
    }
    let mut meant = BTreeSet::new();
    for word in words {
        let mut found = inventory.map(|i| one(i, word)).unwrap_or_default();
        found.extend(
            view.nodes
                .keys()
                .filter(|name| matches(word, name.as_str()))
                .cloned(),
        );
        match (found.is_empty(), inventory) {
            (false, _) => meant.extend(found),
            (true, Some(inventory)) => return Err(nothing(project, inventory, word)),
            (true, None) => {
                return Err(
                    CliError::usage(format!("the journal has no machine {word}"))
                        .hint("The inventory can't be used; `undercroft check` says why."),
                );
            }
        }
    }
    Ok(Some(meant))
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

fn nothing(project: &Project, inventory: &Inventory, word: &str) -> CliError {
    let file = project.inventory.display();
    if word.contains(['*', '?']) {
        return CliError::usage(format!("no node of {file} is of the pattern {word}"))
            .hint(node_names(inventory));
    }
    let message = format!("{file} has no node {word}");
    if inventory.classes.keys().any(|class| class.as_str() == word) {
        return CliError::usage(format!("no node of {file} belongs to the class {word}"));
    }
    CliError::usage(message).hint(node_names(inventory))
}

fn node_names(inventory: &Inventory) -> String {
    let names: Vec<&str> = inventory.nodes.keys().map(NodeName::as_str).collect();
    format!("It has {}.", crate::text::list(&names))
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

    #[test]
    fn a_word_is_a_machine_unless_it_can_be_none() {
        let args = |words: &[&str]| WhereArgs {
            words: words.iter().map(|w| (*w).to_owned()).collect(),
        };
        let both = args(&["gpu-01", "./fleet", "a,b"]).split(None).unwrap();
        assert_eq!(both.folder.as_deref(), Some(Path::new("./fleet")));
        assert_eq!(both.machines, ["gpu-01", "a", "b"]);
        assert!(args(&["a/b", "c/d"]).split(None).is_err());
        assert!(args(&["a/b"]).split(Some(Path::new("x"))).is_err());
    }
}
