//! The iPXE scripts and kernel command lines that are made for each machine.
//!
//! iPXE comes from the distribution's package, so nothing can be embedded in it: what a script
//! needs to know stands in the script, or comes from iPXE's own settings.

use std::fmt::Write as _;

use undercroft_model::NodeName;

use crate::arch::Platform;
use crate::site::{ServedInstaller, Site};
use crate::table::BootMachine;
use crate::token::Token;

/// How often a script tries to get an address, or a file, before it gives up.
pub const SCRIPT_ATTEMPTS: u32 = 10;
/// How long a script waits between two attempts, in seconds.
pub const SCRIPT_PAUSE_S: u32 = 3;

/// What the installer is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallerMode {
    /// Report in, and be ready to install.
    Install,
    /// Report in, and do nothing else.
    Discover,
}

impl InstallerMode {
    fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Discover => "discover",
        }
    }
}

/// Whom a script is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptTarget<'a> {
    /// The machine's name, if the table knows it.
    pub node: Option<&'a NodeName>,
    /// The machine's own kernel parameters.
    pub params: &'a [String],
    /// What the installer is told to do.
    pub mode: InstallerMode,
    /// What ties the installer's report to this script.
    pub token: Option<&'a Token>,
}

impl<'a> ScriptTarget<'a> {
    /// The target for a machine, or for an unknown one.
    pub fn of(machine: Option<&'a BootMachine>, mode: InstallerMode) -> Self {
        Self {
            node: machine.map(|m| &m.name),
            params: machine.map_or(&[], |m| m.kernel_params.as_slice()),
            mode,
            token: None,
        }
    }

    /// The same target, whose script carries a token.
    #[must_use]
    pub fn with_token(self, token: Option<&'a Token>) -> Self {
        Self { token, ..self }
    }
}

fn kernel_params(site: &Site, image: &ServedInstaller, target: &ScriptTarget<'_>) -> String {
    let mut line = String::new();
    for param in image.params.iter().chain(target.params) {
        let _ = write!(line, "{param} ");
    }
    if let Some(node) = target.node {
        let _ = write!(line, "undercroft.node={node} ");
    }
    if let Some(token) = target.token {
        // The word is for people: the installer shows it beside its fingerprint.
        let _ = write!(
            line,
            "undercroft.token={token} undercroft.word={} ",
            token.word()
        );
    }
    let _ = write!(
        line,
        "undercroft.mode={} undercroft.report={} undercroft.authorized-keys={}",
        target.mode.name(),
        site.url("v1/report"),
        site.url("v1/authorized_keys"),
    );
    line
}

/// The script that loads the installer.
///
/// Each attempt starts afresh (`imgfree`), and there are [`SCRIPT_ATTEMPTS`] of them. `BOOTIF`
/// names the card that was booted from, in PXELINUX's form, so that the installer uses it too.
pub fn installer(site: &Site, image: &ServedInstaller, target: &ScriptTarget<'_>) -> String {
    let name = target.node.map_or("this unknown machine", NodeName::as_str);
    let kernel = site.url(&format!("artifacts/{}", image.kernel));
    let initrd = site.url(&format!("artifacts/{}", image.initrd));
    let params = kernel_params(site, image, target);
    let verb = match target.mode {
        InstallerMode::Install => "the installer",
        InstallerMode::Discover => "the installer, which will only report what it finds",
    };
    format!(
        "#!ipxe\n\
         echo Undercroft: {name} boots {verb}\n\
         set attempt:int32 0\n\
         :retry\n\
         inc attempt\n\
         imgfree\n\
         kernel {kernel} initrd=initrd BOOTIF=01-${{netX/mac:hexhyp}} {params} || goto failed\n\
         initrd --name initrd {initrd} || goto failed\n\
         boot || goto failed\n\
         :failed\n\
         iseq ${{attempt}} {SCRIPT_ATTEMPTS} && goto give_up ||\n\
         echo Undercroft: attempt ${{attempt}} of {SCRIPT_ATTEMPTS} failed, trying again in {SCRIPT_PAUSE_S} s\n\
         sleep {SCRIPT_PAUSE_S}\n\
         goto retry\n\
         :give_up\n\
         echo Undercroft: the installer could not be loaded, going on to the next boot device\n\
         exit 1\n"
    )
}

/// The script for a machine that boots its disk.
///
/// UEFI's boot manager goes on to the next entry only when a loader fails, hence `exit 1`. A BIOS
/// doesn't always go on by itself, so the first disk is booted directly.
pub fn local(name: Option<&str>, platform: Option<Platform>) -> String {
    let name = name.unwrap_or("this machine");
    let mut text = format!("#!ipxe\necho Undercroft: {name} boots its disk\n");
    match platform {
        Some(platform) if platform.is_uefi() => {}
        Some(_) => text.push_str("sanboot --no-describe --drive 0x80 ||\n"),
        None => {
            text.push_str("iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||\n");
        }
    }
    text.push_str("exit 1\n");
    text
}

/// The script for a machine that gets nothing to boot.
pub fn nothing_to_boot(name: Option<&str>, why: &str) -> String {
    let name = name.unwrap_or("this machine");
    // An iPXE script ends a command at the line's end and expands `${`.
    let why: String = why
        .chars()
        .map(|c| {
            if c.is_control() || c == '$' || c == ';' {
                ' '
            } else {
                c
            }
        })
        .collect();
    format!(
        "#!ipxe\n\
         echo Undercroft: nothing to boot for {name}: {why}\n\
         sleep {SCRIPT_PAUSE_S}\n\
         exit 1\n"
    )
}

/// `autoexec.ipxe`, which iPXE looks for beside itself: it waits for an address and then asks
/// for the machine's own script.
///
/// DHCP names that script as well. This one closes the race in which iPXE gets an address from
/// another server before our offer with the file name has arrived: the loop needs an address
/// only, and is bounded. The card that was booted from is tried first.
pub fn autoexec(site: &Site) -> String {
    let url = site.url("boot.ipxe");
    format!(
        "#!ipxe\n\
         set user-class undercroft\n\
         set attempt:int32 0\n\
         :retry\n\
         inc attempt\n\
         isset ${{netX/ip}} || ifconf --configurator dhcp netX || ifconf --configurator dhcp || goto failed\n\
         iseq ${{platform}} pcbios && set undercroft_arch 0 ||\n\
         iseq ${{platform}}-${{buildarch}} efi-x86_64 && set undercroft_arch 7 ||\n\
         iseq ${{platform}}-${{buildarch}} efi-i386 && set undercroft_arch 6 ||\n\
         iseq ${{platform}}-${{buildarch}} efi-arm64 && set undercroft_arch 11 ||\n\
         iseq ${{platform}}-${{buildarch}} efi-arm32 && set undercroft_arch 10 ||\n\
         chain --replace {url}?mac=${{netX/mac:hexhyp}}&uuid=${{uuid}}&arch=${{undercroft_arch}} || goto failed\n\
         :failed\n\
         iseq ${{attempt}} {SCRIPT_ATTEMPTS} && goto give_up ||\n\
         echo Undercroft: attempt ${{attempt}} of {SCRIPT_ATTEMPTS} failed, trying again in {SCRIPT_PAUSE_S} s\n\
         sleep {SCRIPT_PAUSE_S}\n\
         goto retry\n\
         :give_up\n\
         echo Undercroft: no boot script could be loaded, going on to the next boot device\n\
         exit 1\n"
    )
}

/// The Raspberry Pi's `cmdline.txt`: the kernel's parameters on one line.
pub fn pi_cmdline(site: &Site, image: &ServedInstaller, target: &ScriptTarget<'_>) -> String {
    let mut line = kernel_params(site, image, target);
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::token::Token;

    /// The installer's programs are shell, and look for words that this file writes.
    #[test]
    fn the_installer_is_told_every_word_that_it_asks_for() {
        let programs = [
            include_str!("../../build/src/installer/assets/undercroft/console"),
            include_str!("../../build/src/installer/assets/undercroft/lib.sh"),
            include_str!("../../build/src/installer/assets/undercroft/network"),
            include_str!("../../build/src/installer/assets/undercroft/report"),
        ];
        let asked: Vec<&str> = programs
            .iter()
            .flat_map(|text| text.split("$(parameter ").skip(1))
            .filter_map(|rest| rest.split_once(')'))
            .map(|(word, _)| word)
            .collect();
        assert_eq!(asked.len(), 5, "{asked:?}");
        let site = Site {
            address: Ipv4Addr::LOCALHOST,
            http_port: 8080,
            installers: Default::default(),
            ipxe: Default::default(),
            artifacts: Default::default(),
        };
        let image = ServedInstaller {
            kernel: "kernel".to_owned(),
            initrd: "initrd".to_owned(),
            params: Vec::new(),
        };
        let token = (0..100)
            .find_map(|digits| Token::parse(&"0".repeat(digits)))
            .unwrap();
        let target = ScriptTarget::of(None, InstallerMode::Install).with_token(Some(&token));
        let script = installer(&site, &image, &target);
        for word in asked {
            assert!(script.contains(&format!(" {word}=")), "{word}: {script}");
        }
    }
}
