//! Archives that were unpacked, each under its digest and its size, so that the next job needn't fetch or unpack it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use undercroft_lend::{
    Digest,
    wire::{CONTENT_BYTES_MAX, Holding},
};
use undercroft_nar::ArchiveLimits;

use super::{CACHE, Content, ContentError, name_of, room::Kept};
use crate::bus::Bus;

/// The folder of what was unpacked, in the state folder.
const TREES: &str = "store";
/// What a tree's name ends with while it is unpacked.
const UNFINISHED: &str = ".new";
/// After how long what was begun to be unpacked is left over: no archive takes so long.
const LEFT_OVER: Duration = Duration::from_secs(6 * 3600);

/// Files, folders and links of one archive, at most. Those of compilers have some ten thousand.
const ENTRIES_MAX: u64 = 500_000;

impl Content {
    /// The folder with what is in an archive, which is fetched and unpacked where it isn't there; and how many bytes came
    /// for it. Something with other names than these in it is refused.
    pub(crate) async fn have_tree(
        &self,
        bus: &Bus,
        holding: &Holding,
        digest: Digest,
        names: BTreeSet<String>,
    ) -> Result<(PathBuf, u64), ContentError> {
        self.state.make_folder(TREES, 0o700)?;
        let name = name_of(&digest);
        if let Some(found) = self.trees()?.into_iter().find(|kept| kept.digest == name) {
            // It was used just now; without that mark it goes earlier.
            let _ = fs::File::open(&found.path).and_then(|f| f.set_modified(SystemTime::now()));
            return Ok((found.path, 0));
        }
        let (archive, bytes) = self.have(bus, holding, digest).await?;
        let io = |tried, path: &PathBuf| {
            let path = path.clone();
            move |source| ContentError::Io {
                tried,
                path,
                source,
            }
        };
        let file = fs::File::open(&archive).map_err(io("open", &archive))?;
        let size = file.metadata().map_err(io("look at", &archive))?.len();
        self.make_room(digest, size)?;
        let tree = self.state.path(format!("{TREES}/{name}.{size}"));
        let new = self
            .state
            .path(format!("{TREES}/{name}.{}{UNFINISHED}", holding.job));
        let into = new.clone();
        let unpacked = tokio::task::spawn_blocking(move || {
            // What an earlier daemon had begun.
            let _ = fs::remove_dir_all(&into);
            fs::create_dir(&into).map_err(|error| error.to_string())?;
            unpack(file, &into, &names)
        });
        let unpacked = unpacked.await.unwrap_or_else(|e| Err(e.to_string()));
        if let Err(why) = unpacked {
            let _ = fs::remove_dir_all(&new);
            return Err(ContentError::Malformed(format!("{digest}: {why}")));
        }
        match fs::rename(&new, &tree) {
            // Another job has unpacked it meanwhile.
            Err(_) if tree.is_dir() => drop(fs::remove_dir_all(&new)),
            renamed => renamed.map_err(io("rename", &new))?,
        }
        self.state.remove(format!("{CACHE}/{name}"))?;
        Ok((tree, bytes))
    }

    /// All that was unpacked. What is left over of earlier daemons has no digest.
    pub(super) fn trees(&self) -> Result<Vec<Kept>, ContentError> {
        if self.state.kind(TREES)?.is_none() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in self.state.list(TREES)? {
            let name = entry.name.to_string_lossy().into_owned();
            let path = self.state.path(format!("{TREES}/{name}"));
            let used = fs::symlink_metadata(&path).and_then(|meta| meta.modified());
            let (digest, rest) = name.split_once('.').unwrap_or((name.as_str(), ""));
            let (digest, bytes) = match rest.parse() {
                Ok(bytes) => (digest.to_owned(), bytes),
                Err(_) => (String::new(), 0),
            };
            found.push(Kept {
                used: used.ok(),
                bytes,
                digest,
                path,
            });
        }
        Ok(found)
    }

    /// Removes what nobody uses: all of it, or what is left over.
    pub(super) fn clear_trees(&self, is_all: bool) -> Result<(), ContentError> {
        for kept in self.trees()? {
            let age = kept.used.and_then(|used| used.elapsed().ok());
            let is_left = kept.digest.is_empty() && age.is_some_and(|age| age > LEFT_OVER);
            if is_all || is_left {
                fs::remove_dir_all(&kept.path).map_err(|source| ContentError::Io {
                    tried: "remove",
                    path: kept.path,
                    source,
                })?;
            }
        }
        Ok(())
    }
}

/// Unpacks an archive into a folder that is there and empty. Only what is named is taken.
fn unpack(archive: File, to: &Path, names: &BTreeSet<String>) -> Result<(), String> {
    let limits = ArchiveLimits {
        bytes: CONTENT_BYTES_MAX,
        entries: ENTRIES_MAX,
    };
    let place = |name: &str| names.get(name).cloned();
    undercroft_nar::unpack(&mut BufReader::new(archive), to, limits, &place)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_archive_has_what_was_named_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("a")).unwrap();
        fs::create_dir(&to).unwrap();
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let archive = folder.path().join("archive");
        let entries = BTreeMap::from([("a".to_owned(), "a".to_owned())]);
        let limits = ArchiveLimits {
            bytes: 10,
            entries: 10,
        };
        undercroft_nar::pack(
            &from,
            &entries,
            limits,
            &mut File::create(&archive).unwrap(),
        )
        .unwrap();
        let open = || File::open(&archive).unwrap();
        let error = unpack(open(), &to, &names(&["b"])).unwrap_err();
        assert!(error.contains("nobody asked for"), "{error}");
        unpack(open(), &to, &names(&["a"])).unwrap();
        assert!(to.join("a").is_dir());
    }
}
