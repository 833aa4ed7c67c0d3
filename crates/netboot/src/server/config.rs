//! What the boot servers are told.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use undercroft_model::System;

use crate::arch::IpxeBinary;
use crate::error::NetbootError;
use crate::site::is_plain_param;
use crate::token::TokenKey;

/// The most addresses that a dynamic range may hold.
pub const MAX_RANGE_ADDRESSES: u32 = 65_536;

/// What the boot servers are told.
#[derive(Debug, Clone)]
pub struct NetbootConfig {
    /// The network interface of the boot network. All sockets are bound to it, so that broadcasts
    /// leave where they should and nothing is answered elsewhere.
    pub interface: String,
    /// The server's own address on that interface.
    pub address: Ipv4Addr,
    /// The length of the network's prefix, in bits.
    pub prefix_bits: u8,
    /// The ports to listen on.
    pub ports: Ports,
    /// How addresses are handed out.
    pub mode: Mode,
    /// The installer of each system.
    pub installers: BTreeMap<System, InstallerFiles>,
    /// The iPXE builds, each from the distribution's package.
    pub ipxe: BTreeMap<IpxeBinary, PathBuf>,
    /// The Raspberry Pi's boot files, by the path that the boot ROM asks for, such as
    /// `config.txt` or `overlays/disable-bt.dtbo`. `cmdline.txt` is made for each machine.
    pub raspberry_pi: BTreeMap<String, PathBuf>,
    /// Further public files, by their name under `/artifacts/`.
    pub artifacts: BTreeMap<String, PathBuf>,
    /// What `GET /v1/authorized_keys` answers: public keys, one a line.
    pub authorized_keys: String,
    /// Where the leases of our own DHCP server are kept; `None` for only in memory.
    pub lease_file: Option<PathBuf>,
    /// What the tokens of boot scripts are made with; `None`: a key that lives as long as the
    /// servers, after which installers that were booted before have to boot again.
    pub token_key: Option<TokenKey>,
    /// Where the time in events comes from.
    pub clock: Clock,
}

impl NetbootConfig {
    /// A configuration with the standard ports, the system's clock, and nothing to serve.
    pub fn new(
        interface: impl Into<String>,
        address: Ipv4Addr,
        prefix_bits: u8,
        mode: Mode,
    ) -> Self {
        Self {
            interface: interface.into(),
            address,
            prefix_bits,
            ports: Ports::default(),
            mode,
            installers: BTreeMap::new(),
            ipxe: BTreeMap::new(),
            raspberry_pi: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            authorized_keys: String::new(),
            lease_file: None,
            token_key: None,
            clock: Clock::system(),
        }
    }

    /// The ports that the servers listen on.
    pub fn listens_on(&self) -> Vec<u16> {
        let Ports {
            dhcp,
            pxe,
            tftp,
            http,
            ..
        } = self.ports;
        let dhcp = self.mode.has_dhcp_port().then_some(dhcp);
        dhcp.into_iter().chain([pxe, tftp, http]).collect()
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// Names the first setting that is wrong.
    pub fn check(&self) -> Result<(), NetbootError> {
        let bad = |setting, problem: String| Err(NetbootError::BadConfig { setting, problem });
        if !(8..=30).contains(&self.prefix_bits) {
            return bad(
                "prefix_bits",
                format!("{} is not between 8 and 30", self.prefix_bits),
            );
        }
        if self.interface.is_empty() || self.interface.len() > 15 {
            return bad(
                "interface",
                format!(
                    "{:?} is not an interface's name (1 to 15 characters)",
                    self.interface
                ),
            );
        }
        if let Mode::Server(dhcp) = &self.mode {
            dhcp.check(self.address, self.prefix_bits)?;
        }
        for (system, files) in &self.installers {
            if let Some(param) = files.params.iter().find(|p| !is_plain_param(p)) {
                return bad(
                    "installers",
                    format!(
                        "the kernel parameter {param:?} of {system} must be one word without `${{`"
                    ),
                );
            }
        }
        let names = self.raspberry_pi.keys().chain(self.artifacts.keys());
        for name in names {
            let plain = name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._+/".contains(&b));
            let confined = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
            if !plain || !confined {
                return bad(
                    "artifacts",
                    format!("{name:?} must be a relative path of letters, digits and -._+"),
                );
            }
        }
        Ok(())
    }
}

/// The ports that the servers listen on. Firmware knows only the standard ones; the others are
/// for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// DHCP and proxyDHCP: 67.
    pub dhcp: u16,
    /// Where DHCP answers go: 68.
    pub dhcp_client: u16,
    /// The PXE boot server: 4011.
    pub pxe: u16,
    /// TFTP: 69.
    pub tftp: u16,
    /// HTTP; 0 lets the system choose.
    pub http: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            dhcp: 67,
            dhcp_client: 68,
            pxe: 4011,
            tftp: 69,
            http: 8080,
        }
    }
}

/// How addresses are handed out on the boot network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// By us: the only DHCP server of this network.
    Server(DhcpSettings),
    /// By another server on another machine; we add what to boot (proxyDHCP).
    Proxy,
    /// By another server on this very machine, which holds port 67; it must name `PXEClient` in
    /// option 60, and then firmware asks us on port 4011.
    Port4011Only,
}

impl Mode {
    /// Whether DHCP's own port is ours; the PXE boot server's always is.
    pub fn has_dhcp_port(&self) -> bool {
        match self {
            Self::Server(_) | Self::Proxy => true,
            Self::Port4011Only => false,
        }
    }
}

/// What our own DHCP server hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpSettings {
    /// The first address for machines without a fixed one.
    pub range_first: Ipv4Addr,
    /// The last address for machines without a fixed one.
    pub range_last: Ipv4Addr,
    /// The default gateway, if any.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The domain name, if any.
    pub domain: Option<String>,
    /// How long a lease lasts, in seconds.
    pub lease_s: u32,
}

impl DhcpSettings {
    /// A range with leases of an hour, and neither gateway nor name servers.
    pub fn range(first: Ipv4Addr, last: Ipv4Addr) -> Self {
        Self {
            range_first: first,
            range_last: last,
            gateway: None,
            dns: Vec::new(),
            domain: None,
            lease_s: 3600,
        }
    }

    fn check(&self, address: Ipv4Addr, prefix_bits: u8) -> Result<(), NetbootError> {
        let bad = |problem: String| {
            Err(NetbootError::BadConfig {
                setting: "dhcp",
                problem,
            })
        };
        let mask = u32::MAX << (32 - u32::from(prefix_bits));
        let net = address.to_bits() & mask;
        let (first, last) = (self.range_first.to_bits(), self.range_last.to_bits());
        if first > last {
            return bad(format!(
                "the range {} to {} runs backwards",
                self.range_first, self.range_last
            ));
        }
        for end in [first, last] {
            let hosts = end & !mask;
            if end & mask != net || hosts == 0 || hosts == !mask {
                return bad(format!(
                    "{} is not a host address of {}/{prefix_bits}",
                    Ipv4Addr::from_bits(end),
                    Ipv4Addr::from_bits(net)
                ));
            }
        }
        if last - first >= MAX_RANGE_ADDRESSES {
            return bad(format!(
                "the range holds more than {MAX_RANGE_ADDRESSES} addresses"
            ));
        }
        if self.lease_s < 60 {
            return bad(format!("lease_s = {} is under 60 s", self.lease_s));
        }
        // Options 3, 6 and 15 share a packet of 576 octets with the boot options.
        if self.dns.len() > 3 || self.domain.as_ref().is_some_and(|d| d.len() > 63) {
            return bad("at most 3 name servers and a domain of 63 characters fit a packet".into());
        }
        Ok(())
    }
}

/// The files of one system's installer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallerFiles {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
    /// Kernel parameters for every machine of this system.
    pub params: Vec<String>,
}

/// Where the time comes from, in milliseconds since 1970-01-01 UTC.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Arc::new(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
        }))
    }

    /// A clock of the caller's.
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// The time now.
    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use undercroft_model::System;

    use super::*;

    fn config(dhcp: DhcpSettings) -> NetbootConfig {
        let address = Ipv4Addr::new(10, 0, 0, 1);
        NetbootConfig::new("boot0", address, 24, Mode::Server(dhcp))
    }

    fn range(first: [u8; 4], last: [u8; 4]) -> DhcpSettings {
        DhcpSettings::range(first.into(), last.into())
    }

    fn problem(config: &NetbootConfig) -> Option<String> {
        config.check().err().map(|e| e.to_string())
    }

    #[test]
    fn a_range_lies_within_the_networks_hosts() {
        for (first, last, want) in [
            ([10, 0, 0, 1], [10, 0, 0, 254], None),
            ([10, 0, 0, 7], [10, 0, 0, 7], None),
            ([10, 0, 0, 8], [10, 0, 0, 7], Some("runs backwards")),
            (
                [10, 0, 0, 0],
                [10, 0, 0, 9],
                Some("10.0.0.0 is not a host address of 10.0.0.0/24"),
            ),
            (
                [10, 0, 0, 9],
                [10, 0, 0, 255],
                Some("10.0.0.255 is not a host address"),
            ),
            (
                [10, 0, 1, 1],
                [10, 0, 1, 9],
                Some("10.0.1.1 is not a host address"),
            ),
            (
                [10, 0, 0, 1],
                [10, 0, 1, 9],
                Some("10.0.1.9 is not a host address"),
            ),
            (
                [9, 255, 255, 1],
                [10, 0, 0, 9],
                Some("9.255.255.1 is not a host address"),
            ),
        ] {
            let said = problem(&config(range(first, last)));
            match want {
                None => assert_eq!(said, None),
                Some(want) => assert!(said.as_ref().unwrap().contains(want), "{said:?}"),
            }
        }
        // The longest range, and one address more.
        let wide = |last: u32| NetbootConfig {
            prefix_bits: 8,
            ..config(DhcpSettings::range(
                Ipv4Addr::new(10, 0, 0, 1),
                Ipv4Addr::from_bits(last),
            ))
        };
        let first = Ipv4Addr::new(10, 0, 0, 1).to_bits();
        assert_eq!(problem(&wide(first + MAX_RANGE_ADDRESSES - 1)), None);
        let said = problem(&wide(first + MAX_RANGE_ADDRESSES)).unwrap();
        assert!(said.contains("addresses"), "{said}");
    }

    #[test]
    fn what_does_not_fit_a_packet_or_a_wire_is_refused() {
        let good = || range([10, 0, 0, 1], [10, 0, 0, 9]);
        for (lease_s, is_good) in [(0, false), (59, false), (60, true), (u32::MAX, true)] {
            let said = problem(&config(DhcpSettings { lease_s, ..good() }));
            assert_eq!(said.is_none(), is_good, "{lease_s}: {said:?}");
        }
        for (servers, letters, is_good) in [
            (0, 0, true),
            (3, 63, true),
            (4, 0, false),
            (5, 0, false),
            (0, 64, false),
            (0, 65, false),
        ] {
            let dhcp = DhcpSettings {
                dns: vec![Ipv4Addr::LOCALHOST; servers],
                domain: Some("x".repeat(letters)),
                ..good()
            };
            let said = problem(&config(dhcp));
            assert_eq!(said.is_none(), is_good, "{servers}, {letters}: {said:?}");
        }
        for (prefix_bits, is_good) in [(0, false), (7, false), (8, true), (30, true), (31, false)] {
            let config = NetbootConfig {
                prefix_bits,
                mode: Mode::Proxy,
                ..config(good())
            };
            assert_eq!(problem(&config).is_none(), is_good, "{prefix_bits}");
        }
        for (letters, is_good) in [(0, false), (1, true), (15, true), (16, false), (17, false)] {
            let config = NetbootConfig {
                interface: "x".repeat(letters),
                ..config(good())
            };
            assert_eq!(problem(&config).is_none(), is_good, "{letters}");
        }
    }

    #[test]
    fn names_of_files_and_parameters_are_plain() {
        for (name, is_good) in [
            ("config.txt", true),
            ("a/b-c_d+e.f", true),
            ("", false),
            ("/etc", false),
            ("a//b", false),
            ("a/", false),
            (".", false),
            ("a/../b", false),
            ("a b", false),
            ("a\n", false),
            ("\u{fc}", false),
        ] {
            let of = |pi: bool| {
                let mut config = config(range([10, 0, 0, 1], [10, 0, 0, 9]));
                let files = if pi {
                    &mut config.raspberry_pi
                } else {
                    &mut config.artifacts
                };
                files.insert(name.to_owned(), PathBuf::new());
                problem(&config)
            };
            for said in [of(true), of(false)] {
                assert_eq!(said.is_none(), is_good, "{name:?}: {said:?}");
            }
        }
        for (param, is_good) in [
            ("console=ttyS0,115200", true),
            ("", false),
            ("two words", false),
            ("a\tb", false),
            ("x=${net0/mac}", false),
            ("a\u{7}b", false),
        ] {
            let mut config = config(range([10, 0, 0, 1], [10, 0, 0, 9]));
            let files = InstallerFiles {
                kernel: PathBuf::new(),
                initrd: PathBuf::new(),
                params: vec!["quiet".to_owned(), param.to_owned()],
            };
            config.installers.insert(System::X86_64Linux, files);
            let said = problem(&config);
            assert_eq!(said.is_none(), is_good, "{param:?}: {said:?}");
        }
    }

    #[test]
    fn the_systems_clock_is_the_systems() {
        let now = Clock::system().now_ms();
        // 2024-01-01 and 2100-01-01.
        assert!(
            (1_704_067_200_000..4_102_444_800_000).contains(&now),
            "{now}"
        );
        assert_eq!(Clock::new(|| 17).now_ms(), 17);
    }
}
