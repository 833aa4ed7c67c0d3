//! A rendered tree beside what is on disk, and bringing it there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use undercroft_render::{Change, Difference, Layout, Tree, compare, is_applied, parse_digests};

use super::{DEPTH_MAX, entries};
use crate::{error::CliError, project::Project};

/// A tree beside what is on disk.
pub(crate) struct Comparison {
    root: PathBuf,
    rendered: BTreeMap<String, String>,
    on_disk: BTreeMap<String, Vec<u8>>,
    /// What would change, by path.
    pub(crate) differences: Vec<Difference>,
}

impl Comparison {
    /// Compares a tree in a folder of the project with what is there. `more` are files beside the
    /// tree that are written with it.
    pub(crate) fn new(
        project: &Project,
        layout: &Layout,
        tree: Tree,
        more: BTreeMap<String, String>,
    ) -> Result<Self, CliError> {
        let root = project.dir.clone();
        let read = |path: &String| -> Result<Option<Vec<u8>>, CliError> {
            let path = root.join(path);
            match fs::read(&path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(CliError::file("read", &path, &e)),
            }
        };
        let digests = layout.digests();
        let recorded = match read(&digests)? {
            Some(bytes) => parse_digests(&String::from_utf8_lossy(&bytes)),
            None => BTreeMap::new(),
        };
        let mut unrecorded: Vec<&str> = more.keys().map(String::as_str).collect();
        unrecorded.push(&digests);
        let mut rendered = tree.files;
        rendered.extend(more.clone());
        let paths: BTreeSet<&String> = rendered.keys().chain(recorded.keys()).collect();
        let mut on_disk = BTreeMap::new();
        for path in paths {
            if let Some(bytes) = read(path)? {
                on_disk.insert(path.clone(), bytes);
            }
        }
        let mut applied = BTreeSet::new();
        applied_in(&root, layout, layout.path(), 0, &mut applied)?;
        let differences = compare(&rendered, &on_disk, &recorded, &unrecorded, &applied);
        Ok(Self {
            root,
            rendered,
            on_disk,
            differences,
        })
    }

    /// The files that were edited by hand and would be overwritten or removed.
    pub(crate) fn edited(&self) -> Vec<&Difference> {
        self.differences.iter().filter(|d| d.edited).collect()
    }

    /// Files that are rendered.
    pub(crate) fn len(&self) -> usize {
        self.rendered.len()
    }

    /// One file's change as a unified diff, from what is there to what is rendered. Of a foreign
    /// file only its name is told: what is in it isn't ours to show.
    pub(crate) fn diff(&self, difference: &Difference) -> String {
        let path = &difference.path;
        if difference.foreign {
            return format!("{path}: nothing renders this file, and Argo CD would apply it\n");
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
    pub(crate) fn write(&self, layout: &Layout) -> Result<(), CliError> {
        let digests = layout.digests();
        let last = |d: &&Difference| d.path == digests;
        let others = self.differences.iter().filter(|d| !last(d));
        for difference in others.chain(self.differences.iter().filter(last)) {
            let path = self.root.join(&difference.path);
            match (difference.change, self.rendered.get(&difference.path)) {
                (Change::Remove, _) | (_, None) => self.remove(&path, layout)?,
                (Change::Create | Change::Update, Some(text)) => write_whole(&path, text)?,
            }
        }
        Ok(())
    }

    /// Removes a file, and the folders of the tree that are empty without it.
    fn remove(&self, path: &Path, layout: &Layout) -> Result<(), CliError> {
        fs::remove_file(path).map_err(|e| CliError::file("remove", path, &e))?;
        let tree = self.root.join(layout.path());
        let above = path.ancestors().skip(1);
        for folder in above.take_while(|folder| folder.starts_with(&tree)) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// The files under a folder of the tree that Argo CD would apply, from the inventory's folder.
fn applied_in(
    root: &Path,
    layout: &Layout,
    folder: &str,
    depth: usize,
    found: &mut BTreeSet<String>,
) -> Result<(), CliError> {
    if depth > DEPTH_MAX {
        return Err(CliError::input(format!(
            "{folder} is more than {DEPTH_MAX} folders deep"
        )));
    }
    let read = layout.is_read(folder);
    for entry in entries(&root.join(folder))? {
        let name = format!("{folder}/{}", entry.name);
        if entry.is_dir {
            applied_in(root, layout, &name, depth + 1, found)?;
        } else if read && is_applied(&entry.name) {
            found.insert(name);
        }
    }
    Ok(())
}

/// Writes a file so that a reader sees the old content or the new, whatever happens in between.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = |e: &io::Error| CliError::file("write", path, e);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| CliError::file("make the folder", folder, &e))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| failed(&e))?;
    file.write_all(text.as_bytes()).map_err(|e| failed(&e))?;
    // Scratch files are closed to others; what is rendered is meant to be read.
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))
        .map_err(|e| failed(&e))?;
    file.persist(path).map_err(|e| failed(&e.error))?;
    Ok(())
}
