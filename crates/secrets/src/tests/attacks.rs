//! What others do to the files, by malice or mistake, and what must not come of it.

use std::fs;

use undercroft_sops::Encrypted;

use super::*;

fn made(dir: &Path) -> Vault {
    let vault = vault(dir, &inventory_with("k3s", NODES));
    vault.init(NOW_S).unwrap();
    vault
}

fn path(dir: &Path, file: &str) -> std::path::PathBuf {
    dir.join("secrets").join(file)
}

fn change(dir: &Path, file: &str, from: &str, to: &str) {
    let path = path(dir, file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} isn't in {text}");
    fs::write(&path, text.replace(from, to)).unwrap();
}

#[test]
fn no_secret_is_written_by_a_rule_that_leaves_it_in_plain_text() {
    let dir = tempfile::tempdir().unwrap();
    let vault = made(dir.path());
    // It fits nothing that is there, so that the MAC holds.
    let rule = "unencrypted_regex: ^my_";
    let file = "operators.sops.yaml";
    change(dir.path(), file, "unencrypted_suffix: _unencrypted", rule);
    assert_eq!(
        errors(&vault),
        [
            "rule secrets/operators.sops.yaml: what it says of which values are encrypted isn't what SOPS has by itself, so that secrets may be in it in plain text, or get there"
        ]
    );
    let before = fs::read(path(dir.path(), file)).unwrap();
    let edit = vault.edit("operators").unwrap();
    let plain = format!("{}my_password: hunter2\n", edit.to_plain().as_str());
    let error = vault
        .finish_edit(&edit, plain.as_bytes(), NOW_S)
        .unwrap_err();
    drop(edit);
    assert!(matches!(error, SecretsError::Rule { .. }), "{error}");
    let error = vault
        .rotate("grafana/admin_password", None, NOW_S)
        .unwrap_err();
    assert!(matches!(error, SecretsError::Rule { .. }), "{error}");
    assert_eq!(fs::read(path(dir.path(), file)).unwrap(), before);
}

#[test]
fn what_somebody_else_wrote_meanwhile_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let vault = made(dir.path());
    let edit = vault.edit("operators").unwrap();
    // Somebody pulls another's change while the editor is open: git knows of no lock.
    let theirs = {
        let other = tempfile::tempdir().unwrap();
        let copy = other.path();
        for folder in ["secrets", "secrets/host-keys", ".undercroft"] {
            fs::create_dir_all(copy.join(folder)).unwrap();
            for entry in fs::read_dir(dir.path().join(folder)).unwrap().flatten() {
                if entry.file_type().unwrap().is_file() {
                    fs::copy(entry.path(), copy.join(folder).join(entry.file_name())).unwrap();
                }
            }
        }
        let their = super::vault(copy, &inventory_with("k3s", NODES));
        their.rotate("grafana/admin_password", None, NOW_S).unwrap();
        fs::read(path(copy, "operators.sops.yaml")).unwrap()
    };
    fs::write(path(dir.path(), "operators.sops.yaml"), &theirs).unwrap();
    let plain = format!("{}mine: x\n", edit.to_plain().as_str());
    let error = vault
        .finish_edit(&edit, plain.as_bytes(), NOW_S)
        .unwrap_err();
    assert!(
        matches!(error, SecretsError::ChangedMeanwhile { .. }),
        "{error}"
    );
    assert_eq!(
        fs::read(path(dir.path(), "operators.sops.yaml")).unwrap(),
        theirs
    );
}

#[test]
fn a_passphrase_that_reads_as_a_number_is_no_missing_one() {
    let dir = tempfile::tempdir().unwrap();
    let vault = made(dir.path());
    let edit = vault.edit("operators").unwrap();
    let old = text(&vault, "grafana/admin_password");
    let plain = edit.to_plain().replace(&old, "12345678");
    let error = vault
        .finish_edit(&edit, plain.as_bytes(), NOW_S)
        .unwrap_err();
    drop(edit);
    assert!(error.to_string().ends_with("is no text"), "{error}");
    assert_eq!(error.hint().unwrap(), "Put the value in quotes.");

    // `sops` itself takes it. Then it isn't made anew in its place.
    let (identities, _) = vault.identities_at_hand();
    let identities: Vec<&dyn age::Identity> = identities.iter().map(AsRef::as_ref).collect();
    let file = path(dir.path(), "operators.sops.yaml");
    let mut opened = Encrypted::parse(&fs::read(&file).unwrap())
        .unwrap()
        .open(&identities)
        .unwrap();
    opened.tree.set(
        "grafana/admin_password",
        undercroft_sops::Value::Int(12_345_678),
    );
    let recipients: Vec<undercroft_sops::Recipient> = opened
        .recipients()
        .iter()
        .map(|r| r.parse().unwrap())
        .collect();
    let sealed = opened
        .seal(undercroft_sops::Seal {
            recipients: &recipients,
            now_s: NOW_S,
            entropy: &mut make::entropy,
        })
        .unwrap();
    fs::write(&file, sealed.write()).unwrap();
    let error = vault.init(NOW_S).unwrap_err();
    assert!(matches!(error, SecretsError::NotText { .. }), "{error}");
    assert_eq!(
        errors(&vault),
        ["no-text secrets/operators.sops.yaml: the value of grafana/admin_password is no text"]
    );
}

#[test]
fn nothing_is_made_that_nobody_here_could_open() {
    let dir = tempfile::tempdir().unwrap();
    let somebody_else = age::x25519::Identity::generate().to_public().to_string();
    let mut inventory = inventory_with("k3s", NODES);
    inventory.secrets.operators = vec![somebody_else];
    let vault = vault(dir.path(), &inventory);
    let error = vault.init(NOW_S).unwrap_err();
    assert!(
        matches!(error, SecretsError::NoOwnIdentity { .. }),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("--identity"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_missing_file_is_one_that_isnt_there_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let vault = made(dir.path());
    let file = path(dir.path(), "servers.sops.yaml");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", &file).unwrap();
    // A new authority in its place would be another cluster's.
    assert!(vault.init(NOW_S).is_err());
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
}

#[test]
fn links_among_the_secrets_are_found_and_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let vault = made(dir.path());
    for name in ["a", "b"] {
        std::os::unix::fs::symlink(".", dir.path().join("secrets").join(name)).unwrap();
    }
    assert_eq!(
        errors(&vault),
        ["a", "b"].map(|name| format!(
            "no-file secrets/{name}: it lies among the secrets and is no file of its own"
        ))
    );
}

#[test]
fn a_recipient_that_doesnt_fit_its_identity_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let vault = made(dir.path());
    // Two files that were written at different times: one comes back from the history.
    let servers = path(dir.path(), "servers.sops.yaml");
    let old = fs::read(&servers).unwrap();
    vault.rotate("etcd/snapshot_identity", None, NOW_S).unwrap();
    assert_eq!(errors(&vault), [""; 0]);
    fs::write(&servers, old).unwrap();
    assert_eq!(
        errors(&vault),
        [
            "stale secrets/servers.sops.yaml: etcd/snapshot_recipient doesn't fit etcd/snapshot_identity, which it follows from"
        ]
    );
}

#[test]
fn what_others_follow_from_is_written_first() {
    for distribution in ["k3s", "kubeadm"] {
        let files = catalogue(&inventory_with(distribution, NODES));
        let order = vault::in_writing_order(&files);
        assert_eq!(order.len(), files.len());
        for (i, file) in order.iter().enumerate() {
            for source in file
                .secrets
                .iter()
                .filter_map(|s| vault::source_of(&s.make))
            {
                let holds = |file: &&SecretFile| file.secrets.iter().any(|s| s.name == source);
                assert!(
                    order[..=i].iter().any(holds),
                    "{source} comes after {}",
                    file.path
                );
            }
        }
    }
}

#[test]
fn an_operator_who_goes_is_shut_out_of_host_keys_too() {
    let dir = tempfile::tempdir().unwrap();
    let vault = made(dir.path());
    let note = path(dir.path(), "host-keys/recipients.txt");
    let own = fs::read_to_string(&note).unwrap();
    let gone = age::x25519::Identity::generate().to_public().to_string();
    fs::write(&note, format!("{own}{gone}\n")).unwrap();
    assert_eq!(
        errors(&vault),
        [format!(
            "extra-recipient secrets/host-keys: {gone} can open them, and isn't to"
        )]
    );
    let key = fs::read(path(dir.path(), "host-keys/box-01.age")).unwrap();
    let planned = vault.rekey(NOW_S, true).unwrap();
    assert_eq!(planned[0].removed, [gone]);
    assert!(planned[0].after.as_deref().unwrap().contains("--reinstall"));
    assert_eq!(vault.rekey(NOW_S, false).unwrap(), planned);
    assert_eq!(fs::read_to_string(&note).unwrap(), own);
    assert_ne!(
        fs::read(path(dir.path(), "host-keys/box-01.age")).unwrap(),
        key
    );
    assert_eq!(errors(&vault), [""; 0]);
}

#[test]
fn the_data_key_is_another_once_a_recipient_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let vault = made(dir.path());
    let file = path(dir.path(), "agents.sops.yaml");
    let before = Encrypted::parse(&fs::read(&file).unwrap()).unwrap();
    super::vault(dir.path(), &inventory_with("k3s", &NODES[..2]))
        .rekey(NOW_S, false)
        .unwrap();
    // Whoever was a recipient knows the old data key. The new values, under the old parts of it,
    // don't open.
    let after = fs::read_to_string(&file).unwrap();
    let parts = |file: &str| {
        file.split_once("\nsops:")
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
    };
    let (values, _) = parts(&after).unwrap();
    let (_, keys) = parts(&before.write()).unwrap();
    let forged = Encrypted::parse(format!("{values}\nsops:{keys}").as_bytes()).unwrap();
    let (identities, _) = vault.identities_at_hand();
    let identities: Vec<&dyn age::Identity> = identities.iter().map(AsRef::as_ref).collect();
    assert!(before.open(&identities).is_ok());
    assert!(forged.open(&identities).is_err());
}
