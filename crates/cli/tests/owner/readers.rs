//! Nobody becomes a reader of secrets because the repository says so.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use age::secrecy::ExposeSecret as _;
use undercroft_testkit::skip;

use crate::support::{Ran, Sandbox};

struct Fleet {
    sandbox: Sandbox,
    operator: age::x25519::Identity,
}

/// Every command that writes secrets.
const WRITES: &[&[&str]] = &[
    &["secrets", "init"],
    &["secrets", "rotate", "k3s/server_token"],
    &["secrets", "rotate", "k3s/tls/server-ca.crt"],
    &["secrets", "rotate", "grafana/admin_password"],
    &["secrets", "rekey"],
    &["secrets", "edit", "secrets/servers.sops.yaml"],
];

impl Fleet {
    /// A fleet with one operator, whose identity is at hand.
    fn new() -> Self {
        let fleet = Self {
            sandbox: Sandbox::new(),
            operator: age::x25519::Identity::generate(),
        };
        let secret = fleet.operator.to_string();
        fleet.sandbox.write("../key", secret.expose_secret());
        fleet.operators(&[]);
        let made = fleet.run(&["secrets", "init"]);
        assert_eq!(made.code, 0, "{}", made.text());
        fleet
    }

    /// The inventory with these operators beside the one.
    fn operators(&self, more: &[String]) {
        let mut all = vec![self.operator.to_public().to_string()];
        all.extend(more.iter().cloned());
        let text = format!(
            "{}\n[secrets]\noperators = {all:?}\n",
            include_str!("fleet.toml")
        );
        self.sandbox.write("undercroft.toml", &text);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(args);
        command
            .env("SOPS_AGE_KEY_FILE", self.sandbox.dir().join("../key"))
            .env("EDITOR", self.sandbox.dir().join("../editor"));
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.edited_by("echo 'mine: here' >> \"$1\"");
        self.sandbox.finish(&mut self.command(args))
    }

    fn edited_by(&self, script: &str) {
        self.sandbox
            .write("../editor", &format!("#!/bin/sh\n{script}\n"));
        let path = self.sandbox.dir().join("../editor");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path, mode).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.dir().join(name)
    }

    /// All that is encrypted, and to whom.
    fn files(&self) -> Vec<(PathBuf, String)> {
        let mut files = Vec::new();
        for folder in [".", "secrets", "secrets/host-keys"] {
            for entry in fs::read_dir(self.path(folder)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                if name.ends_with(".yaml") || name.ends_with(".age") {
                    files.push((path.clone(), fs::read_to_string(&path).unwrap()));
                }
            }
        }
        files.sort();
        files
    }

    /// Puts a key pair of a stranger's in a machine's place: the public half, and the private half
    /// too where it is encrypted to somebody.
    fn swap(&self, node: &str, private_to: Option<&str>) -> String {
        let file = self.path("../stranger");
        let _ = fs::remove_file(&file);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", node, "-f"])
            .arg(&file)
            .status()
            .unwrap();
        assert!(made.success());
        let public = fs::read_to_string(file.with_extension("pub")).unwrap();
        fs::write(self.path(&format!("secrets/host-keys/{node}.pub")), &public).unwrap();
        if let Some(recipient) = private_to {
            let recipient: age::x25519::Recipient = recipient.parse().unwrap();
            let private = fs::read(&file).unwrap();
            let sealed = age::encrypt_and_armor(&recipient, &private).unwrap();
            fs::write(self.path(&format!("secrets/host-keys/{node}.age")), sealed).unwrap();
        }
        let shown = Command::new("ssh-keygen")
            .arg("-lf")
            .arg(&file)
            .output()
            .unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        shown.split_whitespace().nth(1).unwrap().to_owned()
    }

    fn fingerprint(&self, node: &str) -> String {
        let file = self.path(&format!("secrets/host-keys/{node}.pub"));
        let shown = Command::new("ssh-keygen")
            .arg("-lf")
            .arg(&file)
            .output()
            .unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        shown.split_whitespace().nth(1).unwrap().to_owned()
    }
}

#[test]
fn a_public_half_that_isnt_the_machines_own_is_refused_everywhere() {
    for node in ["control-01", "box-01"] {
        let fleet = Fleet::new();
        let own = fleet.fingerprint(node);
        let strangers = fleet.swap(node, None);
        let before = fleet.files();
        let uses = WRITES.iter().copied();
        for args in uses
            .filter(|args| !args.contains(&"grafana/admin_password"))
            .chain([
                &["secrets", "rekey", "--yes"][..],
                &["secrets", "rekey", "--dry-run"],
                &["up", "--yes"],
                &["plan"],
            ])
        {
            // What isn't for the machine isn't encrypted to it.
            let of_servers = ["secrets/servers.sops.yaml", "k3s/server_token"];
            if node == "box-01" && args.iter().any(|arg| of_servers.contains(arg)) {
                continue;
            }
            let ran = fleet.run(args);
            assert!(![0, 2].contains(&ran.code), "{args:?}: {}", ran.text());
            for fingerprint in [&own, &strangers] {
                assert!(
                    ran.err.contains(fingerprint.as_str()),
                    "{args:?}: {}",
                    ran.text()
                );
            }
            assert!(fleet.files() == before, "{args:?} wrote");
        }
        let check = fleet.run(&["secrets", "check"]);
        assert_eq!(check.code, 65, "{}", check.text());
        assert!(check.out.contains(&own) && check.out.contains(&strangers));
        for advice in ["secrets rekey`", "secrets init`"] {
            assert!(!check.out.contains(advice), "{}", check.text());
        }
    }
}

#[test]
fn ssh_is_pinned_to_no_key_that_was_put_there() {
    let fleet = Fleet::new();
    let strangers = fleet.swap("box-01", None);
    let ran = fleet.run(&["ssh", "box-01", "--", "true"]);
    assert_eq!(ran.code, 65, "{}", ran.text());
    assert!(ran.err.contains(&strangers) && ran.err.contains("isn't the public half"));
}

/// One file of one machine, and the whole fleet stands still until somebody has looked: what was exchanged
/// there says nothing of what else was.
#[test]
fn an_exchanged_public_half_is_refused_for_other_machines_too_with_the_way_on() {
    let fleet = Fleet::new();
    let good = fs::read(fleet.path("secrets/host-keys/box-01.pub")).unwrap();
    fleet.swap("box-01", None);
    for args in [&["plan"][..], &["plan", "--only", "control-01"]] {
        let ran = fleet.run(args);
        assert_eq!(ran.code, 65, "{args:?}: {}", ran.text());
        let flat = ran.err.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "the public host key of box-01 was exchanged",
            "secrets/host-keys/box-01.pub",
            "No machine was touched",
            "git checkout COMMIT -- FILE",
        ] {
            assert!(flat.contains(part), "{args:?}: {flat}");
        }
    }
    // The way on is the one that it names.
    fs::write(fleet.path("secrets/host-keys/box-01.pub"), good).unwrap();
    let ran = fleet.run(&["plan", "--only", "control-01"]);
    assert!(!ran.err.contains("exchanged"), "{}", ran.text());
}

#[test]
fn a_pair_that_was_swapped_whole_is_named_and_asked_about() {
    let fleet = Fleet::new();
    let operator = fleet.operator.to_public().to_string();
    fleet.swap("box-01", Some(&operator));
    let before = fleet.files();
    for args in [
        &["secrets", "rotate", "k3s/tls/server-ca.crt"][..],
        &["secrets", "edit", "secrets/agents.sops.yaml"],
        &["secrets", "rekey"],
    ] {
        let ran = fleet.run(args);
        assert_eq!(ran.code, 64, "{args:?}: {}", ran.text());
        assert!(ran.err.contains("+ box-01, age1"), "{}", ran.text());
        assert!(ran.err.contains("--yes"), "{}", ran.text());
        assert!(fleet.files() == before, "{args:?} wrote");
    }
    let agreed = fleet.run(&["secrets", "rekey", "--yes"]);
    assert_eq!(agreed.code, 0, "{}", agreed.text());
    assert!(agreed.err.contains("+ box-01, age1"), "{}", agreed.text());
}

#[test]
fn a_private_half_that_was_taken_away_or_is_somebody_elses_leaves_nothing_to_believe() {
    let stranger = age::x25519::Identity::generate().to_public().to_string();
    for taken in [true, false] {
        let fleet = Fleet::new();
        fleet.swap("box-01", Some(&stranger));
        if taken {
            fs::remove_file(fleet.path("secrets/host-keys/box-01.age")).unwrap();
        }
        let before = fleet.files();
        for args in [
            &["secrets", "rotate", "k3s/tls/server-ca.crt"][..],
            &["secrets", "rekey", "--yes"],
            &["secrets", "init", "--yes"],
        ] {
            let ran = fleet.run(args);
            assert_eq!(ran.code, 1.max(ran.code), "{args:?}: {}", ran.text());
            assert!(ran.err.contains("box-01.age"), "{args:?}: {}", ran.text());
            assert!(fleet.files() == before, "{args:?} wrote");
        }
        let check = fleet.run(&["secrets", "check"]);
        assert_eq!(check.code, 65, "{}", check.text());
        assert!(!check.out.contains("secrets rekey`"), "{}", check.text());
    }
}

#[test]
fn an_operator_who_was_put_into_the_inventory_is_named_and_asked_about() {
    let stranger = age::x25519::Identity::generate().to_public().to_string();
    let fleet = Fleet::new();
    fleet.operators(std::slice::from_ref(&stranger));
    // The notes of the repository say that it was always so.
    let notes = fleet.path("secrets/host-keys/recipients.txt");
    let noted = fs::read_to_string(&notes).unwrap();
    fs::write(&notes, format!("{noted}{stranger}\n")).unwrap();
    let before = fleet.files();
    for args in WRITES {
        let ran = fleet.run(args);
        assert_eq!(ran.code, 64, "{args:?}: {}", ran.text());
        assert!(ran.err.contains(&stranger), "{args:?}: {}", ran.text());
        assert!(fleet.files() == before, "{args:?} wrote");
    }
    // A file that has the stranger already is no reason either.
    assert_eq!(fleet.run(&["secrets", "rekey", "--yes"]).code, 0);
    let agreed = fleet.path(".undercroft/recipients.txt");
    let text = fs::read_to_string(&agreed).unwrap();
    fs::write(&agreed, text.replace(&stranger, "")).unwrap();
    let before = fleet.files();
    let ran = fleet.run(&["secrets", "rotate", "k3s/server_token"]);
    assert_eq!(ran.code, 64, "{}", ran.text());
    assert!(ran.err.contains(&stranger) && fleet.files() == before);
    // Who goes is named too.
    assert_eq!(
        fleet
            .run(&["secrets", "rotate", "k3s/server_token", "--yes"])
            .code,
        0
    );
    fleet.operators(&[]);
    let ran = fleet.run(&["secrets", "rotate", "k3s/server_token"]);
    assert_eq!(ran.code, 64, "{}", ran.text());
    assert!(ran.err.contains(&format!("- {stranger}")), "{}", ran.text());
}

#[test]
fn a_person_at_a_terminal_is_shown_who_it_is_and_decides() {
    if !Path::new("/usr/bin/script").exists() {
        skip("there is no script, which makes terminals; install bsdutils");
        return;
    }
    let stranger = age::x25519::Identity::generate().to_public().to_string();
    let fleet = Fleet::new();
    fleet.operators(std::slice::from_ref(&stranger));
    let before = fleet.files();
    for (answer, code) in [("no", 1), ("", 1), ("y", 1), ("yes", 0)] {
        assert!(fleet.files() == before, "{answer}");
        let program = fleet.command(&[]).get_program().to_owned();
        let mut command = fleet.command(&[]);
        let envs: Vec<_> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        command = Command::new("script");
        command
            .args([
                "-qec",
                &format!("{} secrets rekey", program.display()),
                "/dev/null",
            ])
            .current_dir(fleet.sandbox.dir())
            .env_clear()
            .envs(envs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("{answer}\n").as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains(&format!("+ operator 2, {stranger}")),
            "{text}"
        );
        assert_eq!(output.status.code(), Some(code), "{answer}: {text}");
    }
    assert!(fleet.files() != before);
}

#[test]
fn up_makes_no_key_for_an_operator_whom_nobody_has_agreed_to() {
    let stranger = age::x25519::Identity::generate().to_public().to_string();
    let fleet = Fleet::new();
    fleet.operators(std::slice::from_ref(&stranger));
    fs::remove_file(fleet.path("secrets/host-keys/box-01.age")).unwrap();
    fs::remove_file(fleet.path("secrets/host-keys/box-01.pub")).unwrap();
    let mut command = fleet.command(&["up"]);
    command.env("UNDERCROFT_CACHE_DIR", fleet.path("../cache"));
    let ran = fleet.sandbox.finish(&mut command);
    assert_ne!(ran.code, 0);
    // Who may not open the ports learns that first.
    let ports = ran.err.contains("may not open the ports");
    assert!(ports || ran.err.contains(&stranger), "{}", ran.text());
    assert!(!fleet.path("secrets/host-keys/box-01.age").exists());
}

#[test]
fn an_identity_that_is_made_is_said_and_an_emptied_file_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("undercroft.toml", include_str!("fleet.toml"));
    let made = sandbox.run(["secrets", "init"]);
    assert_eq!(made.code, 0, "{}", made.text());
    let file = fs::read_to_string(sandbox.dir().join(".undercroft/operator-identity.txt")).unwrap();
    let public = file
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "))
        .unwrap();
    assert!(made.out.contains(public), "{}", made.text());
    assert!(
        made.out.contains(".undercroft/operator-identity.txt"),
        "{}",
        made.text()
    );
    assert!(made.err.contains("Keep a copy of"), "{}", made.text());

    let fleet = Fleet::new();
    let before = fleet.files();
    for script in [
        ": > \"$1\"",
        "echo > \"$1\"",
        "echo '# nothing' > \"$1\"",
        "echo '{}' > \"$1\"",
        "sed -i 's/:.*/:/' \"$1\"",
        "printf 'grafana/admin_password: \"\"\\n' > \"$1\"",
        "rm \"$1\"",
    ] {
        fleet.edited_by(script);
        let file = "secrets/operators.sops.yaml";
        let ran = fleet
            .sandbox
            .finish(&mut fleet.command(&["secrets", "edit", file]));
        assert_ne!(ran.code, 0, "{script}: {}", ran.text());
        assert!(fleet.files() == before, "{script}");
    }
}
