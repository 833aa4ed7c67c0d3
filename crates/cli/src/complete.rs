//! What a shell completes: names that stand in the inventory of the folder that is meant.
//!
//! Nothing here may fail aloud: a shell asks while somebody types. It reads the inventory and no key.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter as _};
use undercroft_model::inventory::{self, Component, Inventory};
use undercroft_secrets::catalogue;

use crate::project::OwnedProject;

/// The environment variable by which a shell asks; its value is the shell's name.
pub(crate) const VARIABLE: &str = "UNDERCROFT_COMPLETE";

/// Nodes.
pub(crate) fn nodes(current: &OsStr) -> Vec<CompletionCandidate> {
    offered(current, |inventory| {
        let nodes = inventory.nodes.iter();
        nodes
            .map(|(name, node)| (name.to_string(), Some(format!("of class {}", node.class))))
            .collect()
    })
}

/// Nodes and classes.
pub(crate) fn selectors(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut all = nodes(current);
    all.extend(offered(current, |inventory| {
        let classes = inventory.classes.keys();
        classes
            .map(|name| (name.to_string(), Some("all nodes of this class".to_owned())))
            .collect()
    }));
    all
}

/// Nodes, classes, and folders.
pub(crate) fn selectors_or_folders(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut all = selectors(current);
    all.extend(PathCompleter::dir().complete(current));
    all
}

/// Secrets, by the names that `secrets list` shows.
pub(crate) fn secrets(current: &OsStr) -> Vec<CompletionCandidate> {
    offered(current, |inventory| {
        let files = catalogue(inventory);
        let secrets = files.iter().flat_map(|file| &file.secrets);
        let mut names: Vec<_> = secrets
            .map(|secret| (secret.name.clone(), Some(secret.about.to_owned())))
            .collect();
        names.sort();
        names.dedup();
        names
    })
}

/// Files of secrets.
pub(crate) fn secret_files(current: &OsStr) -> Vec<CompletionCandidate> {
    offered(current, |inventory| {
        let folder = PathBuf::from(&inventory.secrets.path);
        let files = catalogue(inventory).into_iter();
        files
            .map(|file| (folder.join(&file.path).display().to_string(), None))
            .collect()
    })
}

/// Components of the tree.
pub(crate) fn components(current: &OsStr) -> Vec<CompletionCandidate> {
    offered(current, |inventory| {
        let known = Component::ALL.iter();
        known
            .filter(|component| inventory.gitops.components.contains(component))
            .map(|component| (component.to_string(), None))
            .collect()
    })
}

/// Those of the names that go on from what is typed.
fn offered(
    current: &OsStr,
    names: impl Fn(&Inventory) -> Vec<(String, Option<String>)>,
) -> Vec<CompletionCandidate> {
    let (Some(typed), Some(inventory)) = (current.to_str(), inventory()) else {
        return Vec::new();
    };
    names(&inventory)
        .into_iter()
        .filter(|(name, _)| name.starts_with(typed))
        .map(|(name, about)| CompletionCandidate::new(name).help(about.map(Into::into)))
        .collect()
}

/// The inventory of the folder that the words so far mean.
fn inventory() -> Option<Inventory> {
    let folder = folder(std::env::args_os());
    let project = OwnedProject::find(folder.as_deref().map(Path::new)).ok()?;
    inventory::parse("undercroft.toml", &project.read().ok()?).inventory
}

/// What `-C` or `--directory` says among the words after the first `--`, which are those that are
/// typed.
fn folder(words: impl Iterator<Item = OsString>) -> Option<OsString> {
    let mut words = words.skip_while(|word| word != "--").skip(1);
    while let Some(word) = words.next() {
        if word == "-C" || word == "--directory" {
            return words.next();
        }
        let text = word.to_str().unwrap_or("");
        let joined = text
            .strip_prefix("--directory=")
            .or_else(|| text.strip_prefix("-C").filter(|rest| !rest.is_empty()));
        if let Some(folder) = joined {
            return Some(folder.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_the_one_that_is_typed() {
        let of = |words: &[&str]| folder(words.iter().map(Into::into));
        assert_eq!(
            of(&["u", "--", "undercroft", "-C", "x", "status"]),
            Some("x".into())
        );
        assert_eq!(
            of(&["u", "--", "undercroft", "--directory=y"]),
            Some("y".into())
        );
        assert_eq!(of(&["u", "--", "undercroft", "-Cz"]), Some("z".into()));
        assert_eq!(of(&["-C", "x"]), None);
    }
}
