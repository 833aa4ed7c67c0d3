//! What a rendered tree would change on disk, and what it must not.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::tree::digest;

/// What is to be done with a file.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It isn't there yet.
    Create,
    /// It is there as it was rendered before, and is rendered otherwise now.
    Update,
    /// It is there as it was rendered before, and is no longer rendered.
    Remove,
}

/// One file that is to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Difference {
    /// The file, from the inventory's folder.
    pub path: String,
    /// What is to be done.
    pub change: Change,
    /// Whether the file isn't what was rendered before: somebody edited it, or it was never
    /// rendered. It is not to be changed without being asked to.
    pub edited: bool,
    /// Whether no render has made the file, and Argo CD would apply it all the same since it is in
    /// a folder of the tree. It is `edited` too.
    pub foreign: bool,
}

/// The ends of the names of files in which Argo CD finds manifests.
const MANIFESTS: [&str; 4] = [".yaml", ".yml", ".json", ".jsonnet"];
/// Files by which a folder becomes something else than a folder of manifests, whatever else is in it.
const MAKERS: [&str; 1] = ["Kustomization"];

/// Whether Argo CD would take a file for a manifest, or for what makes some, if it were in a folder
/// that it reads; by its name.
pub fn is_applied(name: &str) -> bool {
    MANIFESTS.iter().any(|end| name.ends_with(end)) || MAKERS.contains(&name)
}

/// Compares a tree with what is on disk. `on_disk` has the content of every file that is either
/// rendered now or among `recorded`, where it is there; `recorded` are the digests of the last
/// render. `unrecorded` are rendered files that keep no digest, such as the file of digests.
/// `applied` are the files that Argo CD would apply, whoever made them.
pub fn compare(
    rendered: &BTreeMap<String, String>,
    on_disk: &BTreeMap<String, Vec<u8>>,
    recorded: &BTreeMap<String, String>,
    unrecorded: &[&str],
    applied: &BTreeSet<String>,
) -> Vec<Difference> {
    let foreign = applied
        .iter()
        .filter(|path| !rendered.contains_key(*path) && !recorded.contains_key(*path));
    let mut differences: Vec<Difference> = foreign
        .map(|path| Difference {
            path: path.clone(),
            change: Change::Remove,
            edited: true,
            foreign: true,
        })
        .collect();
    for (path, wanted) in rendered {
        match on_disk.get(path) {
            None => differences.push(Difference {
                path: path.clone(),
                change: Change::Create,
                edited: false,
                foreign: false,
            }),
            Some(found) if found == wanted.as_bytes() => {}
            Some(found) => differences.push(Difference {
                path: path.clone(),
                change: Change::Update,
                edited: !unrecorded.contains(&path.as_str())
                    && recorded.get(path) != Some(&digest(found)),
                foreign: false,
            }),
        }
    }
    for (path, before) in recorded {
        if let (None, Some(found)) = (rendered.get(path), on_disk.get(path)) {
            differences.push(Difference {
                path: path.clone(),
                change: Change::Remove,
                edited: *before != digest(found),
                foreign: false,
            });
        }
    }
    differences.sort_by(|a, b| a.path.cmp(&b.path));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_a_file_has_its_change() {
        let text = |s: &str| s.to_owned();
        let rendered: BTreeMap<String, String> = [
            ("new", "1"),
            ("same", "1"),
            ("changed", "2"),
            ("edited", "2"),
            ("foreign", "2"),
            ("edited-alike", "2"),
            ("digests", "2"),
        ]
        .map(|(path, content)| (text(path), text(content)))
        .into();
        let on_disk: BTreeMap<String, Vec<u8>> = [
            ("same", "1"),
            ("changed", "1"),
            ("edited", "mine"),
            ("foreign", "mine"),
            ("edited-alike", "2"),
            ("digests", "1"),
            ("gone", "1"),
            ("gone-edited", "mine"),
        ]
        .map(|(path, content)| (text(path), content.into()))
        .into();
        let recorded: BTreeMap<String, String> = [
            "same",
            "changed",
            "edited",
            "edited-alike",
            "gone",
            "gone-edited",
            "lost",
        ]
        .map(|path| (text(path), digest(b"1")))
        .into();
        let applied = ["same", "gone", "nobody's"].map(text).into();
        let found: Vec<String> = compare(&rendered, &on_disk, &recorded, &["digests"], &applied)
            .iter()
            .map(|d| {
                format!(
                    "{}: {:?}{}{}",
                    d.path,
                    d.change,
                    if d.edited { ", edited" } else { "" },
                    if d.foreign { ", foreign" } else { "" }
                )
            })
            .collect();
        insta::assert_snapshot!(found.join("\n"), @r"
        changed: Update
        digests: Update
        edited: Update, edited
        foreign: Update, edited
        gone: Remove
        gone-edited: Remove, edited
        new: Create
        nobody's: Remove, edited, foreign
        ");
    }
}
