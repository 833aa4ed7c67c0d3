//! Reading an installer's report.

use undercroft_model::InstallerReport;

/// The version of [`InstallerReport`] that is understood.
const VERSION: u32 = 1;
/// The most Ethernet addresses that a report may name.
const MAX_MACS: usize = 64;

/// Why a report is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It isn't JSON, or lacks something.
    #[error("the report can't be read: {0}")]
    Json(#[from] serde_json::Error),
    /// It is of another version.
    #[error("the report has version {0}, and only version {VERSION} is understood")]
    Version(u32),
    /// A value can't be true.
    #[error("the report's {field} {problem}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Reads a report, and refuses what can't be true: its values end up before people's eyes, and
/// some in the arguments of `ssh`.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse_report(json: &[u8]) -> Result<InstallerReport, ReportError> {
    let report: InstallerReport = serde_json::from_slice(json)?;
    if report.version != VERSION {
        return Err(ReportError::Version(report.version));
    }
    let field = |field, problem| Err(ReportError::Field { field, problem });
    if report.nonce.len() != 32 || !report.nonce.bytes().all(|b| b.is_ascii_hexdigit()) {
        return field("nonce", "is not 32 hexadecimal digits");
    }
    if report.macs.is_empty() || report.macs.len() > MAX_MACS {
        return field("macs", "must name 1 to 64 Ethernet addresses");
    }
    if report.macs.iter().any(|mac| mac.is_multicast()) {
        return field("macs", "name a group's address");
    }
    let is_base64 = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
    };
    let fingerprint = report.fingerprint.strip_prefix("SHA256:");
    if !fingerprint.is_some_and(|hash| hash.len() == 43 && is_base64(hash)) {
        return field("fingerprint", "is not SHA256: and 43 characters");
    }
    let mut words = report.host_key.split(' ');
    let plain_type = words.next().is_some_and(|kind| {
        kind.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-@.".contains(&b))
    });
    if !plain_type || !words.next().is_some_and(is_base64) || report.host_key.len() > 1024 {
        return field("host_key", "is not a public key as OpenSSH prints it");
    }
    let texts = [
        report.host_key.as_str(),
        report.boot_id.as_str(),
        report.installer.as_str(),
    ];
    let disk_texts = report.disks.iter().flat_map(|disk| {
        [
            Some(disk.path.as_str()),
            disk.serial.as_deref(),
            disk.wwn.as_deref(),
            disk.model.as_deref(),
            disk.transport.as_deref(),
        ]
        .into_iter()
        .flatten()
    });
    if texts
        .into_iter()
        .chain(disk_texts)
        .any(|text| text.chars().any(char::is_control))
    {
        return field("text", "has control characters");
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"version":1,"nonce":"00112233445566778899aabbccddeeff",
        "macs":["52:54:00:00:00:01"],"address":"10.0.0.5","boot_id":"b",
        "host_key":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI","fingerprint":"SHA256:abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
        "system":"x86_64-linux","firmware":"uefi","memory_mb":1024,"installer":"t","disks":[]}"#;

    #[test]
    fn a_report_is_read() {
        assert_eq!(parse_report(GOOD.as_bytes()).unwrap().memory_mb, 1024);
    }

    #[test]
    fn reports_that_can_not_be_true_are_refused() {
        let refusal = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            parse_report(GOOD.replace(from, to).as_bytes())
                .unwrap_err()
                .to_string()
        };
        let all = [
            refusal("\"version\":1", "\"version\":2"),
            refusal("00112233", "zz112233"),
            refusal("[\"52:54:00:00:00:01\"]", "[]"),
            refusal("52:54", "53:54"),
            refusal("SHA256:abc", "SHA256:"),
            refusal("ssh-ed25519 AAAA", "-oProxyCommand=x AAAA"),
            refusal("\"installer\":\"t\"", "\"installer\":\"\\u001b[2J\""),
            refusal("\"memory_mb\"", "\"memory\""),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn no_text_of_a_machine_carries_control_characters() {
        let disk = r#"{"path":"/dev/sda","serial":"s","wwn":"w","size_bytes":1,"model":"m","transport":"t"}"#;
        let whole = GOOD.replace("\"disks\":[]", &format!("\"disks\":[{disk}]"));
        assert_eq!(parse_report(whole.as_bytes()).unwrap().disks.len(), 1);
        // Each text, in the report and in its disks; each kind of character that moves a cursor.
        for (from, to) in [
            ("\"boot_id\":\"b", "\"boot_id\":\"b@"),
            ("\"installer\":\"t", "\"installer\":\"t@"),
            ("ssh-ed25519 AAAAC", "ssh-ed25519@ AAAAC"),
            ("I\",\"fingerprint", "I comment@\",\"fingerprint"),
            ("\"path\":\"/dev/sda", "\"path\":\"/dev/@sda"),
            ("\"serial\":\"s", "\"serial\":\"@s"),
            ("\"wwn\":\"w", "\"wwn\":\"w@"),
            ("\"model\":\"m", "\"model\":\"m@"),
            ("\"transport\":\"t", "\"transport\":\"t@"),
        ] {
            assert!(whole.contains(from), "{from}");
            for character in [
                "\\u0000",
                "\\n",
                "\\r",
                "\\t",
                "\\b",
                "\\u001b[2J",
                "\\u007f",
                "\\u009b",
            ] {
                let bad = whole.replace(from, &to.replace('@', character));
                let refused = parse_report(bad.as_bytes());
                assert!(refused.is_err(), "{to} with {character}");
            }
        }
    }

    #[test]
    fn addresses_and_fingerprints_are_whole() {
        let refused = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            parse_report(GOOD.replace(from, to).as_bytes()).is_err()
        };
        let good = "\"52:54:00:00:00:01\"";
        // A group's address anywhere in the list.
        for macs in [
            "53:54:00:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
        ] {
            assert!(refused(good, &format!("\"{macs}\"")), "{macs}");
            assert!(refused(good, &format!("{good},\"{macs}\"")), "{macs}");
            assert!(refused(good, &format!("\"{macs}\",{good}")), "{macs}");
        }
        let many = |count: usize| vec![good; count].join(",");
        assert!(!refused(good, &many(MAX_MACS)));
        assert!(refused(good, &many(MAX_MACS + 1)));
        let hash = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";
        for other in [
            hash.trim_start_matches('a'),
            &format!("{hash}a"),
            &hash.replace('G', "-"),
            "",
        ] {
            assert!(refused(hash, other), "{other:?}");
        }
        assert!(refused("SHA256:", "MD5:") && refused("SHA256:", ""));
    }
}
