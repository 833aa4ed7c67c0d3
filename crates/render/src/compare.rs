//! What a rendered tree would change on disk, and what it must not.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::tree::digest;

/// What is to be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The file, from the inventory's folder.
    pub path: String,
    /// What is to be done.
    pub change: Change,
    /// Whether the file isn't what was rendered before: somebody edited it, or it was never
    /// rendered. It is not to be changed without being asked to.
    pub edited: bool,
}

/// Compares a tree with what is on disk. `on_disk` has the content of every file that is either
/// rendered now or among `recorded`, where it is there; `recorded` are the digests of the last
/// render. `unrecorded` are rendered files that keep no digest, such as the file of digests.
pub fn compare(
    rendered: &BTreeMap<String, String>,
    on_disk: &BTreeMap<String, Vec<u8>>,
    recorded: &BTreeMap<String, String>,
    unrecorded: &[&str],
) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (path, wanted) in rendered {
        match on_disk.get(path) {
            None => differences.push(Difference {
                path: path.clone(),
                change: Change::Create,
                edited: false,
            }),
            Some(found) if found == wanted.as_bytes() => {}
            Some(found) => differences.push(Difference {
                path: path.clone(),
                change: Change::Update,
                edited: !unrecorded.contains(&path.as_str())
                    && recorded.get(path) != Some(&digest(found)),
            }),
        }
    }
    for (path, before) in recorded {
        if let (None, Some(found)) = (rendered.get(path), on_disk.get(path)) {
            differences.push(Difference {
                path: path.clone(),
                change: Change::Remove,
                edited: *before != digest(found),
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
        let found: Vec<String> = compare(&rendered, &on_disk, &recorded, &["digests"])
            .iter()
            .map(|d| {
                format!(
                    "{}: {:?}{}",
                    d.path,
                    d.change,
                    if d.edited { ", edited" } else { "" }
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
        ");
    }
}
