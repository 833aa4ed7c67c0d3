//! Commands that look leave everything as it was: no key, no folder, no file.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use undercroft_testkit::repository;

use crate::{
    desk::{ADA, Desk},
    support::Sandbox,
};

/// Every command that looks; it may well fail for what isn't there, but it makes nothing.
const LOOKS: &[&[&str]] = &[
    &["check"],
    &["check", "--json"],
    &["schema"],
    &["rehearse", "--seed", "7"],
    &["render", "--check"],
    &["plan"],
    &["plan", "--json"],
    &["status"],
    &["status", "--json"],
    &["events"],
    &["approve"],
    &["doctor", "gpu-01"],
    &["ssh", "gpu-01", "--", "true"],
    &["ssh", "gpu-01", "--installer"],
    &["power", "gpu-01"],
    &["console", "gpu-01"],
    &["secrets", "list"],
    &["secrets", "list", "--json"],
    &["secrets", "list", "--public"],
    &["secrets", "check"],
    &["secrets", "check", "--json"],
    &["secrets", "rekey", "--dry-run"],
    &["rack", "status"],
    &["completions", "bash"],
];

/// All files below a folder with their content, and the folders.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut tree = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                tree.insert(path.clone(), None);
                folders.push(path);
            } else {
                let content = fs::read(&path).unwrap_or_default();
                tree.insert(path, Some(content));
            }
        }
    }
    tree
}

/// Copies what git tracks of an example.
fn copy_example(name: &str, to: &Path) {
    let root = repository();
    let listed = Command::new("git")
        .args(["ls-files", "-z", &format!("examples/{name}")])
        .current_dir(&root)
        .output()
        .unwrap();
    assert!(listed.status.success());
    let prefix = format!("examples/{name}/");
    let list = String::from_utf8(listed.stdout).unwrap();
    for file in list.split('\0').filter(|file| !file.is_empty()) {
        let path = to.join(file.strip_prefix(&prefix).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(root.join(file), path).unwrap();
    }
    assert!(to.join("undercroft.toml").exists());
}

fn close(folder: &Path) {
    for (path, content) in tree(folder) {
        let mode = if content.is_none() { 0o555 } else { 0o444 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap();
}

#[test]
fn commands_that_look_make_nothing() {
    let sandbox = Sandbox::new();
    let folder = sandbox.dir().join("basement");
    copy_example("basement", &folder);
    let before = tree(&sandbox.dir());
    for args in LOOKS {
        let mut command = sandbox.command(args.iter().chain(&["-C", "basement"]));
        command.env("UNDERCROFT_CACHE_DIR", sandbox.dir().join("../cache"));
        let ran = sandbox.finish(&mut command);
        assert!(!ran.err.contains("panicked"), "{args:?}: {}", ran.err);
        let after = tree(&sandbox.dir());
        let new: Vec<_> = after.keys().filter(|p| !before.contains_key(*p)).collect();
        assert!(new.is_empty(), "{args:?} made {new:?}: {}", ran.text());
        assert!(after == before, "{args:?} changed a file");
        // Nix has a cache of its own.
        let home = tree(&sandbox.dir().join("../home"));
        let made = home
            .keys()
            .find(|path| !path.iter().any(|name| name == ".cache"));
        assert_eq!(made, None, "{args:?}");
    }
    // And with what there is to look at once keys are made.
    let init = ["secrets", "init", "--yes", "basement"];
    assert_eq!(
        sandbox.run(init).code,
        1,
        "nobody here is one of its operators"
    );
    fs::write(folder.join("undercroft.toml"), include_str!("fleet.toml")).unwrap();
    let made = sandbox.run(init);
    assert_eq!(made.code, 0, "{}", made.text());
    let before = tree(&sandbox.dir());
    for args in LOOKS.iter().filter(|args| args[0] == "secrets") {
        let ran = sandbox.run(args.iter().chain(&["-C", "basement"]));
        assert!(tree(&sandbox.dir()) == before, "{args:?}: {}", ran.text());
    }
}

#[test]
fn a_folder_that_nobody_may_write_can_be_looked_at() {
    let Some(desk) = Desk::new() else { return };
    let folder = desk.path("basement");
    copy_example("basement", &folder);
    close(&folder);
    let before = tree(&folder);
    let at = folder.to_str().unwrap();
    for args in LOOKS {
        let args: Vec<&str> = args.iter().copied().chain(["-C", at]).collect();
        let ran = desk.as_user(ADA, &args);
        let text = ran.text.to_lowercase();
        assert!(!text.contains("permission denied"), "{args:?}: {text}");
        assert!(!text.contains("mode 0"), "{args:?}: {text}");
        assert!(tree(&folder) == before, "{args:?}");
    }
    for args in [
        &["check"][..],
        &["render", "--check"],
        &["secrets", "list"],
        &["status"],
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["-C", at]).collect();
        assert_eq!(desk.as_user(ADA, &args).code, 0, "{args:?}");
    }
}

#[test]
fn ci_checks_what_it_can_without_a_key_and_says_what_it_couldnt() {
    for named in [false, true] {
        let sandbox = Sandbox::new();
        let identity = age::x25519::Identity::generate();
        let mut inventory = include_str!("fleet.toml").to_owned();
        if named {
            inventory.push_str(&format!(
                "\n[secrets]\noperators = [\"{}\"]\n",
                identity.to_public()
            ));
        }
        sandbox.write("undercroft.toml", &inventory);
        let secret = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
        fs::write(sandbox.dir().join("../key"), secret).unwrap();
        let made = sandbox.run(["secrets", "init", "--identity", "../key"]);
        assert_eq!(made.code, 0, "{}", made.text());
        // What git has.
        fs::remove_dir_all(sandbox.dir().join(".undercroft")).unwrap();
        let before = tree(&sandbox.dir());
        let ran = sandbox.run(["secrets", "check"]);
        assert_eq!(ran.code, 0, "{}", ran.text());
        assert!(ran.out.contains("weren't compared"), "{}", ran.text());
        assert!(ran.out.contains("weren't checked"), "{}", ran.text());
        assert_eq!(
            ran.out.contains("isn't known here"),
            !named,
            "{}",
            ran.text()
        );
        assert!(!ran.out.contains("rekey` encrypts"), "{}", ran.text());
        assert!(tree(&sandbox.dir()) == before);
        // Nothing is made in place of an identity that isn't at hand.
        for args in [&["init"][..], &["rotate", "k3s/server_token"]] {
            let ran = sandbox.run(["secrets"].iter().chain(args));
            assert_eq!(ran.code, 1, "{args:?}: {}", ran.text());
        }
        let keys = sandbox.dir().join(".undercroft/operator-identity.txt");
        assert!(!keys.exists());
    }
}
