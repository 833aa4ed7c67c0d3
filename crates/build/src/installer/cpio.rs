//! A writer of initramfs archives whose bytes depend on nothing but their content.
//!
//! Source: the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst` ("newc").
//! Owners are root, times are zero, inodes count up, names are sorted.

use std::collections::BTreeMap;

const MODE_FILE: u32 = 0o100_000;
const MODE_DIR: u32 = 0o040_000;
const MODE_LINK: u32 = 0o120_000;
const MODE_CHAR: u32 = 0o020_000;

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Dir { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
    Char { major: u32, minor: u32 },
}

/// An archive in the making: paths without a leading slash, each once.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Archive {
        Archive::default()
    }

    /// Adds a folder, with permissions such as `0o755`.
    pub fn dir(&mut self, path: &str, permissions: u32) {
        self.put(path, Entry::Dir { mode: permissions });
    }

    /// Adds a file; folders above it that aren't there yet are made with 0755.
    pub fn file(&mut self, path: &str, permissions: u32, content: impl Into<Vec<u8>>) {
        self.put(
            path,
            Entry::File {
                mode: permissions,
                content: content.into(),
            },
        );
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.put(
            path,
            Entry::Link {
                target: target.to_owned(),
            },
        );
    }

    /// Adds a character device for root alone, such as `dev/console`.
    pub fn char_device(&mut self, path: &str, major: u32, minor: u32) {
        self.put(path, Entry::Char { major, minor });
    }

    fn put(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/').to_owned();
        for (at, _) in path.match_indices('/') {
            let above = path.get(..at).unwrap_or_default().to_owned();
            self.entries
                .entry(above)
                .or_insert(Entry::Dir { mode: 0o755 });
        }
        self.entries.insert(path, entry);
    }

    /// The archive's bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // A BTreeMap gives a folder before what it holds, which the kernel needs.
        for (inode, (path, entry)) in (1u32..).zip(&self.entries) {
            let (mode, links, content, device): (u32, u32, &[u8], (u32, u32)) = match entry {
                Entry::Dir { mode } => (MODE_DIR | mode, 2, &[], (0, 0)),
                Entry::File { mode, content } => (MODE_FILE | mode, 1, content, (0, 0)),
                Entry::Link { target } => (MODE_LINK | 0o777, 1, target.as_bytes(), (0, 0)),
                Entry::Char { major, minor } => (MODE_CHAR | 0o600, 1, &[], (*major, *minor)),
            };
            member(&mut out, path, [inode, mode, links], content, device);
        }
        member(&mut out, "TRAILER!!!", [0, 0, 1], &[], (0, 0));
        out
    }
}

fn member(
    out: &mut Vec<u8>,
    path: &str,
    [inode, mode, links]: [u32; 3],
    content: &[u8],
    (major, minor): (u32, u32),
) {
    // No member comes near 4 GiB: an initramfs of that size would boot nowhere.
    let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let name_size = u32::try_from(path.len().saturating_add(1)).unwrap_or(u32::MAX);
    out.extend_from_slice(b"070701");
    let (uid, gid, mtime, dev_major, dev_minor, checksum) = (0, 0, 0, 0, 0, 0);
    for field in [
        inode, mode, uid, gid, links, mtime, size, dev_major, dev_minor, major, minor, name_size,
        checksum,
    ] {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    while !out.len().is_multiple_of(4) {
        out.push(0);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn sample() -> Archive {
        let mut archive = Archive::new();
        archive.file("init", 0o755, "#!/bin/sh\n");
        archive.char_device("dev/console", 5, 1);
        archive.link("bin/sh", "/bin/busybox");
        archive.dir("root", 0o700);
        archive
    }

    #[test]
    fn the_bytes_are_these() {
        let bytes = sample().write();
        let text = String::from_utf8(bytes)
            .unwrap()
            .replace('\0', "~")
            .replace("070701", "\n070701");
        insta::assert_snapshot!(text.trim_start(), @r"
        07070100000001000041ED0000000000000000000000020000000000000000000000000000000000000000000000000000000400000000bin~~~
        070701000000020000A1FF000000000000000000000001000000000000000C000000000000000000000000000000000000000700000000bin/sh~~~~/bin/busybox
        07070100000003000041ED0000000000000000000000020000000000000000000000000000000000000000000000000000000400000000dev~~~
        07070100000004000021800000000000000000000000010000000000000000000000000000000000000005000000010000000C00000000dev/console~~~
        07070100000005000081ED000000000000000000000001000000000000000A000000000000000000000000000000000000000500000000init~~#!/bin/sh
        ~~
        07070100000006000041C00000000000000000000000020000000000000000000000000000000000000000000000000000000500000000root~~
        07070100000000000000000000000000000000000000010000000000000000000000000000000000000000000000000000000B00000000TRAILER!!!~~~~
        ");
    }

    #[test]
    fn an_independent_reader_agrees() {
        let Ok(mut child) = Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env("TZ", "UTC")
            .spawn()
        else {
            println!("SKIPPED: the program cpio isn't installed");
            return;
        };
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &sample().write()).unwrap();
        let listing = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        for expected in [
            "-rwxr-xr-x   1 0        0              10 Jan  1  1970 init",
            "crw-------   1 0        0          5,   1 Jan  1  1970 dev/console",
            "bin/sh -> /bin/busybox",
            "drwx------   2 0        0               0 Jan  1  1970 root",
        ] {
            assert!(listing.contains(expected), "{expected}\n{listing}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_adding_does_not_matter(
            mut files in prop::collection::btree_map("[a-z]{1,4}(/[a-z]{1,4}){0,2}", prop::collection::vec(any::<u8>(), 0..20), 0..8)
        ) {
            // A file can't also be a folder.
            let names: Vec<String> = files.keys().cloned().collect();
            files.retain(|name, _| !names.iter().any(|other| other.starts_with(&format!("{name}/"))));
            let mut one = Archive::new();
            let mut two = Archive::new();
            for (name, content) in &files {
                one.file(name, 0o644, content.clone());
            }
            for (name, content) in files.iter().rev() {
                two.file(name, 0o644, content.clone());
            }
            prop_assert_eq!(one.write(), two.write());
            prop_assert_eq!(one.write().len() % 4, 0);
        }
    }
}
