//! Outputs are put into their places in the store, where Nix looks at them and makes them its own.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use undercroft_lend::wire::CONTENT_BYTES_MAX;
use undercroft_nar::{ArchiveLimits, BadArchive, Sink};

/// Files, folders and links of all outputs, at most.
const ENTRIES_MAX: u64 = 500_000;
/// The largest output that is copied because its folder isn't on the store's disk, in bytes.
const COPIED_BYTES_MAX: u64 = 1 << 40;

fn limits(bytes: u64) -> ArchiveLimits {
    ArchiveLimits {
        bytes,
        entries: ENTRIES_MAX,
    }
}

/// The names that an archive has at its top, all of it read once.
#[derive(Default)]
struct Names {
    depth: usize,
    top: Vec<OsString>,
}

impl Names {
    fn see(&mut self, name: &OsString) {
        if self.depth == 1 {
            self.top.push(name.clone());
        }
    }
}

impl Sink for Names {
    type Error = BadArchive;

    fn folder(&mut self, name: &OsString) -> Result<(), BadArchive> {
        self.see(name);
        self.depth += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), BadArchive> {
        self.depth = self.depth.saturating_sub(1);
        Ok(())
    }

    fn file(&mut self, name: &OsString, _: bool, _: &mut dyn Read) -> Result<(), BadArchive> {
        self.see(name);
        Ok(())
    }

    fn link(&mut self, name: &OsString, _: &OsString) -> Result<(), BadArchive> {
        self.see(name);
        Ok(())
    }
}

/// Unpacks an archive that somebody sent into the store. It is read to its end before anything is written: it has to have
/// each output, and nothing else. What fails half way leaves nothing.
pub(super) fn unpack(
    archive: &mut File,
    outputs: &BTreeMap<String, String>,
    store: &Path,
) -> Result<(), String> {
    let rewind = |file: &mut File| {
        let at = file.seek(SeekFrom::Start(0));
        at.map(drop).map_err(|error| error.to_string())
    };
    rewind(archive)?;
    let mut names = Names::default();
    let read = undercroft_nar::parse(
        &mut BufReader::new(&mut *archive),
        limits(CONTENT_BYTES_MAX),
        &mut names,
    );
    read.map_err(|error| error.to_string())?;
    let wanted: Vec<OsString> = outputs.keys().map(OsString::from).collect();
    if names.top != wanted {
        return Err(format!(
            "it has {:?}, and the outputs are {:?}",
            names.top.iter().take(outputs.len() + 1).collect::<Vec<_>>(),
            outputs.keys().collect::<Vec<_>>()
        ));
    }
    rewind(archive)?;
    let place = |name: &str| outputs.get(name).cloned();
    undercroft_nar::unpack(
        &mut BufReader::new(&mut *archive),
        store,
        limits(CONTENT_BYTES_MAX),
        &place,
    )
    .map_err(|error| {
        remove(outputs, store);
        error.to_string()
    })
}

/// Moves outputs from a folder into the store. One that isn't there is for Nix to miss.
pub(super) fn move_from(
    folder: &Path,
    outputs: &BTreeMap<String, String>,
    store: &Path,
    spare: &Path,
) -> Result<(), String> {
    for name in outputs.values() {
        let (from, to) = (folder.join(name), store.join(name));
        if from.symlink_metadata().is_err() {
            continue;
        }
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
                copy(folder, name, store, spare)?;
            }
            moved => moved.map_err(|error| format!("{}: {error}", to.display()))?,
        }
    }
    Ok(())
}

/// Copies one output, as an archive would have it: that is all that Nix keeps of it.
fn copy(folder: &Path, name: &str, store: &Path, spare: &Path) -> Result<(), String> {
    let words = |error: std::io::Error| format!("{}: {error}", spare.display());
    let one = BTreeMap::from([(name.to_owned(), name.to_owned())]);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(spare)
        .map_err(words)?;
    let mut to = BufWriter::new(&file);
    let limits = limits(COPIED_BYTES_MAX);
    undercroft_nar::pack(folder, &one, limits, &mut to).map_err(|error| error.to_string())?;
    to.flush().map_err(words)?;
    drop(to);
    file.seek(SeekFrom::Start(0)).map_err(words)?;
    let place = |found: &str| (found == name).then(|| name.to_owned());
    undercroft_nar::unpack(&mut BufReader::new(file), store, limits, &place)
        .map_err(|error| error.to_string())
}

/// Removes what was put there, so that something else can be.
pub(super) fn remove(outputs: &BTreeMap<String, String>, store: &Path) {
    for name in outputs.values() {
        let path = store.join(name);
        // Nix removes what is left in the way itself.
        let _ = match path.symlink_metadata() {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(_) => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        let all = all.iter();
        all.map(|(name, file)| ((*name).to_owned(), (*file).to_owned()))
            .collect()
    }

    fn archive(folder: &Path, entries: &[(&str, &str)]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        undercroft_nar::pack(folder, &names(entries), limits(1000), &mut file).unwrap();
        file
    }

    #[test]
    fn an_archive_has_each_output_and_nothing_else_or_leaves_nothing() {
        let (from, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("a"), "a").unwrap();
        fs::create_dir(from.path().join("b")).unwrap();
        symlink("/etc", from.path().join("b/etc")).unwrap();
        let outputs = names(&[("dev", "1-one-dev"), ("out", "1-one")]);
        let left = || fs::read_dir(store.path()).unwrap().count();
        for (entries, said) in [
            (vec![("out", "a")], "the outputs are [\"dev\", \"out\"]"),
            (vec![("dev", "b"), ("evil", "a"), ("out", "a")], "evil"),
            (vec![("1-one", "b"), ("1-one-dev", "a")], "1-one-dev"),
        ] {
            let error = unpack(&mut archive(from.path(), &entries), &outputs, store.path());
            let error = error.unwrap_err();
            assert!(error.contains(said) && left() == 0, "{error}");
        }
        // Something else is in the way already: it isn't written through, and nothing is left half done.
        symlink("/etc/passwd", store.path().join("1-one")).unwrap();
        let whole = [("dev", "b"), ("out", "a")];
        unpack(&mut archive(from.path(), &whole), &outputs, store.path()).unwrap_err();
        assert_eq!(left(), 0);

        unpack(&mut archive(from.path(), &whole), &outputs, store.path()).unwrap();
        let link = fs::read_link(store.path().join("1-one-dev/etc")).unwrap();
        assert_eq!(link, Path::new("/etc"));
        assert_eq!(fs::read_to_string(store.path().join("1-one")).unwrap(), "a");
    }

    #[test]
    fn outputs_are_moved_or_copied() {
        let (from, store, other) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        fs::write(from.path().join("1-a"), "a").unwrap();
        let outputs = names(&[("out", "1-a"), ("dev", "1-absent")]);
        let spare = from.path().join("spare");
        copy(from.path(), "1-a", other.path(), &spare).unwrap();
        assert_eq!(fs::read_to_string(other.path().join("1-a")).unwrap(), "a");
        move_from(from.path(), &outputs, store.path(), &spare).unwrap();
        assert_eq!(fs::read_to_string(store.path().join("1-a")).unwrap(), "a");
        remove(&outputs, store.path());
        assert_eq!(fs::read_dir(store.path()).unwrap().count(), 0);
    }
}
