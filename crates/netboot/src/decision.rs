//! What a machine gets to boot: one function for all protocols.
//!
//! Published boot servers each patched DHCP, TFTP and HTTP apart from one another, and a machine
//! that one of them refused was served by the next. Here every protocol asks [`decide`], so the
//! answers agree.

use std::fmt;

use serde::{Deserialize, Serialize};
use undercroft_model::{MacAddr, MachineUuid, NodeName, System};

use crate::arch::{ClientArch, IpxeBinary, Platform, Transport};
use crate::event::DropReason;
use crate::pi::split_tftp_path;
use crate::script::{self, InstallerMode, ScriptTarget};
use crate::site::{PI_FOLDER, Site};
use crate::table::{
    BootIntent, BootMachine, BootTable, Conflict, Identity, Pxe4011, UnknownPolicy,
};
use crate::token::Token;

/// The protocol that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootProtocol {
    /// Our own DHCP server.
    Dhcp,
    /// proxyDHCP beside another DHCP server.
    ProxyDhcp,
    /// The PXE boot server port.
    Pxe4011,
    /// TFTP.
    Tftp,
    /// HTTP.
    Http,
}

/// What kind of boot client asks, as options 60, 77 and 175 say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootClient {
    /// `PXEClient` firmware.
    Pxe,
    /// `HTTPClient` firmware (UEFI 2.5 and later).
    UefiHttp,
    /// iPXE, stock or ours.
    Ipxe,
    /// A Raspberry Pi's boot ROM.
    RaspberryPi,
    /// No boot client.
    #[default]
    None,
}

/// What a machine asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootRequest<'a> {
    /// By which protocol.
    pub protocol: BootProtocol,
    /// What kind of client asks; for DHCP only.
    pub client: BootClient,
    /// The client's architecture (option 93, or the query of `boot.ipxe`).
    pub arch: Option<ClientArch>,
    /// The machine's UUID.
    pub uuid: Option<MachineUuid>,
    /// The machine's Ethernet address, from the packet or from who has the sender's address.
    pub mac: Option<MacAddr>,
    /// A Raspberry Pi's serial number.
    pub pi_serial: Option<u32>,
    /// The path, for TFTP and HTTP; without its query and leading slash.
    pub path: Option<&'a str>,
    /// The token of the script, where this request is answered with one.
    pub token: Option<&'a Token>,
}

impl BootRequest<'_> {
    /// A request that says nothing but its protocol.
    pub fn new(protocol: BootProtocol) -> Self {
        Self {
            protocol,
            client: BootClient::None,
            arch: None,
            uuid: None,
            mac: None,
            pi_serial: None,
            path: None,
            token: None,
        }
    }
}

/// Whom a decision is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A machine of the table.
    Node(NodeName),
    /// A machine that the table doesn't know.
    Unknown,
    /// A machine whose papers disagree.
    Conflict(Conflict),
}

impl Subject {
    /// The machine's name, if it has one.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Node(name) => Some(name),
            Self::Unknown | Self::Conflict(_) => None,
        }
    }
}

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootAction {
    /// Nothing at all.
    Ignore(DropReason),
    /// DHCP: an address, and nothing to boot.
    AddressOnly,
    /// DHCP: this file, by TFTP from the server's address.
    LoadFile(String),
    /// DHCP: this URL.
    LoadUrl(String),
    /// DHCP: a boot client's answer that names no file, so that it asks port 4011.
    AskPort4011,
    /// DHCP: the Raspberry Pi's own answer.
    PiBoot,
    /// TFTP and HTTP: the file that is served under this name.
    Serve(String),
    /// TFTP and HTTP: this text.
    Text(String),
    /// TFTP and HTTP: there is no such file.
    NotFound,
}

/// What to answer, about whom, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootDecision {
    /// Whom it is about.
    pub subject: Subject,
    /// What to answer.
    pub action: BootAction,
    /// Why.
    pub reason: Reason,
}

impl BootDecision {
    /// Whether the answer is what a machine boots its installer with: an iPXE script, or a
    /// Raspberry Pi's kernel parameters.
    pub fn is_installers_script(&self) -> bool {
        matches!(self.action, BootAction::Text(_))
            && matches!(self.reason, Reason::Install | Reason::Discover)
    }
}

/// Why a decision is as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The machine is to be installed.
    Install,
    /// The machine is installed and boots its disk.
    Local,
    /// The machine is to be discovered.
    Discover,
    /// The operator or a conflict has quarantined the machine.
    Quarantine,
    /// The machine, or every unknown machine, is to be left alone.
    Ignore,
    /// The client is a running system, not a boot client.
    NotABootClient,
    /// Port 4011 is switched off for this machine.
    No4011,
    /// The file is public.
    Public,
    /// There is no such file.
    NoSuchFile,
    /// No binary that is served runs on this architecture.
    NoBinary(Option<ClientArch>),
    /// The inventory's system can't run on the architecture that asked.
    WrongSystem(System, Platform),
    /// No firmware of a Raspberry Pi is served.
    NoPiFiles,
    /// There is no installer for this system.
    NoInstaller(System),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Install => f.write_str("it is to be installed"),
            Self::Local => f.write_str("it is installed and boots its disk"),
            Self::Discover => f.write_str("it is to report what it is"),
            Self::Quarantine => f.write_str("it is quarantined"),
            Self::Ignore => f.write_str("it is to be left alone"),
            Self::NotABootClient => f.write_str("it asks for an address, not to boot"),
            Self::No4011 => f.write_str("port 4011 is switched off for it"),
            Self::Public => f.write_str("the file is public"),
            Self::NoSuchFile => f.write_str("there is no such file"),
            Self::NoBinary(Some(arch)) => {
                write!(f, "no iPXE binary is served for architecture {arch}")
            }
            Self::NoBinary(None) => f.write_str("it doesn't say its architecture (option 93)"),
            Self::WrongSystem(system, platform) => write!(
                f,
                "the inventory says {system}, but it boots as {}",
                platform.name()
            ),
            Self::NoPiFiles => f.write_str(
                "no firmware of a Raspberry Pi is served; docs/classes/pi.md says which files go \
                 into netboot/pi",
            ),
            Self::NoInstaller(system) => write!(f, "no installer is served for {system}"),
        }
    }
}

/// Decides what a machine gets to boot.
///
/// It is a pure function of the table, of what the site can serve, and of what the machine says;
/// nothing changes because it was asked.
pub fn decide(table: &BootTable, site: &Site, request: &BootRequest<'_>) -> BootDecision {
    let pi_path = request.path.and_then(split_tftp_path);
    let pi_serial = request.pi_serial.or(pi_path.map(|(serial, _)| serial));
    let who = match table.identify(request.uuid, request.mac, pi_serial) {
        Identity::Known(machine) => Who {
            subject: Subject::Node(machine.name.clone()),
            machine: Some(machine),
            intent: machine.intent,
        },
        Identity::Unknown => Who {
            subject: Subject::Unknown,
            machine: None,
            intent: match table.unknown_policy() {
                UnknownPolicy::Discover => BootIntent::Discover,
                UnknownPolicy::AddressOnly => BootIntent::Quarantine,
                UnknownPolicy::Ignore => BootIntent::Ignore,
            },
        },
        Identity::Conflict(conflict) => Who {
            subject: Subject::Conflict(conflict),
            machine: None,
            intent: BootIntent::Quarantine,
        },
    };
    let (action, reason) = match request.protocol {
        BootProtocol::Dhcp | BootProtocol::ProxyDhcp | BootProtocol::Pxe4011 => {
            dhcp(site, request, &who)
        }
        BootProtocol::Tftp => tftp(site, request, pi_path, &who),
        BootProtocol::Http => http(site, request, &who),
    };
    BootDecision {
        subject: who.subject,
        action,
        reason,
    }
}

struct Who<'a> {
    subject: Subject,
    machine: Option<&'a BootMachine>,
    intent: BootIntent,
}

impl Who<'_> {
    fn reason(&self) -> Reason {
        match self.intent {
            BootIntent::Install => Reason::Install,
            BootIntent::Local => Reason::Local,
            BootIntent::Discover => Reason::Discover,
            BootIntent::Quarantine => Reason::Quarantine,
            BootIntent::Ignore => Reason::Ignore,
        }
    }

    fn pxe_4011(&self) -> Pxe4011 {
        self.machine
            .map_or_else(Pxe4011::default, |m| m.switches.pxe_4011)
    }

    fn snponly(&self) -> bool {
        self.machine.is_some_and(|m| m.switches.snponly)
    }
}

fn dhcp(site: &Site, request: &BootRequest<'_>, who: &Who<'_>) -> (BootAction, Reason) {
    let own_dhcp = request.protocol == BootProtocol::Dhcp;
    // Only a server of ours that hands out addresses has something to say without a boot file.
    let nothing = |reason: DropReason| {
        if own_dhcp {
            BootAction::AddressOnly
        } else {
            BootAction::Ignore(reason)
        }
    };
    match who.intent {
        BootIntent::Ignore => return (BootAction::Ignore(DropReason::Ignored), Reason::Ignore),
        _ if request.client == BootClient::None => {
            return (nothing(DropReason::NotABootClient), Reason::NotABootClient);
        }
        BootIntent::Quarantine => return (nothing(DropReason::Quarantined), Reason::Quarantine),
        BootIntent::Install | BootIntent::Local | BootIntent::Discover => {}
    }
    if request.protocol == BootProtocol::Pxe4011 && who.pxe_4011() == Pxe4011::Never {
        return (
            BootAction::Ignore(DropReason::NothingToBoot),
            Reason::No4011,
        );
    }
    if request.client == BootClient::Ipxe {
        return (
            BootAction::LoadUrl(boot_script_url(site, request)),
            who.reason(),
        );
    }
    if request.client == BootClient::RaspberryPi {
        // The boot ROM goes on to its next device by itself when it gets no file; a Pi that is
        // installed is told nothing, so that it doesn't wait for one.
        return if who.intent == BootIntent::Local {
            (nothing(DropReason::NothingToBoot), Reason::Local)
        } else if !site.has_pi_files() {
            (nothing(DropReason::NoBinary), Reason::NoPiFiles)
        } else {
            (BootAction::PiBoot, who.reason())
        };
    }
    let Some((platform, transport)) = request.arch.and_then(ClientArch::platform) else {
        return (
            nothing(DropReason::NoBinary),
            Reason::NoBinary(request.arch),
        );
    };
    if let Some(machine) = who.machine
        && who.intent == BootIntent::Install
        && !platform.runs(machine.system)
    {
        return (
            nothing(DropReason::NothingToBoot),
            Reason::WrongSystem(machine.system, platform),
        );
    }
    let binary = IpxeBinary::candidates(platform, who.snponly())
        .iter()
        .find(|binary| site.ipxe.contains(binary));
    let Some(binary) = binary else {
        return (
            nothing(DropReason::NoBinary),
            Reason::NoBinary(request.arch),
        );
    };
    let over_http = transport == Transport::Http || request.client == BootClient::UefiHttp;
    let action = if over_http {
        BootAction::LoadUrl(site.url(&format!("artifacts/{}", binary.file_name())))
    } else if request.protocol != BootProtocol::Pxe4011 && who.pxe_4011() == Pxe4011::Only {
        BootAction::AskPort4011
    } else {
        BootAction::LoadFile(binary.file_name().to_owned())
    };
    (action, who.reason())
}

/// The URL of the machine's own iPXE script. It names the machine, so that the answer doesn't
/// hang on who has which address by then.
fn boot_script_url(site: &Site, request: &BootRequest<'_>) -> String {
    let mut path = String::from("boot.ipxe");
    let mut separator = '?';
    let mut add = |key: &str, value: String| {
        path.push(separator);
        path.push_str(key);
        path.push('=');
        path.push_str(&value);
        separator = '&';
    };
    if let Some(mac) = request.mac {
        add("mac", mac.to_string().replace(':', "-"));
    }
    if let Some(uuid) = request.uuid {
        add("uuid", uuid.to_string());
    }
    if let Some(arch) = request.arch {
        add("arch", arch.0.to_string());
    }
    site.url(&path)
}

fn tftp(
    site: &Site,
    request: &BootRequest<'_>,
    pi_path: Option<(u32, &str)>,
    who: &Who<'_>,
) -> (BootAction, Reason) {
    let path = request.path.unwrap_or_default();
    if matches!(who.intent, BootIntent::Ignore | BootIntent::Quarantine) {
        return (BootAction::NotFound, who.reason());
    }
    if matches!(path, "autoexec.ipxe" | "boot.ipxe") {
        return (BootAction::Text(script::autoexec(site)), Reason::Public);
    }
    if let Some((_, rest)) = pi_path {
        return pi_file(site, request, rest, who);
    }
    // The boot ROM asks for files without its serial number when the first folder has none.
    let asks_as_pi = who.machine.is_some_and(|m| {
        m.pi_serial.is_some() || m.firmware == crate::table::FirmwareKind::RaspberryPi
    });
    if asks_as_pi && site.artifacts.contains(&format!("{PI_FOLDER}/{path}")) {
        return pi_file(site, request, path, who);
    }
    public_file(site, path)
}

fn pi_file(
    site: &Site,
    request: &BootRequest<'_>,
    path: &str,
    who: &Who<'_>,
) -> (BootAction, Reason) {
    let mode = match who.intent {
        BootIntent::Install => InstallerMode::Install,
        BootIntent::Discover => InstallerMode::Discover,
        _ => return (BootAction::NotFound, who.reason()),
    };
    if path == "cmdline.txt"
        && let Some(image) = site.installers.get(&System::Aarch64Linux)
    {
        let target = ScriptTarget::of(who.machine, mode).with_token(request.token);
        return (
            BootAction::Text(script::pi_cmdline(site, image, &target)),
            who.reason(),
        );
    }
    let name = format!("{PI_FOLDER}/{path}");
    if site.artifacts.contains(&name) {
        (BootAction::Serve(name), who.reason())
    } else {
        (BootAction::NotFound, Reason::NoSuchFile)
    }
}

fn public_file(site: &Site, name: &str) -> (BootAction, Reason) {
    if site.artifacts.contains(name) {
        (BootAction::Serve(name.to_owned()), Reason::Public)
    } else {
        (BootAction::NotFound, Reason::NoSuchFile)
    }
}

fn http(site: &Site, request: &BootRequest<'_>, who: &Who<'_>) -> (BootAction, Reason) {
    let path = request.path.unwrap_or_default();
    if who.intent == BootIntent::Ignore {
        return (BootAction::NotFound, Reason::Ignore);
    }
    match path {
        "boot.ipxe" => boot_script(site, request, who),
        "autoexec.ipxe" | "artifacts/autoexec.ipxe" => {
            (BootAction::Text(script::autoexec(site)), Reason::Public)
        }
        _ => match path.strip_prefix("artifacts/") {
            Some(_) if who.intent == BootIntent::Quarantine => {
                (BootAction::NotFound, Reason::Quarantine)
            }
            Some(name) => public_file(site, name),
            None => (BootAction::NotFound, Reason::NoSuchFile),
        },
    }
}

fn boot_script(site: &Site, request: &BootRequest<'_>, who: &Who<'_>) -> (BootAction, Reason) {
    let platform = request.arch.and_then(ClientArch::platform).map(|(p, _)| p);
    let name = who.machine.map(|m| m.name.as_str());
    let refusal = |reason: Reason| {
        let why = match &who.subject {
            Subject::Conflict(conflict) => conflict.to_string(),
            _ => reason.to_string(),
        };
        (
            BootAction::Text(script::nothing_to_boot(name, &why)),
            reason,
        )
    };
    let mode = match who.intent {
        BootIntent::Install => InstallerMode::Install,
        BootIntent::Discover => InstallerMode::Discover,
        BootIntent::Local => {
            let text = script::local(name, platform);
            return (BootAction::Text(text), Reason::Local);
        }
        BootIntent::Quarantine | BootIntent::Ignore => return refusal(who.reason()),
    };
    let system = who
        .machine
        .map(|m| m.system)
        .or(platform.and_then(Platform::system));
    let Some(system) = system else {
        return refusal(Reason::NoBinary(request.arch));
    };
    if let Some(platform) = platform
        && !platform.runs(system)
    {
        return refusal(Reason::WrongSystem(system, platform));
    }
    let Some(image) = site.installers.get(&system) else {
        return refusal(Reason::NoInstaller(system));
    };
    let target = ScriptTarget::of(who.machine, mode).with_token(request.token);
    (
        BootAction::Text(script::installer(site, image, &target)),
        who.reason(),
    )
}
