//! Finding UEFI firmware for machines.
//!
//! Distributions describe their firmware to QEMU in JSON files (QEMU's
//! `docs/interop/firmware.json`); those are read first. Known places are tried after them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use undercroft_model::System;

use super::RackError;

/// The largest description that is read, in bytes.
const DESCRIPTOR_BYTES_MAX: u64 = 64 * 1024;

/// UEFI firmware as two flash images: code, and a template of its variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UefiFirmware {
    /// The code, opened read-only.
    pub(crate) code: FlashImage,
    /// The blank variables, of which each machine gets a copy.
    pub(crate) vars: FlashImage,
}

/// A flash image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct FlashImage {
    #[serde(rename = "filename")]
    pub(crate) path: PathBuf,
    /// `raw` or `qcow2`.
    pub(crate) format: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Descriptor {
    interface_types: Vec<String>,
    mapping: Mapping,
    targets: Vec<Target>,
    features: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mapping {
    device: String,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    executable: Option<FlashImage>,
    #[serde(default)]
    nvram_template: Option<FlashImage>,
}

#[derive(Debug, Deserialize)]
struct Target {
    architecture: String,
    machines: Vec<String>,
}

/// The known places, as (code, variables): Debian and Ubuntu, Fedora, Arch.
const X86_64_PLACES: [(&str, &str); 4] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
];
const AARCH64_PLACES: [(&str, &str); 3] = [
    (
        "/usr/share/AAVMF/AAVMF_CODE.fd",
        "/usr/share/AAVMF/AAVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw",
        "/usr/share/edk2/aarch64/vars-template-pflash.raw",
    ),
    (
        "/usr/share/edk2/aarch64/QEMU_CODE.fd",
        "/usr/share/edk2/aarch64/QEMU_VARS.fd",
    ),
];

/// Finds UEFI firmware without Secure Boot for a kind of machine.
pub(crate) fn find_uefi(system: System, qemu: &Path) -> Result<UefiFirmware, RackError> {
    let mut folders: Vec<PathBuf> = ["/etc/qemu/firmware", "/usr/share/qemu/firmware"]
        .map(PathBuf::from)
        .into();
    // QEMU brings firmware of its own beside itself; in Nix's store that is the only place.
    if let Ok(real) = qemu.canonicalize()
        && let Some(prefix) = real.parent().and_then(Path::parent)
    {
        folders.push(prefix.join("share/qemu/firmware"));
    }
    let places: &[(&str, &str)] = match system {
        System::Aarch64Linux | System::Aarch64Darwin => &AARCH64_PLACES,
        System::X86_64Linux | System::X86_64Darwin => &X86_64_PLACES,
    };
    if let Some(found) = from_descriptors(system, &folders) {
        return Ok(found);
    }
    let raw = |path: &str| FlashImage {
        path: path.into(),
        format: "raw".into(),
    };
    for (code, vars) in places {
        if Path::new(code).is_file() && Path::new(vars).is_file() {
            return Ok(UefiFirmware {
                code: raw(code),
                vars: raw(vars),
            });
        }
    }
    let (what, packages) = match system {
        System::Aarch64Linux | System::Aarch64Darwin => (
            "UEFI firmware for aarch64 (AAVMF)",
            "Debian and Ubuntu: qemu-efi-aarch64; Fedora: edk2-aarch64; Arch: edk2-aarch64",
        ),
        System::X86_64Linux | System::X86_64Darwin => (
            "UEFI firmware for x86_64 (OVMF)",
            "Debian and Ubuntu: ovmf; Fedora: edk2-ovmf; Arch: edk2-ovmf",
        ),
    };
    folders.extend(places.iter().map(|(code, _)| PathBuf::from(code)));
    Err(RackError::MissingFirmware {
        what: what.into(),
        looked_at: folders,
        hint: format!("Install the package ({packages})."),
    })
}

/// Reads all descriptions in the folders and takes the first one that fits; raw images before
/// others, since only those can be edited between launches.
fn from_descriptors(system: System, folders: &[PathBuf]) -> Option<UefiFirmware> {
    let mut by_name: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for folder in folders {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == "json") {
                // The first folder's file hides those of the same name, as QEMU's document says.
                by_name
                    .entry(entry.file_name())
                    .or_insert_with(|| entry.path());
            }
        }
    }
    let fitting: Vec<UefiFirmware> = by_name
        .values()
        .filter(|path| {
            path.metadata()
                .is_ok_and(|m| m.len() <= DESCRIPTOR_BYTES_MAX)
        })
        .filter_map(|path| std::fs::read(path).ok())
        .filter_map(|text| pick(system, &text))
        .filter(|found| found.code.path.is_file() && found.vars.path.is_file())
        .collect();
    let is_raw = |found: &&UefiFirmware| found.vars.format == "raw";
    fitting.iter().find(is_raw).or(fitting.first()).cloned()
}

/// Takes the images out of a description, if it is of plain UEFI for the system's machine type.
fn pick(system: System, descriptor: &[u8]) -> Option<UefiFirmware> {
    let descriptor: Descriptor = serde_json::from_slice(descriptor).ok()?;
    let (architecture, machine) = match system {
        System::X86_64Linux => ("x86_64", "pc-q35-"),
        System::Aarch64Linux => ("aarch64", "virt-"),
        System::X86_64Darwin | System::Aarch64Darwin => return None,
    };
    // Secure Boot needs signed loaders and, on x86_64, system management mode.
    let unwanted = [
        "secure-boot",
        "enrolled-keys",
        "requires-smm",
        "amd-sev-snp",
        "intel-tdx",
    ];
    let fits = descriptor.interface_types.iter().any(|t| t == "uefi")
        && descriptor.mapping.device == "flash"
        && descriptor
            .mapping
            .mode
            .as_deref()
            .is_none_or(|mode| mode == "split")
        && !descriptor
            .features
            .iter()
            .any(|f| unwanted.contains(&f.as_str()))
        && descriptor.targets.iter().any(|t| {
            t.architecture == architecture && t.machines.iter().any(|m| m.starts_with(machine))
        });
    let code = descriptor.mapping.executable?;
    let vars = descriptor.mapping.nvram_template?;
    fits.then_some(UefiFirmware { code, vars })
}

/// Finds a program in `PATH`.
pub(crate) fn find_program(program: &str, purpose: &str, hint: &str) -> Result<PathBuf, RackError> {
    use rustix::fs::{Access, access};
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The administrator's programs are often outside an ordinary user's PATH.
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(extra)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file() && access(candidate, Access::EXEC_OK).is_ok())
        .ok_or_else(|| RackError::MissingProgram {
            program: program.into(),
            purpose: purpose.into(),
            hint: hint.into(),
        })
}

/// Finds the QEMU that runs a system.
pub(crate) fn find_qemu(system: System) -> Result<PathBuf, RackError> {
    let (program, packages) = match system {
        System::Aarch64Linux | System::Aarch64Darwin => (
            "qemu-system-aarch64",
            "Debian and Ubuntu: qemu-system-arm; Fedora: qemu-system-aarch64-core; Arch: \
             qemu-system-aarch64",
        ),
        System::X86_64Linux | System::X86_64Darwin => (
            "qemu-system-x86_64",
            "Debian and Ubuntu: qemu-system-x86; Fedora: qemu-system-x86-core; Arch: \
             qemu-system-x86",
        ),
    };
    find_program(
        program,
        &format!("running {system} machines"),
        &format!("Install QEMU ({packages})."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_model::advice::Advice as _;

    fn descriptor(architecture: &str, machine: &str, features: &str) -> String {
        format!(
            r#"{{"description": "d", "interface-types": ["uefi"], "mapping": {{"device": "flash",
            "executable": {{"filename": "/code.fd", "format": "raw"}},
            "nvram-template": {{"filename": "/vars.fd", "format": "raw"}}}},
            "targets": [{{"architecture": "{architecture}", "machines": ["{machine}"]}}],
            "features": [{features}], "tags": []}}"#
        )
    }

    #[test]
    fn plain_firmware_of_the_right_machine_is_taken() {
        let plain = descriptor("x86_64", "pc-q35-*", "\"acpi-s3\"");
        let found = pick(System::X86_64Linux, plain.as_bytes()).unwrap();
        assert_eq!(found.code.path, Path::new("/code.fd"));
        assert_eq!(pick(System::Aarch64Linux, plain.as_bytes()), None);
        let arm = descriptor("aarch64", "virt-*", "");
        assert!(pick(System::Aarch64Linux, arm.as_bytes()).is_some());
        for feature in ["\"secure-boot\"", "\"requires-smm\"", "\"enrolled-keys\""] {
            let secure = descriptor("x86_64", "pc-q35-*", feature);
            assert_eq!(
                pick(System::X86_64Linux, secure.as_bytes()),
                None,
                "{feature}"
            );
        }
        assert_eq!(pick(System::X86_64Linux, b"{"), None);
    }

    #[test]
    fn an_earlier_folder_hides_a_later_one_and_missing_images_do_not_count() {
        let temp = tempfile::tempdir().unwrap();
        let (first, second) = (temp.path().join("a"), temp.path().join("b"));
        for folder in [&first, &second] {
            std::fs::create_dir(folder).unwrap();
        }
        for image in ["code.fd", "vars.fd"] {
            std::fs::write(temp.path().join(image), "x").unwrap();
        }
        let text = descriptor("x86_64", "pc-q35-*", "");
        let here = text
            .replace("/code.fd", temp.path().join("code.fd").to_str().unwrap())
            .replace("/vars.fd", temp.path().join("vars.fd").to_str().unwrap());
        std::fs::write(first.join("60.json"), &text).unwrap();
        std::fs::write(second.join("60.json"), &here).unwrap();
        let folders = [first, second.clone()];
        assert_eq!(from_descriptors(System::X86_64Linux, &folders), None);
        std::fs::write(second.join("70.json"), &here).unwrap();
        assert!(from_descriptors(System::X86_64Linux, &folders).is_some());
    }

    #[test]
    fn a_missing_program_says_how_to_get_it() {
        let error = find_program("undercroft-no-such-program", "a test", "Do this.").unwrap_err();
        assert!(error.to_string().contains("undercroft-no-such-program"));
        assert_eq!(error.hint().as_deref(), Some("Do this."));
    }
}
