//! Any bytes are an archive of Nix or none. What is told of one is a tree: folders end as often as they begin, names are one
//! part of a path, and are in their order.

#![no_main]

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
};

use libfuzzer_sys::fuzz_target;
use undercroft_nar::{ArchiveLimits, BadArchive, Sink, parse};

const LIMITS: ArchiveLimits = ArchiveLimits {
    bytes: 1 << 16,
    entries: 1 << 10,
};

#[derive(Default)]
struct Tree {
    last: Vec<Option<OsString>>,
    bytes: u64,
    entries: u64,
}

impl Tree {
    fn see(&mut self, name: &OsString) {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty() && bytes != b"." && bytes != b"..");
        assert!(!bytes.contains(&b'/') && !bytes.contains(&0));
        let last = self.last.last_mut().expect("a name is in a folder");
        assert!(last.as_ref().is_none_or(|last| last < name));
        *last = Some(name.clone());
        self.entries += 1;
        assert!(self.entries <= LIMITS.entries);
    }
}

impl Sink for Tree {
    type Error = BadArchive;

    fn folder(&mut self, name: &OsString) -> Result<(), BadArchive> {
        if !self.last.is_empty() {
            self.see(name);
        }
        self.last.push(None);
        Ok(())
    }

    fn end(&mut self) -> Result<(), BadArchive> {
        self.last.pop().expect("a folder had begun");
        Ok(())
    }

    fn file(&mut self, name: &OsString, _: bool, contents: &mut dyn Read) -> Result<(), BadArchive> {
        self.see(name);
        self.bytes += io::copy(contents, &mut io::sink()).map_err(BadArchive::Read)?;
        assert!(self.bytes <= LIMITS.bytes);
        Ok(())
    }

    fn link(&mut self, name: &OsString, target: &OsString) -> Result<(), BadArchive> {
        self.see(name);
        assert!(!target.is_empty());
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut tree = Tree::default();
    if parse(&mut &*bytes, LIMITS, &mut tree).is_ok() {
        assert!(tree.last.is_empty());
    }
});
