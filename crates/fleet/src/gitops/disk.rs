//! A rendered tree beside what is on disk, and bringing it there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use undercroft_folder::confined::{Confined, ConfinedError, Modes};
use undercroft_model::text::visible_line;
use undercroft_render::{
    Change, Difference, Tree, TreeLayout, compare, digest, is_applied, parse_digests,
};

use super::{
    error::GitopsError,
    files::{DEPTH_MAX, MANIFEST_MAX_BYTES, entries},
};

/// What the files that a render makes say of themselves at their beginning.
const HEADS: [&str; 2] = [
    "Rendered by `undercroft render`.",
    "Rendered by `undercroft dev config`.",
];
/// How far in they say it at most, in bytes.
const HEAD_BYTES_MAX: usize = 1024;

/// A tree beside what is on disk.
#[derive(Debug)]
pub struct Comparison {
    files: Confined,
    rendered: BTreeMap<String, String>,
    on_disk: BTreeMap<String, Vec<u8>>,
    recorded: BTreeMap<String, String>,
    /// Rendered files that keep no digest.
    unrecorded: BTreeSet<String>,
    /// What would change, by path.
    pub differences: Vec<Difference>,
    /// Files that the last render is said to have made, and that no render makes: they are neither
    /// read nor touched.
    pub disowned: Vec<String>,
}

impl Comparison {
    /// Compares a tree in a folder of the project with what is there. `more` are files beside the
    /// tree that are written with it.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn new(
        files: &Confined,
        layout: &TreeLayout,
        tree: Tree,
        more: BTreeMap<String, String>,
    ) -> Result<Self, GitopsError> {
        let read = |path: &String| -> Result<Option<Vec<u8>>, ConfinedError> {
            files.read(path, MANIFEST_MAX_BYTES)
        };
        let digests = layout.digests();
        let recorded = match read(&digests)? {
            Some(bytes) => parse_digests(&String::from_utf8_lossy(&bytes)),
            None => BTreeMap::new(),
        };
        // The file is the repository's as every other is. A line of it makes no file ours that no
        // render could have made.
        let (recorded, disowned): (BTreeMap<_, _>, BTreeMap<_, _>) = recorded
            .into_iter()
            .partition(|(path, _)| layout.makes(path));
        let unrecorded: BTreeSet<String> = more.keys().cloned().chain([digests]).collect();
        let mut rendered = tree.files;
        rendered.extend(more);
        let paths: BTreeSet<&String> = rendered.keys().chain(recorded.keys()).collect();
        let mut on_disk = BTreeMap::new();
        for path in paths {
            if let Some(bytes) = read(path)? {
                on_disk.insert(path.clone(), bytes);
            }
        }
        let mut applied = BTreeSet::new();
        applied_in(files, layout, layout.path(), 0, &mut applied)?;
        let differences = {
            let unrecorded: Vec<&str> = unrecorded.iter().map(String::as_str).collect();
            compare(&rendered, &on_disk, &recorded, &unrecorded, &applied)
        };
        Ok(Self {
            files: files.clone(),
            rendered,
            on_disk,
            recorded,
            unrecorded,
            differences,
            disowned: disowned.into_keys().collect(),
        })
    }

    /// The files that were edited by hand and would be overwritten or removed.
    pub fn edited(&self) -> Vec<&Difference> {
        self.differences.iter().filter(|d| d.edited).collect()
    }

    /// How many files are rendered.
    pub fn rendered_files(&self) -> usize {
        self.rendered.len()
    }

    /// One file's change as a unified diff, from what is there to what is rendered. Of a file that
    /// no render made only its name is told: what is in it isn't ours to show.
    pub fn diff(&self, difference: &Difference) -> String {
        let path = &difference.path;
        if difference.foreign {
            let path = visible_line(path);
            return format!("{path}: nothing renders this file, and Argo CD would apply it\n");
        }
        if self
            .on_disk
            .get(path)
            .is_some_and(|bytes| !self.is_own(path, bytes))
        {
            let becomes = match self.rendered.get(path) {
                Some(_) => "one is rendered in its place",
                None => "nothing is rendered in its place",
            };
            let path = visible_line(path);
            return format!("{path}: no render made this file, and {becomes}\n");
        }
        let old = self
            .on_disk
            .get(path)
            .map(|bytes| String::from_utf8_lossy(bytes));
        let new = self.rendered.get(path);
        let name = |there: bool, side: &str| {
            if there {
                format!("{side}/{path}")
            } else {
                "/dev/null".to_owned()
            }
        };
        similar::TextDiff::from_lines(
            old.as_deref().unwrap_or_default(),
            new.map(String::as_str).unwrap_or_default(),
        )
        .unified_diff()
        .header(&name(old.is_some(), "a"), &name(new.is_some(), "b"))
        .to_string()
    }

    /// Makes the disk as the tree is: each file replaced whole or not at all, the file of digests
    /// last, so that a render that was cut off is one that can be done again.
    ///
    /// # Errors
    /// When a file can't be written or removed.
    pub fn write(&self, layout: &TreeLayout) -> Result<(), GitopsError> {
        self.clear_leftovers();
        let digests = layout.digests();
        let last = |d: &&Difference| d.path == digests;
        let others = self.differences.iter().filter(|d| !last(d));
        for difference in others.chain(self.differences.iter().filter(last)) {
            let path = &difference.path;
            match (difference.change, self.rendered.get(path)) {
                (Change::Remove, _) | (_, None) => self.remove(path, layout)?,
                (Change::Create | Change::Update, Some(text)) => {
                    self.files.replace(path, text.as_bytes(), Modes::PUBLIC)?
                }
            }
        }
        Ok(())
    }

    /// Takes away what a render that was killed left beside the files.
    fn clear_leftovers(&self) {
        let folders: BTreeSet<&Path> = self
            .rendered
            .keys()
            .filter_map(|path| Path::new(path).parent())
            .collect();
        for folder in folders {
            self.files.clear_leftovers(folder);
        }
    }

    /// Whether a file's content is one that a render has made: it is as the last one left it, or
    /// says so itself, as every file does that a render makes.
    fn is_own(&self, path: &str, bytes: &[u8]) -> bool {
        if self.unrecorded.contains(path) || self.recorded.get(path) == Some(&digest(bytes)) {
            return true;
        }
        let beginning = bytes.get(..bytes.len().min(HEAD_BYTES_MAX));
        let beginning = String::from_utf8_lossy(beginning.unwrap_or_default());
        HEADS.iter().any(|head| beginning.contains(head))
    }

    /// Removes a file, and the folders of the tree that are empty without it.
    fn remove(&self, path: &str, layout: &TreeLayout) -> Result<(), GitopsError> {
        self.files.remove(path)?;
        let above = Path::new(path).ancestors().skip(1);
        for folder in above.take_while(|folder| folder.starts_with(layout.path())) {
            if !self.files.remove_empty_folder(folder)? {
                break;
            }
        }
        Ok(())
    }
}

/// The files under a folder of the tree that Argo CD would apply, from the inventory's folder.
fn applied_in(
    files: &Confined,
    layout: &TreeLayout,
    folder: &str,
    depth: usize,
    found: &mut BTreeSet<String>,
) -> Result<(), GitopsError> {
    if depth > DEPTH_MAX {
        return Err(GitopsError::TooDeep {
            path: folder.into(),
        });
    }
    let read = layout.is_read(folder);
    for entry in entries(files, folder)? {
        let name = format!("{folder}/{}", entry.name);
        if entry.is_dir {
            applied_in(files, layout, &name, depth + 1, found)?;
        } else if read && is_applied(&entry.name) {
            found.insert(name);
        }
    }
    Ok(())
}
