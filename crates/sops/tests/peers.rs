//! The real `sops` and `ssh-to-age` read what is written here, and the other way round.
//!
//! `cargo xtask peers` builds them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use age::secrecy::ExposeSecret as _;
use undercroft_sops::{
    Encrypted, Opened, Recipient, Seal, Value, encrypt_new, identity_of_ssh_host_key, parse_plain,
};
use undercroft_testkit::{OrSkip as _, peer};

const PLAIN: &str = "\
# who may come in
token: K10ab::server:secret
numbers:
    port: 6443
    share: 1.5
    tiny: 0.000001
    big: 1e21
    on: true
    none: null
    at: 2026-01-02T03:04:05Z
list:
    # the first
    - one
    - \"2\"
    - key: |
        -----BEGIN KEY-----
        abc
        -----END KEY-----
      other: \" x\"
    - []
quotes: \"it's \\\"so\\\"\\tü\"
\"yes\": \"on\"
no_newline: |-
    a
    b
plain_unencrypted: for all to see
empty: \"\"
";

fn entropy() -> impl FnMut(&mut [u8]) {
    |buffer| {
        use std::io::Read as _;
        std::fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(buffer))
            .unwrap();
    }
}

struct Desk {
    folder: tempfile::TempDir,
    sops: PathBuf,
    identity: age::x25519::Identity,
    recipient: Recipient,
}

impl Desk {
    fn new() -> Option<Self> {
        let sops = peer("sops").or_skip()?;
        let folder = tempfile::tempdir().unwrap();
        let identity = age::x25519::Identity::generate();
        std::fs::write(
            folder.path().join("key.txt"),
            identity.to_string().expose_secret(),
        )
        .unwrap();
        let recipient = identity.to_public().to_string().parse().unwrap();
        Some(Self {
            folder,
            sops,
            identity,
            recipient,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What sops prints, when it is well.
    fn sops(&self, args: &[&str]) -> String {
        let output = Command::new(&self.sops)
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .env("SOPS_AGE_KEY_FILE", self.path("key.txt"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "sops {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn seal(&self, tree: &Value) -> Encrypted {
        encrypt_new(
            tree,
            Seal {
                recipients: std::slice::from_ref(&self.recipient),
                now_s: 1_795_397_506,
                entropy: &mut entropy(),
            },
        )
        .unwrap()
    }

    fn open_whole(&self, name: &str) -> Opened {
        let bytes = std::fs::read(self.path(name)).unwrap();
        let file = Encrypted::parse(&bytes).unwrap();
        file.open(&[&self.identity]).unwrap()
    }

    fn open(&self, name: &str) -> Value {
        self.open_whole(name).tree
    }
}

#[test]
fn sops_reads_what_is_written_here() {
    let Some(desk) = Desk::new() else { return };
    let tree = parse_plain(PLAIN.as_bytes()).unwrap();
    let sealed = desk.seal(&tree);
    std::fs::write(desk.path("a.sops.yaml"), sealed.write()).unwrap();
    let plain = desk.sops(&["decrypt", "a.sops.yaml"]);
    assert!(parse_plain(plain.as_bytes()).unwrap() == tree, "{plain}");
    // A value as sops-nix takes it out.
    let token = desk.sops(&["decrypt", "--extract", "[\"token\"]", "a.sops.yaml"]);
    assert_eq!(token, "K10ab::server:secret");
}

/// The MAC is bound to the moment as Go writes it, however it is written in the file.
#[test]
fn a_moment_is_the_same_to_both_however_it_is_written() {
    let Some(desk) = Desk::new() else { return };
    let tree = parse_plain(b"a: b\n").unwrap();
    let sealed = desk.seal(&tree).write();
    for (written, opens) in [
        ("2026-11-23T01:31:46Z", true),
        ("2026-11-23T01:31:46.75Z", true),
        ("2026-11-23T01:31:46+00:00", true),
        ("2026-11-23T01:31:46-00:00", true),
        ("2026-11-23T01:31:47Z", false),
        ("2026-11-23T03:31:46+02:00", false),
        ("2026-11-23t01:31:46Z", false),
        ("2026-11-23 01:31:46Z", false),
        ("2026-11-23", false),
    ] {
        let file = sealed.replace("2026-11-23T01:31:46Z", written);
        std::fs::write(desk.path("m.sops.yaml"), &file).unwrap();
        let status = Command::new(&desk.sops)
            .args(["decrypt", "m.sops.yaml"])
            .current_dir(desk.folder.path())
            .env("SOPS_AGE_KEY_FILE", desk.path("key.txt"))
            .output()
            .unwrap()
            .status;
        assert_eq!(status.success(), opens, "sops: {written}");
        let own = Encrypted::parse(file.as_bytes()).and_then(|file| file.open(&[&desk.identity]));
        assert_eq!(own.is_ok(), opens, "{written}");
    }
}

#[test]
fn what_sops_wrote_is_read_here() {
    let Some(desk) = Desk::new() else { return };
    std::fs::write(desk.path("plain.yaml"), PLAIN).unwrap();
    let sealed = desk.sops(&["encrypt", "--age", desk.recipient.as_str(), "plain.yaml"]);
    std::fs::write(desk.path("b.sops.yaml"), &sealed).unwrap();
    let tree = parse_plain(PLAIN.as_bytes()).unwrap();
    assert!(desk.open("b.sops.yaml") == tree);
    // Written anew without a change, it is sops' own file, byte for byte; but for the order of
    // `recipient` and `enc`, which differs between its releases.
    let file = Encrypted::parse(sealed.as_bytes()).unwrap().write();
    let halves = |text: &str| {
        let (values, sops) = text.split_once("\nsops:\n").unwrap();
        let lines = sops.lines().map(|line| line.replace("- ", "  "));
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        (values.to_owned(), lines)
    };
    assert_eq!(halves(&file), halves(&sealed));
}

#[test]
fn a_file_goes_to_and_fro_between_the_two() {
    let Some(desk) = Desk::new() else { return };
    let mut tree = parse_plain(PLAIN.as_bytes()).unwrap();
    std::fs::write(desk.path("c.sops.yaml"), desk.seal(&tree).write()).unwrap();
    // sops changes a value, as `sops edit` would.
    desk.sops(&["set", "c.sops.yaml", "[\"token\"]", "\"other\""]);
    tree.set("token", Value::text("other"));
    let plain = desk.sops(&["decrypt", "c.sops.yaml"]);
    let own = desk.open_whole("c.sops.yaml");
    assert!(own.tree == tree, "{plain}\n{}", own.to_plain().as_str());
    // sops takes a new data key.
    desk.sops(&["rotate", "--in-place", "c.sops.yaml"]);
    assert!(desk.open("c.sops.yaml") == tree);
    // A second recipient by way of sops' own rules.
    let second = age::x25519::Identity::generate();
    let rules = format!(
        "creation_rules:\n    - path_regex: \\.sops\\.yaml$\n      age: {},{}\n",
        desk.recipient,
        second.to_public()
    );
    std::fs::write(desk.path(".sops.yaml"), rules).unwrap();
    desk.sops(&["updatekeys", "--yes", "c.sops.yaml"]);
    let bytes = std::fs::read(desk.path("c.sops.yaml")).unwrap();
    let opened = Encrypted::parse(&bytes).unwrap().open(&[&second]).unwrap();
    assert!(opened.tree == tree);
    // And back: one recipient fewer, a new data key, and sops is content.
    let anew = opened
        .seal_anew(Seal {
            recipients: std::slice::from_ref(&desk.recipient),
            now_s: 1_795_397_507,
            entropy: &mut entropy(),
        })
        .unwrap();
    std::fs::write(desk.path("c.sops.yaml"), anew.write()).unwrap();
    let plain = desk.sops(&["decrypt", "c.sops.yaml"]);
    assert!(parse_plain(plain.as_bytes()).unwrap() == tree, "{plain}");
}

#[test]
fn the_rules_of_what_is_encrypted_are_kept() {
    let Some(desk) = Desk::new() else { return };
    let plain = "apiVersion: v1\nkind: Secret\ndata:\n    a: b\n    # c\n    d: 3\n";
    std::fs::write(desk.path("plain.yaml"), plain).unwrap();
    for rule in [
        ("encrypted_regex", "^data$"),
        ("unencrypted_regex", "^(apiVersion|kind)$"),
        ("encrypted_suffix", "data"),
        ("unencrypted_suffix", "ind"),
    ] {
        for mac_only in [false, true] {
            let rules = format!(
                "creation_rules:\n    - age: {}\n      {}: {:?}\n      mac_only_encrypted: {mac_only}\n",
                desk.recipient, rule.0, rule.1,
            );
            std::fs::write(desk.path(".sops.yaml"), rules).unwrap();
            let args = ["encrypt", "plain.yaml"];
            let sealed = desk.sops(&args);
            let mut opened = Encrypted::parse(sealed.as_bytes())
                .unwrap()
                .open(&[&desk.identity])
                .unwrap();
            opened.tree.set("data/d", Value::Int(4));
            let sealed = opened
                .seal(Seal {
                    recipients: std::slice::from_ref(&desk.recipient),
                    now_s: 1_795_397_507,
                    entropy: &mut entropy(),
                })
                .unwrap();
            std::fs::write(desk.path("d.sops.yaml"), sealed.write()).unwrap();
            let back = desk.sops(&["decrypt", "d.sops.yaml"]);
            assert_eq!(back, plain.replace("d: 3", "d: 4"), "{rule:?} {mac_only}");
        }
    }
}

#[test]
fn sops_notices_that_a_value_was_taken_away() {
    let Some(desk) = Desk::new() else { return };
    let sealed = desk.seal(&parse_plain(PLAIN.as_bytes()).unwrap()).write();
    let shorter: String = sealed
        .lines()
        .filter(|line| !line.starts_with("token:"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(desk.path("e.sops.yaml"), &shorter).unwrap();
    let status = Command::new(&desk.sops)
        .args(["decrypt", "e.sops.yaml"])
        .current_dir(desk.folder.path())
        .env("SOPS_AGE_KEY_FILE", desk.path("key.txt"))
        .output()
        .unwrap()
        .status;
    assert!(!status.success());
    let file = Encrypted::parse(shorter.as_bytes()).unwrap();
    assert!(file.open(&[&desk.identity]).is_err());
}

#[test]
fn host_keys_become_what_ssh_to_age_makes_of_them() {
    let Some(program) = peer("ssh-to-age").or_skip() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str], file: &Path| {
        let output = Command::new(&program)
            .args(args)
            .arg("-i")
            .arg(file)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for i in 0..8 {
        let key = ssh_key::PrivateKey::random(
            &mut ssh_key::rand_core::OsRng,
            ssh_key::Algorithm::Ed25519,
        )
        .unwrap();
        let line = key.public_key().to_openssh().unwrap();
        let private = key.to_openssh(ssh_key::LineEnding::LF).unwrap();
        let (public_file, private_file) = (
            folder.path().join(format!("{i}.pub")),
            folder.path().join(format!("{i}")),
        );
        std::fs::write(&public_file, &line).unwrap();
        std::fs::write(&private_file, private.as_bytes()).unwrap();
        let recipient = Recipient::of_ssh_host_key(&line).unwrap();
        assert_eq!(run(&[], &public_file), recipient.as_str());
        let identity = identity_of_ssh_host_key(&private).unwrap();
        assert_eq!(run(&["-private-key"], &private_file), identity.as_str());
    }
}
