//! Files that sops 3.13.3 itself wrote, so that its format is held to where sops isn't installed.

use super::*;

const USUAL: &str = include_str!("made_by_sops/usual.sops.yaml");
/// With `encrypted_regex: ^data$` and `mac_only_encrypted: true`.
const MARKED: &str = include_str!("made_by_sops/marked.sops.yaml");

/// Whom they are encrypted to: nobody's key, of 32 sevens.
fn identity() -> age::x25519::Identity {
    use bech32::ToBase32 as _;
    bech32::encode(
        "age-secret-key-",
        [7; 32].to_base32(),
        bech32::Variant::Bech32,
    )
    .unwrap()
    .to_uppercase()
    .parse()
    .unwrap()
}

fn open(text: &str) -> Result<Opened, SopsError> {
    Encrypted::parse(text.as_bytes())
        .unwrap()
        .open(&[&identity()])
}

#[test]
fn each_value_and_comment_is_what_was_encrypted() {
    let opened = open(USUAL).unwrap();
    assert_eq!(
        opened.to_plain().as_str(),
        "\
# who may come in
token: K10ab::server:secret # from the founder
numbers:
    # of the port
    port: 6443
    share: 1.5
    up: true
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
plain_unencrypted:
    # for all to see
    name: lobby
    floor: 3
empty: \"\"
# the end
"
    );
    let marked = open(MARKED).unwrap();
    assert_eq!(
        marked.to_plain().as_str(),
        "apiVersion: v1\nkind: Secret\ndata:\n    # of the door\n    code: \"4711\"\n    tries: 3\n"
    );
    assert!(open(USUAL).unwrap().sealed().has_usual_rule());
    assert!(!marked.sealed().has_usual_rule());
    for text in [USUAL, MARKED] {
        assert!(
            Encrypted::parse(text.as_bytes())
                .unwrap()
                .plain_names()
                .is_empty()
        );
    }
}

#[test]
fn written_anew_they_keep_every_line_of_values() {
    for text in [USUAL, MARKED] {
        let file = Encrypted::parse(text.as_bytes()).unwrap();
        let values = |text: &str| text.split_once("sops:\n").unwrap().0.to_owned();
        assert_eq!(values(&file.write()), values(text));
        let again = Encrypted::parse(file.write().as_bytes()).unwrap();
        assert_eq!(again.write(), file.write());
        assert!(open(&file.write()).is_ok());
    }
}

#[test]
fn the_mac_is_over_what_the_file_says_it_is_over() {
    // Over all values, unless the file says otherwise.
    let other = USUAL.replace("name: lobby", "name: vault");
    assert_eq!(open(&other).unwrap_err(), SopsError::BadMac);
    let other = USUAL.replace("    floor: 3\n", "");
    assert_eq!(open(&other).unwrap_err(), SopsError::BadMac);
    // Comments in plain text are in no MAC.
    assert!(open(&USUAL.replace("for all to see", "for all")).is_ok());
    // Over the encrypted ones alone.
    let other = MARKED.replace("kind: Secret", "kind: ConfigMap");
    assert!(open(&other).is_ok());
    let line = MARKED.lines().find(|l| l.contains("tries:")).unwrap();
    let other = MARKED.replace(&format!("{line}\n"), "");
    assert_eq!(open(&other).unwrap_err(), SopsError::BadMac);
    // Which of the two it is isn't free to be changed.
    let other = MARKED.replace("    mac_only_encrypted: true\n", "");
    assert_eq!(open(&other).unwrap_err(), SopsError::BadMac);
    let other = USUAL.replace(
        "    unencrypted_suffix",
        "    mac_only_encrypted: true\n    unencrypted_suffix",
    );
    assert_eq!(open(&other).unwrap_err(), SopsError::BadMac);
}

#[test]
fn what_is_changed_here_keeps_their_rules() {
    let recipient = identity().to_public().to_string().parse().unwrap();
    for (text, encrypted, plain) in [
        (USUAL, "numbers/port", "plain_unencrypted/floor"),
        (MARKED, "data/tries", "apiVersion"),
    ] {
        let mut opened = open(text).unwrap();
        opened.tree.set(encrypted, Value::Int(4711));
        opened.tree.set(plain, Value::Int(4712));
        for anew in [false, true] {
            let mut entropy = entropy();
            let how = Seal {
                recipients: std::slice::from_ref(&recipient),
                now_s: 1_800_000_000,
                entropy: &mut entropy,
            };
            let sealed = if anew {
                opened.seal_anew(how)
            } else {
                opened.seal(how)
            };
            let written = sealed.unwrap().write();
            assert!(!written.contains("4711"), "{written}");
            assert!(written.contains(": 4712\n"), "{written}");
            assert_eq!(written.contains("mac_only_encrypted: true"), text == MARKED);
            let again = open(&written).unwrap();
            assert!(again.tree == opened.tree);
        }
    }
}
