//! What the `sops` part of a file may say, and what it decides.

use super::*;

/// A file without secrets whose `sops` part is these lines.
fn file(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("a: b\nsops:\n{lines}")
}

const USUAL: &str = "age: []\nlastmodified: \"2026-01-02T03:04:05Z\"\nmac: x\nversion: 3.11.0\n";

fn refused(lines: &str) -> String {
    match Encrypted::parse(file(lines).as_bytes()) {
        Ok(_) => panic!("{lines} is taken"),
        Err(SopsError::Metadata { detail }) => detail,
        Err(other) => panic!("{lines}: {other}"),
    }
}

fn taken(lines: &str) -> Encrypted {
    match Encrypted::parse(file(lines).as_bytes()) {
        Ok(file) => file,
        Err(e) => panic!("{lines}: {e}"),
    }
}

#[test]
fn what_cannot_be_kept_or_is_missing_is_named() {
    for other in [
        "kms",
        "gcp_kms",
        "hckms",
        "azure_kv",
        "hc_vault",
        "pgp",
        "key_groups",
    ] {
        let said = refused(&format!("{USUAL}{other}:\n    - fp: x\n"));
        assert!(said.contains(&format!("{other:?}")), "{said}");
        assert!(refused(&format!("{USUAL}{other}: x\n")).contains(other));
        // SOPS itself writes them empty.
        for none in ["[]", "null"] {
            taken(&format!("{USUAL}{other}: {none}\n"));
        }
    }
    for key in ["age", "lastmodified", "mac", "version"] {
        let without: String = USUAL
            .lines()
            .filter(|line| !line.starts_with(key))
            .map(|line| format!("{line}\n"))
            .collect();
        let said = refused(&without);
        let want = if key == "age" { "recipients" } else { key };
        assert!(said.contains(want), "{key}: {said}");
        assert!(refused(&format!("{without}{key}: 3\n")).contains(want));
    }
    for (lines, want) in [
        ("encrypted_regex: (\n", "regular expression"),
        ("unencrypted_regex: \"[\"\n", "regular expression"),
        ("encrypted_comment_regex: x\n", "encrypted_comment_regex"),
        (
            "unencrypted_comment_regex: x\n",
            "unencrypted_comment_regex",
        ),
        ("mac_only_encrypted: perhaps\n", "neither true nor false"),
        (
            "encrypted_suffix: x\nunencrypted_suffix: y\n",
            "more than one",
        ),
        (
            "encrypted_regex: x\nunencrypted_regex: y\n",
            "more than one",
        ),
    ] {
        let said = refused(&format!("{USUAL}{lines}"));
        assert!(said.contains(want), "{lines}: {said}");
    }
    for lines in [
        "encrypted_comment_regex: \"\"\n",
        "encrypted_suffix: \"\"\nunencrypted_suffix: y\n",
        "unencrypted_suffix: \"\"\nencrypted_suffix: y\n",
        "encrypted_regex: \"\"\nunencrypted_regex: y\n",
        "unencrypted_regex: \"\"\nencrypted_regex: y\n",
        "mac_only_encrypted: null\n",
        "mac_only_encrypted: false\n",
    ] {
        taken(&format!("{USUAL}{lines}"));
    }
    for moment in [
        "1",
        "2026-01-02",
        "2026-02-29T03:04:05Z",
        "10000-01-01T00:00:00Z",
    ] {
        let refused = refused(&USUAL.replace("2026-01-02T03:04:05Z", moment));
        assert!(
            refused.contains("\"lastmodified\" is no moment of RFC 3339"),
            "{refused}"
        );
    }
    assert!(
        refused("age:\n    - recipient: x\nlastmodified: \"1\"\nmac: x\nversion: \"3\"\n")
            .contains("\"enc\"")
    );
    assert!(
        refused("age:\n    - enc: x\nlastmodified: \"1\"\nmac: x\nversion: \"3\"\n")
            .contains("\"recipient\"")
    );
}

#[test]
fn recipients_are_named_in_the_order_of_the_file_up_to_a_limit() {
    let of = |count: usize| {
        let mut lines = USUAL.replace("age: []\n", "age:\n    # who\n");
        for i in 0..count {
            let at = lines.find("lastmodified").unwrap();
            lines.insert_str(at, &format!("    - recipient: r{i}\n      enc: x\n"));
        }
        lines
    };
    assert_eq!(taken(&of(3)).recipients(), ["r0", "r1", "r2"]);
    assert!(taken(USUAL).recipients().is_empty());
    // The comment counts as an element, too.
    assert_eq!(taken(&of(4095)).recipients().len(), 4095);
    let said = refused(&of(4096));
    assert!(
        said.contains("4097 recipients, and 4096 are the most"),
        "{said}"
    );
    let error = taken(&of(2)).open(&[]).unwrap_err();
    assert!(
        error.to_string().ends_with("it is encrypted to r0, r1"),
        "{error}"
    );
}

/// The names of what a rule has in plain text: it is known without a key.
#[test]
fn each_rule_encrypts_what_it_says_and_is_written_again() {
    let tree = "data:\n    a: 1\n    b_plain:\n        c: 2\nkind: x\nnothing: null\nempty: \"\"\nsealed: ENC[AES256_GCM,data:x]\n";
    for (rule, plain) in [
        ("", &["data/a", "data/b_plain/c", "kind"][..]),
        ("unencrypted_suffix: _plain", &["data/a", "kind"]),
        ("unencrypted_suffix: a", &["kind"]),
        ("encrypted_suffix: _plain", &["data/b_plain/c"]),
        ("encrypted_suffix: ata", &["data/a", "data/b_plain/c"]),
        ("unencrypted_regex: ^(kind|b_.*)$", &["data/a"]),
        ("encrypted_regex: ^(kind|a)$", &["data/a", "kind"]),
        ("encrypted_regex: ^b", &["data/b_plain/c"]),
    ] {
        let text = file(&format!("{USUAL}{rule}")).replace("a: b\n", tree);
        let file = Encrypted::parse(text.as_bytes()).unwrap();
        assert_eq!(file.plain_names(), plain, "{rule}");
        assert_eq!(file.has_usual_rule(), rule.is_empty(), "{rule}");
        let written = file.write();
        let want = if rule.is_empty() {
            "unencrypted_suffix: _unencrypted"
        } else {
            rule.split_once(": ").unwrap().0
        };
        assert!(written.contains(&format!("\n    {want}")), "{written}");
        let again = Encrypted::parse(written.as_bytes()).unwrap();
        assert_eq!(again.plain_names(), plain, "{rule}");
        assert_eq!(
            file.names(),
            [
                "data/a",
                "data/b_plain/c",
                "kind",
                "nothing",
                "empty",
                "sealed"
            ]
        );
    }
}
