//! Secrets that were pasted into a file where they don't belong.
//!
//! They are looked for in the text itself, before it is read as TOML, so that no excerpt of a
//! line shows one, whatever else is wrong with the line.

use std::ops::Range;

/// A secret in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    /// Where it is.
    pub(crate) span: Range<usize>,
    /// What it is, with its article.
    pub(crate) what: &'static str,
}

/// What a secret begins with, which characters go on with it, how many there must be at least,
/// and what it is.
struct Pattern {
    prefix: &'static str,
    goes_on: fn(u8) -> bool,
    min_len: usize,
    what: &'static str,
}

fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}

const PATTERNS: &[Pattern] = &[
    Pattern {
        prefix: "AGE-SECRET-KEY-1",
        goes_on: |b| b.is_ascii_alphanumeric(),
        min_len: 20,
        what: "an age secret key",
    },
    Pattern {
        prefix: "K10",
        goes_on: |b| b.is_ascii_alphanumeric() || b == b':',
        min_len: 40,
        what: "a k3s token",
    },
    Pattern {
        prefix: "tskey-",
        goes_on: word,
        min_len: 10,
        what: "a Tailscale key",
    },
    Pattern {
        prefix: "hskey-",
        goes_on: word,
        min_len: 10,
        what: "a Headscale key",
    },
    Pattern {
        prefix: "ghp_",
        goes_on: word,
        min_len: 20,
        what: "a GitHub token",
    },
    Pattern {
        prefix: "github_pat_",
        goes_on: word,
        min_len: 20,
        what: "a GitHub token",
    },
    Pattern {
        prefix: "glpat-",
        goes_on: word,
        min_len: 16,
        what: "a GitLab token",
    },
    Pattern {
        prefix: "hvs.",
        goes_on: word,
        min_len: 20,
        what: "a Vault token",
    },
    Pattern {
        prefix: "AKIA",
        goes_on: |b| b.is_ascii_uppercase() || b.is_ascii_digit(),
        min_len: 20,
        what: "an AWS access key",
    },
    Pattern {
        prefix: "SU",
        goes_on: |b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b),
        min_len: 58,
        what: "a NATS seed",
    },
    Pattern {
        prefix: "SA",
        goes_on: |b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b),
        min_len: 58,
        what: "a NATS seed",
    },
    Pattern {
        prefix: "SO",
        goes_on: |b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b),
        min_len: 58,
        what: "a NATS seed",
    },
];

/// Words that make a key's value a secret.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "private_key",
    "privatekey",
    "api_key",
    "apikey",
    "psk",
];

/// Ends of keys that only say where a secret is.
const POINTERS: &[&str] = &["_file", "_path", "_url", "_ref", "_command"];

/// Whether a key's name says that its value is a secret.
pub(crate) fn is_secret_name(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    // `secrets` is a section.
    key != "secrets"
        && SECRET_WORDS.iter().any(|w| key.contains(w))
        && !POINTERS.iter().any(|p| key.ends_with(p))
}

/// All secrets of a text, in order and apart from each other.
pub(crate) fn find(text: &str) -> Vec<Secret> {
    let mut found = Vec::new();
    for pattern in PATTERNS {
        by_pattern(text, pattern, &mut found);
    }
    private_keys(text, &mut found);
    url_passwords(text, &mut found);
    by_name(text, &mut found);
    found.sort_by_key(|s| (s.span.start, std::cmp::Reverse(s.span.end)));
    let mut end = 0;
    found.retain(|s| {
        let apart = s.span.start >= end;
        if apart {
            end = s.span.end;
        }
        apart
    });
    found
}

fn by_pattern(text: &str, pattern: &Pattern, found: &mut Vec<Secret>) {
    let bytes = text.as_bytes();
    for (start, _) in text.match_indices(pattern.prefix) {
        let inside_word = start
            .checked_sub(1)
            .and_then(|i| bytes.get(i))
            .is_some_and(|b| word(*b));
        if inside_word {
            continue;
        }
        let length = bytes
            .iter()
            .skip(start)
            .enumerate()
            .take_while(|(i, b)| *i < pattern.prefix.len() || (pattern.goes_on)(**b))
            .count();
        if length >= pattern.min_len {
            found.push(Secret {
                span: start..start + length,
                what: pattern.what,
            });
        }
    }
}

/// Keys in PEM, from their first line to their last.
fn private_keys(text: &str, found: &mut Vec<Secret>) {
    const BEGIN: &str = "-----BEGIN ";
    const KEY: &str = "PRIVATE KEY-----";
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|t| t.find(BEGIN)) {
        let start = from + at;
        from = start + BEGIN.len();
        let rest = text.get(start..).unwrap_or("");
        let line = rest.split(['\n', '"', '\'']).next().unwrap_or("");
        let Some(head) = line.find(KEY) else {
            continue;
        };
        let body = head + KEY.len();
        let end = rest
            .get(body..)
            .and_then(|t| t.find(KEY))
            .map_or(line.len().max(body), |tail| body + tail + KEY.len());
        found.push(Secret {
            span: start..start + end,
            what: "a private key",
        });
        from = start + end;
    }
}

/// Passwords in URLs: `scheme://user:password@host`.
fn url_passwords(text: &str, found: &mut Vec<Secret>) {
    /// Bytes of a URL's authority that are looked at; a longer one isn't a host.
    const MAX_AUTHORITY_BYTES: usize = 512;
    for (at, separator) in text.match_indices("://") {
        let start = at + separator.len();
        let authority = text.as_bytes().iter().skip(start).take(MAX_AUTHORITY_BYTES);
        let length = authority
            .take_while(|b| b.is_ascii_graphic() && !b"/?#\"'".contains(b))
            .count();
        let Some((user, _)) = text
            .get(start..start + length)
            .and_then(|a| a.rsplit_once('@'))
        else {
            continue;
        };
        if let Some((name, password)) = user.split_once(':').filter(|(_, p)| !p.is_empty()) {
            let start = start + name.len() + 1;
            found.push(Secret {
                span: start..start + password.len(),
                what: "a password",
            });
        }
    }
}

/// Quoted values of keys whose name says what they are.
fn by_name(text: &str, found: &mut Vec<Secret>) {
    for (at, _) in text.match_indices('=') {
        let before = text.get(..at).unwrap_or("");
        let key = before.trim_end_matches([' ', '\t', '"', '\'']);
        let length = key.bytes().rev().take_while(|b| word(*b)).count();
        let key = key.get(key.len() - length..).unwrap_or("");
        if !is_secret_name(key) {
            continue;
        }
        let after = text.get(at + 1..).unwrap_or("");
        let value = after.trim_start_matches([' ', '\t']);
        let start = at + 1 + (after.len() - value.len());
        if let Some(length) = quoted(value).filter(|length| *length > 0) {
            let quote = value.len() - value.trim_start_matches(['"', '\'']).len();
            let quote = if quote >= 3 { 3 } else { 1 };
            found.push(Secret {
                span: start + quote..start + quote + length,
                what: "a secret",
            });
        }
    }
}

/// Length of what stands between the quotes that a text begins with; to the end of the line, or
/// of the text, where the closing quote is missing.
fn quoted(value: &str) -> Option<usize> {
    for quote in ["\"\"\"", "'''"] {
        if let Some(rest) = value.strip_prefix(quote) {
            return Some(rest.find(quote).unwrap_or(rest.len()));
        }
    }
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let rest = value.get(1..)?;
    let mut escaped = false;
    for (i, c) in rest.char_indices() {
        match c {
            '\n' => return Some(i),
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some(i),
            _ => {}
        }
    }
    Some(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(text: &str) -> Vec<&str> {
        find(text)
            .into_iter()
            .map(|s| text.get(s.span).unwrap())
            .collect()
    }

    #[test]
    fn secrets_are_found_wherever_they_stand() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(
            spans(&format!("a = \"K10{hex}::server:abc\"")),
            [format!("K10{hex}::server:abc")]
        );
        assert_eq!(spans("# tskey-auth-abcdef"), ["tskey-auth-abcdef"]);
        assert_eq!(
            spans(
                "x = '''-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----'''"
            ),
            ["-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----"]
        );
        assert_eq!(spans("u = \"https://me:hunter2@host/\""), ["hunter2"]);
        assert_eq!(spans("p = { password = \"hunter2\" }"), ["hunter2"]);
        assert_eq!(spans("join-token = 'a b"), ["a b"]);
        // A backslash escapes in double quotes alone.
        assert_eq!(spans(r#"password = "a\"b" # c"#), [r#"a\"b"#]);
        assert_eq!(spans(r"password = 'a\' # 'c'"), [r"a\"]);
    }

    #[test]
    fn what_only_looks_like_one_is_left_alone() {
        for text in [
            "[secrets]\nbackend = \"sops\"",
            "token_file = \"/run/token\"",
            "password = \"\"",
            "url = \"https://git@host/x:y\"",
            "serial = \"SAMSUNG-K10\"",
            "-----BEGIN PUBLIC KEY-----",
        ] {
            assert_eq!(find(text), [], "{text}");
        }
    }
}
