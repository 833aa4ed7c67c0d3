//! Every name that Undercroft uses in a repository, taken by something else than the file that it
//! expects there.

use std::{
    fs::{self, File},
    os::unix::net::UnixListener,
    path::Path,
};

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::{COMMANDS, INVENTORY, Victim, tells_nothing};

/// Files that are read, or written, by some command.
const FILES: &[&str] = &[
    "undercroft.toml",
    "undercroft.lock",
    ".sops.yaml",
    "values/cilium.yaml",
    "apps/mine/app.toml",
    "apps/mine/a.yaml",
    "apps/mine/manifests/a.yaml",
    "gitops/.rendered",
    "gitops/README.md",
    "gitops/graph.svg",
    "gitops/bootstrap/root.yaml",
    "gitops/applications/projects.yaml",
    "gitops/applications/somebodys.yaml",
    "gitops/components/cilium/values.yaml",
    "dev/k3d.yaml",
    "dev/k3d-mounts.sh",
    "secrets/operators.sops.yaml",
    "secrets/servers.sops.yaml",
    "secrets/host-keys/control-01.pub",
    "secrets/host-keys/control-01.age",
    "secrets/host-keys/recipients.txt",
    "secrets/somebodys.yaml",
    "facts/control-01.json",
    "facts/operators.pub",
];

/// Folders on the way to them.
const FOLDERS: &[&str] = &[
    "values",
    "apps",
    "apps/mine",
    "gitops",
    "gitops/applications",
    "gitops/components",
    "gitops/components/cilium",
    "gitops/components/cilium/manifests",
    "secrets",
    "secrets/host-keys",
    "facts",
    "dev",
    "home",
];

/// Runs every command on a repository in use at one of whose names something was put. Nothing
/// outside of it is told, changed or made.
fn try_all(victim: &Victim, what: &str) {
    let outside = victim.picture(&victim.outside());
    for words in COMMANDS {
        let ran = victim.run(words);
        tells_nothing(&ran, &format!("{what}: {}", words.join(" ")));
    }
    assert_eq!(victim.picture(&victim.outside()), outside, "{what}");
}

/// Undoes what one case put into a repository, which is cheaper than another repository.
fn with_each(names: &[&str], put: impl Fn(&Victim, &str)) {
    let pristine = Victim::in_use();
    for name in names {
        let victim = Victim::new();
        copy(&pristine.dir(), &victim.dir());
        put(&victim, name);
        try_all(&victim, name);
    }
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp")
        .args(["-a", "--"])
        .arg(from.join("."))
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_link_at_a_files_name_is_never_followed() {
    with_each(FILES, |victim, name| {
        victim.link(name, &victim.outside().join("key"));
    });
}

#[test]
fn a_link_at_a_folders_name_is_never_followed() {
    with_each(FOLDERS, |victim, name| {
        victim.link(name, &victim.outside());
    });
}

#[test]
fn links_to_what_the_system_knows_are_not_followed_either() {
    let targets = ["/etc/passwd", "/proc/self/environ", "/dev/zero", "nowhere"];
    for (i, name) in FILES.iter().enumerate().step_by(3) {
        let victim = Victim::new();
        victim.link(name, Path::new(targets[i % targets.len()]));
        for words in [
            ["check"].as_slice(),
            &["render", "--check"],
            &["render"],
            &["secrets", "init"],
            &["secrets", "check"],
        ] {
            tells_nothing(&victim.run(words), name);
        }
    }
}

#[test]
fn a_fifo_a_socket_a_folder_and_a_giant_are_no_files() {
    for (i, name) in FILES.iter().enumerate() {
        let victim = Victim::new();
        let path = victim.place(name);
        let mut socket = None;
        match i % 4 {
            0 => mkfifoat(CWD, &path, Mode::from_raw_mode(0o644)).unwrap(),
            1 => fs::create_dir(&path).unwrap(),
            2 => File::create(&path).unwrap().set_len(1 << 40).unwrap(),
            _ => {
                let short = victim.root.path().join("s");
                socket = Some(UnixListener::bind(&short).unwrap());
                fs::rename(&short, &path).unwrap();
            }
        }
        for words in [
            ["check"].as_slice(),
            &["render", "--check"],
            &["render"],
            &["dev", "config"],
            &["secrets", "init"],
            &["secrets", "check"],
        ] {
            let ran = victim.run(words);
            tells_nothing(&ran, name);
            assert!(!ran.err.contains("out of memory"), "{name}: {}", ran.text());
        }
        drop(socket);
    }
}

#[test]
fn what_is_refused_is_said_with_its_place_and_what_to_do() {
    for (name, words) in [
        ("undercroft.toml", ["check"].as_slice()),
        ("undercroft.lock", &["render"]),
        ("values/cilium.yaml", &["render"]),
        ("apps", &["render"]),
        ("apps/mine", &["render"]),
        ("apps/mine/a.yaml", &["render"]),
        ("gitops", &["render"]),
        ("gitops/.rendered", &["render", "--check"]),
        ("gitops/applications/projects.yaml", &["render"]),
        ("secrets", &["secrets", "init"]),
        ("secrets/operators.sops.yaml", &["secrets", "init"]),
        ("secrets/host-keys", &["secrets", "init"]),
        ("secrets/host-keys/control-01.pub", &["secrets", "init"]),
        (".sops.yaml", &["secrets", "init"]),
    ] {
        let victim = Victim::new();
        victim.link(name, &victim.outside());
        let ran = victim.run(words);
        assert_ne!(ran.code, 0, "{name}: {}", ran.text());
        assert!(ran.err.contains(name), "{name}: {}", ran.text());
        assert!(ran.err.contains("symbolic link"), "{name}: {}", ran.text());
        assert!(ran.err.contains("hint:"), "{name}: {}", ran.text());
    }
}

#[test]
fn init_writes_through_no_link() {
    for name in [".gitignore", "README.md", "flake.nix", "undercroft.toml"] {
        let victim = Victim::new();
        fs::remove_file(victim.dir().join("undercroft.toml")).unwrap();
        victim.link(name, &victim.outside().join("made"));
        let ran = victim.run(&["init"]);
        tells_nothing(&ran, name);
        assert!(!victim.outside().join("made").exists(), "{name}");
    }
}

/// The folders that the inventory names are the repository's to choose, and choose nothing outside
/// of it, nor the state, nor git's own.
#[test]
fn the_inventory_names_no_folder_that_isnt_its_own() {
    for folder in [
        "../outside",
        "/etc",
        ".undercroft",
        ".git",
        "a/.git/hooks",
        "./.undercroft/ssh",
    ] {
        for (section, key) in [
            ("gitops", "path"),
            ("gitops", "apps_path"),
            ("secrets", "path"),
        ] {
            let victim = Victim::new();
            let line = format!("{key} = {folder:?}\n");
            let text = if section == "gitops" {
                INVENTORY.replace("[gitops]\n", &format!("[gitops]\n{line}"))
            } else {
                format!("{INVENTORY}\n[{section}]\n{line}")
            };
            victim.write("undercroft.toml", &text);
            let ran = victim.run(&["check"]);
            assert_eq!(ran.code, 65, "{section}.{key} = {folder}: {}", ran.text());
        }
    }
}
