//! Reading an installer's report.

use std::net::Ipv4Addr;

use undercroft_model::{INSTALLER_REPORT_VERSION, InstallerReport, NodeName};

use crate::table::{BootTable, Identity};
use crate::token::{Subject, Token, TokenKey};

/// The most Ethernet addresses that a report may name.
const MAX_MACS: usize = 64;

/// Why a report is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It isn't JSON, or lacks something.
    #[error("the report can't be read: {0}")]
    Json(#[from] serde_json::Error),
    /// It is of another version.
    #[error(
        "the report has version {0}, and only version {INSTALLER_REPORT_VERSION} is understood"
    )]
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
    if report.version != INSTALLER_REPORT_VERSION {
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
    if report.boot_id.is_empty() {
        return field("boot_id", "is empty");
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

/// Where reports may come from, and what they must carry.
#[derive(Debug, Clone)]
pub struct ReportRules {
    /// The server's own address.
    pub server: Ipv4Addr,
    /// The length of the boot network's prefix, in bits.
    pub prefix_bits: u8,
    /// What tokens are made with.
    pub key: TokenKey,
}

/// A report that is what it can be: a claim of somebody who sits at the machine's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportClaim {
    /// The machine that it claims to be; `None` for one that the table doesn't know.
    pub node: Option<NodeName>,
    /// Its token.
    pub token: Token,
}

/// Why a report isn't taken even for a claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It names another address than its sender's.
    #[error("it says that its installer listens at {claimed}, and was sent from {sender}")]
    OtherSender {
        /// The address that it names.
        claimed: Ipv4Addr,
        /// Its sender's.
        sender: Ipv4Addr,
    },
    /// No machine of the boot network can have its address.
    #[error("no machine of the boot network can have the address {claimed}: it is {what}")]
    Unusable {
        /// The address that it names.
        claimed: Ipv4Addr,
        /// What that address is.
        what: &'static str,
    },
    /// The inventory gives the machine another address.
    #[error("it comes from {claimed}, and the inventory gives the machine {planned}")]
    NotPlanned {
        /// The address that it names.
        claimed: Ipv4Addr,
        /// The machine's.
        planned: Ipv4Addr,
    },
    /// It could be more than one machine's.
    #[error("{0}")]
    Conflict(String),
    /// It has no token.
    #[error(
        "it carries no token of a boot script of this controller; a machine that was booted by \
         other means, or before this controller's state was made, has to boot over the network"
    )]
    NoToken,
    /// It has a token that wasn't made for this machine, or not here.
    #[error("its token isn't of a script that this controller served for the machine")]
    ForeignToken,
}

impl Refusal {
    /// The HTTP status that says so.
    pub fn status(&self) -> u16 {
        match self {
            Self::Unusable { .. } => 400,
            Self::Conflict(_) => 409,
            Self::OtherSender { .. }
            | Self::NotPlanned { .. }
            | Self::NoToken
            | Self::ForeignToken => 403,
        }
    }
}

/// What an address is that no machine of the boot network can have.
fn unusable(address: Ipv4Addr, rules: &ReportRules) -> Option<&'static str> {
    let host_bits = 32_u32.saturating_sub(u32::from(rules.prefix_bits));
    let hosts = 1_u32.checked_shl(host_bits).unwrap_or(0).wrapping_sub(1);
    let (bits, own) = (address.to_bits(), rules.server.to_bits());
    Some(if address.is_unspecified() {
        "no address"
    } else if address.is_loopback() {
        "every machine's own"
    } else if address.is_multicast() {
        "a group's"
    } else if address.is_broadcast() {
        "everybody's"
    } else if address == rules.server {
        "this controller's"
    } else if bits & !hosts != own & !hosts {
        "outside of it"
    } else if host_bits > 1 && bits & hosts == 0 {
        "the network's own"
    } else if host_bits > 1 && bits & hosts == hosts {
        "everybody's in it"
    } else {
        return None;
    })
}

/// Which machine a report claims to be, by all that it says of itself.
fn claimed_node(report: &InstallerReport, table: &BootTable) -> Result<Option<NodeName>, String> {
    match table.identify_all(report.uuid, &report.macs) {
        Identity::Known(machine) => Ok(Some(machine.name.clone())),
        Identity::Conflict(conflict) => Err(conflict.to_string()),
        Identity::Unknown => Ok(None),
    }
}

/// Says whose claim a report is, or why it is none: a report counts only from the address that it
/// names, which must be the machine's own in the boot network, and with the token of a script that
/// was served for that machine. Beside the refusal comes the machine that it claimed to be.
///
/// # Errors
/// Why it is refused. Nothing is ever connected to on a refused report's word.
pub fn check_report(
    report: &InstallerReport,
    sender: Ipv4Addr,
    table: &BootTable,
    rules: &ReportRules,
) -> Result<ReportClaim, (Option<NodeName>, Refusal)> {
    let claimed = report.address;
    let named = claimed_node(report, table);
    let node = named.clone().unwrap_or_default();
    let refuse = |refusal| Err((node.clone(), refusal));
    if let Some(what) = unusable(claimed, rules) {
        return refuse(Refusal::Unusable { claimed, what });
    }
    if claimed != sender {
        return refuse(Refusal::OtherSender { claimed, sender });
    }
    if let Err(conflict) = named {
        return refuse(Refusal::Conflict(conflict));
    }
    let machine = node.as_ref().and_then(|name| table.get(name));
    if let Some(planned) = machine.and_then(|machine| machine.address)
        && planned != claimed
    {
        return refuse(Refusal::NotPlanned { claimed, planned });
    }
    if let (None, Some(owner)) = (&node, table.by_address(claimed)) {
        return refuse(Refusal::Conflict(format!(
            "{claimed} is {}'s, and none of its identifiers is",
            owner.name
        )));
    }
    let Some(text) = &report.token else {
        return refuse(Refusal::NoToken);
    };
    let mine = |token: &Token| {
        let by_name = node.as_ref().map(Subject::Node);
        let by_mac = report.macs.iter().copied().map(Subject::Mac);
        by_name
            .into_iter()
            .chain(by_mac)
            .any(|subject| rules.key.is_mine(token, &subject))
    };
    match Token::parse(text).filter(mine) {
        Some(token) => Ok(ReportClaim { node, token }),
        None => refuse(Refusal::ForeignToken),
    }
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

    fn rules() -> ReportRules {
        ReportRules {
            server: Ipv4Addr::new(10, 0, 0, 1),
            prefix_bits: 24,
            key: TokenKey([7; 32]),
        }
    }

    fn table() -> BootTable {
        let machine = |name: &str, mac: &str, last| crate::table::BootMachine {
            address: Some(Ipv4Addr::new(10, 0, 0, last)),
            ..crate::table::BootMachine::new(
                NodeName::new(name).unwrap(),
                vec![mac.parse().unwrap()],
                undercroft_model::System::X86_64Linux,
                crate::table::BootIntent::Install,
            )
        };
        BootTable::new(
            [
                machine("gpu-01", "52:54:00:00:00:01", 5),
                machine("gpu-02", "52:54:00:00:00:02", 6),
            ],
            crate::table::UnknownPolicy::Discover,
        )
        .unwrap()
    }

    /// What becomes of a report: the machine, or the status with why.
    fn checked(report: &InstallerReport, sender: Ipv4Addr) -> String {
        match check_report(report, sender, &table(), &rules()) {
            Ok(claim) => format!("{:?}", claim.node.map(|name| name.to_string())),
            Err((node, refusal)) => {
                let node = node.map_or_else(|| "nobody".to_owned(), |name| name.to_string());
                format!("{} {node}: {refusal}", refusal.status())
            }
        }
    }

    fn token(subject: &Subject<'_>) -> Option<String> {
        let asker = Ipv4Addr::new(10, 0, 0, 5);
        Some(rules().key.mint(subject, asker, 0).unwrap().to_string())
    }

    #[test]
    fn a_report_counts_from_its_own_address_with_its_scripts_token() {
        let name = NodeName::new("gpu-01").unwrap();
        let own = Ipv4Addr::new(10, 0, 0, 5);
        let mut good = parse_report(GOOD.as_bytes()).unwrap();
        good.token = token(&Subject::Node(&name));
        let mut all = vec![checked(&good, own)];
        all.push(checked(&good, Ipv4Addr::new(10, 0, 0, 66)));
        let mut moved = good.clone();
        moved.address = Ipv4Addr::new(10, 0, 0, 66);
        all.push(checked(&moved, moved.address));
        let mut bare = good.clone();
        bare.token = None;
        all.push(checked(&bare, own));
        bare.token = token(&Subject::Node(&NodeName::new("gpu-02").unwrap()));
        all.push(checked(&bare, own));
        bare.token = Some("00".into());
        all.push(checked(&bare, own));
        let mut both = good.clone();
        both.macs.push("52:54:00:00:00:02".parse().unwrap());
        all.push(checked(&both, own));
        let mut stranger = good.clone();
        stranger.macs = vec!["52:54:00:00:00:09".parse().unwrap()];
        stranger.token = token(&Subject::Mac(stranger.macs[0]));
        all.push(checked(&stranger, own));
        stranger.address = Ipv4Addr::new(10, 0, 0, 200);
        all.push(checked(&stranger, stranger.address));
        insta::assert_snapshot!(all.join("\n"), @r#"
        Some("gpu-01")
        403 gpu-01: it says that its installer listens at 10.0.0.5, and was sent from 10.0.0.66
        403 gpu-01: it comes from 10.0.0.66, and the inventory gives the machine 10.0.0.5
        403 gpu-01: it carries no token of a boot script of this controller; a machine that was booted by other means, or before this controller's state was made, has to boot over the network
        403 gpu-01: its token isn't of a script that this controller served for the machine
        403 gpu-01: its token isn't of a script that this controller served for the machine
        409 nobody: its UUID is gpu-01's, its Ethernet address gpu-02's; was a network card moved?
        409 nobody: 10.0.0.5 is gpu-01's, and none of its identifiers is
        None
        "#);
    }

    #[test]
    fn addresses_that_no_machine_of_the_network_has_are_refused() {
        let mut report = parse_report(GOOD.as_bytes()).unwrap();
        report.token = token(&Subject::Node(&NodeName::new("gpu-01").unwrap()));
        let mut all = Vec::new();
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "127.8.8.8",
            "8.8.8.8",
            "224.0.0.1",
            "239.1.2.3",
            "255.255.255.255",
            "169.254.1.1",
            "10.0.1.5",
            "10.0.0.0",
            "10.0.0.255",
            "10.0.0.1",
        ] {
            report.address = address.parse().unwrap();
            // Also where the sender has just that address.
            all.push(checked(&report, report.address));
        }
        insta::assert_snapshot!(all.join("\n"), @"
        400 gpu-01: no machine of the boot network can have the address 0.0.0.0: it is no address
        400 gpu-01: no machine of the boot network can have the address 127.0.0.1: it is every machine's own
        400 gpu-01: no machine of the boot network can have the address 127.8.8.8: it is every machine's own
        400 gpu-01: no machine of the boot network can have the address 8.8.8.8: it is outside of it
        400 gpu-01: no machine of the boot network can have the address 224.0.0.1: it is a group's
        400 gpu-01: no machine of the boot network can have the address 239.1.2.3: it is a group's
        400 gpu-01: no machine of the boot network can have the address 255.255.255.255: it is everybody's
        400 gpu-01: no machine of the boot network can have the address 169.254.1.1: it is outside of it
        400 gpu-01: no machine of the boot network can have the address 10.0.1.5: it is outside of it
        400 gpu-01: no machine of the boot network can have the address 10.0.0.0: it is the network's own
        400 gpu-01: no machine of the boot network can have the address 10.0.0.255: it is everybody's in it
        400 gpu-01: no machine of the boot network can have the address 10.0.0.1: it is this controller's
        ");
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
