//! What goes in comes out, and nothing else.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use proptest::prelude::*;

use super::*;

const LIMITS: ArchiveLimits = ArchiveLimits {
    bytes: 1_000_000,
    entries: 1000,
};

fn tree(folder: &Path) {
    fs::create_dir_all(folder.join("one/empty")).unwrap();
    fs::write(folder.join("one/b"), "text").unwrap();
    fs::write(folder.join("one/a"), [7; 100_000]).unwrap();
    fs::set_permissions(folder.join("one/a"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("/etc/passwd", folder.join("one/c")).unwrap();
    fs::write(folder.join("two"), "").unwrap();
}

fn names(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    let all = all.iter();
    all.map(|(name, file)| ((*name).to_owned(), (*file).to_owned()))
        .collect()
}

fn packed(
    folder: &Path,
    entries: &[(&str, &str)],
    limits: ArchiveLimits,
) -> Result<Vec<u8>, PackError> {
    let mut bytes = Vec::new();
    pack(folder, &names(entries), limits, &mut bytes).map(|()| bytes)
}

fn as_is(name: &str) -> Option<String> {
    Some(name.to_owned())
}

/// An archive of the words between spaces; `_` is the empty one.
fn archive(words: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in words.split(' ') {
        let word = if word == "_" { "" } else { word };
        bytes.extend_from_slice(&(word.len() as u64).to_le_bytes());
        bytes.extend_from_slice(word.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

#[test]
fn a_tree_comes_back_as_it_went() {
    let (from, to, again) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    tree(from.path());
    let all = [("one", "one"), ("two", "two")];
    let bytes = packed(from.path(), &all, LIMITS).unwrap();
    unpack(&mut bytes.as_slice(), to.path(), LIMITS, &as_is).unwrap();
    assert_eq!(packed(to.path(), &all, LIMITS).unwrap(), bytes);
    let mode = |name: &str| {
        fs::metadata(to.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("one/a"), mode("one/b")), (0o555, 0o444));
    let link = fs::read_link(to.path().join("one/c")).unwrap();
    assert_eq!(link, Path::new("/etc/passwd"));

    // Other names on the way in, and on the way out.
    let bytes = packed(from.path(), &[("out", "two")], LIMITS).unwrap();
    let place = |name: &str| (name == "out").then(|| "zwei".to_owned());
    unpack(&mut bytes.as_slice(), again.path(), LIMITS, &place).unwrap();
    assert!(again.path().join("zwei").is_file());
    let error = unpack(&mut bytes.as_slice(), again.path(), LIMITS, &|_| None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the archive has \"out\", which nobody asked for"
    );
    // What is there stays as it is.
    assert!(unpack(&mut bytes.as_slice(), again.path(), LIMITS, &place).is_err());
}

#[test]
fn it_is_what_nix_writes() {
    let from = tempfile::tempdir().unwrap();
    tree(from.path());
    let Ok(by_nix) = Command::new("nix-store")
        .arg("--dump")
        .arg(from.path())
        .output()
    else {
        eprintln!("SKIPPED: there is no nix-store on this machine");
        return;
    };
    let all = [("one", "one"), ("two", "two")];
    let ours = packed(from.path(), &all, LIMITS).unwrap();
    assert!(by_nix.status.success() && by_nix.stdout == ours);
}

#[test]
fn what_has_no_place_in_an_archive_is_refused() {
    let from = tempfile::tempdir().unwrap();
    tree(from.path());
    let _socket = std::os::unix::net::UnixListener::bind(from.path().join("one/d")).unwrap();
    let error = |entries: &[(&str, &str)], limits| {
        let error = packed(from.path(), entries, limits).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        error(&[("one", "one")], LIMITS),
        "one/d is a socket, and an archive has files, folders and links"
    );
    assert_eq!(error(&[("x", "x")], LIMITS), "x isn't there");
    let few = ArchiveLimits {
        entries: 2,
        ..LIMITS
    };
    let small = ArchiveLimits { bytes: 9, ..LIMITS };
    assert_eq!(
        error(&[("one", "one")], few),
        "it has more than 2 files, folders and links"
    );
    assert_eq!(
        error(&[("one", "one")], small),
        "it has more than 9 bytes in its files"
    );
}

#[test]
fn what_is_no_archive_is_refused_with_its_place() {
    const FILE: &str = "( type regular contents text )";
    let error = |words: &str| {
        let to = tempfile::tempdir().unwrap();
        let error = unpack(&mut archive(words).as_slice(), to.path(), LIMITS, &as_is);
        error.unwrap_err().to_string()
    };
    let folder = |inside: &str| error(&format!("nix-archive-1 ( type directory {inside} )"));
    let named = |name: &str| folder(&format!("entry ( name {name} node {FILE} )"));
    let deep = (0..200).fold(FILE.to_owned(), |inside, _| {
        format!("( type directory entry ( name a node {inside} ) )")
    });
    all_say(&[
        (error("nix-archive-2"), "where `nix-archive-1` belongs"),
        (error("nix-archive-1"), "ends within a length"),
        (
            error(&format!("nix-archive-1 {FILE}")),
            "where a folder belongs",
        ),
        (named(".."), "as a name"),
        (named("a/b"), "as a name"),
        (named("_"), "as a name"),
        (named(&"a".repeat(256)), "more than 255 bytes in a name"),
        (
            folder(&format!(
                "entry ( name b node {FILE} ) entry ( name a node {FILE} )"
            )),
            "after a name that isn't before it",
        ),
        (
            folder(&format!(
                "entry ( name a node ( type symlink target / ) ) entry ( name a node {FILE} )"
            )),
            "after a name that isn't before it",
        ),
        (
            folder("entry ( name a node ( type device ) )"),
            "where `regular`, `symlink` or `directory` belongs",
        ),
        (
            folder("entry ( name a node ( type symlink target _ ) )"),
            "as where a link leads",
        ),
        (
            folder(&format!("entry ( name a node {deep} )")),
            "more than 128 folders",
        ),
        (folder(") entry"), "goes on after its end"),
    ]);
    // A length that nothing can have.
    let mut huge =
        archive("nix-archive-1 ( type directory entry ( name a node ( type regular contents");
    huge.extend_from_slice(&u64::MAX.to_le_bytes());
    let to = tempfile::tempdir().unwrap();
    let error = unpack(&mut huge.as_slice(), to.path(), LIMITS, &as_is).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the archive has more than 1000000 bytes in its files"
    );
}

fn all_say(all: &[(String, &str)]) {
    for (said, expected) in all {
        assert!(said.contains(expected), "{said:?} has no {expected:?}");
    }
}

#[test]
fn an_archive_that_ends_anywhere_is_none() {
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("a"), "text").unwrap();
    symlink("b", from.path().join("l")).unwrap();
    let bytes = packed(from.path(), &[("a", "a"), ("l", "l")], LIMITS).unwrap();
    for end in 0..bytes.len() {
        let to = tempfile::tempdir().unwrap();
        assert!(unpack(&mut &bytes[..end], to.path(), LIMITS, &as_is).is_err());
    }
}

/// Takes all, and keeps nothing.
struct Nothing;

impl Sink for Nothing {
    type Error = BadArchive;
    fn folder(&mut self, _: &std::ffi::OsString) -> Result<(), BadArchive> {
        Ok(())
    }
    fn end(&mut self) -> Result<(), BadArchive> {
        Ok(())
    }
    fn file(
        &mut self,
        _: &std::ffi::OsString,
        _: bool,
        _: &mut dyn std::io::Read,
    ) -> Result<(), BadArchive> {
        Ok(())
    }
    fn link(&mut self, _: &std::ffi::OsString, _: &std::ffi::OsString) -> Result<(), BadArchive> {
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_words_make_it_fall_over(words in "(\\(|\\)|type|entry|name|node|regular|contents|directory|a|_| ){0,40}") {
        let bytes = archive(&format!("nix-archive-1 ( type directory {words}"));
        let _ = parse(&mut bytes.as_slice(), LIMITS, &mut Nothing);
    }
}
