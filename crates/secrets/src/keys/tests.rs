//! Keys that are made, read, changed behind one's back.

use super::*;
use std::os::unix::fs::PermissionsExt;

fn node() -> NodeName {
    NodeName::new("gpu-01").unwrap()
}

fn keys(dir: &Path, operators: &[String]) -> HostKeys {
    let source = IdentitySource {
        state_dir: dir.join("state"),
        identity_files: vec![],
        well_known: false,
    };
    HostKeys::open(&dir.join("secrets"), operators, source).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_host_key_is_made_once_and_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let public = keys(dir.path(), &[]).ensure(&node()).unwrap();
    let again = keys(dir.path(), &[]);
    assert_eq!(again.ensure(&node()).unwrap(), public);
    let private = again.private(&node()).unwrap();
    // OpenSSH itself agrees on what the private key's public half is.
    let file = dir.path().join("check");
    std::fs::write(&file, private.expose_secret()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let output = std::process::Command::new("ssh-keygen")
        .arg("-yf")
        .arg(&file)
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(HostKey::parse(&printed).unwrap(), public);
    assert_eq!(
        mode(&dir.path().join("state").join(OPERATOR_IDENTITY_FILE)),
        0o600
    );
    assert_eq!(mode(&again.private_path(&node())), 0o600);
}

#[test]
fn the_private_key_is_nowhere_in_plain_text() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(dir.path(), &[]);
    keys.ensure(&node()).unwrap();
    let private = keys.private(&node()).unwrap();
    let secret_line = private.expose_secret().lines().nth(2).unwrap().to_owned();
    for file in std::fs::read_dir(dir.path().join("secrets/host-keys")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(&secret_line) && !text.contains("BEGIN OPENSSH PRIVATE"));
    }
    assert!(!format!("{private:?} {keys:?}").contains(&secret_line));
}

#[test]
fn a_run_that_was_stopped_between_the_halves_is_gone_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(dir.path(), &[]);
    let public = keys.ensure(&node()).unwrap();
    std::fs::remove_file(keys.public_path(&node())).unwrap();
    assert_eq!(keys.ensure(&node()).unwrap(), public);
}

#[test]
fn a_lost_private_half_is_never_replaced_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(dir.path(), &[]);
    keys.ensure(&node()).unwrap();
    std::fs::remove_file(keys.private_path(&node())).unwrap();
    let error = keys.ensure(&node()).unwrap_err();
    assert!(matches!(error, KeyError::HalfMissing { .. }), "{error}");
}

#[test]
fn keys_are_encrypted_to_the_operators_and_to_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let operator = age::x25519::Identity::generate();
    let ssh_file = dir.path().join("ssh");
    let ssh = generate(&ssh_file).unwrap();
    let operators = [
        operator.to_public().to_string(),
        format!(
            "{} ada@desk",
            HostKey::from_public(ssh.public_key().clone())
        ),
    ];
    let keys_of_team = keys(dir.path(), &operators);
    let refused = keys_of_team.ensure(&node()).unwrap_err();
    assert!(
        matches!(refused, KeyError::NobodyAgreed { .. }),
        "{refused}"
    );
    let keys_of_team = keys_of_team.agreeing(Consent::Given);
    keys_of_team.ensure(&node()).unwrap();
    let nobody = keys_of_team.private(&node()).unwrap_err();
    assert!(matches!(nobody, KeyError::CannotDecrypt { .. }), "{nobody}");
    assert!(
        !dir.path()
            .join("state")
            .join(OPERATOR_IDENTITY_FILE)
            .exists(),
        "no identity is made beside operators"
    );

    let age_file = dir.path().join("age");
    std::fs::write(&age_file, operator.to_string().expose_secret().as_bytes()).unwrap();
    let ssh = encode(&ssh, &ssh_file).unwrap();
    std::fs::write(&ssh_file, ssh.expose_secret()).unwrap();
    for file in [age_file, ssh_file] {
        let source = IdentitySource {
            state_dir: dir.path().join("state"),
            identity_files: vec![file],
            well_known: false,
        };
        let keys = HostKeys::open(&dir.path().join("secrets"), &operators, source).unwrap();
        keys.private(&node()).unwrap();
    }
}

#[test]
fn a_bad_recipient_and_a_damaged_key_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let source = || IdentitySource {
        state_dir: dir.path().join("state"),
        identity_files: vec![],
        well_known: false,
    };
    let error = HostKeys::open(dir.path(), &["age1nonsense".into()], source()).unwrap_err();
    assert!(matches!(error, KeyError::BadRecipient { .. }), "{error}");
    let keys = keys(dir.path(), &[]);
    keys.ensure(&node()).unwrap();
    std::fs::write(keys.private_path(&node()), "not age at all").unwrap();
    assert!(keys.private(&node()).is_err());
    std::fs::write(keys.public_path(&node()), "not a key").unwrap();
    let error = keys.public(&node()).unwrap_err();
    assert!(matches!(error, KeyError::BadKey { .. }), "{error}");
}

#[test]
fn the_operators_ssh_key_is_made_once_and_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let key = OperatorKey::ensure(dir.path(), "basement").unwrap();
    assert_eq!(mode(&key.private_file), 0o600);
    assert!(key.authorized_key.starts_with("ssh-ed25519 "));
    assert!(key.authorized_key.ends_with(" undercroft basement"));
    let again = OperatorKey::ensure(dir.path(), "basement").unwrap();
    assert_eq!(again.authorized_key, key.authorized_key);
}

#[test]
fn each_operators_public_key_is_published_once() {
    let dir = tempfile::tempdir().unwrap();
    let ada = OperatorKey::ensure(&dir.path().join("ada"), "basement").unwrap();
    let bob = OperatorKey::ensure(&dir.path().join("bob"), "basement").unwrap();
    for key in [&ada, &bob, &ada] {
        key.publish(dir.path()).unwrap();
    }
    let text = std::fs::read_to_string(dir.path().join(OPERATORS_PUBLIC_FILE)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [ada.authorized_key.as_str(), bob.authorized_key.as_str()]
    );
}
