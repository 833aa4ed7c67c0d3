//! Leases across a restart: a file to which each lease is added before it is told to anybody.
//!
//! A line is an address, who has it, and until when; the last line of an address counts. A line
//! that was cut off by a crash, and any other that doesn't read, is left out. The file is written
//! anew, whole and under another name first, when it is opened and when it has grown.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use undercroft_model::MacAddr;

use crate::dhcp::leases::{LeaseChange, LeaseStore};

/// The largest file that is read, in bytes: four lines for each address of the largest range.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// How many lines more than there are leases the file may have before it is written anew.
const SPARE_LINES: usize = 4096;
/// The first line.
const HEADER: &str = "undercroft-leases 1\n";

/// The file of leases.
#[derive(Debug)]
pub(crate) struct LeaseFile {
    path: PathBuf,
    file: File,
    lines: usize,
}

impl LeaseFile {
    /// Takes the leases of a file up into a store, and makes the file anew. `lease_ms` is the
    /// longest that a lease may last.
    pub(crate) fn open(
        path: &Path,
        store: &mut LeaseStore,
        now_ms: u64,
        lease_ms: u64,
    ) -> io::Result<Self> {
        restore_leases(&read(path)?, store, now_ms, lease_ms);
        let leases = store.leases(now_ms);
        Ok(Self {
            path: path.to_owned(),
            file: write_whole(path, &leases)?,
            lines: leases.len(),
        })
    }

    /// Adds what has changed.
    pub(crate) fn add(
        &mut self,
        changes: &[LeaseChange],
        store: &LeaseStore,
        now_ms: u64,
    ) -> io::Result<()> {
        let mut text = String::new();
        for change in changes {
            line(&mut text, change);
        }
        self.file.write_all(text.as_bytes())?;
        self.lines = self.lines.saturating_add(changes.len());
        if self.lines > store.len().saturating_add(SPARE_LINES) {
            let leases = store.leases(now_ms);
            self.file = write_whole(&self.path, &leases)?;
            self.lines = leases.len();
        }
        Ok(())
    }

    /// A handle by which the file can be brought to the disk elsewhere.
    pub(crate) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// Takes the leases in a file's text up into a store: those that hold still, none for longer than
/// `lease_ms` from now.
pub fn restore_leases(text: &str, store: &mut LeaseStore, now_ms: u64, lease_ms: u64) {
    for change in text.lines().filter_map(parse) {
        if let Some((mac, expires_ms)) = change.lease {
            // A clock that was set back since makes no lease last for years.
            let latest_ms = now_ms.saturating_add(lease_ms);
            store.restore(mac, change.address, expires_ms.min(latest_ms), now_ms);
        } else {
            store.forget(change.address);
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(no_follow.bits()).unwrap_or(0);
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write_whole(path: &Path, leases: &[LeaseChange]) -> io::Result<File> {
    let mut text = HEADER.to_owned();
    for change in leases {
        line(&mut text, change);
    }
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

fn line(text: &mut String, change: &LeaseChange) {
    // Writing to a string can't fail.
    let _ = match change.lease {
        Some((mac, expires_ms)) => writeln!(text, "{} {mac} {expires_ms} .", change.address),
        None => writeln!(text, "{} - 0 .", change.address),
    };
}

fn parse(line: &str) -> Option<LeaseChange> {
    let mut words = line.split(' ');
    let address: Ipv4Addr = words.next()?.parse().ok()?;
    let mac = words.next()?;
    let expires_ms = words.next()?.parse().ok()?;
    // The last word shows that the line is whole.
    if words.next() != Some(".") || words.next().is_some() {
        return None;
    }
    let lease = match mac {
        "-" => None,
        mac => Some((mac.parse::<MacAddr>().ok()?, expires_ms)),
    };
    Some(LeaseChange { address, lease })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
    const LAST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 13);

    fn mac(n: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, n])
    }

    fn opened(path: &Path, now_ms: u64) -> (LeaseFile, LeaseStore) {
        let mut store = LeaseStore::new(FIRST, LAST).recording();
        let file = LeaseFile::open(path, &mut store, now_ms, 3_600_000).unwrap();
        (file, store)
    }

    #[test]
    fn leases_outlive_the_process_at_whatever_byte_it_dies() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases");
        let (mut file, mut store) = opened(&path, 0);
        for n in 0..3 {
            let address = store.offer(mac(n), None, |_| false, 0).unwrap();
            assert!(store.bind(mac(n), address, 0, 3_600_000));
            let changes = store.take_changes();
            file.add(&changes, &store, 0).unwrap();
        }
        store.release(mac(1));
        let changes = store.take_changes();
        file.add(&changes, &store, 0).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in HEADER.len()..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (_, next) = opened(&path, 1);
            for n in [0, 2] {
                let kept = next.address_of(mac(n), 1);
                assert!(
                    kept.is_none() || kept == store.address_of(mac(n), 1),
                    "{cut}"
                );
            }
            let all = cut == whole.len();
            assert!(!all || (next.len() == 2 && next.address_of(mac(1), 1).is_none()));
        }
        // What is expired is forgotten.
        std::fs::write(&path, &whole).unwrap();
        assert!(opened(&path, 4_000_000).1.is_empty());
    }

    #[test]
    fn a_link_is_not_followed_and_the_file_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases");
        drop(opened(&path, 0));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut store = LeaseStore::new(FIRST, LAST);
        assert!(LeaseFile::open(&link, &mut store, 0, 1000).is_err());
    }

    #[test]
    fn the_file_stays_small() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases");
        let (mut file, mut store) = opened(&path, 0);
        for n in 0..3 * SPARE_LINES as u64 {
            let address = store.offer(mac(1), None, |_| false, n).unwrap();
            store.bind(mac(1), address, n, 3_600_000);
            let changes = store.take_changes();
            file.add(&changes, &store, n).unwrap();
        }
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= SPARE_LINES + 3, "{lines}");
    }

    proptest! {
        #[test]
        fn any_file_is_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("leases");
            std::fs::write(&path, bytes).unwrap();
            let (_, store) = opened(&path, 1);
            prop_assert!(store.len() <= 4);
        }
    }
}
