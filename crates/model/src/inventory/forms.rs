//! The forms that texts in the inventory have.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Taint, declare::TextRule};
use crate::is_dns_label;

/// A network that is written in this program. A prefix over 32 can't be written, and would give
/// the widest network.
pub(crate) fn net(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::from(octets), prefix).unwrap_or_default()
}

macro_rules! forms {
    ($($name:ident: $expected:literal, $pattern:literal, $test:expr;)*) => { $(
        pub(crate) static $name: TextRule = TextRule {
            expected: $expected,
            pattern: $pattern,
            test: $test,
        };
    )* };
}

forms! {
    LABEL: "a DNS label (1 to 63 of a-z, 0-9 and '-', not at the ends)",
        "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", is_dns_label;
    DOMAIN: "a DNS name in lower case, such as basement.example",
        "^[a-z0-9.-]{1,253}$", is_domain;
    HOST: "a host name or an IPv4 address",
        "^[a-z0-9.-]{1,253}$", is_domain;
    FLAKE: "a flake reference without blanks, such as . or github:owner/name",
        r"^[^\s]+$", |t| !t.is_empty() && !t.chars().any(|c| c.is_whitespace() || c.is_control());
    RELEASE: "a NixOS release such as 25.11",
        r"^[0-9]{2}\.(05|11)$", is_release;
    SSH_KEY: "an SSH public key: a type such as ssh-ed25519, then its base64",
        "^(ssh-|ecdsa-|sk-)[^ ]+ [A-Za-z0-9+/=]+( .*)?$", is_ssh_key;
    RECIPIENT: "an age recipient (age1…) or an SSH public key",
        "^(age1[a-z0-9]{58}|ssh-(ed25519|rsa) [A-Za-z0-9+/=]+( .*)?)$", is_recipient;
    INTERFACE: "the name of a network interface (1 to 15 characters, no blank, no '/')",
        r"^[^\s/]{1,15}$", |t| (1..=15).contains(&t.len())
            && t.chars().all(|c| c.is_ascii_graphic() && c != '/') && t != "." && t != "..";
    URL: "a URL that begins with http:// or https://",
        r"^https?://[^\s/]+[^\s]*$", |t| is_url(t, &["http", "https"]);
    NATS_URL: "a URL that begins with nats:// or tls://",
        r"^(nats|tls)://[^\s/]+[^\s]*$", |t| is_url(t, &["nats", "tls"]);
    GIT_URL: "a git URL: https://…, ssh://… or git@HOST:PATH",
        r"^[^\s]+$", is_git_url;
    VERSION: "a version such as 1.34 or 1.34.2",
        r"^[0-9]+\.[0-9]+(\.[0-9]+)?$", is_version;
    REVISION: "a branch, a tag or a commit",
        r"^[^\s]+$", |t| !t.is_empty() && !t.starts_with('-')
            && t.chars().all(|c| !c.is_whitespace() && !c.is_control());
    RELATIVE_PATH: "a path inside the repository, such as modules/gpu.nix: relative, without '..', and not in .git or .undercroft",
        r"^[^\s/][^\s]*$", is_relative_path;
    ACCOUNT: "a name of A-Z, 0-9 and '_'",
        "^[A-Z0-9_]{1,64}$", |t| (1..=64).contains(&t.len())
            && t.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    MIG_CONFIG: "the name of a MIG configuration such as all-1g.10gb",
        r"^[a-z0-9][a-z0-9.+-]*$", |t| !t.is_empty() && t.len() <= 63
            && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".+-".contains(&b));
    LABEL_VALUE: "a label's value: at most 63 of letters, digits, '-', '_' and '.', none of the last three at an end",
        "^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$", is_label_value;
    TAINT: "a taint: KEY=VALUE:EFFECT or KEY:EFFECT, where EFFECT is NoSchedule, PreferNoSchedule or NoExecute",
        "^[^=:]+(=[^=:]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$", is_taint;
    KERNEL_PARAM: "a parameter of the kernel, without blanks",
        r"^[^\s]+$", |t| !t.is_empty() && t.chars().all(|c| c.is_ascii_graphic());
    SERIAL: "a serial number: printable characters without blanks at the ends",
        r"^[^\s](.*[^\s])?$", |t| !t.is_empty() && t.trim() == t && t.len() <= 128
            && t.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    WWN: "a World Wide Name such as 0x5000c500a1b2c3d4, eui.… or nvme.…",
        r"^(0x|eui\.|nvme\.|naa\.|uuid\.|t10\.)[0-9A-Za-z_.-]+$", is_wwn;
    HOURS: "a part of the day such as 22:00-06:30",
        "^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$", is_hours;
    NKEY: "the public nkey of a user: U and 55 characters of A-Z and 2-7, with their checksum",
        "^U[A-Z2-7]{55}$", is_user_nkey;
    IMAGE: "a container image with its registry and without a tag, such as registry.example/undercroft/lending-server",
        r"^[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$", is_image;
    EMAIL: "an address for electronic mail",
        r"^[^\s@]+@[^\s@]+$", |t| matches!(t.split_once('@'),
            Some((user, host)) if !user.is_empty() && !t.contains(char::is_whitespace) && is_domain(host));
}

/// A DNS name in lower case, or an IPv4 address; names whose last label is all digits are
/// addresses (RFC 1123, section 2.1), so they must parse as one.
fn is_domain(text: &str) -> bool {
    let digits_last = text
        .rsplit('.')
        .next()
        .is_some_and(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_digit()));
    if digits_last {
        return text.parse::<Ipv4Addr>().is_ok();
    }
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// A public key as NATS writes it: base 32 of a byte for its kind, 32 bytes and a CRC-16 of both (nkeys, `strkey`).
fn is_user_nkey(text: &str) -> bool {
    const USER: u8 = 20 << 3;
    let Some(bytes) = base32(text) else {
        return false;
    };
    let Some((keyed, sum)) = bytes.split_last_chunk::<2>() else {
        return false;
    };
    keyed.len() == 33 && keyed.first() == Some(&USER) && crc16(keyed) == u16::from_le_bytes(*sum)
}

/// Decodes base 32 (RFC 4648) of whole bytes, without padding.
fn base32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for b in text.bytes() {
        let value = match b {
            b'A'..=b'Z' => b - b'A',
            b'2'..=b'7' => b - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5) | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    (bits == 0).then_some(bytes)
}

/// CRC-16 with the polynomial 0x1021 from 0 (XMODEM).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    })
}

/// A name in a registry, by the distribution specification's grammar. The registry is always said: whose Docker Hub
/// would be is nobody's guess.
fn is_image(text: &str) -> bool {
    let Some((authority, name)) = text.split_once('/') else {
        return false;
    };
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let part_ok = |part: &str| {
        let ends =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends(part.chars().next())
            && ends(part.chars().last())
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    let is_registry = host.contains('.') || port.is_some() || host == "localhost";
    is_registry
        && is_domain(&host.to_ascii_lowercase())
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && text.len() <= 255
        && name.split('/').all(part_ok)
}

fn is_release(text: &str) -> bool {
    matches!(text.split_once('.'), Some((year, "05" | "11"))
        if year.len() == 2 && year.bytes().all(|b| b.is_ascii_digit()))
}

/// Decodes base64 as far as needed to read an SSH key's first field: the algorithm's name, which
/// must be the one that the text begins with (RFC 4253, section 6.6).
fn is_ssh_key(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace();
    let (Some(kind), Some(blob)) = (words.next(), words.next()) else {
        return false;
    };
    let known = [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    ];
    if !known.contains(&kind) || text.contains(['\n', '\r']) {
        return false;
    }
    let Some(bytes) = base64(blob) else {
        return false;
    };
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return false;
    };
    let length = u32::from_be_bytes(*length) as usize;
    // An ed25519 key is its name, the key's length and 32 bytes, and nothing else.
    let complete = kind != "ssh-ed25519" || bytes.len() == 4 + 11 + 4 + 32;
    rest.get(..length) == Some(kind.as_bytes()) && complete
}

/// Decodes base64 of RFC 4648, section 4, with its padding; `None` where it is malformed.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    let mut bits = 0u32;
    let mut count = 0;
    for byte in digits.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}

fn is_recipient(text: &str) -> bool {
    if text.starts_with("age1") {
        return is_age_recipient(text);
    }
    // age takes SSH keys of these two types as recipients.
    (text.starts_with("ssh-ed25519 ") || text.starts_with("ssh-rsa ")) && is_ssh_key(text)
}

/// An X25519 recipient of age: 32 bytes in Bech32 (BIP 173) under the prefix `age`.
fn is_age_recipient(text: &str) -> bool {
    const DIGITS: &[u8] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    const GENERATOR: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    let Some(data) = text.strip_prefix("age1") else {
        return false;
    };
    // 256 bits are 52 digits of five bits, and the checksum is six more.
    if data.len() != 58 {
        return false;
    }
    let mut values: Vec<u32> = Vec::with_capacity(65);
    // The prefix counts with its high bits, a zero, and its low bits.
    values.extend(b"age".iter().map(|b| u32::from(b >> 5)));
    values.push(0);
    values.extend(b"age".iter().map(|b| u32::from(b & 31)));
    for byte in data.bytes() {
        let Some(digit) = DIGITS.iter().position(|d| *d == byte) else {
            return false;
        };
        values.push(digit as u32);
    }
    let checksum = values.iter().fold(1u32, |sum, value| {
        let top = sum >> 25;
        let sum = ((sum & 0x01ff_ffff) << 5) ^ value;
        GENERATOR
            .iter()
            .enumerate()
            .filter(|(i, _)| (top >> i) & 1 == 1)
            .fold(sum, |sum, (_, g)| sum ^ g)
    });
    checksum == 1
}

fn is_url(text: &str, schemes: &[&str]) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    // A password in a URL would be a secret in the inventory.
    schemes.contains(&scheme)
        && !host.is_empty()
        && !host.contains('@')
        && text.chars().all(|c| c.is_ascii_graphic())
}

fn is_git_url(text: &str) -> bool {
    if is_url(text, &["https", "http"]) {
        return true;
    }
    let graphic = text.chars().all(|c| c.is_ascii_graphic());
    let ssh = text.strip_prefix("ssh://").is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or("");
        // A user may stand before it, a password never; a port is the host's.
        let user = host.split_once('@').map_or("", |(user, _)| user);
        !host.is_empty() && !user.contains(':')
    });
    let scp = matches!(text.split_once(':'), Some((host, path))
        if host.contains('@') && !host.contains('/') && !path.is_empty() && !path.starts_with("//"));
    graphic && (ssh || scp)
}

fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    (2..=3).contains(&parts.len())
        && parts.iter().all(|p| {
            (1..=6).contains(&p.len())
                && p.bytes().all(|b| b.is_ascii_digit())
                && (*p == "0" || !p.starts_with('0'))
        })
}

fn is_relative_path(text: &str) -> bool {
    // Git's own folder and the state are never the repository's to name.
    let closed = |part: &str| {
        ["..", ".git", ".undercroft"]
            .iter()
            .any(|name| part.eq_ignore_ascii_case(name))
    };
    !text.is_empty()
        && !text.starts_with(['/', '~', '-'])
        && !text.split('/').any(closed)
        && !text.contains('\\')
        && text.chars().all(|c| !c.is_whitespace() && !c.is_control())
}

fn is_label_value(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && ends(text.chars().next())
        && ends(text.chars().last())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// The key of a Kubernetes label or taint: an optional DNS name and `/`, then a name.
pub(crate) fn is_label_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    prefix.is_none_or(is_domain) && !name.is_empty() && is_label_value(name)
}

fn is_taint(text: &str) -> bool {
    Taint::parse(text).is_some_and(|taint| {
        matches!(
            taint.effect.as_str(),
            "NoSchedule" | "PreferNoSchedule" | "NoExecute"
        ) && is_label_key(&taint.key)
            && is_label_value(&taint.value)
    })
}

fn is_wwn(text: &str) -> bool {
    ["0x", "eui.", "nvme.", "naa.", "uuid.", "t10."]
        .iter()
        .filter_map(|prefix| text.strip_prefix(prefix))
        .any(|rest| {
            (1..=120).contains(&rest.len())
                && rest
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        })
}

fn is_hours(text: &str) -> bool {
    let time = |t: &str| {
        matches!(t.split_once(':'), Some((h, m))
            if h.len() == 2 && m.len() == 2
                && h.bytes().chain(m.bytes()).all(|b| b.is_ascii_digit())
                && h < "24" && m < "60")
    };
    matches!(text.split_once('-'), Some((from, to)) if time(from) && time(to) && from != to)
}

#[cfg(test)]
mod tables;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_keys_are_read_as_far_as_their_name() {
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
        assert!(is_ssh_key(key));
        assert!(is_ssh_key(&format!("{key} ada@example")));
        assert!(!is_ssh_key(key.strip_suffix("HR4f").unwrap()), "cut short");
        assert!(!is_ssh_key(&key.replace("ssh-ed25519", "ssh-rsa")));
        assert!(!is_ssh_key("ssh-ed25519"));
        assert!(!is_ssh_key("-----BEGIN OPENSSH PRIVATE KEY-----"));
    }

    #[test]
    fn age_recipients_are_checked_by_their_checksum() {
        // The recipient of age's own README.
        let good = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
        assert!(is_recipient(good));
        assert!(!is_recipient(&good.replace("ql3z", "ql3y")));
        assert!(!is_recipient(&good.to_uppercase()));
        assert!(!is_recipient("age1"));
    }

    #[test]
    fn hosts_and_domains() {
        for good in ["a", "api.basement.example", "10.0.0.1"] {
            assert!(is_domain(good), "{good}");
        }
        for bad in ["", ".", "a..b", "10.0.0", "10.0.0.256", "A.example", "a_b"] {
            assert!(!is_domain(bad), "{bad}");
        }
    }

    #[test]
    fn the_smaller_forms() {
        assert!(is_taint("gpu=yes:NoSchedule") && is_taint("example.com/x:NoExecute"));
        assert!(!is_taint("gpu=yes") && !is_taint("gpu:Never"));
        assert!(is_hours("22:00-06:30") && !is_hours("24:00-06:00") && !is_hours("22:00-22:00"));
        assert!(is_version("1.34.2") && !is_version("v1.34") && !is_version("1.034"));
        assert!(is_git_url("git@git.example:ops/fleet.git"));
        assert!(!is_git_url("https://user:word@git.example/x.git"));
        assert!(is_relative_path("./modules/a.nix") && !is_relative_path("../a.nix"));
        assert!(is_relative_path(".github/a") && is_relative_path("a/.undercroft.d"));
        for closed in [".git", "a/.git/hooks", ".undercroft", "./.Undercroft/ssh"] {
            assert!(!is_relative_path(closed), "{closed}");
        }
        assert!(is_wwn("0x5000c500a1b2c3d4") && !is_wwn("5000c500a1b2c3d4"));
    }
}
