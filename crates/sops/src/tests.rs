//! What is sealed opens again and nothing else does; each way is tried with random trees too.

use age::secrecy::ExposeSecret as _;
use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::{
    Comment, Element, Encrypted, MapEntry, Opened, Recipient, Seal, SopsError, Value, encrypt_new,
    identity_of_ssh_host_key, parse_plain,
};

mod made_by_sops;
mod metadata;
mod trees;

const PLAIN: &str = "\
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
plain_unencrypted: for all to see
empty: \"\"
# the end
";

/// Entropy that is none, so that tests repeat. It doesn't itself for as long as a test runs.
fn entropy() -> impl FnMut(&mut [u8]) {
    entropy_from(7)
}

fn entropy_from(mut state: u64) -> impl FnMut(&mut [u8]) {
    move |buffer| {
        for byte in buffer {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = state.to_be_bytes()[0];
        }
    }
}

fn someone() -> (age::x25519::Identity, Recipient) {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string().parse().unwrap();
    (identity, recipient)
}

fn seal(tree: &Value, recipients: &[Recipient]) -> Encrypted {
    let mut entropy = entropy();
    encrypt_new(
        tree,
        Seal {
            recipients,
            now_s: 1_795_397_506,
            entropy: &mut entropy,
        },
    )
    .unwrap()
}

fn reopen(file: &Encrypted, identity: &age::x25519::Identity) -> Result<Opened, SopsError> {
    Encrypted::parse(file.write().as_bytes())
        .unwrap()
        .open(&[identity])
}

#[test]
fn what_is_sealed_opens_again_with_its_order_and_comments() {
    let (identity, recipient) = someone();
    let tree = parse_plain(PLAIN.as_bytes()).unwrap();
    let sealed = seal(&tree, &[recipient]);
    let opened = reopen(&sealed, &identity).unwrap();
    assert_eq!(opened.to_plain().as_str(), PLAIN);
    assert!(opened.tree == tree);
    let text = sealed.write();
    for secret in ["secret", "6443", "abc", "first", "founder", "2026-01-02"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    assert!(text.contains("plain_unencrypted: for all to see"));
    assert!(sealed.plain_names().is_empty());
}

#[test]
fn nobody_else_opens_it() {
    let (_, recipient) = someone();
    let (other, _) = someone();
    let sealed = seal(&parse_plain(PLAIN.as_bytes()).unwrap(), &[recipient]);
    let error = reopen(&sealed, &other).unwrap_err();
    assert!(matches!(error, SopsError::NoIdentity { .. }), "{error}");
}

#[test]
fn every_tampering_is_found() {
    let (identity, recipient) = someone();
    let sealed = seal(&parse_plain(PLAIN.as_bytes()).unwrap(), &[recipient]).write();
    let lines: Vec<&str> = sealed.lines().collect();
    let line_of = |start: &str| {
        lines
            .iter()
            .position(|l| l.trim().starts_with(start))
            .unwrap()
    };
    let open = |text: &str| {
        Encrypted::parse(text.as_bytes())
            .unwrap()
            .open(&[&identity])
            .unwrap_err()
    };
    let value = |line: &str| line.split_once(": ").unwrap().1.to_owned();
    let swapped = {
        let mut changed: Vec<String> = lines.iter().map(ToString::to_string).collect();
        let (a, b) = (line_of("port:"), line_of("share:"));
        changed[a] = format!("    port: {}", value(lines[b]));
        changed[b] = format!("    share: {}", value(lines[a]));
        changed.join("\n")
    };
    insta::assert_snapshot!(open(&swapped), @"the value of numbers/port was changed or moved after it was encrypted");
    let removed: Vec<&str> = lines
        .iter()
        .filter(|l| !l.starts_with("token:"))
        .copied()
        .collect();
    insta::assert_snapshot!(open(&removed.join("\n")), @"its MAC doesn't fit its values: one was removed, added or moved without the key");
    let changed_plain = sealed.replace("for all to see", "for all to fear");
    insta::assert_snapshot!(open(&changed_plain), @"its MAC doesn't fit its values: one was removed, added or moved without the key");
    let emptied = sealed.replace(&value(lines[line_of("token:")]), "\"\"");
    insta::assert_snapshot!(open(&emptied), @"its MAC doesn't fit its values: one was removed, added or moved without the key");
    let shown = sealed.replace(&value(lines[line_of("port:")]), "6443");
    insta::assert_snapshot!(open(&shown), @"the value of numbers/port is in plain text");
    assert_eq!(
        Encrypted::parse(shown.as_bytes()).unwrap().plain_names(),
        ["numbers/port"]
    );
    let later = sealed.replace("lastmodified: \"2026", "lastmodified: \"2027");
    insta::assert_snapshot!(open(&later), @"its MAC doesn't fit its values: one was removed, added or moved without the key");
}

#[test]
fn a_change_shows_in_its_line_alone_and_a_rekey_in_the_recipients() {
    let (identity, recipient) = someone();
    let (second, second_recipient) = someone();
    let tree = parse_plain(PLAIN.as_bytes()).unwrap();
    let sealed = seal(&tree, std::slice::from_ref(&recipient));
    let mut opened = reopen(&sealed, &identity).unwrap();
    let mut more = entropy();
    // Nothing changed: not a byte.
    let same = opened
        .seal(Seal {
            recipients: std::slice::from_ref(&recipient),
            now_s: 1_800_000_000,
            entropy: &mut more,
        })
        .unwrap();
    assert_eq!(same.write(), sealed.write());
    // One more recipient: the values and their MAC stay.
    let both = [recipient.clone(), second_recipient.clone()];
    let rekeyed = opened
        .seal(Seal {
            recipients: &both,
            now_s: 1_800_000_000,
            entropy: &mut more,
        })
        .unwrap();
    let values = |file: &Encrypted| file.write().split("\nsops:").next().unwrap().to_owned();
    assert_eq!(values(&rekeyed), values(&sealed));
    assert!(reopen(&rekeyed, &second).unwrap().tree == tree);
    // One value changed: its line, the time and the MAC.
    opened.tree.set("numbers/port", Value::Int(6444));
    let changed = opened
        .seal(Seal {
            recipients: std::slice::from_ref(&recipient),
            now_s: 1_800_000_000,
            entropy: &mut more,
        })
        .unwrap();
    let (before, after) = (sealed.write(), changed.write());
    let differ: Vec<&str> = before
        .lines()
        .zip(after.lines())
        .filter(|(a, b)| a != b)
        .map(|(a, _)| a.trim().split(':').next().unwrap())
        .collect();
    assert_eq!(differ, ["port", "lastmodified", "mac"]);
    // A new data key shuts out who had the old one.
    let anew = reopen(&rekeyed, &identity)
        .unwrap()
        .seal_anew(Seal {
            recipients: &[recipient],
            now_s: 1_800_000_000,
            entropy: &mut more,
        })
        .unwrap();
    assert!(reopen(&anew, &second).is_err());
    assert!(reopen(&anew, &identity).unwrap().tree == tree);
}

#[test]
fn a_machine_is_a_recipient_by_its_host_key() {
    let key =
        ssh_key::PrivateKey::random(&mut ssh_key::rand_core::OsRng, ssh_key::Algorithm::Ed25519)
            .unwrap();
    let recipient = Recipient::of_ssh_host_key(&key.public_key().to_openssh().unwrap()).unwrap();
    let private = key.to_openssh(ssh_key::LineEnding::LF).unwrap();
    let text = identity_of_ssh_host_key(&private).unwrap();
    let identity: age::x25519::Identity = text.parse().unwrap();
    assert_eq!(identity.to_public().to_string(), recipient.as_str());
    assert_eq!(identity.to_string().expose_secret(), text.as_str());
    let sealed = seal(&parse_plain(b"a: b").unwrap(), &[recipient]);
    assert!(reopen(&sealed, &identity).is_ok());
}

#[test]
fn recipients_that_are_none_are_named() {
    for text in ["age1nonsense", "ssh-dss AAAA", "", "ssh-ed25519"] {
        assert!(text.parse::<Recipient>().is_err(), "{text}");
    }
    let key =
        ssh_key::PrivateKey::random(&mut ssh_key::rand_core::OsRng, ssh_key::Algorithm::Ed25519)
            .unwrap();
    let ssh = key.public_key().to_openssh().unwrap();
    let with_comment: Recipient = format!("{ssh} spare@safe").parse().unwrap();
    assert_eq!(with_comment.as_str(), ssh);
    // RSA keys can be operators', not machines'.
    assert!(Recipient::of_ssh_host_key("ssh-rsa AAAA").is_err());
}

#[test]
fn files_that_are_none_get_an_error_with_a_place() {
    let error = |text: &str| match Encrypted::parse(text.as_bytes()) {
        Ok(_) => panic!("{text} is taken"),
        Err(e) => e.to_string(),
    };
    insta::assert_snapshot!(error("a: b"), @"it isn't encrypted: the key `sops` is missing");
    insta::assert_snapshot!(error("a: b\na: c"), @r#"line 2, column 1: the key "a" stands here twice"#);
    insta::assert_snapshot!(error("- a"), @"line 1, column 1: the file must be a map of names");
    insta::assert_snapshot!(error("a: *b"), @"line 1, column 4: while parsing node, found unknown anchor");
    insta::assert_snapshot!(error("a: &x b\nc: *x"), @"line 2, column 4: anchors aren't followed; write the value out");
    insta::assert_snapshot!(error("a: b\n---\nc: d"), @"line 2, column 1: a file of secrets has one YAML document");
    insta::assert_snapshot!(error("1: b"), @"line 1, column 1: a key must be a text; put it in quotes");
    insta::assert_snapshot!(error("a: !!binary x"), @"line 1, column 13: tags aren't understood here; leave it out");
    insta::assert_snapshot!(error("a: b\nsops: 3"), @"its `sops` part can't be used: it is no map");
    insta::assert_snapshot!(
        error("a: b\nsops: {pgp: [{fp: x}]}"),
        @r#"its `sops` part can't be used: it has keys of the kind "pgp", and only age's are understood here; use `sops` itself"#
    );
    assert!(matches!(
        parse_plain(b"sops: x"),
        Err(SopsError::ReservedKey)
    ));
    assert!(matches!(
        parse_plain(&vec![b' '; crate::FILE_BYTES_MAX + 1]),
        Err(SopsError::TooLarge { .. })
    ));
    assert!(Encrypted::parse(b"a: \xff").is_err());
}

#[test]
fn nothing_secret_is_shown_by_debug() {
    let (identity, recipient) = someone();
    let tree = parse_plain(b"token: hunter2 # hunter3\nn: 4711").unwrap();
    let opened = reopen(&seal(&tree, &[recipient]), &identity).unwrap();
    let shown = format!("{tree:?} {opened:?}");
    for secret in ["hunter2", "hunter3", "4711"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn values_are_set_and_removed_by_their_names() {
    let mut tree = Value::map();
    tree.set("k3s/tls/server-ca.key", Value::text("a"));
    tree.set("k3s/token", Value::text("b"));
    tree.set("other", Value::text("c"));
    assert_eq!(
        tree.names(),
        ["k3s/tls/server-ca.key", "k3s/token", "other"]
    );
    assert!(!tree.remove("k3s/nothing"));
    assert!(tree.remove("k3s/tls/server-ca.key"));
    assert_eq!(tree.names(), ["k3s/token", "other"]);
    assert!(tree.get("k3s/tls").is_none());
    assert_eq!(tree.get("k3s/token").and_then(Value::as_text), Some("b"));
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]{0,12}",
        "[ -~]{0,20}",
        "([ -~]{0,12}\n){0,4}[ -~]{0,5}",
        "\\PC{0,12}",
        any::<String>().prop_map(|s| s.chars().take(16).collect()),
    ]
}

fn comment() -> impl Strategy<Value = Comment> {
    "[ -~]{1,20}".prop_map(|text| Comment::line(format!(" {}", text.trim())))
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>()
            .prop_filter("finite", |n| n.is_finite())
            .prop_map(Value::Float),
        text().prop_map(Value::text),
        Just(Value::Time(Zeroizing::new("2026-01-02T03:04:05Z".into()))),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            pairs(inner.clone()).prop_map(Value::Map),
            prop::collection::vec((prop::option::of(comment()), inner), 0..5).prop_map(|items| {
                Value::List(
                    items
                        .into_iter()
                        .flat_map(|(comment, value)| {
                            comment
                                .map(Element::Comment)
                                .into_iter()
                                .chain([Element::Value(value)])
                        })
                        .collect(),
                )
            }),
        ]
    })
}

fn pairs(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<MapEntry>> {
    prop::collection::btree_map(
        "[a-zA-Z][ -~]{0,8}|[0-9]{1,3}",
        (prop::option::of(comment()), inner),
        0..5,
    )
    .prop_map(|pairs| {
        pairs
            .into_iter()
            .flat_map(|(key, (comment, value))| {
                comment
                    .map(MapEntry::Comment)
                    .into_iter()
                    .chain([MapEntry::Pair(key, value)])
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_tree_is_read_as_it_was_written(entries in pairs(value())) {
        let text = crate::yaml::write(&entries);
        let read = parse_plain(text.as_bytes());
        prop_assert!(read.is_ok(), "{:?} in:\n{}", read, text.as_str());
        let read = read.unwrap();
        prop_assert!(strip(&read) == strip(&Value::Map(entries)), "{}", text.as_str());
        // A comment may move to the map or list around its own, once.
        let again = crate::yaml::write(entries_of(&read));
        let read_again = parse_plain(again.as_bytes()).unwrap();
        let third = crate::yaml::write(entries_of(&read_again));
        prop_assert_eq!(again.as_str(), third.as_str());
    }

    #[test]
    fn every_tree_comes_back_from_under_encryption(entries in pairs(value())) {
        let (identity, recipient) = someone();
        let tree = Value::Map(entries);
        let sealed = seal(&tree, &[recipient]);
        let opened = reopen(&sealed, &identity).unwrap();
        prop_assert!(strip(&opened.tree) == strip(&tree), "{}", sealed.write());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Encrypted::parse(&bytes);
        let _ = parse_plain(&bytes);
    }
}

fn entries_of(value: &Value) -> &[MapEntry] {
    match value {
        Value::Map(entries) => entries,
        _ => panic!("it is no map"),
    }
}

/// A tree without its comments, which need not come back in the same map.
fn strip(value: &Value) -> Value {
    match value {
        Value::Map(entries) => Value::Map(
            entries
                .iter()
                .filter_map(|entry| match entry {
                    MapEntry::Pair(key, value) => Some(MapEntry::Pair(key.clone(), strip(value))),
                    MapEntry::Comment(_) => None,
                })
                .collect(),
        ),
        Value::List(elements) => Value::List(
            elements
                .iter()
                .filter_map(|element| match element {
                    Element::Value(value) => Some(Element::Value(strip(value))),
                    Element::Comment(_) => None,
                })
                .collect(),
        ),
        other => other.clone(),
    }
}

#[test]
fn a_rule_that_was_changed_is_known_without_a_key() {
    let (identity, recipient) = someone();
    let sealed = seal(
        &parse_plain(PLAIN.as_bytes()).unwrap(),
        std::slice::from_ref(&recipient),
    );
    assert!(sealed.has_usual_rule());
    // It fits no name that is there, so that the MAC is as good as before.
    let text = sealed.write().replace(
        "unencrypted_suffix: _unencrypted",
        "unencrypted_regex: _unencrypted$|^later$",
    );
    let changed = Encrypted::parse(text.as_bytes()).unwrap();
    assert!(!changed.has_usual_rule());
    let mut opened = changed.open(&[&identity]).unwrap();
    opened.tree.set("later", Value::text("hunter2"));
    let mut entropy = entropy();
    let leaked = opened
        .seal(Seal {
            recipients: &[recipient],
            now_s: 0,
            entropy: &mut entropy,
        })
        .unwrap();
    assert!(leaked.write().contains("later: hunter2"));
}

#[test]
fn a_file_of_very_many_keys_is_read() {
    let mut text = String::new();
    for i in 0..100_000 {
        text.push_str(&format!("k{i}: 1\n"));
    }
    let tree = parse_plain(text.as_bytes()).unwrap();
    assert_eq!(tree.names().len(), 100_000);
    text.push_str("k7: 2\n");
    let error = parse_plain(text.as_bytes()).unwrap_err();
    assert!(
        error.to_string().contains("\"k7\" stands here twice"),
        "{error}"
    );
}

#[test]
fn a_key_with_a_slash_is_no_path() {
    let tree = parse_plain(b"k3s/server_token: a\nk3s:\n    agent_token: b\n").unwrap();
    assert_eq!(tree.names(), ["\"k3s/server_token\"", "k3s/agent_token"]);
    assert!(tree.get("k3s/server_token").is_none());
}
