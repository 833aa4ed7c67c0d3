//! The content of Debian's packages, without installing anything on this machine.
//!
//! A side apt database, in a cache folder of its own, reads the places and keys that the host's
//! own apt trusts, plus one more architecture and, for `ipxe` alone, the next release. apt checks
//! the signatures of the package lists and the lists' checksums of the packages; what came is
//! checked against that checksum once more here, unpacked with `dpkg-deb` in a folder named by
//! the checksum, and recorded, so that the next use needs no network.
//!
//! Everything here blocks; call it from a thread that may.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use undercroft_model::System;

mod apt;
mod busybox;
mod control;
pub mod elf;
mod error;
mod kernel;
mod libraries;
mod sources;

pub(crate) use busybox::APPLETS;
pub use error::PartsError;
pub(crate) use kernel::read_module;
pub use kernel::{Kernel, KernelFlavour, Module};
pub use libraries::Linked;

use apt::{Apt, Candidate};

/// Reports one line of progress.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

/// A processor architecture that machines of the fleet have.
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
pub enum Arch {
    /// 64-bit x86.
    #[serde(rename = "x86_64-linux")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "aarch64-linux")]
    Aarch64,
}

impl Arch {
    /// The architecture that this program runs on; `None` where it is none of ours.
    pub fn host() -> Option<Arch> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Arch::X86_64),
            "aarch64" => Some(Arch::Aarch64),
            _ => None,
        }
    }

    /// Debian's name of it.
    pub fn debian(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::Aarch64 => "arm64",
        }
    }

    /// Debian's multiarch folder, in which libraries lie.
    pub fn triplet(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64-linux-gnu",
            Arch::Aarch64 => "aarch64-linux-gnu",
        }
    }

    /// Nix's name of a Linux system on it.
    pub fn nix_system(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64-linux",
            Arch::Aarch64 => "aarch64-linux",
        }
    }

    /// The part of UEFI's names for it: `BOOTX64.EFI`, `systemd-bootaa64.efi`.
    pub fn efi(self) -> &'static str {
        match self {
            Arch::X86_64 => "x64",
            Arch::Aarch64 => "aa64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.nix_system())
    }
}

impl From<Arch> for System {
    fn from(arch: Arch) -> System {
        match arch {
            Arch::X86_64 => System::X86_64Linux,
            Arch::Aarch64 => System::Aarch64Linux,
        }
    }
}

impl Arch {
    /// The architecture of a system that undercroft can install; `None` for macOS.
    pub fn of_system(system: System) -> Option<Arch> {
        match system {
            System::X86_64Linux => Some(Arch::X86_64),
            System::Aarch64Linux => Some(Arch::Aarch64),
            System::X86_64Darwin | System::Aarch64Darwin => None,
        }
    }
}

/// One package that is at hand, unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The SHA-256 of the `.deb` in hexadecimal, as apt's signed lists have it.
    pub sha256: String,
    /// The packages that it needs which this crate follows: libraries, and what a kernel's
    /// metapackage names.
    needs: Vec<String>,
}

/// Unpacked packages of one architecture, with the libraries that they need.
#[derive(Debug, Clone)]
pub struct PartSet {
    arch: Arch,
    unpacked: PathBuf,
    parts: BTreeMap<String, Part>,
}

impl PartSet {
    /// The architecture of all of them.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The packages by name.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.values()
    }

    /// A package of the set by its name.
    pub fn part(&self, name: &str) -> Option<&Part> {
        self.parts.get(name)
    }

    /// The folder in which a package's content lies.
    pub fn dir(&self, part: &Part) -> PathBuf {
        self.unpacked.join(&part.sha256)
    }

    /// One file of whichever package has it, such as `usr/sbin/sgdisk`. Debian's merged `/usr`
    /// is taken into account: the file is found in the root folder of the same name as well.
    ///
    /// # Errors
    /// [`PartsError::NoFile`] if no package has it.
    pub fn file(&self, path: &str) -> Result<PathBuf, PartsError> {
        let split = path.strip_prefix("usr/");
        for part in self.parts.values() {
            let dir = self.dir(part);
            for candidate in [Some(path), split].into_iter().flatten() {
                let found = dir.join(candidate);
                if found.is_file() {
                    return Ok(found);
                }
            }
        }
        Err(PartsError::NoFile {
            path: path.to_owned(),
            packages: self.parts.keys().cloned().collect::<Vec<_>>().join(" "),
        })
    }

    /// A digest of exactly these packages in these versions, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for part in self.parts.values() {
            hasher.update(format!("{} {}\n", part.name, part.sha256));
        }
        hex(&hasher.finalize())
    }
}

/// The iPXE programs for each kind of firmware.
#[derive(Debug, Clone)]
pub struct Ipxe {
    /// x86_64 UEFI, with iPXE's own network drivers.
    pub x86_64_efi: PathBuf,
    /// x86_64 UEFI, over the firmware's network driver.
    pub x86_64_snponly_efi: PathBuf,
    /// x86 BIOS, over the network card's PXE stack.
    pub x86_bios: PathBuf,
    /// aarch64 UEFI, with iPXE's own network drivers.
    pub aarch64_efi: PathBuf,
}

/// The side database, its packages and what is unpacked of them.
#[derive(Debug)]
pub struct Parts {
    dir: PathBuf,
    apt: Apt,
}

/// What was fetched before: per Debian architecture the packages by name.
type Index = BTreeMap<String, BTreeMap<String, Part>>;

impl Parts {
    /// Opens the parts below a cache folder, making what is missing. Touches no network.
    ///
    /// # Errors
    /// [`PartsError::Io`] if the folder can't be made.
    pub fn open(cache_dir: &Path) -> Result<Parts, PartsError> {
        // apt and Nix read relative paths against folders of their own.
        let dir = std::path::absolute(cache_dir)
            .map_err(PartsError::io("find", cache_dir))?
            .join("parts");
        for folder in ["debs", "unpacked"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder).map_err(PartsError::io("make the folder", &folder))?;
        }
        let apt = Apt::new(&dir.join("apt"));
        Ok(Parts { dir, apt })
    }

    /// Forgets what was recorded, so that the next fetch takes what the archive has now.
    ///
    /// # Errors
    /// [`PartsError::Io`] if the record can't be removed.
    pub fn refresh(&self) -> Result<(), PartsError> {
        let _lock = self.lock()?;
        self.apt.forget()?;
        let index = self.index_path();
        match fs::remove_file(&index) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(PartsError::io("remove", &index)(error))
            }
            _ => Ok(()),
        }
    }

    /// Packages, and the library packages that they need, unpacked.
    ///
    /// # Errors
    /// Anything of [`PartsError`]: no apt, no network and not in the cache, an unknown package, a
    /// wrong checksum, a full disk.
    pub fn fetch(
        &self,
        packages: &[&str],
        arch: Arch,
        progress: Progress<'_>,
    ) -> Result<PartSet, PartsError> {
        let _lock = self.lock()?;
        let mut index = self.read_index()?;
        let known = index.entry(arch.debian().to_owned()).or_default();
        if let Some(set) = self.recorded(packages, arch, known) {
            return Ok(set);
        }
        let candidates = self.apt.resolve(packages, arch, progress)?;
        let missing: Vec<&Candidate> = candidates
            .values()
            .filter(|c| !self.dir.join("unpacked").join(&c.part.sha256).is_dir())
            .collect();
        if !missing.is_empty() {
            self.download(&missing, arch, progress)?;
        }
        for (name, candidate) in candidates {
            known.insert(name, candidate.part);
        }
        let set = self.recorded(packages, arch, known);
        self.write_index(&index)?;
        set.ok_or_else(|| PartsError::NoPackage {
            package: packages.join(" "),
            arch: arch.debian(),
            hint: "the side database answered, but left it out",
        })
    }

    /// iPXE's programs for all kinds of firmware, from the distribution's package.
    ///
    /// # Errors
    /// As [`Parts::fetch`]; [`PartsError::NoFile`] where the package is too old to have them.
    pub fn ipxe(&self, progress: Progress<'_>) -> Result<Ipxe, PartsError> {
        // The package is the same for every architecture (Architecture: all).
        let set = self.fetch(&["ipxe"], Arch::host().unwrap_or(Arch::X86_64), progress)?;
        Ok(Ipxe {
            x86_64_efi: set.file("usr/lib/ipxe/ipxe-amd64.efi")?,
            x86_64_snponly_efi: set.file("usr/lib/ipxe/snponly.efi")?,
            x86_bios: set.file("usr/lib/ipxe/undionly.kpxe")?,
            aarch64_efi: set.file("usr/lib/ipxe/ipxe-arm64.efi")?,
        })
    }

    /// The set of packages and everything that they need, if all of it is at hand.
    fn recorded(
        &self,
        packages: &[&str],
        arch: Arch,
        known: &BTreeMap<String, Part>,
    ) -> Option<PartSet> {
        let unpacked = self.dir.join("unpacked");
        let mut parts = BTreeMap::new();
        let mut queue: Vec<String> = packages.iter().map(|name| (*name).to_owned()).collect();
        let mut seen: BTreeSet<String> = queue.iter().cloned().collect();
        while let Some(name) = queue.pop() {
            let part = known.get(&name)?;
            if !unpacked.join(&part.sha256).is_dir() {
                return None;
            }
            queue.extend(
                part.needs
                    .iter()
                    .filter(|need| seen.insert((*need).clone()))
                    .cloned(),
            );
            parts.insert(name, part.clone());
        }
        Some(PartSet {
            arch,
            unpacked,
            parts,
        })
    }

    /// Downloads, checks and unpacks. A package appears under its checksum only when it is whole.
    fn download(
        &self,
        candidates: &[&Candidate],
        arch: Arch,
        progress: Progress<'_>,
    ) -> Result<(), PartsError> {
        let bytes: u64 = candidates.iter().map(|c| c.size_bytes).sum();
        progress(&format!(
            "fetching {} Debian packages for {} ({:.1} MB)",
            candidates.len(),
            arch.debian(),
            bytes as f64 / 1e6,
        ));
        let debs = self.dir.join("debs");
        let files = self.apt.download(candidates, arch, &debs)?;
        for candidate in candidates {
            let part = &candidate.part;
            let file = files
                .get(&part.sha256)
                .ok_or_else(|| PartsError::Checksum {
                    package: part.name.clone(),
                    expected: part.sha256.clone(),
                })?;
            let target = self.dir.join("unpacked").join(&part.sha256);
            let partial = target.with_extension("partial");
            remove_dir(&partial)?;
            apt::unpack(file, &partial)?;
            fs::rename(&partial, &target).map_err(PartsError::io("rename", &partial))?;
            // What is unpacked is all that is used from here on.
            fs::remove_file(file).map_err(PartsError::io("remove", file))?;
        }
        Ok(())
    }

    fn lock(&self) -> Result<fs::File, PartsError> {
        let path = self.dir.join("lock");
        let file = fs::File::create(&path).map_err(PartsError::io("make", &path))?;
        file.lock().map_err(PartsError::io("lock", &path))?;
        Ok(file)
    }

    fn index_path(&self) -> PathBuf {
        self.dir.join("index.json")
    }

    fn read_index(&self) -> Result<Index, PartsError> {
        let path = self.index_path();
        match fs::read(&path) {
            // A record that doesn't read is one that a newer or older version wrote: it is only
            // a cache, so it is made anew.
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Index::new()),
            Err(error) => Err(PartsError::io("read", &path)(error)),
        }
    }

    fn write_index(&self, index: &Index) -> Result<(), PartsError> {
        let mut text = serde_json::to_vec_pretty(index).unwrap_or_default();
        text.push(b'\n');
        write_atomically(&self.index_path(), &text)
    }
}

/// Writes a file under a temporary name and renames it, so that it is there whole or not at all.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), PartsError> {
    let partial = path.with_extension("partial");
    let mut file = fs::File::create(&partial).map_err(PartsError::io("make", &partial))?;
    file.write_all(content)
        .map_err(PartsError::io("write", &partial))?;
    file.sync_all().map_err(PartsError::io("write", &partial))?;
    fs::rename(&partial, path).map_err(PartsError::io("rename", &partial))
}

/// Removes a folder with all that is in it, if it is there.
pub fn remove_dir(path: &Path) -> Result<(), PartsError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(PartsError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
