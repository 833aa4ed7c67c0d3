//! What systems are built from, so that a service builds them anew only where that is another: a stamp of
//! the inventory, the keys that are let in, the builder, and every file that Nix may read.
//!
//! Files are told by name, size, times and inode, as git tells them: the time of the last change of an
//! inode can't be set by its owner. git itself isn't asked, since a repository's own settings could make it
//! run programs; what it says of the folder follows from its index, its head and its references, which are
//! stamped as files.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::{facts::FACTS_DIR, settings::Settings};
use undercroft_build::system::SystemBuilder;
use undercroft_folder::{named::read_text_bounded, state::STATE_FOLDER};

/// The most files and folders that are looked at. Above it, systems are built in each round: Nix then
/// finds out by itself what has changed.
const FILES_MAX: usize = 200_000;
/// The largest file of git's that says where its folder is, in bytes.
const GITDIR_BYTES_MAX: u64 = 4096;

/// A stamp of all that systems are built from; `None` where it can't be told.
pub(crate) fn stamp(
    settings: &Settings,
    builder: &SystemBuilder,
    authorized_keys: &[String],
) -> Option<String> {
    let mut stamp = Stamp::default();
    stamp.text(&settings.inventory.digest());
    stamp.text(&format!("{builder:?}"));
    for key in authorized_keys {
        stamp.text(key);
    }
    stamp.text(&settings.generation.to_string());
    for folder in [FACTS_DIR, settings.inventory.secrets.path.as_str()] {
        stamp.tree(&settings.repository.join(folder))?;
    }
    if let SystemBuilder::Flake { dir, .. } = builder {
        let dir = std::path::absolute(dir).ok()?;
        let root = dir.ancestors().find(|dir| dir.join(".git").exists());
        let root = root.unwrap_or(&dir).to_owned();
        stamp.git(&root)?;
        stamp.tree(&root)?;
    }
    Some(stamp.finish())
}

#[derive(Default)]
struct Stamp {
    hash: Sha256,
    files: usize,
}

impl Stamp {
    fn text(&mut self, text: &str) {
        self.hash.update(text.len().to_le_bytes());
        self.hash.update(text.as_bytes());
    }

    fn finish(self) -> String {
        let digest = self.hash.finalize();
        digest.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// All files below, by what the kernel says of them. What can't be read is told as that: to be made
    /// readable is a change.
    fn tree(&mut self, root: &Path) -> Option<()> {
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            let mut names: Vec<PathBuf> = match fs::read_dir(&folder) {
                Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
                Err(error) => {
                    self.text(&format!("{}: {:?}", folder.display(), error.kind()));
                    continue;
                }
            };
            names.sort();
            for path in names {
                let name = path.file_name().unwrap_or_default();
                if name == ".git" || name == STATE_FOLDER {
                    continue;
                }
                if self.file(&path)? {
                    folders.push(path);
                }
            }
        }
        Some(())
    }

    /// One file; whether it is a folder.
    fn file(&mut self, path: &Path) -> Option<bool> {
        self.files += 1;
        if self.files > FILES_MAX {
            return None;
        }
        let Ok(found) = fs::symlink_metadata(path) else {
            self.text(&format!("{}: gone", path.display()));
            return Some(false);
        };
        if found.is_dir() {
            // Its own times change with files in it that aren't looked at.
            self.text(&path.to_string_lossy());
            return Some(true);
        }
        self.text(&path.to_string_lossy());
        for number in [
            found.size(),
            found.ino(),
            u64::from(found.mode()),
            found.mtime().cast_unsigned(),
            found.mtime_nsec().cast_unsigned(),
            found.ctime().cast_unsigned(),
            found.ctime_nsec().cast_unsigned(),
        ] {
            self.hash.update(number.to_le_bytes());
        }
        Some(false)
    }

    /// What git knows of a repository: its index, its head, and what that may point to.
    fn git(&mut self, root: &Path) -> Option<()> {
        let mut git = root.join(".git");
        self.file(&git)?;
        if git.is_file() {
            // A worktree's folder lies elsewhere.
            let text = read_text_bounded(&git, GITDIR_BYTES_MAX).ok()?;
            git = root.join(text.strip_prefix("gitdir: ")?.trim_end());
            let common =
                read_text_bounded(&git.join("commondir"), GITDIR_BYTES_MAX).unwrap_or_default();
            if !common.is_empty() {
                self.tree(&git.join(common.trim_end()).join("refs"))?;
                self.file(&git.join(common.trim_end()).join("packed-refs"))?;
            }
        }
        for name in ["HEAD", "index", "packed-refs"] {
            self.file(&git.join(name))?;
        }
        let refs = git.join("refs");
        if refs.is_dir() {
            self.tree(&refs)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(root: &Path) -> String {
        let mut stamp = Stamp::default();
        stamp.git(root).unwrap();
        stamp.tree(root).unwrap();
        stamp.finish()
    }

    #[test]
    fn what_nix_may_read_is_in_the_stamp_and_the_state_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("hosts")).unwrap();
        fs::create_dir_all(root.join(".git/refs/heads")).unwrap();
        fs::create_dir_all(root.join(STATE_FOLDER)).unwrap();
        fs::write(root.join("hosts/a.nix"), "1").unwrap();
        fs::write(root.join(".git/index"), "1").unwrap();
        let mut last = of(root);
        assert_eq!(of(root), last);
        for (file, text) in [
            ("hosts/a.nix", "2"),
            ("hosts/b.nix", ""),
            ("facts.json", "{}"),
            (".git/index", "2"),
            (".git/HEAD", "ref: refs/heads/main"),
            (".git/refs/heads/main", "1"),
        ] {
            fs::write(root.join(file), text).unwrap();
            let now = of(root);
            assert_ne!(now, last, "{file}");
            last = now;
        }
        fs::remove_file(root.join("hosts/b.nix")).unwrap();
        assert_ne!(of(root), last);
        last = of(root);
        fs::write(root.join(STATE_FOLDER).join("journal.db"), "1").unwrap();
        fs::write(root.join(".git/FETCH_HEAD"), "1").unwrap();
        assert_eq!(of(root), last);
    }
}
