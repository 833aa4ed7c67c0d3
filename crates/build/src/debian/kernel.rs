//! A kernel of Debian's with the modules that machines of a fleet need, and no others.
//!
//! The packages carry no `modules.dep`: a maintainer script would make it. What a module needs
//! and what hardware it is for is read from the module itself.
//!
//! Source: modprobe(8), modules.dep(5), depmod(8); `scripts/mod/modpost.c` for `.modinfo`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::elf;
use super::error::PartsError;
use super::{Arch, PartSet, Parts, Progress};

/// Which of Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelFlavour {
    /// For virtual machines: smaller, without most drivers.
    Cloud,
    /// For any machine.
    Generic,
}

impl KernelFlavour {
    fn package(self, arch: Arch) -> String {
        match self {
            KernelFlavour::Cloud => format!("linux-image-cloud-{}", arch.debian()),
            KernelFlavour::Generic => format!("linux-image-{}", arch.debian()),
        }
    }
}

/// Drivers of disks: single modules, or all modules of a folder of the kernel's tree.
const DISK_DRIVERS: [&str; 20] = [
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_scsi",
    "nvme",
    "sd_mod",
    "ahci",
    "ata_piix",
    "ata_generic",
    "usb-storage",
    "uas",
    "xhci-pci",
    "ehci-pci",
    "mpt3sas",
    "megaraid_sas",
    "hpsa",
    "aacraid",
    "sdhci-pci",
    "mmc_block",
    "vmw_pvscsi",
];
/// Network cards that servers and PCs boot from.
const NETWORK_DRIVERS: [&str; 18] = [
    "virtio_net",
    "e1000",
    "e1000e",
    "igb",
    "igc",
    "ixgbe",
    "i40e",
    "ice",
    "r8169",
    "tg3",
    "bnx2",
    "bnxt_en",
    "mlx4_en",
    "mlx5_core",
    "atlantic",
    "ena",
    "gve",
    "vmxnet3",
];
/// File systems that layouts make beside ext4. The kernel asks for their module when one is mounted.
const FILE_SYSTEMS: [&str; 1] = ["xfs"];
/// Needed by every machine, whatever its hardware; loaded at once, in this order.
const ALWAYS: [&str; 6] = [
    "virtio_rng",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "efivarfs",
];

/// One kernel module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name with underscores, as the kernel has it.
    pub name: String,
    /// The file here.
    pub file: PathBuf,
    /// The modules that must be loaded before it, by name, directly needed ones only.
    pub needs: Vec<String>,
    /// The patterns of hardware names that it is for.
    pub aliases: Vec<String>,
}

/// A kernel and its modules.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// The boot image.
    pub image: PathBuf,
    /// Modules in an order in which each comes after those that it needs.
    pub modules: Vec<Module>,
    /// The names of those that every machine loads.
    pub always: Vec<String>,
}

impl Parts {
    /// Fetches a kernel and picks its modules.
    ///
    /// # Errors
    /// As [`Parts::fetch`]; [`PartsError::BadFile`] if a module can't be read.
    pub fn kernel(
        &self,
        flavour: KernelFlavour,
        arch: Arch,
        progress: Progress<'_>,
    ) -> Result<(Kernel, PartSet), PartsError> {
        let set = self.fetch(&[&flavour.package(arch)], arch, progress)?;
        Ok((Kernel::of(&set)?, set))
    }
}

impl Kernel {
    fn of(set: &PartSet) -> Result<Kernel, PartsError> {
        let missing = || PartsError::NoFile {
            path: "boot/vmlinuz-*".to_owned(),
            packages: set
                .parts()
                .map(|p| p.name.clone())
                .collect::<Vec<_>>()
                .join(" "),
        };
        let (root, release) = set
            .parts()
            .find_map(|part| {
                let release = part.name.strip_prefix("linux-image-")?;
                let root = set.dir(part);
                let image = root.join(format!("boot/vmlinuz-{release}"));
                image.is_file().then(|| (root, release.to_owned()))
            })
            .ok_or_else(missing)?;
        let image = root.join(format!("boot/vmlinuz-{release}"));
        let modules = [
            format!("lib/modules/{release}"),
            format!("usr/lib/modules/{release}"),
        ]
        .iter()
        .map(|path| root.join(path))
        .find(|path| path.is_dir())
        .ok_or_else(missing)?;
        let mut files = BTreeMap::new();
        collect(&modules, &mut files)?;
        let mut picked = Picked {
            files,
            done: Vec::new(),
            seen: BTreeSet::new(),
        };
        for wanted in ALWAYS
            .iter()
            .chain(&FILE_SYSTEMS)
            .chain(&DISK_DRIVERS)
            .chain(&NETWORK_DRIVERS)
        {
            picked.add(&canonical(wanted))?;
        }
        let always = ALWAYS.iter().map(|name| canonical(name));
        let always = always.filter(|name| picked.seen.contains(name)).collect();
        Ok(Kernel {
            release,
            image,
            modules: picked.done,
            always,
        })
    }
}

struct Picked {
    files: BTreeMap<String, PathBuf>,
    done: Vec<Module>,
    seen: BTreeSet<String>,
}

impl Picked {
    /// Adds a module after those that it needs. One that the kernel doesn't have is built into
    /// it, or isn't for this flavour: neither is an error.
    fn add(&mut self, name: &str) -> Result<(), PartsError> {
        let Some(file) = self.files.get(name).cloned() else {
            return Ok(());
        };
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let content = read_module(&file)?;
        let facts = elf::modinfo(&content).ok_or_else(|| PartsError::BadFile {
            path: file.clone(),
            problem: "it isn't a kernel module".to_owned(),
        })?;
        let mut needs = Vec::new();
        let mut aliases = Vec::new();
        for (key, value) in facts {
            match key.as_str() {
                "depends" => {
                    needs.extend(value.split(',').filter(|n| !n.is_empty()).map(canonical))
                }
                "softdep" => needs.extend(soft_dependencies(&value)),
                "alias" => aliases.push(value),
                _ => {}
            }
        }
        needs.retain(|need| self.files.contains_key(need));
        for need in &needs {
            self.add(need)?;
        }
        self.done.push(Module {
            name: name.to_owned(),
            file,
            needs,
            aliases,
        });
        Ok(())
    }
}

/// The `pre:` part of a soft dependency, such as `pre: crc32c post: foo`.
fn soft_dependencies(text: &str) -> Vec<String> {
    let mut before = false;
    let mut names = Vec::new();
    for word in text.split_whitespace() {
        match word {
            "pre:" => before = true,
            "post:" => before = false,
            name if before => names.push(canonical(name)),
            _ => {}
        }
    }
    names
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Reads a module's content, unpacking what newer releases compress.
///
/// # Errors
/// [`PartsError`] if it can't be read or unpacked.
pub(crate) fn read_module(file: &Path) -> Result<Vec<u8>, PartsError> {
    if file.extension().is_some_and(|extension| extension == "xz") {
        let mut xz = Command::new("xz");
        xz.arg("--decompress")
            .arg("--stdout")
            .arg(file)
            .stdin(Stdio::null());
        undercroft_process::trace::started(&xz);
        let output = xz.output().map_err(|_| PartsError::NoProgram {
            program: "xz".to_owned(),
            purpose: "unpack kernel modules",
            hint: "install the package xz-utils",
        })?;
        if !output.status.success() {
            return Err(PartsError::BadFile {
                path: file.to_owned(),
                problem: "xz can't unpack it".to_owned(),
            });
        }
        return Ok(output.stdout);
    }
    fs::read(file).map_err(PartsError::io("read", file))
}

fn collect(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), PartsError> {
    for entry in fs::read_dir(dir).map_err(PartsError::io("read", dir))? {
        let entry = entry.map_err(PartsError::io("read", dir))?;
        let path = entry.path();
        if entry
            .file_type()
            .map_err(PartsError::io("read", &path))?
            .is_dir()
        {
            collect(&path, files)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && let Some((name, "ko" | "ko.xz")) = name.split_once('.')
        {
            files.insert(canonical(name), path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_dependencies_before_count_and_those_after_do_not() {
        assert_eq!(
            soft_dependencies("pre: crc32c-intel a post: b"),
            ["crc32c_intel", "a"]
        );
        assert!(soft_dependencies("post: b").is_empty());
    }
}
