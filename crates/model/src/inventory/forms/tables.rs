//! What each form takes and what it refuses, at each of its edges.

use super::*;

fn takes(form: impl Fn(&str) -> bool, good: &[&str], bad: &[&str]) {
    for text in good {
        assert!(form(text), "{text:?} is refused");
    }
    for text in bad {
        assert!(!form(text), "{text:?} is taken");
    }
}

/// The vectors of RFC 4648, section 10, and all digits.
#[test]
fn base64_is_rfc_4648_s() {
    for (text, bytes) in [
        ("", &b""[..]),
        ("Zg==", b"f"),
        ("Zm8=", b"fo"),
        ("Zm9v", b"foo"),
        ("Zm9vYg==", b"foob"),
        ("Zm9vYmE=", b"fooba"),
        ("Zm9vYmFy", b"foobar"),
    ] {
        assert_eq!(base64(text).as_deref(), Some(bytes), "{text}");
    }
    let all = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = [
        0x00, 0x10, 0x83, 0x10, 0x51, 0x87, 0x20, 0x92, 0x8b, 0x30, 0xd3, 0x8f, 0x41, 0x14, 0x93,
        0x51, 0x55, 0x97, 0x61, 0x96, 0x9b, 0x71, 0xd7, 0x9f, 0x82, 0x18, 0xa3, 0x92, 0x59, 0xa7,
        0xa2, 0x9a, 0xab, 0xb2, 0xdb, 0xaf, 0xc3, 0x1c, 0xb3, 0xd3, 0x5d, 0xb7, 0xe3, 0x9e, 0xbb,
        0xf3, 0xdf, 0xbf,
    ];
    assert_eq!(base64(all), Some(bytes.to_vec()));
    for bad in [
        "Zg", "Zg=", "Z===", "====", "Zm9v====", "Zm-_", "Zm 9", "Zm9vY",
    ] {
        assert_eq!(base64(bad), None, "{bad}");
    }
}

#[test]
fn an_ssh_key_is_of_the_type_that_it_says() {
    let ed25519 = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    takes(
        is_ssh_key,
        &[
            &format!("ssh-ed25519 {ed25519}"),
            &format!("  ssh-ed25519\t{ed25519} a comment of words"),
            "ssh-rsa AAAAB3NzaC1yc2E=",
        ],
        &[
            "",
            "ssh-rsa",
            "ssh-dss AAAAB3NzaC1kc3M=",
            // Cut short, too long, of another type, none at all.
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
            &format!("ssh-ed25519 {ed25519}AAAA"),
            &format!("ssh-rsa {ed25519}"),
            "ssh-rsa AAAAB3NzaC1yc2",
            "ssh-rsa AAAA",
            "ssh-rsa ////////",
            // Another line would be another key.
            &format!("ssh-ed25519 {ed25519}\nssh-rsa AAAAB3NzaC1yc2E="),
            &format!("ssh-ed25519 {ed25519}\r"),
        ],
    );
    takes(
        is_recipient,
        &[
            &format!("ssh-ed25519 {ed25519}"),
            "ssh-rsa AAAAB3NzaC1yc2E=",
        ],
        &[
            &format!("ssh-ed25519 {ed25519}AAAA"),
            &format!("sk-ssh-ed25519@openssh.com {ed25519}"),
            "age",
        ],
    );
}

/// Bech32 finds every single character that was mistyped.
#[test]
fn no_character_of_an_age_recipient_may_be_another() {
    let good = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    assert!(is_age_recipient(good));
    for at in "age1".len()..good.len() {
        for other in "qpzry9x8gf2tvdw0s3jn54khce6mua7l1bioQ-".chars() {
            let mut text = good.to_owned();
            text.replace_range(at..=at, &other.to_string());
            assert_eq!(is_age_recipient(&text), text == good, "{text}");
        }
    }
    takes(
        is_age_recipient,
        &[],
        &[
            "",
            "age1",
            good.strip_suffix('p').unwrap(),
            &format!("{good}q"),
            &good.replace("age1", "agf1"),
        ],
    );
}

#[test]
fn versions_have_two_or_three_numbers() {
    takes(
        is_version,
        &["1.34", "1.34.2", "0.0", "0.0.0", "123456.1", "25.11"],
        &[
            "",
            "1",
            "1.",
            ".1",
            "1.2.3.4",
            "1.02",
            "00.1",
            "1.2a",
            "1. 2",
            "-1.2",
            "1234567.1",
            "v1.2",
        ],
    );
}

#[test]
fn labels_and_taints_are_kubernetes_s() {
    let longest = "a".repeat(63);
    takes(
        is_label_value,
        &["", "a", "A-b_c.9", &longest],
        &["-a", "a-", ".a", "a_", "a b", "é", &format!("{longest}a")],
    );
    takes(
        is_label_key,
        &["a", "example.com/a", &longest],
        &["", "/a", "example.com/", "a/b/c", "UP.example/a", "-a"],
    );
    takes(
        is_taint,
        &[
            "a:NoSchedule",
            "a=:NoExecute",
            "a=b:PreferNoSchedule",
            "example.com/a=b:NoSchedule",
        ],
        &[
            "",
            "a",
            "a=b",
            ":NoSchedule",
            "=b:NoSchedule",
            "a:",
            "a:noschedule",
            "a=-b:NoSchedule",
            "a=b=c:NoSchedule",
            "/a:NoSchedule",
        ],
    );
}

#[test]
fn urls_have_a_host_and_no_password() {
    let https = |text: &str| is_url(text, &["https"]);
    takes(
        https,
        &[
            "https://a",
            "https://a.example/x?y#z",
            "https://a.example:8443",
        ],
        &[
            "",
            "a",
            "https:",
            "https://",
            "https:///x",
            "https://?x",
            "https://#x",
            "http://a",
            "https://user@a",
            "https://user:word@a/x",
            "https://a/ x",
            "https://a/é",
        ],
    );
    takes(
        is_git_url,
        &[
            "https://git.example/a.git",
            "http://git.example/a.git",
            "ssh://git@git.example/a.git",
            "ssh://git@git.example:22/a.git",
            "ssh://git.example/a.git",
            "ssh://git.example:22/a.git",
            "git@git.example:a.git",
        ],
        &[
            "",
            "a.git",
            "ssh://",
            "ssh:///a.git",
            "ssh://user:word@git.example/a.git",
            "git@git.example:",
            "git@git.example://a",
            "git.example:a.git",
            "a/git@git.example:a.git",
            "git@git.example:a b.git",
            "file:///a.git",
        ],
    );
}

#[test]
fn paths_stay_in_the_repository() {
    takes(
        is_relative_path,
        &["a", "a/b.nix", "./a", "a/..b", "a..", ".gitignore"],
        &[
            "",
            "/a",
            "~/a",
            "-a",
            "..",
            "a/..",
            "a/../b",
            ".git",
            ".GIT/x",
            "a/.undercroft",
            "a b",
            "a\tb",
            "a\u{7f}b",
            "a\\b",
        ],
    );
}

#[test]
fn a_wwn_has_its_kind_and_a_name() {
    takes(
        is_wwn,
        &[
            "0x5",
            "eui.0025",
            "nvme.a-b_c.d",
            "naa.5",
            "uuid.7",
            "t10.A",
            &format!("0x{}", "a".repeat(120)),
        ],
        &[
            "",
            "0x",
            "x5",
            "5000",
            "0x5 6",
            "0xé",
            &format!("0x{}", "a".repeat(121)),
        ],
    );
}
