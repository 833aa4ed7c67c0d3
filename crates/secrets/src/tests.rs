//! A whole life of a fleet's secrets, in a folder.

mod attacks;

use std::{
    path::Path,
    process::{Command, Stdio},
};

use age::secrecy::ExposeSecret as _;
use undercroft_model::{
    Severity,
    inventory::{self, Component, Inventory, SecretsBackend},
};

use super::*;
use crate::keys::{Consent, IdentitySource};

const NOW_S: u64 = 1_795_397_506;

fn inventory_with(distribution: &str, nodes: &[(&str, &str)]) -> Inventory {
    let mut text = format!(
        r#"
[fleet]
name = "cellar"
[network]
node_cidr = "10.0.0.0/24"
server_address = "10.0.0.2"
[kubernetes]
distribution = "{distribution}"
founder = "control-01"
[gitops]
repository = "git@git.example:fleet.git"
[classes.control]
kind = "control"
[classes.box]
kind = "plain"
"#
    );
    for (i, (name, role)) in nodes.iter().enumerate() {
        let class = if *role == "server" { "control" } else { "box" };
        text.push_str(&format!(
            "[nodes.{name}]\nclass = \"{class}\"\nrole = \"{role}\"\nmacs = [\"3c:ec:ef:10:00:{i:02x}\"]\naddress = \"10.0.0.{}\"\ndisks = [{{ serial = \"S{i}\" }}]\n",
            11 + i
        ));
    }
    let parsed = inventory::parse("undercroft.toml", text.as_bytes());
    parsed
        .inventory
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

fn vault(dir: &Path, inventory: &Inventory) -> Vault {
    let source = IdentitySource {
        state_dir: dir.join(".undercroft"),
        identity_files: vec![],
        well_known: false,
    };
    Vault::open(dir, inventory, source)
        .unwrap()
        .agreeing(Consent::Given)
}

fn text(vault: &Vault, name: &str) -> String {
    vault.get(name).unwrap().unwrap().expose_secret().to_owned()
}

fn errors(vault: &Vault) -> Vec<String> {
    vault
        .check()
        .unwrap()
        .into_iter()
        .filter(|f| f.severity == Severity::Error)
        .map(|f| format!("{} {}: {}", f.code, f.file, f.message))
        .collect()
}

const NODES: &[(&str, &str)] = &[
    ("control-01", "server"),
    ("box-01", "agent"),
    ("box-02", "agent"),
];

#[test]
fn init_makes_what_is_missing_and_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    for distribution in ["k3s", "kubeadm"] {
        let repository = dir.path().join(distribution);
        std::fs::create_dir(&repository).unwrap();
        let inventory = inventory_with(distribution, NODES);
        let vault = vault(&repository, &inventory);
        let first = vault.init(NOW_S).unwrap();
        assert_eq!(first.host_keys.len(), 3);
        assert!(first.rules);
        assert_eq!(errors(&vault), [""; 0]);
        let names = |path: &str| vault.read(path).unwrap().unwrap().names();
        insta::assert_snapshot!(
            format!("{distribution}-names"),
            format!(
                "servers: {:#?}\nagents: {:#?}\noperators: {:#?}",
                names("servers.sops.yaml"),
                names("agents.sops.yaml"),
                names("operators.sops.yaml")
            )
        );
        let before = std::fs::read(repository.join("secrets/servers.sops.yaml")).unwrap();
        let again = vault.init(NOW_S + 100).unwrap();
        assert!(again.made.is_empty() && again.host_keys.is_empty() && !again.rules);
        assert_eq!(
            std::fs::read(repository.join("secrets/servers.sops.yaml")).unwrap(),
            before
        );
        // One that is lost is made again, alone.
        let edit = vault.edit("operators").unwrap();
        let plain = edit.to_plain();
        let without: String = plain
            .lines()
            .filter(|l| !l.contains("grafana") && !l.contains("admin_password"))
            .map(|l| format!("{l}\n"))
            .collect();
        let changed = vault.finish_edit(&edit, without.as_bytes(), NOW_S).unwrap();
        assert_eq!(changed, ["- grafana/admin_password"]);
        drop(edit);
        let made = vault.init(NOW_S).unwrap().made;
        assert_eq!(
            made.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
            ["grafana/admin_password"]
        );
    }
}

#[test]
fn each_machine_opens_what_is_its_own_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory_with("k3s", NODES);
    let vault = vault(dir.path(), &inventory);
    vault.init(NOW_S).unwrap();
    let source = IdentitySource {
        state_dir: dir.path().join(".undercroft"),
        identity_files: vec![],
        well_known: false,
    };
    let keys = crate::keys::HostKeys::open(&dir.path().join("secrets"), &[], source).unwrap();
    let opens = |node: &str, file: &str| {
        let private = keys.private(&node.parse().unwrap()).unwrap();
        let identity = undercroft_sops::identity_of_ssh_host_key(private.expose_secret()).unwrap();
        let identity: age::x25519::Identity = identity.parse().unwrap();
        vault
            .read(file)
            .unwrap()
            .unwrap()
            .open(&[&identity])
            .is_ok()
    };
    for (node, file, want) in [
        ("control-01", "servers.sops.yaml", true),
        ("control-01", "agents.sops.yaml", true),
        ("control-01", "operators.sops.yaml", false),
        ("box-01", "servers.sops.yaml", false),
        ("box-01", "agents.sops.yaml", true),
        ("box-01", "operators.sops.yaml", false),
    ] {
        assert_eq!(opens(node, file), want, "{node} {file}");
    }
}

#[test]
fn tokens_are_bound_to_the_authority_and_follow_it() {
    use sha2::Digest as _;
    let dir = tempfile::tempdir().unwrap();
    let vault = vault(dir.path(), &inventory_with("k3s", NODES));
    vault.init(NOW_S).unwrap();
    let hash = |vault: &Vault| -> String {
        let ca = text(vault, "k3s/tls/server-ca.crt");
        sha2::Sha256::digest(ca.as_bytes())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    };
    let (server, agent) = (
        text(&vault, "k3s/server_token"),
        text(&vault, "k3s/agent_token"),
    );
    assert!(server.starts_with(&format!("K10{}::server:", hash(&vault))));
    assert!(agent.starts_with(&format!("K10{}::node:", hash(&vault))));
    // A new token: another password.
    let changed = vault.rotate("k3s/server_token", None, NOW_S).unwrap();
    assert_eq!(changed.len(), 1);
    let second = text(&vault, "k3s/server_token");
    assert_ne!(second, server);
    // A new authority: the same passwords, another hash, in both files.
    let changed = vault.rotate("k3s/tls/server-ca.key", None, NOW_S).unwrap();
    let names: Vec<&str> = changed.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "k3s/tls/server-ca.crt",
            "k3s/tls/server-ca.key",
            "k3s/server_token",
            "k3s/agent_token"
        ]
    );
    let third = text(&vault, "k3s/server_token");
    assert_eq!(third.rsplit(':').next(), second.rsplit(':').next());
    assert!(third.starts_with(&format!("K10{}::server:", hash(&vault))));
    assert_eq!(errors(&vault), [""; 0]);
}

#[test]
fn what_follows_or_is_unknown_is_not_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let vault = vault(dir.path(), &inventory_with("kubeadm", NODES));
    vault.init(NOW_S).unwrap();
    let error = |name: &str| {
        let error = vault.rotate(name, None, NOW_S).unwrap_err();
        format!("{error}\n{}", error.hint().unwrap_or_default())
    };
    insta::assert_snapshot!(error("kubeadm/ca_cert_hash"), @r"
    kubeadm/ca_cert_hash follows from kubeadm/pki/ca.crt
    Rotate kubeadm/pki/ca.crt; it is made anew with it.
    ");
    insta::assert_snapshot!(error("nothing"), @r"
    there is no secret nothing
    `undercroft secrets list` shows the names.
    ");
    let hash = text(&vault, "kubeadm/ca_cert_hash");
    vault.rotate("kubeadm/pki/ca.crt", None, NOW_S).unwrap();
    assert_ne!(text(&vault, "kubeadm/ca_cert_hash"), hash);
    assert_eq!(
        text(&vault, "kubeadm/ca.crt"),
        text(&vault, "kubeadm/pki/ca.crt")
    );
}

#[test]
fn a_node_that_comes_is_added_and_one_that_goes_is_shut_out() {
    let dir = tempfile::tempdir().unwrap();
    vault(dir.path(), &inventory_with("k3s", NODES))
        .init(NOW_S)
        .unwrap();
    let agents = dir.path().join("secrets/agents.sops.yaml");
    let values = || {
        let text = std::fs::read_to_string(&agents).unwrap();
        text.split("\nsops:").next().unwrap().to_owned()
    };
    let before = values();
    // One comes: its part is added, the values stay.
    let more = [NODES, &[("box-03", "agent")]].concat();
    let larger = vault(dir.path(), &inventory_with("k3s", &more));
    assert!(larger.init(NOW_S).unwrap().made.is_empty());
    let errors_then = errors(&larger);
    assert!(
        errors_then
            .iter()
            .any(|e| e.contains("box-03 can't open it")),
        "{errors_then:?}"
    );
    let planned = larger.rekey(NOW_S, true).unwrap();
    let done = larger.rekey(NOW_S, false).unwrap();
    assert_eq!(planned, done);
    assert_eq!(done.len(), 1);
    assert_eq!(
        (done[0].added.as_slice(), done[0].removed.len()),
        (["box-03".to_owned()].as_slice(), 0)
    );
    assert_eq!(values(), before);
    assert_eq!(errors(&larger), [""; 0]);
    // One goes: a new data key, and the names of what it knew.
    let fewer = vault(dir.path(), &inventory_with("k3s", &NODES[..2]));
    let done = fewer.rekey(NOW_S, false).unwrap();
    assert_eq!(done.len(), 1);
    assert_eq!(
        done[0].removed,
        [
            "box-02 (no longer in the inventory)",
            "box-03 (no longer in the inventory)"
        ]
    );
    assert_eq!(done[0].rotate, ["k3s/agent_token"]);
    assert_ne!(values(), before);
    assert_eq!(errors(&fewer), [""; 0]);
    assert!(fewer.rekey(NOW_S, false).unwrap().is_empty());
}

#[test]
fn plain_text_is_found_wherever_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let vault = vault(dir.path(), &inventory_with("k3s", NODES));
    vault.init(NOW_S).unwrap();
    let token = text(&vault, "k3s/server_token");
    std::fs::write(dir.path().join("notes.md"), format!("# Notes\n\n{token}\n")).unwrap();
    std::fs::write(dir.path().join("secrets/db.yaml"), "password: hunter2\n").unwrap();
    let agents = dir.path().join("secrets/agents.sops.yaml");
    let sealed = std::fs::read_to_string(&agents).unwrap();
    std::fs::write(
        &agents,
        sealed.replace("agent_token: ", "other: x\n    agent_token: "),
    )
    .unwrap();
    let found = errors(&vault).join("\n");
    insta::assert_snapshot!(found, @r"
    plain-value secrets/agents.sops.yaml: the value of k3s/other is in plain text
    bad-value secrets/agents.sops.yaml: the value of k3s/other is in plain text
    plain-file secrets/db.yaml: it lies among the secrets and isn't encrypted
    plain-secret notes.md: this looks like a k3s token in plain text
    ");
    // The state folder, where the fleet's own identity lies, isn't the repository's.
    assert!(
        dir.path()
            .join(".undercroft/operator-identity.txt")
            .exists()
    );
}

fn openssl_is_missing() -> bool {
    let missing = Command::new("openssl").arg("version").output().is_err();
    if missing {
        println!("SKIPPED: openssl isn't installed");
    }
    missing
}

fn openssl(args: &[&str], input: &str) -> String {
    use std::io::Write as _;
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn openssl_agrees_with_the_authorities() {
    let dir = tempfile::tempdir().unwrap();
    let vault = vault(dir.path(), &inventory_with("kubeadm", NODES));
    vault.init(NOW_S).unwrap();
    if openssl_is_missing() {
        return;
    }
    let certificate = text(&vault, "kubeadm/pki/ca.crt");
    let shown = openssl(&["x509", "-noout", "-text"], &certificate);
    for part in [
        "Issuer: CN = kubernetes",
        "CA:TRUE",
        "Certificate Sign",
        "Not After : Nov 22",
    ] {
        assert!(
            shown.replace("CN=", "CN = ").contains(part),
            "{part} isn't in {shown}"
        );
    }
    let of_certificate = openssl(&["x509", "-noout", "-pubkey"], &certificate);
    let of_key = openssl(&["pkey", "-pubout"], &text(&vault, "kubeadm/pki/ca.key"));
    assert_eq!(of_certificate, of_key);
    // `openssl x509 -pubkey | openssl pkey -outform der | sha256sum` is how kubeadm's manual
    // computes the hash.
    let der = Command::new("openssl")
        .args([
            "pkey",
            "-pubin",
            "-outform",
            "der",
            "-in",
            "/dev/stdin",
            "-out",
            "/dev/stdout",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            use std::io::Write as _;
            child
                .stdin
                .take()
                .unwrap()
                .write_all(of_certificate.as_bytes())?;
            child.wait_with_output()
        })
        .unwrap()
        .stdout;
    use sha2::Digest as _;
    let hash: String = sha2::Sha256::digest(&der)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(
        text(&vault, "kubeadm/ca_cert_hash"),
        format!("sha256:{hash}")
    );
    let public = openssl(&["pkey", "-pubout"], &text(&vault, "kubeadm/pki/sa.key"));
    assert_eq!(public, text(&vault, "kubeadm/pki/sa.pub"));
}

#[test]
fn k3s_signs_with_a_key_in_the_form_of_sec_1() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory_with("k3s", NODES);
    let vault = vault(dir.path(), &inventory);
    vault.init(NOW_S).unwrap();
    let key = text(&vault, "k3s/tls/service.key");
    assert!(key.starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
    if openssl_is_missing() {
        return;
    }
    assert_eq!(openssl(&["ec"], &key), key);
    let checked = openssl(&["pkey", "-check", "-noout"], &key);
    assert!(checked.contains("is valid"), "{checked}");
}

#[test]
fn the_clusters_own_secrets_are_made_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory_with("k3s", NODES);
    let vault = vault(dir.path(), &inventory);
    vault.init(NOW_S).unwrap();
    let secrets = kubernetes_secrets(&inventory, &vault).unwrap();
    let shown: Vec<String> = secrets
        .iter()
        .map(|s| {
            format!(
                "{}/{} {:?}",
                s.namespace,
                s.name,
                s.data.keys().collect::<Vec<_>>()
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            r#"argocd/fleet-repository ["sshPrivateKey", "type", "url"]"#,
            r#"monitoring/grafana-admin ["admin-password", "admin-user"]"#
        ]
    );
    let shown = format!("{secrets:?}");
    assert!(!shown.contains(&text(&vault, "grafana/admin_password")));
}

#[test]
fn the_server_of_lending_has_a_key_whose_public_half_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut inventory = inventory_with("k3s", NODES);
    inventory.gitops.components.push(Component::LendingServer);
    let vault = vault(dir.path(), &inventory);
    vault.init(NOW_S).unwrap();
    let secrets = kubernetes_secrets(&inventory, &vault).unwrap();
    let secret = secrets.iter().find(|s| s.name == "lending-server").unwrap();
    assert_eq!(secret.namespace, "nats");
    let seed = secret.data["server.nk"].expose_secret();
    let halves = vault.public_halves().unwrap();
    let half = halves
        .iter()
        .find(|half| half.name == "lending/server_seed")
        .unwrap();
    let key = nkeys::KeyPair::from_seed(seed).unwrap();
    assert_eq!(key.public_key(), half.line);
    assert!(half.line.starts_with('U'), "{}", half.line);
    assert_eq!(half.goes, "as `server_key` of [lending]");
    // A Vault has it instead.
    inventory.secrets.backend = SecretsBackend::Vault;
    let secrets = kubernetes_secrets(&inventory, &vault).unwrap();
    assert!(!secrets.iter().any(|s| s.name == "lending-server"));
    let named = |inventory: &Inventory| {
        let files = catalogue(inventory);
        files
            .iter()
            .any(|file| file.secrets.iter().any(|s| s.name == "lending/server_seed"))
    };
    assert!(!named(&inventory));
    inventory.secrets.backend = SecretsBackend::SealedSecrets;
    assert!(named(&inventory));
}

/// Without its tokens no machine joins, and without its key Argo CD reads nothing: neither can wait for what runs in the
/// cluster. What a Vault has is the cluster's to fetch.
#[test]
fn machines_have_their_secrets_whatever_keeps_the_applications() {
    let names = |backend: SecretsBackend| {
        let mut inventory = inventory_with("k3s", &[("control-01", "server"), ("box-01", "agent")]);
        inventory.secrets.backend = backend;
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path(), &inventory);
        vault.init(NOW_S).unwrap();
        assert_eq!(errors(&vault), [] as [String; 0], "{backend}");
        let files = catalogue(&inventory);
        let names = files.iter().flat_map(|file| &file.secrets);
        let names: Vec<String> = names.map(|secret| secret.name.clone()).collect();
        let objects = kubernetes_secrets(&inventory, &vault).unwrap();
        let objects: Vec<&str> = objects.iter().map(|object| object.name).collect();
        (names, objects.join(" "))
    };
    let sops = names(SecretsBackend::Sops);
    assert!(sops.0.iter().any(|name| name == "k3s/server_token"));
    assert_eq!(sops.1, "fleet-repository grafana-admin");
    assert_eq!(names(SecretsBackend::SealedSecrets), sops);
    let (names, objects) = names(SecretsBackend::Vault);
    let missing: Vec<&String> = sops.0.iter().filter(|name| !names.contains(name)).collect();
    assert_eq!(missing, ["grafana/admin_password"]);
    assert_eq!(objects, "fleet-repository");
}
