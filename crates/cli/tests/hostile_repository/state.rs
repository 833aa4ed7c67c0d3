//! The state folder in every way in which it may not be believed.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::{COMMANDS, SECRET, Victim, has_git, tells_nothing};

/// Every command refuses, says why and what to do, and changes nothing.
fn refused(victim: &Victim, why: &str, what_to_do: &str) {
    let before = victim.picture(victim.root.path());
    for words in COMMANDS {
        let ran = victim.run(words);
        let command = words.join(" ");
        tells_nothing(&ran, &command);
        assert_eq!(ran.code, 65, "{command}: {}", ran.text());
        assert!(ran.err.contains(why), "{command}: {}", ran.text());
        assert!(ran.err.contains(what_to_do), "{command}: {}", ran.text());
    }
    assert_eq!(victim.picture(victim.root.path()), before);
}

/// An identity of somebody else's, as age-keygen writes it.
fn strangers_identity() -> String {
    use age::secrecy::ExposeSecret as _;
    let identity = age::x25519::Identity::generate();
    format!(
        "# public key: {}\n{}\n",
        identity.to_public(),
        identity.to_string().expose_secret()
    )
}

#[test]
fn what_was_committed_is_not_believed_and_doing_as_told_helps() {
    if !has_git() {
        return;
    }
    for file in [
        "operator-identity.txt",
        "journal.db",
        "ssh/id_ed25519",
        ".gitignore",
        "rack/rack.json",
    ] {
        let attacker = Victim::new();
        attacker.write(&format!(".undercroft/{file}"), &strangers_identity());
        let public =
            fs::read_to_string(attacker.dir().join(format!(".undercroft/{file}"))).unwrap();
        let public = public.split_whitespace().nth(3).unwrap().to_owned();
        attacker.commit(&[&format!(".undercroft/{file}")]);
        let victim = Victim::new();
        fs::remove_dir_all(victim.dir()).unwrap();
        let cloned = Command::new("git")
            .args(["clone", "-q"])
            .args([attacker.dir(), victim.dir()])
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .status()
            .unwrap();
        assert!(cloned.success());
        refused(&victim, file, "git rm -r --cached");
        // As told: moved away, and out of git's index.
        fs::rename(
            victim.dir().join(".undercroft"),
            victim.root.path().join("home/undercroft-committed"),
        )
        .unwrap();
        refused(&victim, file, "git rm -r --cached");
        victim.git(&["rm", "-q", "-r", "--cached", ".undercroft"]);
        let made = victim.run(&["secrets", "init"]);
        assert_eq!(made.code, 0, "{}", made.text());
        let sealed = fs::read_to_string(victim.dir().join("secrets/operators.sops.yaml")).unwrap();
        assert!(!sealed.contains(&public), "{sealed}");
        let unknown = victim.git(&["ls-files", "--others", "--exclude-standard"]);
        assert!(!unknown.contains(".undercroft/"), "{unknown}");
    }
}

#[test]
fn an_entry_of_the_index_is_enough() {
    if !has_git() {
        return;
    }
    let victim = Victim::in_use();
    victim.commit(&[]);
    let fine = victim.run(&["status"]);
    assert_eq!(fine.code, 0, "{}", fine.text());
    // A file of one's own that is only staged: the next commit publishes it.
    victim.git(&["add", "-f", ".undercroft/operator-identity.txt"]);
    refused(&victim, "operator-identity.txt", "git rm -r --cached");
    victim.git(&["rm", "-q", "-r", "--cached", ".undercroft"]);
    assert_eq!(victim.run(&["status"]).code, 0);
}

#[test]
fn a_state_that_leads_out_is_not_believed() {
    let victim = Victim::new();
    victim.link(".undercroft", &victim.outside());
    refused(&victim, "symbolic link", "remove the link");
    let nowhere = Victim::new();
    nowhere.link(".undercroft", Path::new("nowhere"));
    refused(&nowhere, "symbolic link", "remove the link");
    for name in [
        "operator-identity.txt",
        "controller.lock",
        "journal.db",
        "journal.db-wal",
        "journal.db-shm",
        "journal.db-journal",
        "journal.head",
        ".gitignore",
        "ssh",
        "ssh/id_ed25519",
        "rack",
        "rack/machines",
        "rack/supervisor.log",
    ] {
        let victim = Victim::new();
        let out = victim.outside();
        victim.link(&format!(".undercroft/{name}"), &out);
        refused(&victim, name, "remove the link");
        victim.link(&format!(".undercroft/{name}"), Path::new("made-elsewhere"));
        refused(&victim, name, "remove the link");
    }
}

#[test]
fn a_state_of_somebody_elses_is_not_believed() {
    if !rustix::process::geteuid().is_root() {
        undercroft_testkit::skip("only root can give files away");
        return;
    }
    for name in [
        ".undercroft",
        ".undercroft/operator-identity.txt",
        ".undercroft/ssh",
    ] {
        let victim = Victim::in_use();
        fs::create_dir_all(victim.dir().join(".undercroft/ssh")).unwrap();
        chown(victim.dir().join(name), Some(4321), None).unwrap();
        refused(&victim, "4321", "chown -R");
    }
}

#[test]
fn what_is_no_file_is_no_state() {
    let victim = Victim::new();
    fs::create_dir(victim.dir().join(".undercroft")).unwrap();
    mkfifoat(
        CWD,
        victim.dir().join(".undercroft/journal.db"),
        Mode::from_raw_mode(0o600),
    )
    .unwrap();
    refused(&victim, "a FIFO or a device", "take it away");
    let victim = Victim::new();
    victim.write(".undercroft", SECRET);
    refused(&victim, "isn't a folder", "take it away");
}

#[test]
fn what_is_in_it_is_closed_to_others_at_the_next_start() {
    let victim = Victim::in_use();
    let state = victim.dir().join(".undercroft");
    let identity = state.join("operator-identity.txt");
    fs::set_permissions(&state, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&identity, Permissions::from_mode(0o644)).unwrap();
    let ran = victim.run(&["secrets", "init"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&state), mode(&identity)), (0o700, 0o600));
}

/// Also of a folder that was never `init`ed, and whatever became of the file meanwhile.
#[test]
fn git_never_sees_it() {
    if !has_git() {
        return;
    }
    for broken in [
        None,
        Some(""),
        Some("# What Undercroft knows"),
        Some("*\n!ssh\n"),
    ] {
        let victim = Victim::new();
        victim.git(&["init", "-q"]);
        let made = victim.run(&["secrets", "init"]);
        assert_eq!(made.code, 0, "{}", made.text());
        let ignore = victim.dir().join(".undercroft/.gitignore");
        match broken {
            Some(text) => fs::write(&ignore, text).unwrap(),
            None => fs::remove_file(&ignore).unwrap(),
        }
        // A command that only reads is enough.
        assert_eq!(victim.run(&["status"]).code, 0);
        victim.git(&["add", "-A"]);
        let staged = victim.git(&["ls-files"]);
        assert!(!staged.contains(".undercroft/"), "{broken:?}: {staged}");
    }
}
