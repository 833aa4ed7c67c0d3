//! Digests of archives that were made before: store paths don't change, so that they needn't be read again to be named.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use undercroft_lend::Digest;

/// The longest entry that is read, in bytes. A digest has 71 characters.
const ENTRY_BYTES_MAX: u64 = 128;

/// What is known, in a folder that the users of builds share; nothing, where there is none.
#[derive(Debug, Default)]
pub(super) struct Known(Option<PathBuf>);

impl Known {
    pub(super) fn new(folder: Option<&Path>) -> Self {
        Self(folder.map(Path::to_owned))
    }

    fn entry(&self, names: &[String]) -> Option<PathBuf> {
        let key = Digest::of(names.join("\n").as_bytes()).to_string();
        Some(self.0.as_ref()?.join(key.replace("sha256:", "")))
    }

    /// The digest of the archive of these store paths.
    pub(super) fn get(&self, names: &[String]) -> Option<Digest> {
        let path = self.entry(names)?;
        let is_entry = fs::symlink_metadata(&path)
            .is_ok_and(|found| found.is_file() && found.len() <= ENTRY_BYTES_MAX);
        let text = is_entry.then(|| fs::read_to_string(&path).ok())??;
        text.trim().parse().ok()
    }

    /// Remembers it. What can't be kept is found out again.
    pub(super) fn put(&self, names: &[String], digest: Digest) {
        let Some(path) = self.entry(names) else {
            return;
        };
        let keep = || -> std::io::Result<()> {
            let folder = path.parent().unwrap_or(Path::new("/"));
            let mut file = tempfile::Builder::new()
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .tempfile_in(folder)?;
            writeln!(file, "{digest}")?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        let _ = keep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_known_by_the_names_alone() {
        let folder = tempfile::tempdir().unwrap();
        let known = Known::new(Some(folder.path()));
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let (one, both) = (names(&["a"]), names(&["a", "b"]));
        assert_eq!(known.get(&one), None);
        known.put(&one, Digest::of(b"x"));
        assert_eq!(
            (known.get(&one), known.get(&both)),
            (Some(Digest::of(b"x")), None)
        );
        // What isn't a digest is none.
        fs::write(known.entry(&both).unwrap(), "x".repeat(1000)).unwrap();
        assert_eq!(known.get(&both), None);
        Known::default().put(&one, Digest::of(b"x"));
        assert_eq!(Known::default().get(&one), None);
    }
}
