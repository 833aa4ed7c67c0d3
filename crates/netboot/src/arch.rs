//! The client architectures of DHCP option 93, and the iPXE binary for each.

use std::fmt;

use serde::{Deserialize, Serialize};
use undercroft_model::System;

/// A client system architecture, as DHCP option 93 carries it (RFC 4578, section 2.1, with the
/// numbers of IANA's registry "Processor Architecture Types", which corrects the RFC: 7 is x64
/// UEFI, and 9 is EFI byte code, though x64 firmware sends either).
///
/// U-Boot on 64-bit Arm (22, and 24 over HTTP) runs UEFI programs itself, so that it gets what
/// UEFI firmware gets.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct ClientArch(pub u16);

/// What a client architecture can load, or cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// x86 with a BIOS.
    BiosX86,
    /// 32-bit x86 UEFI.
    UefiIa32,
    /// 64-bit x86 UEFI.
    UefiX64,
    /// 32-bit Arm UEFI.
    UefiArm32,
    /// 64-bit Arm UEFI.
    UefiArm64,
    /// The boot ROM of a Raspberry Pi, where it says so by architecture 41.
    RaspberryPi,
}

/// How firmware of an architecture loads its boot file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// A file name, fetched by TFTP.
    Tftp,
    /// A full URL, fetched by HTTP.
    Http,
}

impl ClientArch {
    /// x86 with a BIOS; the Raspberry Pi's boot ROM sends it too.
    pub const BIOS: Self = Self(0);
    /// 64-bit x86 UEFI.
    pub const UEFI_X64: Self = Self(7);
    /// 64-bit Arm UEFI.
    pub const UEFI_ARM64: Self = Self(11);
    /// 64-bit x86 UEFI, booting over HTTP.
    pub const UEFI_X64_HTTP: Self = Self(16);
    /// A Raspberry Pi's boot ROM.
    pub const RPIBOOT: Self = Self(41);

    /// What the architecture can load and how; `None` for those that no binary is known for.
    pub fn platform(self) -> Option<(Platform, Transport)> {
        match self.0 {
            0 => Some((Platform::BiosX86, Transport::Tftp)),
            6 => Some((Platform::UefiIa32, Transport::Tftp)),
            7 | 9 => Some((Platform::UefiX64, Transport::Tftp)),
            10 => Some((Platform::UefiArm32, Transport::Tftp)),
            11 | 22 => Some((Platform::UefiArm64, Transport::Tftp)),
            15 => Some((Platform::UefiIa32, Transport::Http)),
            16 => Some((Platform::UefiX64, Transport::Http)),
            18 => Some((Platform::UefiArm32, Transport::Http)),
            19 | 24 => Some((Platform::UefiArm64, Transport::Http)),
            20 => Some((Platform::BiosX86, Transport::Http)),
            41 => Some((Platform::RaspberryPi, Transport::Tftp)),
            _ => None,
        }
    }
}

impl ClientArch {
    /// What IANA's registry calls an architecture that nothing is served for.
    fn unserved_name(self) -> &'static str {
        match self.0 {
            1 => "NEC PC-98",
            2 => "Itanium UEFI",
            3 => "DEC Alpha",
            4 => "Arc x86",
            5 => "Intel Lean Client",
            8 => "Xscale EFI",
            12 => "PowerPC Open Firmware",
            13 => "PowerPC ePAPR",
            14 => "POWER OPAL",
            17 => "EFI byte code over HTTP",
            21 => "32-bit Arm U-Boot",
            23 => "32-bit Arm U-Boot over HTTP",
            25 | 26 => "32-bit RISC-V UEFI",
            27 | 28 => "64-bit RISC-V UEFI",
            29 | 30 => "128-bit RISC-V UEFI",
            31 | 32 => "s390",
            33 => "32-bit MIPS UEFI",
            34 => "64-bit MIPS UEFI",
            35 | 36 => "Sunway",
            37 | 38 => "32-bit LoongArch UEFI",
            39 | 40 => "64-bit LoongArch UEFI",
            _ => "unknown",
        }
    }
}

impl fmt::Display for ClientArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.platform() {
            _ if matches!(self.0, 22 | 24) => "arm64 U-Boot".to_owned(),
            Some((platform, Transport::Tftp)) => platform.name().to_owned(),
            Some((platform, Transport::Http)) => format!("{} over HTTP", platform.name()),
            None => self.unserved_name().to_owned(),
        };
        write!(f, "{} ({name})", self.0)
    }
}

impl Platform {
    /// The platform in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::BiosX86 => "x86 BIOS",
            Self::UefiIa32 => "32-bit x86 UEFI",
            Self::UefiX64 => "x64 UEFI",
            Self::UefiArm32 => "32-bit Arm UEFI",
            Self::UefiArm64 => "arm64 UEFI",
            Self::RaspberryPi => "Raspberry Pi",
        }
    }

    /// Whether a machine of this platform can run a system.
    pub fn runs(self, system: System) -> bool {
        match self {
            Self::BiosX86 | Self::UefiIa32 | Self::UefiX64 => system == System::X86_64Linux,
            Self::UefiArm32 => false,
            Self::UefiArm64 | Self::RaspberryPi => system == System::Aarch64Linux,
        }
    }

    /// The system that an unknown machine of this platform gets an installer for.
    pub fn system(self) -> Option<System> {
        match self {
            Self::BiosX86 | Self::UefiIa32 | Self::UefiX64 => Some(System::X86_64Linux),
            Self::UefiArm64 | Self::RaspberryPi => Some(System::Aarch64Linux),
            Self::UefiArm32 => None,
        }
    }

    /// Whether the platform is UEFI, whose boot manager goes on only when a loader fails.
    pub fn is_uefi(self) -> bool {
        matches!(
            self,
            Self::UefiIa32 | Self::UefiX64 | Self::UefiArm32 | Self::UefiArm64
        )
    }
}

/// An iPXE build, by the platform it runs on and by whose network driver it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IpxeBinary {
    /// `undionly.kpxe`: BIOS, through the ROM's own UNDI driver.
    Undionly,
    /// `ipxe.efi` for 32-bit x86, with iPXE's own drivers.
    Ia32,
    /// `ipxe.efi` for x64, with iPXE's own drivers.
    X64,
    /// `snponly.efi` for x64: the firmware's driver, on the card that was booted from.
    SnponlyX64,
    /// `ipxe.efi` for 32-bit Arm.
    Arm32,
    /// `ipxe.efi` for arm64, with iPXE's own drivers.
    Arm64,
    /// `snponly.efi` for arm64.
    SnponlyArm64,
}

impl IpxeBinary {
    /// Every build.
    pub const ALL: [Self; 7] = [
        Self::Undionly,
        Self::Ia32,
        Self::X64,
        Self::SnponlyX64,
        Self::Arm32,
        Self::Arm64,
        Self::SnponlyArm64,
    ];

    /// The name under which TFTP and HTTP serve the build.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Undionly => "undionly.kpxe",
            Self::Ia32 => "ipxe-ia32.efi",
            Self::X64 => "ipxe-x64.efi",
            Self::SnponlyX64 => "snponly-x64.efi",
            Self::Arm32 => "ipxe-arm32.efi",
            Self::Arm64 => "ipxe-arm64.efi",
            Self::SnponlyArm64 => "snponly-arm64.efi",
        }
    }

    /// The builds that run on a platform, the preferred one first. `snponly` prefers the
    /// firmware's own network driver, for cards that iPXE has no working driver for.
    pub fn candidates(platform: Platform, snponly: bool) -> &'static [Self] {
        match (platform, snponly) {
            (Platform::BiosX86, _) => &[Self::Undionly],
            (Platform::UefiIa32, _) => &[Self::Ia32],
            (Platform::UefiX64, false) => &[Self::X64, Self::SnponlyX64],
            (Platform::UefiX64, true) => &[Self::SnponlyX64, Self::X64],
            (Platform::UefiArm32, _) => &[Self::Arm32],
            (Platform::UefiArm64, false) => &[Self::Arm64, Self::SnponlyArm64],
            (Platform::UefiArm64, true) => &[Self::SnponlyArm64, Self::Arm64],
            (Platform::RaspberryPi, _) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_architecture_gets_a_binary_of_another() {
        for number in 0..=u16::MAX {
            let Some((platform, _)) = ClientArch(number).platform() else {
                continue;
            };
            for snponly in [false, true] {
                for binary in IpxeBinary::candidates(platform, snponly) {
                    let name = binary.file_name();
                    let fits = match platform {
                        Platform::BiosX86 => name == "undionly.kpxe",
                        Platform::UefiIa32 => name.ends_with("-ia32.efi"),
                        Platform::UefiX64 => name.ends_with("-x64.efi"),
                        Platform::UefiArm32 => name.ends_with("-arm32.efi"),
                        Platform::UefiArm64 => name.ends_with("-arm64.efi"),
                        Platform::RaspberryPi => false,
                    };
                    assert!(fits, "{number} gets {name}");
                }
            }
        }
    }

    #[test]
    fn http_firmware_is_told_apart_from_tftp_firmware() {
        for number in [15, 16, 18, 19, 20, 24] {
            let (_, transport) = ClientArch(number).platform().unwrap();
            assert_eq!(transport, Transport::Http, "{number}");
        }
        for number in [0, 6, 7, 9, 10, 11, 22, 41] {
            let (_, transport) = ClientArch(number).platform().unwrap();
            assert_eq!(transport, Transport::Tftp, "{number}");
        }
    }

    /// IANA's registry of processor architecture types, as messages name them.
    #[test]
    fn every_architecture_is_called_what_the_registry_calls_it() {
        let names = [
            "x86 BIOS",
            "NEC PC-98",
            "Itanium UEFI",
            "DEC Alpha",
            "Arc x86",
            "Intel Lean Client",
            "32-bit x86 UEFI",
            "x64 UEFI",
            "Xscale EFI",
            "x64 UEFI",
            "32-bit Arm UEFI",
            "arm64 UEFI",
            "PowerPC Open Firmware",
            "PowerPC ePAPR",
            "POWER OPAL",
            "32-bit x86 UEFI over HTTP",
            "x64 UEFI over HTTP",
            "EFI byte code over HTTP",
            "32-bit Arm UEFI over HTTP",
            "arm64 UEFI over HTTP",
            "x86 BIOS over HTTP",
            "32-bit Arm U-Boot",
            "arm64 U-Boot",
            "32-bit Arm U-Boot over HTTP",
            "arm64 U-Boot",
            "32-bit RISC-V UEFI",
            "32-bit RISC-V UEFI",
            "64-bit RISC-V UEFI",
            "64-bit RISC-V UEFI",
            "128-bit RISC-V UEFI",
            "128-bit RISC-V UEFI",
            "s390",
            "s390",
            "32-bit MIPS UEFI",
            "64-bit MIPS UEFI",
            "Sunway",
            "Sunway",
            "32-bit LoongArch UEFI",
            "32-bit LoongArch UEFI",
            "64-bit LoongArch UEFI",
            "64-bit LoongArch UEFI",
            "Raspberry Pi",
            "unknown",
        ];
        for (number, name) in (0..).zip(names) {
            assert_eq!(ClientArch(number).to_string(), format!("{number} ({name})"));
        }
        assert_eq!(ClientArch(u16::MAX).to_string(), "65535 (unknown)");
    }

    #[test]
    fn a_platform_runs_what_its_processor_runs() {
        use Platform::{BiosX86, RaspberryPi, UefiArm32, UefiArm64, UefiIa32, UefiX64};
        let (x86, arm) = (System::X86_64Linux, System::Aarch64Linux);
        for (platform, system, is_uefi) in [
            (BiosX86, Some(x86), false),
            (UefiIa32, Some(x86), true),
            (UefiX64, Some(x86), true),
            (UefiArm32, None, true),
            (UefiArm64, Some(arm), true),
            (RaspberryPi, Some(arm), false),
        ] {
            assert_eq!(platform.system(), system, "{platform:?}");
            assert_eq!(platform.is_uefi(), is_uefi, "{platform:?}");
            for other in [x86, arm] {
                assert_eq!(platform.runs(other), system == Some(other), "{platform:?}");
            }
        }
        for (platform, numbers) in [
            (BiosX86, &[0, 20][..]),
            (UefiIa32, &[6, 15]),
            (UefiX64, &[7, 9, 16]),
            (UefiArm32, &[10, 18]),
            (UefiArm64, &[11, 19, 22, 24]),
            (RaspberryPi, &[41]),
        ] {
            let found: Vec<u16> = (0..=u16::MAX)
                .filter(|n| {
                    ClientArch(*n)
                        .platform()
                        .is_some_and(|(p, _)| p == platform)
                })
                .collect();
            assert_eq!(found, numbers, "{platform:?}");
        }
    }
}
